package worker

import (
	"cmp"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// copies is what the leader wants copied to here, and what the disk here lacks.
type copies struct {
	asked *coordinator.Copy // waits until the state here is as new as the leader's was
	// order is being done, under a number of this process's, serial; 0: none is of the
	// present stream. Another leader counts its orders from 1, too.
	order, serial uint64
	// lacks is what the executor found missing. It is said on each stream, as long as
	// the state says that it is here.
	lacks  map[snapshotRef]*coordinator.Copied
	untold bool // something of it was not said on this stream
}

// snapshotRef names a kept snapshot.
type snapshotRef struct {
	job  coordinator.JobID // empty: a savepoint
	name string
}

// copied passes on what the executor says.
func (w *Worker) copied(c *coordinator.Copied) {
	ref := snapshotRef{c.Job, c.Name}
	if c.Order == 0 {
		w.copies.lacks[ref], w.copies.untold = c, true
		return
	}
	if old := w.copies.lacks[ref]; old != nil { // what came is not missing any more
		left := *old
		left.Lacks = slices.DeleteFunc(slices.Clone(old.Lacks), func(p coordinator.PartCopies) bool { return slices.Contains(c.Parts, p.Part) })
		w.copies.lacks[ref] = &left
	}
	if w.copies.order == 0 || w.copies.serial != c.Order {
		return // who gave that order counts on it no more
	}
	said := *c
	said.Order, w.copies.order = w.copies.order, 0
	w.say(coordinator.ToLeader{Copied: &said})
}

// reconcileCopies passes on what is to be copied, behind what Kept says: then a
// manifest here names what comes.
func (w *Worker) reconcileCopies(st *coordinator.State) {
	if m := w.copies.asked; m != nil && st.Index >= m.Index {
		w.copies.asked = nil
		if s := st.Of(m.Job, m.Name); s != nil {
			w.copies.order, w.copies.serial = m.Order, w.copies.serial+1
			order := *m
			order.Order = w.copies.serial
			w.put(Effect{Copy: &Copy{Order: &order, Snapshot: s}})
		} else {
			w.say(coordinator.ToLeader{Copied: &coordinator.Copied{Order: m.Order, Name: m.Name, Job: m.Job, Why: "it is not kept any more"}})
		}
	}
	if !w.copies.untold || !w.link.up || st.Level < coordinator.CopiesLevel {
		return
	}
	w.copies.untold = false
	refs := slices.Collect(keys(w.copies.lacks))
	sort.Slice(refs, func(i, j int) bool { return compareRefs(refs[i], refs[j]) < 0 })
	for _, ref := range refs {
		if c := w.lacking(st, ref); c != nil {
			w.say(coordinator.ToLeader{Copied: c})
		} else {
			delete(w.copies.lacks, ref)
		}
	}
}

// lacking is what is missing here of a snapshot and is said to be here; nil:
// nothing.
func (w *Worker) lacking(st *coordinator.State, ref snapshotRef) *coordinator.Copied {
	s := st.Of(ref.job, ref.name)
	if s == nil {
		return nil
	}
	c := &coordinator.Copied{Name: ref.name, Job: ref.job}
	for _, lack := range w.copies.lacks[ref].Lacks {
		said := func(p coordinator.PartCopies) bool { return p.Part == lack.Part && slices.Contains(p.Nodes, w.self) }
		if slices.ContainsFunc(s.Copies, said) {
			c.Lacks = append(c.Lacks, coordinator.PartCopies{Part: lack.Part, Nodes: []mesh.NodeID{w.self}})
		}
	}
	if len(c.Lacks) == 0 {
		return nil
	}
	return c
}

func compareRefs(a, b snapshotRef) int {
	return cmp.Or(cmp.Compare(a.job, b.job), cmp.Compare(a.name, b.name))
}
