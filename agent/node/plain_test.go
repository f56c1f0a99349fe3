package node

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A site of before feature level 6 refuses a question with a field that it does not know.
func TestAskedAsASiteReadsIt(t *testing.T) {
	w := &coordinator.Want{Site: "b", Settled: true, Jobs: []coordinator.WantedJob{{Job: "j7-a", Epoch: 2, Has: "c1", Why: "its log has gone", Later: &coordinator.Tenure{Epoch: 3, Site: "c"}}, {Job: "j8-a", Epoch: 1},
		{Job: "j9-c", Epoch: 1, Later: &coordinator.Tenure{Epoch: 2, Site: "a"}}}} // of which it would not know that it is not kept of it
	old := &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: "j7-a", Epoch: 2, Has: "c1"}, {Job: "j8-a", Epoch: 1}}}
	for level, want := range map[uint32]*coordinator.Want{0: old, coordinator.GoesOnLevel: old, coordinator.SettledLevel: w, coordinator.SettledLevel + 1: w} {
		if got := plain(w, "a", level); !reflect.DeepEqual(got, want) {
			t.Errorf("level %d: %+v", level, got)
		}
	}
	if w.Jobs[0].Why == "" || len(w.Jobs) != 3 || w.Jobs[2].Job == "" {
		t.Error("the question of the machine has changed")
	}
	f := &coordinator.Offer{Site: "a", Moved: []coordinator.MovedJob{{Job: "j7-a", Epoch: 1, To: coordinator.Tenure{Epoch: 2, Site: "c"}}}}
	for level, want := range map[uint32]int{0: 0, coordinator.GoesOnLevel: 0, coordinator.SettledLevel: 1} {
		if got := plainOffer(f, level); len(got.Moved) != want || got.Site != "a" || len(f.Moved) != 1 {
			t.Errorf("level %d: %+v", level, got)
		}
	}
}

// A site of before feature level 6 does not know what a life is: it is told two reigns of one
// epoch, and refuses that job alone.
func TestALifeIsNotToldToWhoDoesNotKnowIt(t *testing.T) {
	text := &coordinator.MovingJob{Feeds: []coordinator.MovingFeed{{Lineage: []coordinator.Reign{{Epoch: 1, Site: "a"}, {Epoch: 1, Site: "a", Start: 91, Life: 1}}}}}
	if got := text.Plain().Feeds[0].Lineage; len(got) != 2 || got[1].Life != 0 || got[1].Start != 91 {
		t.Errorf("%+v", got)
	}
	taken := &coordinator.MovingJob{Feeds: []coordinator.MovingFeed{{Lineage: []coordinator.Reign{{Epoch: 1, Site: "b"}, {Epoch: 2, Site: "a", Start: 91, Life: 1}}}}}
	if got := taken.Plain().Feeds[0].Lineage; len(got) != 3 || got[2] != got[1] || got[2].Life != 0 {
		t.Errorf("taken: %+v", got)
	}
	if text.Feeds[0].Lineage[1].Life != 1 {
		t.Error("what is here has changed")
	}
}

// A question says why a job could not go on from the snapshot that it names.
func TestAQuestionSaysWhatIsMissing(t *testing.T) {
	w := &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: "j5-a", Has: "c1"}, {Job: "j6-a", Has: "c2"}, {Job: "j7-a"}, {Job: "j8-a", Has: "c1"}}}
	rows := []api.Replica{{Job: "j5-a", Snapshot: "c1", Why: "its log has gone"}, {Job: "j6-a", Snapshot: "c1", Why: "as it was"}, {Job: "j7-a", Why: "nothing is complete yet"}}
	var whys []string
	for _, j := range explained(w, rows).Jobs {
		whys = append(whys, j.Why)
	}
	if want := []string{"its log has gone", "", "nothing is complete yet", ""}; !slices.Equal(whys, want) {
		t.Errorf("%q, want %q", whys, want)
	}
	if w.Jobs[0].Why != "" {
		t.Error("the question of the machine has changed")
	}
}

// What is kept is looked at anew every few seconds only, however often a site is asked.
func TestWhatIsKeptIsNotLookedAtWithEachQuestion(t *testing.T) {
	looks := 0
	o := newOffice(1)
	o.view = func(do func(*coordinator.State)) {
		looks++
		do(&coordinator.State{Site: "b", Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-a": {From: "a", Job: coordinator.MovingJob{ID: "j7-a"}}, "j7-c": {From: "c"}}})
	}
	now := dataflow.Time(dataflow.Hour)
	for i, c := range []struct {
		from mesh.Site
		at   dataflow.Time
		want int
	}{{"a", now, 1}, {"a", now.Add(4 * dataflow.Second), 1}, {"c", now.Add(4 * dataflow.Second), 2}, {"a", now.Add(5 * dataflow.Second), 3}, {"a", now, 4}} {
		if got := o.keptHere(c.from, c.at); looks != c.want || len(got) != 1 || got[0].From != string(c.from) || got[0].Why == "" {
			t.Errorf("%d: %d looks, %+v", i, looks, got)
		}
	}
}

// A site of before feature level 6 refuses a feed's config that says what its session may
// have from before, and cannot take a shared feed whose log had epochs above the job's:
// nobody would have the session. It is not asked for that, whatever it would say.
func TestProposedAsASiteReadsIt(t *testing.T) {
	propose := func(epoch uint64, f coordinator.MovingFeed) *coordinator.ToTarget {
		return &coordinator.ToTarget{Move: "m1-a", Propose: &coordinator.MovePropose{From: "a", Epoch: epoch,
			Job: coordinator.MovingJob{ID: "j7-a", Reads: []string{"line"}, Feeds: []coordinator.MovingFeed{{Name: "j7-a.in", Config: []byte("not JSON")}, f}}}}
	}
	const said, plainly = `{"broker":"mqtt://b","left":["x/#"],"version":1}`, `{"broker":"mqtt://b","version":1}`
	own := coordinator.MovingFeed{Name: "j7-a.more", Config: []byte(said)}
	shared := coordinator.MovingFeed{Name: "line", Config: []byte(plainly), Lineage: []coordinator.Reign{{Epoch: 90, Site: "a"}}}
	stays, elsewhere := shared, shared
	stays.Stay, elsewhere.Of = true, &coordinator.Mirror{Site: "c", Feed: "line"}
	for _, c := range []struct {
		name   string
		m      *coordinator.ToTarget
		level  uint32
		config string // of what is said; empty: nothing is
		why    string
	}{
		{"filters, level 6", propose(2, own), coordinator.SettledLevel, said, ""},
		{"filters, level 5", propose(2, own), coordinator.GoesOnLevel, plainly, ""},
		{"filters, nobody seen", propose(2, own), 0, "", ""},
		{"shared, level 6", propose(2, shared), coordinator.SettledLevel, plainly, ""},
		{"shared, level 5", propose(2, shared), coordinator.GoesOnLevel, "", "feature level 5, and cannot take the session of the shared feed line"},
		{"shared, nobody seen", propose(2, shared), 0, "", ""},
		{"shared, epoch above", propose(91, shared), coordinator.GoesOnLevel, plainly, ""},
		{"shared, stays", propose(2, stays), coordinator.GoesOnLevel, plainly, ""},
		{"shared, elsewhere", propose(2, elsewhere), coordinator.GoesOnLevel, plainly, ""},
		{"nothing of that", propose(2, coordinator.MovingFeed{Config: []byte(plainly)}), 0, plainly, ""},
	} {
		got, why := readable(c.m, "b", c.level)
		config := ""
		if got != nil {
			config = string(got.Propose.Job.Feeds[1].Config)
		}
		if config != c.config || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %s, %q", c.name, config, why)
		}
	}
	m := propose(2, own)
	if _, _ = readable(m, "b", coordinator.GoesOnLevel); string(m.Propose.Job.Feeds[1].Config) != said {
		t.Error("what the machine said has changed")
	}
}
