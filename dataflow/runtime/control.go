package runtime

import (
	"context"
	"errors"
	"sync"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// control is what others tell a subtask. It keeps the latest of each kind, so it
// is bounded and telling never blocks; a barrier that no source has taken when
// the next one comes is given up, as gates do.
//
// Whoever waits in a subtask looks at what is there first and selects on wake
// then; a source blocked in Read has its context ended. So nothing is missed.
type control struct {
	mu      sync.Mutex // guards what follows
	orders  orders
	endRead context.CancelCauseFunc // ends the read at hand; nil: none is to be ended

	wake chan struct{} // 1: something may be there
}

// orders are what a subtask was told and has not done yet.
type orders struct {
	trigger   *dataflow.Barrier
	completed *dataflow.CheckpointID
	goOn      bool
	stop      bool
}

// errControl ends a read because the subtask was told something.
var errControl = errors.New("the subtask was told something")

func newControl() control { return control{wake: make(chan struct{}, 1)} }

// tell adds to the orders.
func (c *control) tell(f func(*orders)) {
	c.mu.Lock()
	f(&c.orders)
	end := c.endRead
	c.endRead = nil
	c.mu.Unlock()
	if end != nil {
		end(errControl)
	}
	signal(c.wake)
}

// any tells whether there is an order.
func (c *control) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.orders != orders{}
}

// take takes all orders.
func (c *control) take() orders {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.orders
	c.orders = orders{}
	return o
}

// takeCompleted takes only the checkpoint that completed.
func (c *control) takeCompleted() *dataflow.CheckpointID {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.orders.completed
	c.orders.completed = nil
	return id
}

// reading makes the next order end what end ends. It is false if there is an
// order already.
func (c *control) reading(end context.CancelCauseFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.orders != (orders{}) {
		return false
	}
	c.endRead = end
	return true
}

// Trigger begins a checkpoint: every source that runs here puts the barrier into its stream
// between two reads.
func (j *Job) Trigger(b dataflow.Barrier) {
	for _, d := range j.local {
		if d.sub.Config.Source != nil {
			d.control.tell(func(o *orders) { o.trigger = &b })
		}
	}
}

// Completed says that a checkpoint has completed: transactional sinks commit
// what it holds, and readers are told that it is safe.
func (j *Job) Completed(id dataflow.CheckpointID) {
	for _, d := range j.local {
		d.control.tell(func(o *orders) { o.completed = &id })
	}
}

// GoOn tells sources that halted behind a barrier to read on.
func (j *Job) GoOn() {
	for _, d := range j.local {
		if d.sub.Config.Source != nil {
			d.control.tell(func(o *orders) { o.goOn = true })
		}
	}
}

// Stop ends the sources that run here; Run returns when everything in flight has arrived.
// Windows that are still open do not fire. Sinks commit it, except that in a
// durable job transactional ones have committed what a checkpoint holds, and
// nothing else.
func (j *Job) Stop() {
	for _, d := range j.local {
		if d.sub.Config.Source != nil {
			d.control.tell(func(o *orders) { o.stop = true })
		}
	}
}
