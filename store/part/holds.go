package part

import (
	"bytes"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// Holds keeps parts of checkpoints that are not complete yet from being
// collected: those that tasks of this node stored, and those that peers pushed
// or were told are here. They are let go together, when it is known what became
// of the checkpoint. They do not outlive the process; HoldAll is for what the
// one before left. Any goroutine may call it.
//
// A job's checkpoints end in their order, so that of each part only the greatest
// is noted that needs it: chains name the same parts again and again, and it may
// take long until a checkpoint completes. So it is bounded by the parts on disk.
type Holds struct {
	store *Store
	apart []string

	mu   sync.Mutex // guards jobs
	jobs map[string]map[holdKey]hold
}

// holdKey is what one pin is for.
type holdKey struct {
	part  store.Digest
	apart dataflow.CheckpointID // of jobs whose checkpoints have no order
}

type hold struct {
	part store.Part
	last dataflow.CheckpointID // that needs it
}

// NewHolds makes the holds of a store. The checkpoints of jobs that are apart have no
// order: each holds for itself.
func NewHolds(s *Store, apart ...string) *Holds {
	return &Holds{store: s, apart: apart, jobs: make(map[string]map[holdKey]hold)}
}

// Take takes over one pin of each part, which the caller has (Put, Pin), for a
// checkpoint of a job.
func (h *Holds) Take(job string, id dataflow.CheckpointID, pinned ...store.Part) {
	if len(pinned) == 0 {
		return
	}
	var twice []store.Part
	h.mu.Lock()
	all := h.jobs[job]
	if all == nil {
		all = make(map[holdKey]hold)
		h.jobs[job] = all
	}
	for _, p := range pinned {
		key, last := holdKey{part: p.Digest}, id
		if slices.Contains(h.apart, job) {
			key.apart = id
		}
		if has, ok := all[key]; ok {
			twice = append(twice, p)
			if last.Less(has.last) {
				last = has.last
			}
		}
		all[key] = hold{p, last}
	}
	h.mu.Unlock()
	h.store.Unpin(twice...)
}

// Through lets go what is held for the job's checkpoints up to id's, which has
// completed, and whose manifest is on disk: those before it will never be.
func (h *Holds) Through(job string, id dataflow.CheckpointID) {
	h.release(job, func(of dataflow.CheckpointID) bool { return !id.Less(of) })
}

// Before lets go what is held for attempts of the job before token's: what they
// completed has its manifest on disk, and they will complete nothing more.
func (h *Holds) Before(job string, token dataflow.FencingToken) {
	h.release(job, func(of dataflow.CheckpointID) bool { return of.Token.Less(token) })
}

// Only lets go what is held for one checkpoint of a job that is apart.
func (h *Holds) Only(job string, id dataflow.CheckpointID) {
	h.release(job, func(of dataflow.CheckpointID) bool { return of == id })
}

// Checkpoints are those of a job for which something is held, and for none after
// them, oldest first.
func (h *Holds) Checkpoints(job string) []dataflow.CheckpointID {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make(map[dataflow.CheckpointID]struct{})
	for _, of := range h.jobs[job] {
		ids[of.last] = struct{}{}
	}
	all := slices.Collect(maps.Keys(ids))
	sort.Slice(all, func(i, j int) bool { return all[i].Less(all[j]) })
	return all
}

// Drop lets go everything that is held for the job.
func (h *Holds) Drop(job string) {
	h.release(job, func(dataflow.CheckpointID) bool { return true })
}

func (h *Holds) release(job string, which func(last dataflow.CheckpointID) bool) {
	var gone []store.Part
	h.mu.Lock()
	for key, of := range h.jobs[job] {
		if which(of.last) {
			gone = append(gone, of.part)
			delete(h.jobs[job], key)
		}
	}
	if len(h.jobs[job]) == 0 {
		delete(h.jobs, job)
	}
	h.mu.Unlock()
	h.store.Unpin(gone...)
}

// Held are the parts that are held for a checkpoint, and for none after it, in order
// of their digests.
func (h *Holds) Held(job string, id dataflow.CheckpointID) []store.Part {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []store.Part
	for _, of := range h.jobs[job] {
		if of.last == id {
			all = append(all, of.part)
		}
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].Digest[:], all[j].Digest[:]) < 0 })
	return all
}

// HoldAll pins everything that is in the store. A process that was killed may
// have promised parts for a checkpoint that completes only now; nobody who asks
// it for them must find them gone. Release lets go: when no checkpoint of before
// the start can be under way any more.
func (h *Holds) HoldAll() (release func(), err error) {
	var all []store.Part
	err = h.store.Walk(func(p store.Part) error {
		if err := h.store.Pin(p); err == nil {
			all = append(all, p)
		}
		return nil
	})
	if err != nil {
		h.store.Unpin(all...)
		return nil, err
	}
	return sync.OnceFunc(func() { h.store.Unpin(all...) }), nil
}
