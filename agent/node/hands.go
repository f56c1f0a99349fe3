package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// performer does what a worker decides for attempts and logs; it must not block,
// and answers with events.
type performer interface {
	Do(worker.Effect)
}

// hands drive the agent's worker.Worker. One goroutine owns the machine; all
// else is handed to it.
type hands struct {
	worker *worker.Worker
	look   func(func(*coordinator.State, jobmanager.Changed)) // what changed since the last look
	now    func() dataflow.Time                               // counts the time in which the machine slept
	extend func(until dataflow.Time)
	dial   func(ctx context.Context, to mesh.NodeID) (mesh.Stream, error)
	do     performer
	status func() *coordinator.Heartbeat // what a heartbeat carries besides its number
	level  uint32                        // in force at the last step
	events func(string)

	inbox   *mailbox[func()]
	changed chan struct{} // 1: the replicated state may have changed
	done    sync.WaitGroup

	// Of the goroutine of run.
	ctx    context.Context
	talk   *talk
	serial int             // of talks: what an older one says is not heard
	left   chan<- struct{} // closed when nothing is left here; nil: nobody asks
	ended  bool
	shown  dataflow.Time // when status was sent last
	unsaid repeated
	again  repeated

	refused atomic.Pointer[string] // why the leader has nothing to do with this agent; nil: it has, as far as is known
}

func newHands() *hands {
	return &hands{inbox: newMailbox[func()](0), changed: make(chan struct{}, 1), shown: dataflow.MinTime}
}

// tell hands over an event; any goroutine may call it, and it never blocks. The
// executor has a bounded number of things to say.
func (h *hands) tell(e worker.Event) { h.inbox.post(func() { h.step(e) }) }

// beat tells the leader now what people may want to know.
func (h *hands) beat() {
	h.inbox.post(func() {
		h.shown = dataflow.MinTime
		h.step(worker.Event{Beat: true})
	})
}

// leave has the leader give what is here to others. The channel is closed when
// nothing is left here.
func (h *hands) leave() <-chan struct{} {
	left := make(chan struct{})
	h.inbox.post(func() {
		h.left = left
		h.step(worker.Event{Leave: true})
	})
	return left
}

// stateChanged says that the replicated state has changed.
func (h *hands) stateChanged() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// run drives the machine until ctx ends.
func (h *hands) run(ctx context.Context) {
	h.ctx = ctx
	defer h.end()
	h.step(worker.Event{State: true})
	for ctx.Err() == nil {
		var wake <-chan time.Time
		if at := h.worker.Wake(); at != dataflow.MaxTime {
			t := time.NewTimer(max(0, dataflow.Duration(at-h.now()).Go()))
			wake = t.C
			h.wait(ctx, wake)
			t.Stop()
			continue
		}
		h.wait(ctx, nil)
	}
}

// end waits for everything that this began.
func (h *hands) end() {
	h.ended = true
	for _, f := range h.inbox.close() { // nothing comes of it, but a stream that was opened too late is closed
		f()
	}
	if h.talk != nil {
		h.talk.close()
	}
	h.done.Wait()
}

func (h *hands) wait(ctx context.Context, wake <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-wake:
		h.step(worker.Event{})
	case <-h.changed:
		h.step(worker.Event{State: true})
	case <-h.inbox.filled:
		for _, f := range h.inbox.take() {
			f()
		}
	}
}

func (h *hands) step(e worker.Event) {
	if h.ended {
		return
	}
	e.Now = h.now()
	var effects []worker.Effect
	var left bool
	h.look(func(st *coordinator.State, changed jobmanager.Changed) {
		h.level = st.Level
		effects = slices.Clone(h.worker.Step(st, changed, e))
		left = h.left != nil && h.worker.Left(st)
	})
	for _, f := range effects {
		h.perform(f)
	}
	if left {
		close(h.left)
		h.left = nil
	}
}

func (h *hands) perform(f worker.Effect) {
	switch {
	case f.Connect != nil:
		h.connect(*f.Connect)
	case f.Send != nil:
		h.send(*f.Send)
	case f.Lease != nil:
		h.extend(*f.Lease)
	default:
		h.do.Do(f)
	}
}

// statusEvery is how often the leader is told what people may want to know.
const statusEvery = dataflow.Second

func (h *hands) send(m coordinator.ToLeader) {
	if now := h.now(); m.Hello != nil {
		h.shown = dataflow.MinTime // it may be another one
	} else if m.Heartbeat != nil && now >= h.shown.Add(statusEvery) {
		h.shown = now
		s := h.status()
		beat := *m.Heartbeat
		beat.Status, beat.Logs, beat.Disk = s.Status, s.Logs, s.Disk
		for i := range beat.Logs {
			if h.level < coordinator.GoesOnLevel { // the leader may not know them
				beat.Logs[i].Lanes = nil
			}
		}
		m.Heartbeat = &beat
	}
	if h.talk == nil {
		return // it broke; the worker will hear of it, and Hello says it again
	}
	b, err := codec.EncodeToLeader(&m)
	if err != nil {
		if h.unsaid.due(err, h.now()) {
			h.events(fmt.Sprintf("a message to the leader cannot be encoded: %v", err))
		}
		h.inbox.post(func() { h.step(worker.Event{Unsent: &worker.Unsent{Message: m, Err: err}}) })
		return
	}
	h.talk.say(b)
}

// connect opens a stream to the leader, in the background, and ends the one
// before.
func (h *hands) connect(to mesh.NodeID) {
	h.serial++
	serial := h.serial
	if old := h.talk; old != nil {
		h.talk = nil
		h.done.Go(old.close)
	}
	ctx := h.ctx
	h.done.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		s, err := h.dial(ctx, to)
		if !h.inbox.post(func() { h.connected(serial, s, err) }) && err == nil {
			_ = s.Close()
		}
	})
}

// connected: a stream stands, or could not be opened.
func (h *hands) connected(serial int, s mesh.Stream, err error) {
	up := err == nil
	switch {
	case h.ended || serial != h.serial: // another one was asked for meanwhile
		if up {
			_ = s.Close()
		}
		return
	case up:
		h.talk = newTalk(s, h.inbox, func(m []byte) (func(), error) { return h.hear(serial, m) }, func() { h.broke(serial) })
	}
	h.step(worker.Event{Connected: &up})
}

// hear is called by a talk's goroutine.
func (h *hands) hear(serial int, message []byte) (func(), error) {
	m, err := codec.DecodeToAgent(message)
	if err != nil {
		return nil, err
	}
	return func() {
		if serial != h.serial {
			return
		}
		switch {
		case m.Refused != nil:
			why := errors.New("the leader refuses this agent: " + m.Refused.Why)
			if h.refused.Store(&m.Refused.Why); h.again.due(why, h.now()) {
				h.events(why.Error())
			}
		case m.Granted != nil && h.refused.Load() != nil:
			h.refused.Store(nil)
			h.again.due(nil, 0)
		}
		h.step(worker.Event{Message: m})
	}, nil
}

func (h *hands) broke(serial int) {
	if h.ended || serial != h.serial || h.talk == nil {
		return
	}
	old := h.talk
	h.talk = nil
	h.done.Go(old.close)
	up := false
	h.step(worker.Event{Connected: &up})
}

// dialTime bounds the opening of a stream to the leader.
const dialTime = 2 * time.Second
