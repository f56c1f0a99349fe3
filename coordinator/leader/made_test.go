package leader

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// What a leader knows of a feed's log does not hold for the next feed of its name: not
// which epoch is to begin, and not what agents have of it.
func TestAFeedIsMadeAgainBetweenTwoLooks(t *testing.T) {
	l := New(Config{Term: 1, Self: "n1", Site: "s", Level: coordinator.Level, Timing: DefaultTiming()})
	feed := func(made, epoch uint64) *coordinator.Feed {
		return &coordinator.Feed{Name: "line3", Made: made, Log: coordinator.LogEpoch{Epoch: epoch, Owner: "n1"}}
	}
	l.st = &coordinator.State{Site: "s", Feeds: map[string]*coordinator.Feed{"line3": feed(4, 7)}}
	l.syncFeed("line3")
	first := l.feeds["line3"]
	first.epoch, first.busy, first.ends["n1"] = 8, true, 500
	l.st.Feeds["line3"] = feed(4, 8)
	if l.syncFeed("line3"); l.feeds["line3"] != first {
		t.Error("it is the same feed")
	}
	l.st.Feeds["line3"] = feed(90, 0)
	l.syncFeed("line3")
	if r := l.feeds["line3"]; r == first || r.epoch != 0 || r.busy || len(r.ends) != 0 {
		t.Errorf("%+v", r)
	}
	delete(l.st.Feeds, "line3")
	if l.syncFeed("line3"); l.feeds["line3"] != nil {
		t.Error("it is there still")
	}
}

// A site below feature level 6 would give the session of a shared feed to nobody if the
// job comes at an epoch that is not above those of the feed's reigns.
func TestASharedFeedDoesNotComeBelowItsLevel(t *testing.T) {
	l := New(Config{Term: 1, Self: "n1", Site: "s", Level: coordinator.Level, Timing: DefaultTiming(),
		Parse: func(*coordinator.Job) (*Parsed, error) { return &Parsed{Feeds: []FeedUse{{Feed: "line3"}}}, nil }})
	refused := func(level uint32, first uint64, stay bool) bool {
		l.st = &coordinator.State{Site: "s", Level: level, Moves: coordinator.NewMoves()}
		_, _, why := l.checkMove(&coordinator.MovePropose{From: "b", Epoch: 2, Job: coordinator.MovingJob{ID: "j9-b", Name: "door", Reads: []string{"line3"},
			Feeds: []coordinator.MovingFeed{{Name: "line3", Stay: stay, Lineage: []coordinator.Reign{{Epoch: first, Site: "b"}}}}}})
		return strings.Contains(why, "cannot take the session of the shared feed line3")
	}
	if !refused(coordinator.GoesOnLevel, 90, false) {
		t.Error("nobody would have the session")
	}
	if refused(coordinator.GoesOnLevel, 1, false) || refused(coordinator.GoesOnLevel, 90, true) || refused(coordinator.SettledLevel, 90, false) {
		t.Error("it is refused for nothing")
	}
}

// A job does not come with a session that a feed has here already.
func TestASessionThatIsTakenDoesNotCome(t *testing.T) {
	l := New(Config{Term: 1, Self: "n1", Site: "s", Level: coordinator.Level, Timing: DefaultTiming(),
		Parse: func(*coordinator.Job) (*Parsed, error) { return &Parsed{Feeds: []FeedUse{{Feed: "j9-b.in"}}}, nil }})
	config := func(client string) []byte { return []byte(`{"broker":"mqtt://b","client_id":"` + client + `"}`) }
	l.st = &coordinator.State{Site: "s", Level: coordinator.Level, Moves: coordinator.NewMoves(), Feeds: map[string]*coordinator.Feed{
		"line":    {Name: "line", Config: config("mine")},
		"j9-b.in": {Name: "j9-b.in", Job: "j9-b", Owner: "b", Config: config("its")}, // it was here before
	}}
	check := func(client string, stay bool) string {
		_, _, why := l.checkMove(&coordinator.MovePropose{From: "b", Epoch: 2, Job: coordinator.MovingJob{ID: "j9-b", Name: "door",
			Feeds: []coordinator.MovingFeed{{Name: "j9-b.in", Stay: stay, Config: config(client)}}}})
		return why
	}
	refused := func(client string, stay bool) bool {
		return strings.Contains(check(client, stay), `client id "mine" at broker b:1883, with which feed j9-b.in would come to site s, is that of feed line, and`)
	}
	if !refused("mine", false) || refused("mine", true) || refused("its", false) {
		t.Error("want it refused if it is another feed's, and comes")
	}
	gone := &coordinator.Job{ID: "j7-s", Name: "gone", Status: coordinator.Moved, Owner: "c"}
	l.st.Jobs = map[coordinator.JobID]*coordinator.Job{gone.ID: gone}
	l.st.Feeds["j7-s.in"] = &coordinator.Feed{Name: "j7-s.in", Job: gone.ID, Owner: "c", Config: config("gone")}
	why := check("gone", false)
	for _, says := range []string{"job j7-s (gone), which is at site c", "stop it there, and forget it at site s (tidemark job forget j7-s)", "--feed stay", "--set sources.ID.mqtt.client_id=NEW"} {
		if !strings.Contains(why, says) || strings.Contains(why, "stop that job first") {
			t.Errorf("%q is not in %s", says, why)
		}
	}
}

// Nor do two of its own come with one.
func TestTwoOfOneSessionDoNotCome(t *testing.T) {
	l := New(Config{Term: 1, Self: "n1", Site: "s", Level: coordinator.Level, Timing: DefaultTiming(),
		Parse: func(*coordinator.Job) (*Parsed, error) { return &Parsed{}, nil }})
	l.st = &coordinator.State{Site: "s", Level: coordinator.Level, Moves: coordinator.NewMoves()}
	feed := func(name, client string, stay bool) coordinator.MovingFeed {
		return coordinator.MovingFeed{Name: name, Stay: stay, Config: []byte(`{"broker":"mqtt://b","client_id":"` + client + `"}`)}
	}
	refused := func(feeds ...coordinator.MovingFeed) bool {
		_, _, why := l.checkMove(&coordinator.MovePropose{From: "b", Epoch: 2, Job: coordinator.MovingJob{ID: "j9-b", Name: "door", Feeds: feeds}})
		return strings.Contains(why, `client id "mine" at broker b:1883, with which feed j9-b.more would come to site s, is that of feed j9-b.in of the job, too`) && strings.Contains(why, "--set sources.ID.mqtt.client_id=NEW")
	}
	in := feed("j9-b.in", "mine", false)
	if !refused(in, feed("j9-b.more", "mine", false)) {
		t.Error("two come with one session")
	}
	if refused(in, feed("j9-b.more", "mine", true)) || refused(in, feed("j9-b.more", "other", false)) || refused(feed("j9-b.in", "", false), feed("j9-b.more", "", false)) {
		t.Error("it is refused for nothing")
	}
}
