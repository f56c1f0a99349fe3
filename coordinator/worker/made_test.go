package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// made is a shared feed of an agent alone, as it is in an epoch of its log.
func made(at, epoch uint64) *coordinator.Feed {
	f := &coordinator.Feed{Name: "line3", Made: at}
	if epoch > 0 {
		f.Log = coordinator.LogEpoch{Epoch: epoch, Owner: "n1", Members: []mesh.NodeID{"n1"}}
	}
	return f
}

// A feed is deleted and made again while its agent stands still: what runs is of the
// first, and goes at once.
func TestAFeedIsMadeAgainWhileItsAgentStandsStill(t *testing.T) {
	for _, before := range []*coordinator.Feed{made(4, 7), made(0, 7)} {
		b := newBench(t)
		b.connect()
		b.st.Feeds["line3"] = before
		b.step(Event{State: true}, "own 7")
		b.st.Feeds["line3"] = made(90, 0)
		b.step(Event{State: true}, "drop")
		b.step(Event{State: true})
		b.st.Feeds["line3"] = made(90, 90)
		b.step(Event{State: true}, "own 90")
		b.step(Event{State: true})
	}
}

// The same while it is off: its log is of the first, and it may have promised the
// epoch behind.
func TestAFeedIsMadeAgainWhileItsAgentIsOff(t *testing.T) {
	for _, found := range []coordinator.LogNow{{Feed: "line3", Epoch: 7, End: 500}, {Feed: "line3", Epoch: 8, End: 500, Sealed: true}} {
		b := newBench(t)
		b.connect()
		b.st.Feeds["line3"] = made(4, 7) // the state here is of before
		b.w.behind, b.w.link.granted = true, 20
		b.step(Event{Log: &LogEvent{Opened: &found}})
		b.st.Feeds["line3"], b.st.Index = made(90, 90), 100
		b.step(Event{State: true}, "drop", "own 90")
		b.step(Event{State: true})
	}
}

// A promise that was asked for before this agent knew of the second feed is not
// forgotten with the first one's log.
func TestAPromiseForAFeedThatIsMadeAgain(t *testing.T) {
	b := newBench(t)
	b.connect()
	b.st.Feeds["line3"] = made(4, 7)
	b.step(Event{State: true}, "own 7")
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Seal: &coordinator.Seal{Feed: "line3", Epoch: 91}}})
	b.st.Feeds["line3"] = made(90, 90)
	b.step(Event{State: true}, "drop", "own 90", "seal 91")
}
