package task

import (
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// gate aligns the barriers of a task's input channels. It has two states:
//
//	flowing   no checkpoint is being aligned; no channel is blocked
//	aligning  the barrier of `current` came on some channels but not on all;
//	          exactly once: those are blocked
//
// and these transitions:
//
//	flowing  --first barrier of n-->          aligning n   (or complete, if it is the last as well)
//	aligning --barrier n, or end, last one--> flowing      complete: snapshot, barrier on, unblock
//	aligning --barrier m > n-->               aligning m   n is aborted
//	any      --barrier of an id that is not newer than the last seen--> unchanged
//
// A channel that has ended counts as aligned: no barrier will come on it.
type gate struct {
	atLeastOnce bool
	channels    []channelState
	open        int // channels that have not ended
	arrived     int // open channels on which the current barrier came
	aligning    bool
	current     dataflow.Barrier // being aligned, or the last one that was
}

type channelState struct{ arrived, ended bool }

// gateEvent is what a barrier or an end did.
type gateEvent struct {
	aborted  bool // gaveUp was given up
	complete bool // current is aligned: take the snapshot
	blocked  bool // the channel of the event is now blocked

	gaveUp  dataflow.Barrier
	unblock []int // channels to deliver again, ascending; after the snapshot
}

func newGate(channels int, atLeastOnce bool) gate {
	return gate{atLeastOnce: atLeastOnce, channels: make([]channelState, channels), open: channels}
}

// barrier is called when b came on channel c. All channels bring the same one.
func (g *gate) barrier(c int, b dataflow.Barrier) gateEvent {
	if g.channels[c].ended {
		panic(fmt.Sprintf("task: barrier %v on channel %d, which has ended", b.ID, c))
	}
	var ev gateEvent
	switch {
	case g.aligning && b.ID == g.current.ID:
	case !g.current.ID.Less(b.ID):
		return ev
	default:
		if g.aligning {
			ev.aborted, ev.gaveUp = true, g.current
			ev.unblock = g.clear()
		}
		g.aligning, g.current = true, b
	}
	if !g.channels[c].arrived {
		g.channels[c].arrived = true
		g.arrived++
	}
	return g.settle(c, ev)
}

// end is called when channel c has ended.
func (g *gate) end(c int) gateEvent {
	if g.channels[c].ended {
		panic(fmt.Sprintf("task: channel %d ended twice", c))
	}
	if g.channels[c].arrived {
		g.channels[c].arrived = false
		g.arrived--
	}
	g.channels[c].ended = true
	g.open--
	return g.settle(-1, gateEvent{})
}

// settle completes the alignment if nothing is missing; otherwise it blocks
// channel c (-1: none).
func (g *gate) settle(c int, ev gateEvent) gateEvent {
	if !g.aligning {
		return ev
	}
	if g.arrived == g.open {
		ev.complete = true
		g.aligning = false
		ev.unblock = append(ev.unblock, g.clear()...)
		// The channel of the last barrier was never blocked.
		ev.unblock = slices.DeleteFunc(ev.unblock, func(u int) bool { return u == c })
		return ev
	}
	ev.blocked = c >= 0 && !g.atLeastOnce
	return ev
}

// clear forgets who has arrived and lists the channels that this unblocks.
func (g *gate) clear() (unblock []int) {
	for i := range g.channels {
		if g.channels[i].arrived && !g.atLeastOnce {
			unblock = append(unblock, i)
		}
		g.channels[i].arrived = false
	}
	g.arrived = 0
	return unblock
}

// isBlocked tells whether data of channel c must wait.
func (g *gate) isBlocked(c int) bool {
	return g.aligning && !g.atLeastOnce && g.channels[c].arrived
}
