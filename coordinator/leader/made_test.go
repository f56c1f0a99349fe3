package leader

import (
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
