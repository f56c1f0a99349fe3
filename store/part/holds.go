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
type Holds struct {
	store *Store

	mu   sync.Mutex // guards jobs
	jobs map[string]map[dataflow.CheckpointID]map[store.Digest]store.Part
}

// NewHolds makes the holds of a store.
func NewHolds(s *Store) *Holds {
	return &Holds{store: s, jobs: make(map[string]map[dataflow.CheckpointID]map[store.Digest]store.Part)}
}

// Take takes over one pin of each part, which the caller has (Put, Pin), for a
// checkpoint of a job.
func (h *Holds) Take(job string, id dataflow.CheckpointID, pinned ...store.Part) {
	var twice []store.Part
	h.mu.Lock()
	if h.jobs[job] == nil {
		h.jobs[job] = make(map[dataflow.CheckpointID]map[store.Digest]store.Part)
	}
	of := h.jobs[job][id]
	if of == nil {
		of = make(map[store.Digest]store.Part)
		h.jobs[job][id] = of
	}
	for _, p := range pinned {
		if _, has := of[p.Digest]; has {
			twice = append(twice, p)
			continue
		}
		of[p.Digest] = p
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

// Only lets go what is held for one checkpoint.
func (h *Holds) Only(job string, id dataflow.CheckpointID) {
	h.release(job, func(of dataflow.CheckpointID) bool { return of == id })
}

// Checkpoints are those of a job for which something is held, oldest first.
func (h *Holds) Checkpoints(job string) []dataflow.CheckpointID {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Collect(maps.Keys(h.jobs[job]))
	sort.Slice(all, func(i, j int) bool { return all[i].Less(all[j]) })
	return all
}

// Drop lets go everything that is held for the job.
func (h *Holds) Drop(job string) {
	h.release(job, func(dataflow.CheckpointID) bool { return true })
}

func (h *Holds) release(job string, which func(dataflow.CheckpointID) bool) {
	var gone []store.Part
	h.mu.Lock()
	for id, parts := range h.jobs[job] {
		if !which(id) {
			continue
		}
		for _, p := range parts {
			gone = append(gone, p)
		}
		delete(h.jobs[job], id)
	}
	if len(h.jobs[job]) == 0 {
		delete(h.jobs, job)
	}
	h.mu.Unlock()
	h.store.Unpin(gone...)
}

// Held are the parts that are held for a checkpoint, in order of their digests.
func (h *Holds) Held(job string, id dataflow.CheckpointID) []store.Part {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []store.Part
	for _, p := range h.jobs[job][id] {
		all = append(all, p)
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
