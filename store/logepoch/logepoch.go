// Package logepoch decides how a copy of a feed's log becomes like its owner's:
// what it cuts off, whether it begins anew, and from where it is copied. The
// chain of log epochs is the coordinator's; what is cut and copied is
// store/ingestlog's; who talks to whom is agent/feed's.
//
// It is pure, and never looks at an entry. docs/INGEST_LOG.md has the rule and
// why nothing that was acknowledged is lost by it.
package logepoch

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Copy is what a log is on one disk.
type Copy struct {
	ID    [16]byte // that the log was made with
	Epoch uint64   // of its last entry; 0: it has none
	First int64    // sequence of the oldest entry that is kept
	End   int64    // behind the last
}

// ErrLacking is wrapped where an owner has not what was acknowledged before its
// epoch.
var ErrLacking = errors.New("entries are missing")

// Keeps is how much of a copy belongs to the log: what is behind the start of the
// first epoch later than its own does not.
func Keeps(e *coordinator.LogEpoch, c Copy) int64 { return min(c.End, e.Cut(c.Epoch)) }

// Owns is where the owner of an epoch cuts its own copy back to. It must reach
// the start of the epoch: everything before may have been acknowledged. An
// error is ErrLacking.
func Owns(e *coordinator.LogEpoch, c Copy) (cut int64, err error) {
	cut = Keeps(e, c)
	if cut < e.Start {
		return cut, fmt.Errorf("epoch %d of the log starts at %d, and this copy ends at %d (of epoch %d, of which %d belong to it): %w; another member has them", e.Epoch, e.Start, c.End, c.Epoch, cut, ErrLacking)
	}
	return cut, nil
}

// Plan is what a member does before the owner sends it what it lacks.
type Plan struct {
	Anew bool  // forget everything, begin where the owner's log begins
	Cut  bool  // cut back to From
	From int64 // what it is sent begins here
}

// Join is the plan for a member, when the owner's copy is what the log is: it
// was cut to the chain, and has everything that was ever acknowledged. The
// owner appends nothing before all members have done theirs, so a member that
// has more, of the same epoch, has it from an owner that died before it was
// durable there: it goes.
func Join(e *coordinator.LogEpoch, owner, member Copy) Plan {
	end := min(Keeps(e, member), owner.End)
	if member.ID != owner.ID || end < owner.First || end < member.First {
		return Plan{Anew: true, From: owner.First}
	}
	return Plan{Cut: end < member.End, From: end}
}
