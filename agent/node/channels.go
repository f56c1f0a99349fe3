package node

import (
	"context"
	"fmt"
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/channel"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// channels are the attempts of this agent whose parts of jobs other agents may
// send to: executor.Channels over agent/channel.
type channels struct {
	net    channel.Opener
	ctx    context.Context // of the handler of streams
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows
	joined  map[coordinator.JobID]*joined
	changed chan struct{} // closed, and made anew, when an attempt joined
}

var (
	_ executor.Channels = (*channels)(nil)
	_ channel.Receiver  = (*channels)(nil)
)

func newChannels(net channel.Opener) *channels {
	c := &channels{net: net, joined: make(map[coordinator.JobID]*joined), changed: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// joined is an attempt on this agent.
type joined struct {
	all    *channels
	ref    coordinator.AttemptRef
	job    *runtime.Job
	plan   *runtime.Plan
	places map[dataflow.SubtaskID]mesh.NodeID
	index  map[dataflow.SubtaskID]int // in the plan
	lost   func(mesh.NodeID, error)
	sender *channel.Sender
	ctx    context.Context // ends with the attempt
	end    context.CancelFunc

	mu    sync.Mutex // guards taken
	taken map[runtime.Target]bool
}

// Join is executor.Channels'.
func (c *channels) Join(ref coordinator.AttemptRef, j *runtime.Job, p *runtime.Plan, places []coordinator.Place, lost func(mesh.NodeID, error)) (executor.Joined, error) {
	a := &joined{
		all: c, ref: ref, job: j, plan: p, lost: lost, sender: channel.NewSender(c.net, lost), taken: make(map[runtime.Target]bool),
		places: make(map[dataflow.SubtaskID]mesh.NodeID), index: make(map[dataflow.SubtaskID]int),
	}
	a.ctx, a.end = context.WithCancel(c.ctx)
	for _, at := range places {
		a.places[at.Subtask] = at.Node
	}
	for i := range p.Subtasks {
		a.index[p.Subtasks[i].Config.ID] = i
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined[ref.Job] = a
	close(c.changed)
	c.changed = make(chan struct{})
	return a, nil
}

// Outlet is executor.Joined's.
func (a *joined) Outlet(ch runtime.Channel) (runtime.Outlet, error) {
	from, to := a.plan.Subtasks[ch.From].Config.ID, a.plan.Subtasks[ch.To.Subtask].Config.ID
	node, ok := a.places[to]
	if !ok {
		return nil, fmt.Errorf("job %s: subtask %s is placed nowhere", a.ref.Job, to)
	}
	return a.sender.Outlet(node, channel.Hello{
		Job: string(a.ref.Job), Token: a.ref.Token, From: from, To: to, Channel: ch.To.Channel, Schema: channel.SchemaDigest(ch.Schema),
	}), nil
}

// Flush is executor.Joined's.
func (a *joined) Flush() error { return a.sender.Drain(a.ctx) }

// Close is executor.Joined's.
func (a *joined) Close() error {
	a.all.mu.Lock()
	if a.all.joined[a.ref.Job] == a {
		delete(a.all.joined, a.ref.Job)
	}
	a.all.mu.Unlock()
	a.end()
	a.sender.Close()
	return nil
}

// Accept is channel.Receiver's: it waits for an attempt that is being prepared.
func (c *channels) Accept(ctx context.Context, from mesh.NodeID, h channel.Hello) (channel.Accepted, error) {
	for {
		c.mu.Lock()
		a, changed := c.joined[coordinator.JobID(h.Job)], c.changed
		c.mu.Unlock()
		if a != nil && h.Token.Less(a.ref.Token) {
			return channel.Accepted{}, &channel.Refusal{Reason: channel.Fenced, Why: fmt.Sprintf("%s: attempt %d of the job runs here", h, a.ref.Token.Attempt)}
		}
		if a != nil && a.ref.Token == h.Token {
			return a.accept(from, h)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return channel.Accepted{}, &channel.Refusal{Reason: channel.NoAttempt, Why: fmt.Sprintf("%s: the attempt is not here", h)}
		}
	}
}

func (a *joined) accept(from mesh.NodeID, h channel.Hello) (channel.Accepted, error) {
	refuse := func(why string) (channel.Accepted, error) {
		return channel.Accepted{}, &channel.Refusal{Reason: channel.NoChannel, Why: fmt.Sprintf("%s: %s", h, why)}
	}
	to, ok := a.index[h.To]
	if !ok || a.places[h.To] != a.self(to) {
		return refuse("the subtask does not run here")
	}
	if a.places[h.From] != from {
		return refuse(fmt.Sprintf("the sending subtask does not run on %s", from))
	}
	target := runtime.Target{Subtask: to, Channel: h.Channel}
	if !a.leads(h.From, target) {
		return refuse("the sending subtask has no such channel")
	}
	in, err := a.job.Inlet(target)
	if err != nil {
		return refuse(err.Error())
	}
	a.mu.Lock()
	twice := a.taken[target]
	a.taken[target] = true
	a.mu.Unlock()
	if twice {
		return refuse("it has been opened before")
	}
	return channel.Accepted{Inlet: in, Attempt: a.ctx, Failed: func(err error) { a.lost(from, err) }}, nil
}

// self is where a subtask is placed, if this agent runs it.
func (a *joined) self(i int) mesh.NodeID {
	if a.plan.Subtasks[i].Remote {
		return ""
	}
	return a.places[a.plan.Subtasks[i].Config.ID]
}

// leads tells whether a channel of the plan leads from a subtask to a target.
func (a *joined) leads(from dataflow.SubtaskID, to runtime.Target) bool {
	_, in := a.plan.Crossing()
	for _, c := range in {
		if c.To == to {
			return a.plan.Subtasks[c.From].Config.ID == from
		}
	}
	return false
}
