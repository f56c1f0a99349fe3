// Package logepoch decides who may own the next epoch of a feed's log, and how a
// copy becomes like its owner's: what it cuts off, whether it begins anew, and
// from where it is copied. When an epoch ends, and whom it goes to of those who
// may, is coordinator/leader's; what is cut and copied is
// store/ingestlog's; who talks to whom is agent/feed's.
//
// It is pure, and never looks at an entry. docs/INGEST_LOG.md has the rule and
// why nothing that was acknowledged is lost by it.
package logepoch

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Copy is what a log is on one disk.
type Copy struct {
	ID       [16]byte // that the log was made with
	Epoch    uint64   // of its last entry; 0: it has none
	First    int64    // sequence of the oldest entry that is kept
	End      int64    // behind the last
	Promised uint64   // the epoch below which it takes nothing
}

// Next is the epoch behind old, of which owner, members and start were chosen.
// Where nothing was acknowledged in old, as its start shows, heirs of old stay
// heirs. An heir may have less than its successors had: what these have beyond
// the new start goes, so no start in the chain is greater.
func Next(old *coordinator.LogEpoch, owner mesh.NodeID, members []mesh.NodeID, start int64) coordinator.LogEpoch {
	from := make(map[mesh.NodeID]int64)
	if start <= old.Start {
		for _, h := range old.Heirs {
			from[h.Node] = min(h.From, start)
		}
	}
	for _, m := range old.Members {
		if f, ok := from[m]; !ok || f > old.Start {
			from[m] = min(old.Start, start)
		}
	}
	delete(from, owner) // it has all, and is asked first
	next := coordinator.LogEpoch{Epoch: old.Epoch + 1, Owner: owner, Members: slices.Clone(members), Start: start, Forgotten: old.Forgotten}
	for _, node := range slices.Sorted(maps.Keys(from)) {
		next.Heirs = append(next.Heirs, coordinator.Heir{Node: node, From: from[node]})
	}
	for _, s := range old.Starts {
		next.Starts = append(next.Starts, min(s, start))
	}
	next.Starts = append(next.Starts, start)
	return next
}

// Owners are those who may own the epoch behind e, of those that have promised
// it: ends says where their copies end, cut to the chain of e.
//
// Everything that was acknowledged in e is on all its members. So a member that
// has come to where e starts has all; and one that has nothing of e shows that
// nothing was acknowledged in it: then heirs have all, too.
func Owners(e *coordinator.LogEpoch, ends map[mesh.NodeID]int64) map[mesh.NodeID]bool {
	all, unused := make(map[mesh.NodeID]bool), false
	for _, m := range e.Members {
		if end, ok := ends[m]; ok {
			all[m] = end >= e.Start
			unused = unused || end <= e.Start
		}
	}
	for _, h := range e.Heirs {
		if end, ok := ends[h.Node]; ok && unused && h.From <= end && end <= e.Start {
			all[h.Node] = true
		}
	}
	return all
}

// Again are those who may own the epoch behind that of a mirror when none of Owners
// is there: all that have promised it, if none has come to where e starts. The mirror
// began anew then, and has not caught up; what it lacks its source has, or nobody.
//
// Its owner knows: the members have nothing that it did not have. Where it has not
// promised, all other members and heirs must have, but for those that have left the
// site: a member may be new, and not have been sent anything yet. Where all members
// have left, heirs may own it, however much they have.
func Again(e *coordinator.LogEpoch, ends map[mesh.NodeID]int64, left func(mesh.NodeID) bool) map[mesh.NodeID]bool {
	if e.Mirror == nil {
		return nil
	}
	all := make(map[mesh.NodeID]bool)
	_, known := ends[e.Owner]
	missing, gone := false, Abandoned(e, left)
	for _, m := range e.Members {
		end, ok := ends[m]
		if ok && end >= e.Start && !left(m) {
			return nil
		}
		all[m] = ok && !left(m)
		missing = missing || !ok && !left(m)
	}
	for _, h := range e.Heirs {
		_, ok := ends[h.Node]
		missing = missing || !ok && !left(h.Node)
		if gone {
			all[h.Node] = ok && !left(h.Node)
		}
	}
	if missing && (gone || !known) {
		return nil
	}
	return all
}

// Abandoned tells whether all members have left the site.
func Abandoned(e *coordinator.LogEpoch, left func(mesh.NodeID) bool) bool {
	return !slices.ContainsFunc(e.Members, func(m mesh.NodeID) bool { return !left(m) })
}

// Deserted tells whether nobody of the site has the log any more: all members and heirs
// have left it.
func Deserted(e *coordinator.LogEpoch, left func(mesh.NodeID) bool) bool {
	return e.Epoch > 0 && Abandoned(e, left) && !slices.ContainsFunc(e.Heirs, func(h coordinator.Heir) bool { return !left(h.Node) })
}

// Anew tells whether the epoch behind that of a mirror may be anybody's: it begins with
// nothing then, at 0. Nobody has it any more, and what it had its source has, or nobody.
// Of a log with a session that is not so: what was acknowledged in it may not look as if
// it had never been.
func Anew(e *coordinator.LogEpoch, left func(mesh.NodeID) bool) bool {
	return e.Mirror != nil && Deserted(e, left)
}

// Fewer is the epoch of a mirror as if it had been begun with no more than start: what is
// behind that its source has, or nobody. Heirs are owners only where all members have left.
func Fewer(e *coordinator.LogEpoch, start int64, left func(mesh.NodeID) bool) coordinator.LogEpoch {
	f := *e
	f.Start = min(e.Start, start)
	if Abandoned(e, left) {
		f.Heirs = slices.Clone(e.Heirs)
		for i, h := range f.Heirs {
			f.Heirs[i].From = min(h.From, start)
		}
	}
	return f
}

// Refuse says why an epoch of an owner cannot start there; empty: it can.
func Refuse(old *coordinator.LogEpoch, owner mesh.NodeID, start int64) string {
	if old.Epoch == 0 || slices.Contains(old.Members, owner) && start >= old.Start {
		return ""
	}
	i := slices.IndexFunc(old.Heirs, func(h coordinator.Heir) bool { return h.Node == owner })
	switch {
	case i >= 0 && old.Heirs[i].From <= start && start <= old.Start:
		return ""
	case i < 0 && !slices.Contains(old.Members, owner):
		// Nobody else has all that was acknowledged.
		return fmt.Sprintf("the owner %q was no member of epoch %d, and is no heir of it", owner, old.Epoch)
	}
	return fmt.Sprintf("epoch %d is to start at %d, and the one before started at %d", old.Epoch+1, start, old.Start)
}

// ErrLacking is wrapped where an owner has not what was acknowledged before its
// epoch.
var ErrLacking = errors.New("entries are missing")

// Keeps is how much of a copy belongs to the log: what is behind the start of the
// first epoch later than its own does not.
func Keeps(e *coordinator.LogEpoch, c Copy) int64 { return min(c.End, e.Cut(c.Epoch)) }

// Owns is what the owner of an epoch does with its own copy before anything else: it
// is cut, or forgotten. It must reach the start of the epoch: everything before may
// have been acknowledged. An error is ErrLacking.
//
// A mirror may have less: what it lacks it takes from its source again, or that does
// not keep it any more. But a copy that has not promised the epoch is not the one that
// the epoch was begun with.
func Owns(e *coordinator.LogEpoch, c Copy) (Plan, error) {
	p := End(e, c)
	if p.From < e.Start && (e.Mirror == nil || c.Promised != e.Epoch) {
		return p, fmt.Errorf("epoch %d of the log starts at %d, and this copy ends at %d (of epoch %d, of which %d belong to it; it begins with %d): %w; another member has them", e.Epoch, e.Start, c.End, c.Epoch, Keeps(e, c), c.First, ErrLacking)
	}
	return p, nil
}

// Plan is what becomes of a copy before it is taken for what the log is.
type Plan struct {
	Anew bool  // forget everything: a member begins where the owner's log begins, an owner with nothing
	Cut  bool  // cut back to From
	From int64 // it ends here then, and a member is sent what follows
}

// End is what a copy does before it promises to take nothing more of an epoch, and
// says where it ends: From. Anew: nothing of it belongs to the log, and it cannot
// be cut back so far, or is that of another feed, from before the first epoch of this
// one; it ends at 0. Nothing is forgotten then, as an owner makes it begin anew.
//
// It is the same whether the copy was ever told of the epoch or not. If it was no
// part of it, or not yet, nothing was acknowledged there.
func End(e *coordinator.LogEpoch, c Copy) Plan {
	end := Keeps(e, c)
	other := end == 0 && c.End > 0 && e.Forgotten > 0 && c.Epoch <= e.Forgotten
	if end < c.First || other {
		return Plan{Anew: true}
	}
	return Plan{Cut: end < c.End, From: end}
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
