package logepoch

import (
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Common is up to where the logs of two lineages are the same: the start of the
// first reign that only one of them went through. A copy of the one may be ahead
// of it, or behind. math.MaxInt64: they are the same as far as both go.
//
// A reign is one site's, and begins with what that site had: two logs that went
// through the same one are the same up to where that ended in either. What a
// later reign began with may be less than that, so the least of all starts counts.
func Common(a, b []coordinator.Reign) int64 {
	after := func(all, other []coordinator.Reign) ([]coordinator.Reign, bool) {
		for i, r := range slices.Backward(all) {
			if slices.Contains(other, r) {
				return all[i+1:], true
			}
		}
		return nil, false
	}
	onlyA, same := after(a, b)
	if !same {
		return 0
	}
	onlyB, _ := after(b, a)
	at := int64(math.MaxInt64)
	for _, r := range onlyA {
		at = min(at, r.Start)
	}
	for _, r := range onlyB {
		at = min(at, r.Start)
	}
	return at
}

// Forked is an epoch as if its log had been cut at a sequence number: what is
// behind it belongs to no log any more, so nobody needs to have it.
func Forked(e *coordinator.LogEpoch, at int64) coordinator.LogEpoch {
	f := *e
	f.Start = min(e.Start, at)
	f.Starts = slices.Clone(e.Starts)
	for i, s := range f.Starts {
		f.Starts[i] = min(s, at)
	}
	f.Heirs = slices.Clone(e.Heirs)
	for i, h := range f.Heirs {
		f.Heirs[i].From = min(h.From, at)
	}
	return f
}

// Of is the present epoch of a feed's log at a site. Where all members have left, it is
// that of a mirror if all that was in it is with its source, too, or nobody needs it.
func Of(f *coordinator.Feed, site mesh.Site, left func(mesh.NodeID) bool) coordinator.LogEpoch {
	e := f.Log
	if Abandoned(&e, left) {
		e.Mirror = f.CopyOf(site)
	}
	return e
}
