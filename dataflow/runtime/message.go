package runtime

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Message is what travels on a channel between two subtasks: a batch, a
// barrier, or, with neither, the end, behind which nothing comes.
type Message struct {
	Batch   *batch.Batch // others may hold it too: nobody changes it
	Barrier *dataflow.Barrier
}

// Channel is a channel between two subtasks of a plan.
type Channel struct {
	From   int    // the sending subtask, in Plan.Subtasks
	To     Target // its receiving end; no other channel has it
	Schema *batch.Schema
}

// Outlet is where a subtask sends what is for a subtask that is not run by this
// Job. It is bounded: full means that the sender waits, which is the
// back-pressure. Only the sending subtask calls it.
type Outlet interface {
	// Offer takes m, in order, and the reference of its batch, if there is room
	// (true). It must not block. An outlet that is not connected yet has no more
	// room than one that is full. One that is broken takes nothing, and whoever
	// made it has called Job.Fail.
	Offer(m Message) bool
	// Room has a token when there may be room again after an Offer that was
	// refused. It is the same channel at each call, and its buffer is 1.
	Room() <-chan struct{}
}

// Inlet is where whoever carries a channel from a subtask that is not run by
// this Job puts what came. One goroutine calls Offer.
type Inlet struct {
	job     *Job
	in      *inbox
	channel int
	schema  *batch.Schema
}

// Inlet is the receiving end of a channel whose sender runs elsewhere. It may be
// asked for, and offered to, from New on.
func (j *Job) Inlet(to Target) (*Inlet, error) {
	_, in := j.plan.Crossing()
	for _, c := range in {
		if c.To == to {
			return &Inlet{job: j, in: j.inboxes[to.Subtask], channel: to.Channel, schema: c.Schema}, nil
		}
	}
	return nil, fmt.Errorf("job %q has no channel from elsewhere to channel %d of subtask %d", j.plan.Job, to.Channel, to.Subtask)
}

// Offer takes m, and the reference of its batch, if there is room (true). It
// never blocks. A job that has ended takes everything and drops it.
func (i *Inlet) Offer(m Message) bool { return i.in.offer(i.channel, m) }

// Room has a token when there may be room again after an Offer that was refused.
func (i *Inlet) Room() <-chan struct{} { return i.in.channels[i.channel].room }

// Pool is where batches for Offer come from: their bytes count as the job's.
func (i *Inlet) Pool() *batch.Pool { return i.job.pool }

// Schema is that of the channel's batches.
func (i *Inlet) Schema() *batch.Schema { return i.schema }

// Keep marks the subtasks that this process is not to run as Remote.
func (p *Plan) Keep(local func(dataflow.SubtaskID) bool) {
	for i := range p.Subtasks {
		p.Subtasks[i].Remote = !local(p.Subtasks[i].Config.ID)
	}
}

// Crossing are the channels with one end here and one elsewhere: those out of
// local subtasks, and those into them, each in the order of the plan. Who is at
// the other end sees the same ones.
func (p *Plan) Crossing() (out, in []Channel) {
	for i := range p.Subtasks {
		from := &p.Subtasks[i]
		for _, targets := range from.Targets {
			for _, to := range targets {
				c := Channel{From: i, To: to, Schema: p.schema(to)}
				switch remote := p.Subtasks[to.Subtask].Remote; {
				case !from.Remote && remote:
					out = append(out, c)
				case from.Remote && !remote:
					in = append(in, c)
				}
			}
		}
	}
	return out, in
}

// schema is that of what comes on a channel; nil: its edge is not known.
func (p *Plan) schema(to Target) *batch.Schema {
	c := to.Channel
	for _, e := range p.Subtasks[to.Subtask].Config.Edges {
		if c < e.Channels {
			return e.Schema
		}
		c -= e.Channels
	}
	return nil
}
