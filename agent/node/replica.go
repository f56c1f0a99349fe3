package node

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// replica is this agent's copy of the site's state: the consensus.Machine that
// decodes commands and applies them.
type replica struct {
	applied func(index uint64, c *coordinator.Command, r jobmanager.Result, changes []jobmanager.Change) // must not block
	renewed func()                                                                                       // everything may have changed; must not block
	fatal   func(error)                                                                                  // a command that this binary cannot read; must not block

	mu       sync.RWMutex // guards what follows; each journal is also taken by the one that watches, while it reads
	machine  *jobmanager.Machine
	journals []*jobmanager.Journal
	broken   error // of the first command that could not be read: none is applied after it
}

var _ consensus.Machine = (*replica)(nil)

func newReplica() *replica { return &replica{machine: jobmanager.New()} }

// view calls f with the state; f must keep no map of it.
func (r *replica) view(f func(*coordinator.State)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.machine.State())
}

// watch makes a journal of what changes from now on, until unwatch.
func (r *replica) watch() *jobmanager.Journal {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := jobmanager.NewJournal()
	r.journals = append(r.journals, j)
	return j
}

func (r *replica) unwatch(j *jobmanager.Journal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journals = slices.DeleteFunc(r.journals, func(o *jobmanager.Journal) bool { return o == j })
}

// look calls f with the state, and with what has changed in it since the last
// look of who watches with the journal: one goroutine. f must keep no map of it.
func (r *replica) look(j *jobmanager.Journal, f func(*coordinator.State, jobmanager.Changed)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.machine.State(), j.Take())
}

// Apply is consensus.Machine's. What it returns is a jobmanager.Result.
//
// A command that cannot be read was written by a newer binary than this, or is
// damaged: this agent would not be like the others any more, so it stops. Until it
// has, it applies no other, and writes no snapshot: its log still has them all.
func (r *replica) Apply(index uint64, command []byte) any {
	if err := r.unreadable(); err != nil {
		return jobmanager.Result{Err: err}
	}
	c, err := codec.DecodeCommand(command)
	if err != nil {
		err = fmt.Errorf("command %d of the site cannot be read by this binary; install the version that the others run: %w", index, err)
		r.mu.Lock()
		r.broken = err
		r.mu.Unlock()
		r.fatal(err)
		return jobmanager.Result{Err: err}
	}
	r.mu.Lock()
	result, changes := r.machine.Apply(index, c)
	for _, j := range r.journals {
		j.Add(changes)
	}
	r.mu.Unlock()
	r.applied(index, c, result, changes)
	return result
}

func (r *replica) unreadable() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.broken
}

// Snapshot is consensus.Machine's. Of a state that lacks a command none is written.
func (r *replica) Snapshot() func(io.Writer) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.broken; err != nil {
		return func(io.Writer) error { return err }
	}
	return r.machine.Snapshot()
}

// Restore is consensus.Machine's.
func (r *replica) Restore(in io.Reader) error {
	r.mu.Lock()
	err := r.machine.Restore(in)
	for _, j := range r.journals {
		j.AddAll()
	}
	r.mu.Unlock()
	if err == nil {
		r.renewed()
	}
	return err
}
