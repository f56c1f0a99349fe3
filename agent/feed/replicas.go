package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

const (
	// memberPatience is how long a member may be silent while it owes an answer;
	// then its stream is ended and another one tried.
	memberPatience = 5 * time.Second
	// A member is tried again after memberRetryMin, doubling to memberRetryMax.
	memberRetryMin = 50 * dataflow.Millisecond
	memberRetryMax = dataflow.Second
	// awayAfter is how long a member is away before the leader is told: it may
	// only not have heard of the epoch yet.
	awayAfter = dataflow.Second
	// copyAhead is how many bytes are on their way to a member that is being
	// copied to.
	copyAhead = 4 << 20
	// copyPiece is how many bytes of groups are read from disk at once.
	copyPiece = 1 << 20
)

// replicas brings the log of a feed that this agent owns to the other members
// of its epoch: one goroutine a member, one that tells the leader, and the pump,
// which calls offer, wait and settle. A group is acknowledged when all have it.
//
// Full: one group is under way; the pump waits for the slowest member. A member
// that is away, or whose disk is full, stops everything until it is back, or has room,
// or the epoch ends.
type replicas struct {
	name      string
	epoch     coordinator.LogEpoch
	log       *ingestlog.Log
	transport mesh.Transport
	o         *Options
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup

	mu      sync.Mutex    // guards what follows; no I/O and no callback under it
	changed chan struct{} // closed at each change, and made anew
	members []*member
	offered *offer // the last group that was staged; nil: none yet
	spare   []byte // of an offer that everybody has
	shown   int64  // all members have everything before it
	floor   int64  // nothing before it is kept here
	failed  error  // a member has promised a later epoch
}

// offer is what is staged, in frames: a group, or several of a mirror.
type offer struct {
	seq, next int64
	frames    []byte
	users     int // who are writing it to their stream
}

// member is another agent that keeps the log.
type member struct {
	node  mesh.NodeID
	acked int64         // it has everything before it on disk
	live  bool          // its stream stands, and it has caught up
	why   error         // it is not live, if that is known
	since dataflow.Time // when that was found first; 0: it was live since
	told  bool          // the leader knows
}

func newReplicas(f *Feed) *replicas {
	ctx, cancel := context.WithCancel(f.ctx)
	r := &replicas{
		name: f.name, epoch: f.role.epoch, log: f.log, transport: f.owner.o.Transport, o: &f.owner.o, ctx: ctx, cancel: cancel, changed: make(chan struct{}),
	}
	r.floor, _ = f.log.First()
	for _, n := range r.epoch.Members {
		if n != r.epoch.Owner {
			r.members = append(r.members, &member{node: n})
		}
	}
	return r
}

func (r *replicas) start() {
	for _, m := range r.members {
		r.running.Go(func() { r.keep(m) })
	}
	r.running.Go(r.tell)
}

func (r *replicas) stop() {
	r.cancel()
	r.running.Wait()
}

// change is called with the lock held, when something has changed.
func (r *replicas) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// offer gives what is staged to the members. Before the next all have it.
func (r *replicas) offer(staged []*ingestlog.Group) {
	seq, next := staged[0].Seq, staged[len(staged)-1].Next
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.offered; o != nil && o.seq == seq && o.next == next {
		return // it is being written again
	} else if o != nil && o.users == 0 {
		r.spare = o.frames[:0]
	}
	r.offered = &offer{seq: seq, next: next, frames: r.spare}
	for _, g := range staged {
		r.offered.frames = appendGroup(r.offered.frames, g)
	}
	r.spare = nil
	r.change()
}

// wait waits until all members are live and have everything before seq. The log's
// owner calls it: while a member's disk is full it lets go what it may by now.
func (r *replicas) wait(seq int64) error {
	for {
		r.mu.Lock()
		all := !slices.ContainsFunc(r.members, func(m *member) bool { return !m.live || m.acked < seq })
		full := slices.ContainsFunc(r.members, func(m *member) bool { return !m.live && errors.Is(m.why, store.ErrFull) })
		changed, failed := r.changed, r.failed
		r.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case all:
			return nil
		case full: // with each of its refusals
			_ = r.log.MakeRoom(r.o.Clock.Now()) // that there is none here is not asked now
			r.raise()
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-changed:
		}
	}
}

// settle says that all members have everything before seq.
func (r *replicas) settle(seq int64) {
	r.mu.Lock()
	r.shown = seq
	r.mu.Unlock()
	r.raise()
}

// raise says what is not kept here any more, so that the members let it go.
func (r *replicas) raise() {
	floor, _ := r.log.First()
	r.mu.Lock()
	defer r.mu.Unlock()
	if floor != r.floor {
		r.floor = floor
		r.change()
	}
}

// tell tells the leader who is away, and when nobody is any more.
func (r *replicas) tell() {
	inSync := false
	for {
		at := r.o.Clock.Now()
		r.mu.Lock()
		changed := r.changed
		var events []worker.LogEvent
		now := true
		for _, m := range r.members {
			now = now && m.live
			if !m.live && m.why != nil && !m.told && at >= m.since.Add(awayAfter) {
				m.told = true
				events = append(events, worker.LogEvent{OutOfSync: &coordinator.OutOfSync{Feed: r.name, Epoch: r.epoch.Epoch, Member: m.node, Why: m.why.Error()}})
			}
		}
		if now && !inSync {
			events = append(events, worker.LogEvent{InSync: &coordinator.InSync{Feed: r.name, Epoch: r.epoch.Epoch}})
		}
		inSync = now
		r.mu.Unlock()
		for _, e := range events {
			r.o.Tell(e)
		}
		select {
		case <-r.ctx.Done():
			return
		case <-changed:
		}
	}
}

// short is which member keeps the log from going on, for people; empty: none.
func (r *replicas) short() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if !m.live && m.why != nil {
			return fmt.Sprintf("member %s: %v", m.node, m.why)
		}
		if !m.live {
			return fmt.Sprintf("member %s is being brought up to date", m.node)
		}
	}
	return ""
}

// keep keeps a member up to date until the epoch ends here.
func (r *replicas) keep(m *member) {
	wait := memberRetryMin
	for r.ctx.Err() == nil {
		err := r.serve(m)
		r.mu.Lock()
		if m.live {
			wait = memberRetryMin
		}
		m.live, m.why = false, err
		if m.since == 0 {
			m.since = r.o.Clock.Now()
		}
		if errors.Is(err, ingestlog.ErrSealed) {
			r.failed = err
		}
		r.change()
		r.mu.Unlock()
		select {
		case <-r.ctx.Done():
		case <-r.o.Clock.After(wait):
		}
		wait = min(2*wait, memberRetryMax)
	}
}

// plan is what a member has to do first.
func (r *replicas) plan(s copyState) logepoch.Plan {
	return logepoch.Join(&r.epoch, copyOf(r.log), logepoch.Copy{ID: s.id, Epoch: s.epoch, First: s.first, End: s.end})
}
