package work

import (
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
)

// What goes over a channel's stream.
type (
	channelHello struct {
		ref  coordinator.AttemptRef
		to   runtime.Target
		from int
	}
	channelRows struct {
		data    []byte // a batch as it is on the wire; nil: a barrier, or the end
		barrier *dataflow.Barrier
	}
	channelTaken   struct{}
	channelRefused struct{ why string }
)

// outlet is the sending end of a channel to another agent: agent/channel.
type outlet struct {
	s      *subtask
	to     runtime.Target
	stream *world.Stream
	flight int
	ended  bool
}

// inlet is the receiving end.
type inlet struct {
	a      *attempt
	stream *world.Stream
	to     runtime.Target
	schema *batch.Schema
	ended  bool
}

// offer sends a message, if the window has room.
func (o *outlet) offer(m runtime.Message) bool {
	if o.flight >= depth {
		return false
	}
	o.flight++
	c := channelRows{barrier: m.Barrier}
	if m.Batch != nil {
		c.data = batch.Encode(nil, m.Batch)
		m.Batch.Release()
	}
	o.ended = m.Batch == nil && m.Barrier == nil
	o.stream.Send(0, c)
	return true
}

// start runs the attempt: everybody is prepared.
func (a *attempt) start(b *coordinator.Begin) {
	if a.begin != nil || !a.ready {
		return
	}
	a.begin = b
	a.x.p.W.Tell("%s begins %s", a.x.p.ID, judge.Text(a.ref))
	a.x.p.Judge.Begins(judge.Actor{Ref: a.ref, Node: a.x.p.ID, Lease: a.x.p.Lease, Publishes: a.mayPublish(), Over: func() bool { return a.over || a.ended }})
	a.learn(b)
	for i := range a.plan.Subtasks {
		st := &a.plan.Subtasks[i]
		for _, targets := range st.Targets {
			for _, to := range targets {
				if !st.Remote && a.plan.Subtasks[to.Subtask].Remote {
					a.connect(a.at[i], to)
				}
			}
		}
		if a.over {
			return
		}
	}
	for _, s := range a.subs {
		s.start()
		if a.over {
			return
		}
	}
}

// learn tells the tasks what follows from the facts of all: channels from sources
// that read nothing stay empty.
func (a *attempt) learn(b *coordinator.Begin) {
	nothing := make(map[dataflow.SubtaskID]bool)
	for _, f := range b.Subtasks {
		nothing[f.Subtask] = f.Source && f.Splits == 0
	}
	empty := make(map[int][]int)
	for i := range a.plan.Subtasks {
		if nothing[a.plan.Subtasks[i].Config.ID] {
			for _, targets := range a.plan.Subtasks[i].Targets {
				for _, to := range targets {
					empty[to.Subtask] = append(empty[to.Subtask], to.Channel)
				}
			}
		}
	}
	for _, s := range a.subs {
		if e := empty[s.index]; len(e) > 0 && len(e) < s.sub.Config.Channels {
			s.task.SetEmpty(e)
		}
		if b.Moved {
			s.task.SplitsMoved()
		}
	}
}

// connect opens a channel to a subtask on another agent.
func (a *attempt) connect(s *subtask, to runtime.Target) {
	w := a.x.p.W
	node := a.place(a.plan.Subtasks[to.Subtask].Config.ID)
	n := w.Node(node)
	if n == nil || !w.Linked(a.x.p.Node, n) {
		a.fail("the channels to agent "+string(node)+": not reached", node)
		return
	}
	q := n.P
	st := a.x.p.Open("channel", q)
	o := &outlet{s: s, to: to, stream: st}
	s.outs[to] = o
	a.peers = append(a.peers, st)
	st.At(0, func(m any) {
		switch m := m.(type) {
		case channelTaken:
			o.flight--
			s.wake()
		case channelRefused:
			a.fail("the channels to agent "+string(node)+": "+m.why, node)
		}
	}, func() {
		if !a.over && !a.ended && (!o.ended || o.flight > 0) {
			a.fail("the channels to agent "+string(node)+" broke", node)
		}
	})
	st.Send(0, channelHello{a.ref, to, s.index})
}

// accept takes a channel that another agent opened, if its attempt is the one
// that is here.
func (x *executor) accept(st *world.Stream, from mesh.NodeID, m any) {
	h, ok := m.(channelHello)
	if !ok {
		return
	}
	a := x.attempts[h.ref.Job]
	bug := x.p.W.Bugs.IgnoreToken
	if a == nil || a.over || !a.ready || a.ref != h.ref && !bug || a.at[h.to.Subtask] == nil {
		st.Send(1, channelRefused{fmt.Sprintf("attempt %d is not here", h.ref.Token.Attempt)})
		st.Close(1)
		return
	}
	in := &inlet{a: a, stream: st, to: h.to}
	s := a.at[h.to.Subtask]
	c := h.to.Channel
	for _, e := range s.sub.Config.Edges {
		if c < e.Channels {
			in.schema = e.Schema
			break
		}
		c -= e.Channels
	}
	s.in[h.to.Channel].inlet = in
	a.inlets[h.to] = in
	a.peers = append(a.peers, st)
	st.At(1, func(m any) { in.take(h.ref, m.(channelRows)) }, func() {
		if !a.over && !in.ended && !a.ended {
			a.fail("the channels from agent "+string(from)+" broke", from)
		}
	})
}

// take puts what came into the subtask's inbox.
func (in *inlet) take(ref coordinator.AttemptRef, c channelRows) {
	a := in.a
	if a.over {
		return
	}
	w := a.x.p.W
	a.x.p.Judge.Taken(a.x.p.ID, a.ref, ref)
	s := a.at[in.to.Subtask]
	m := runtime.Message{Barrier: c.barrier}
	if c.data != nil {
		b, err := batch.Decode(a.pool, in.schema, c.data)
		if err != nil {
			w.Fail(0, "a batch cannot be decoded: %v", err)
			return
		}
		m.Batch = b
		if w.Bugs.DropRows && w.Chance(20) {
			m.Batch = a.marksOnly(in.schema, b)
		}
		if w.Bugs.MarksFirst {
			for i := range b.Marks {
				b.Marks[i].Row = 0
			}
		}
	}
	in.ended = m.Batch == nil && m.Barrier == nil
	ch := &s.in[in.to.Channel]
	ch.queue = append(ch.queue, m)
	s.wake()
}

// taken: the subtask has taken a message, so there is room for another.
func (in *inlet) taken() { in.stream.Send(1, channelTaken{}) }

// trigger puts a barrier into the streams of the sources here.
func (a *attempt) trigger(b dataflow.Barrier) {
	a.x.p.Judge.Triggered(a.ref, b, a.x.p.Heard())
	for _, s := range a.subs {
		if s.sub.Config.Source != nil {
			s.trigger = &b
			s.wake()
		}
	}
	if a.x.p.W.Bugs.CommitEarly {
		a.after(50*ms, func() { a.completed(b.ID) })
	}
}

// completed: sinks commit.
func (a *attempt) completed(id dataflow.CheckpointID) {
	for _, s := range a.subs {
		s.complete = &id
		if s.finished {
			a.x.p.Post(func() { s.last() })
		}
		s.wake()
	}
	a.shares.completed()
}

// finish ends the sources.
func (a *attempt) finish() {
	for _, s := range a.subs {
		if s.sub.Config.Source != nil {
			s.stopping = true
			s.wake()
		}
	}
}

// done: a subtask has finished.
func (a *attempt) done() {
	if a.over || a.ended {
		return
	}
	for _, s := range a.subs {
		if !s.finished || s.complete != nil || len(s.ops) > 0 {
			return
		}
		for _, to := range s.sub.Targets {
			for _, t := range to {
				if o := s.outs[t]; o != nil && o.flight > 0 {
					a.after(20*ms, a.done)
					return
				}
			}
		}
	}
	a.ended = true
	a.x.say(worker.AttemptEvent{Ended: &coordinator.AttemptEnded{AttemptRef: a.ref}})
}

// marksOnly is a batch without its rows.
func (a *attempt) marksOnly(s *batch.Schema, b *batch.Batch) *batch.Batch {
	m := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	if n := len(b.Marks); n > 0 {
		m = b.Marks[n-1]
	}
	m.Row = 0
	return a.pool.MarksOnly(s, m)
}

// mayPublish tells whether a sink is here that nothing but the lease keeps from
// acting.
func (a *attempt) mayPublish() bool {
	return slices.ContainsFunc(a.subs, func(s *subtask) bool {
		return slices.ContainsFunc(s.writers, func(w sensors.Writer) bool { _, is := w.(*publisher); return is })
	})
}
