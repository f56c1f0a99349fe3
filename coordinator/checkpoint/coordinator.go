package checkpoint

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Config is what a Coordinator looks after. Times are those of the events.
type Config struct {
	Token      dataflow.FencingToken // of this attempt; no other attempt ever has it
	Interval   dataflow.Duration     // from one periodic checkpoint's start to the next one's; 0: none
	MinPause   dataflow.Duration     // at least so long from the end of one to the start of a periodic one
	Timeout    dataflow.Duration     // from the barrier until all shares are stored; 0: none
	Tolerable  int                   // consecutive failures
	Retain     int                   // completed checkpoints that are kept, at least 1
	Subtasks   []dataflow.SubtaskID  // each has its share of every checkpoint
	Sources    []dataflow.SubtaskID  // those that say when they are exhausted
	Committers []dataflow.SubtaskID  // those whose sinks say what they have committed
	Full       bool                  // the first barrier is Full: which deltas were lost nobody knows
	Whole      bool                  // the barriers of savepoints are Full, so that each share is one part
	Drained    bool                  // the attempt goes on from a checkpoint behind the end of a drained job's input: so are all of its own, and it ends as the drained one would have
	Kept       []string              // checkpoints of earlier attempts that are kept, oldest first
	Counter    uint64                // the greatest that a barrier of the attempt had before: this Coordinator goes on for another one
	Start      dataflow.Time
}

// maxRequests is how many savepoint requests may wait. Full: refused.
const maxRequests = 16

// retryFinal is how long after a failure the last checkpoint of a job that has
// read everything is tried again, at least.
const retryFinal = dataflow.Second

// A savepoint that is Short is tried again so often, and so long after: an agent
// that has just come is not seen by all others at once.
const (
	retriesShort = 10
	retryShort   = dataflow.Second
)

// phase is what a Coordinator is at.
//
//	idle        nothing is under way
//	collecting  the barrier of `current` was given to the sources; some shares are missing
//	writing     all shares are stored; the manifest is being written, and cannot be called off
//	settling    a checkpoint that is to be the job's last but one completed; its sinks are committing
//	ended       Stop or Fail was said; nothing follows
//
// and these transitions:
//
//	idle       --time, a request, all sources exhausted--> collecting
//	collecting --last share--> writing
//	collecting --failure, timeout--> idle; ended if a stop failed, or one too many
//	writing    --Written--> idle; settling for the first of the two of a stop; ended after the second
//	writing    --failure--> idle; ended if a stop failed, or one too many
//	settling   --all sinks have committed--> collecting the second
//
// A job ends with two checkpoints, because the first leaves rows that sinks have
// prepared and not committed. When they have committed them, a second at the
// same place finds none: it seals the job. Without sinks that commit, one is
// enough.
type phase uint8

const (
	idle phase = iota
	collecting
	writing
	settling
	ended
)

// purpose is why a checkpoint is taken.
type purpose uint8

const (
	periodic purpose = iota
	save             // a savepoint of a job that runs on
	stop             // a savepoint with which the job stops
	finish           // everything was read
)

// Coordinator decides for one attempt of a job. Not safe for concurrent use.
type Coordinator struct {
	cfg       Config
	phase     phase
	purpose   purpose
	request   queued // of save and stop
	asked     bool   // request has no answer yet
	sealing   bool   // current is the second of a stop's or finish's two
	wasAll    bool   // all sources were exhausted when the stop began
	current   dataflow.Barrier
	began     dataflow.Time // when current was triggered
	missing   map[dataflow.SubtaskID]bool
	counter   uint64
	full      bool // the next barrier must be Full: a Full one was not collected since a delta was lost
	tolerance tolerance
	next      dataflow.Time // when the next periodic checkpoint is due
	retry     dataflow.Time // not before this is a final checkpoint tried again
	running   map[dataflow.SubtaskID]bool
	committed map[dataflow.SubtaskID]uint64
	kept      []string
	queue     []queued
	held      dataflow.Time // the queue waits until then
	effects   []Effect
}

// queued is a request that waits.
type queued struct {
	Request
	tries int // it was Short so often
}

// New makes the coordinator of an attempt.
func New(cfg Config) *Coordinator {
	c := &Coordinator{
		cfg: cfg, full: cfg.Full, counter: cfg.Counter, tolerance: tolerance{most: cfg.Tolerable}, next: dataflow.MaxTime, retry: dataflow.MinTime, held: dataflow.MinTime,
		missing: make(map[dataflow.SubtaskID]bool), running: make(map[dataflow.SubtaskID]bool), committed: make(map[dataflow.SubtaskID]uint64),
		kept: append([]string(nil), cfg.Kept...),
	}
	for _, s := range cfg.Sources {
		c.running[s] = true
	}
	for _, s := range cfg.Committers {
		c.committed[s] = 0
	}
	if cfg.Interval > 0 {
		c.next = cfg.Start.Add(cfg.Interval)
	}
	return c
}

// Wake is when a Tick is wanted; MaxTime: not until something else happens.
func (c *Coordinator) Wake() dataflow.Time {
	switch {
	case c.phase == collecting && c.cfg.Timeout > 0:
		return c.began.Add(c.cfg.Timeout)
	case c.phase != idle:
		return dataflow.MaxTime
	}
	at := c.next
	if len(c.running) == 0 {
		at = c.retry
	}
	if len(c.queue) > 0 {
		at = min(at, c.held)
	}
	return at
}

// Step takes one event and returns its effects, valid until the next Step. See
// the package comment.
func (c *Coordinator) Step(e Event) []Effect {
	c.effects = c.effects[:0]
	if c.phase == ended {
		if e.Kind == Requested {
			c.answer(e.Request, dataflow.CheckpointID{}, ErrEnding)
		}
		return c.effects
	}
	switch e.Kind {
	case Tick:
		if c.phase == collecting && c.cfg.Timeout > 0 && e.Now >= c.began.Add(c.cfg.Timeout) {
			c.failed(e.Now, Expired, fmt.Errorf("%d of %d subtasks had their share stored after %s", len(c.cfg.Subtasks)-len(c.missing), len(c.cfg.Subtasks), c.cfg.Timeout))
		}
	case Requested:
		c.requested(e.Request)
	case Stored:
		c.stored(e)
	case Failed:
		c.full = c.full || e.Lost || e.Failure == Declined
		if (c.phase == collecting || c.phase == writing) && e.ID == c.current.ID {
			c.failed(e.Now, e.Failure, e.Err)
		} else if err := c.tolerance.failed(e.ID, e.Failure, e.Err); err != nil {
			c.end(Effect{Kind: Fail, Err: err})
		}
	case Written:
		if c.phase == writing && e.ID == c.current.ID {
			c.written(e.Now)
		}
	case Exhausted:
		delete(c.running, e.Subtask)
	case Wanted:
		c.next = min(c.next, e.Now)
	case Committed:
		if n, ok := c.committed[e.Subtask]; ok && e.ID.Token == c.cfg.Token {
			c.committed[e.Subtask] = max(n, e.ID.Counter)
		}
		if c.phase == settling && c.settled() {
			c.trigger(e.Now, true)
		}
	}
	if c.phase == idle {
		c.start(e.Now)
	}
	return c.effects
}

var (
	// ErrEnding is the answer to a request that comes, or waits, when the last checkpoint
	// is under way or there.
	ErrEnding = errors.New("the job is ending; its last checkpoint is where it can be started again")
	errFull   = fmt.Errorf("%d savepoints are waiting already; ask again when they are done", maxRequests)
)

// stopWaits tells whether a stop is in the queue.
func (c *Coordinator) stopWaits() bool {
	return slices.ContainsFunc(c.queue, func(q queued) bool { return q.Then != dataflow.GoOn })
}

func (c *Coordinator) requested(r Request) {
	switch {
	case c.phase != idle && c.purpose == stop || c.stopWaits() || c.phase != idle && c.sealing:
		c.answer(r, dataflow.CheckpointID{}, ErrEnding)
	case len(c.queue) == maxRequests && r.Then == dataflow.GoOn:
		c.answer(r, dataflow.CheckpointID{}, errFull)
	default: // there is always room for the one stop
		c.queue = append(c.queue, queued{Request: r})
		if r.Then != dataflow.GoOn { // it does not wait for what is tried again
			c.held = dataflow.MinTime
		}
	}
}

// start begins what is due; it is called when nothing is under way.
func (c *Coordinator) start(now dataflow.Time) {
	switch {
	case len(c.queue) > 0 && now >= c.held:
		c.request, c.queue, c.asked = c.queue[0], c.queue[1:], true
		c.purpose = save
		if c.request.Then != dataflow.GoOn {
			c.purpose, c.wasAll = stop, len(c.running) == 0
		}
		c.trigger(now, len(c.committed) == 0)
	case len(c.running) == 0 && now >= c.retry:
		c.purpose, c.request = finish, queued{}
		c.trigger(now, len(c.committed) == 0)
	case len(c.running) > 0 && now >= c.next:
		c.purpose = periodic
		c.trigger(now, false)
	}
}

// trigger sends a barrier on its way. With seal it is the job's last, if the job
// is to end.
func (c *Coordinator) trigger(now dataflow.Time, seal bool) {
	c.sealing = seal && (c.purpose == stop || c.purpose == finish)
	c.counter++
	whole := c.cfg.Whole && !c.request.Delta && c.saves()
	c.current = dataflow.Barrier{ID: dataflow.CheckpointID{Token: c.cfg.Token, Counter: c.counter}, Full: c.full || whole}
	if c.purpose == stop {
		c.current.Then = c.request.Then
	}
	c.phase, c.began = collecting, now
	for _, s := range c.cfg.Subtasks {
		c.missing[s] = true
	}
	c.put(Effect{Kind: Trigger, Barrier: c.current})
}

// saves tells whether current is to be a savepoint. A drained job ends with one
// also if the request was an earlier attempt's.
func (c *Coordinator) saves() bool {
	return c.purpose == save || c.sealing && (c.purpose == stop || c.cfg.Drained)
}

func (c *Coordinator) stored(e Event) {
	if c.phase != collecting || e.ID != c.current.ID {
		return // of one that was given up; its rows are in the chains
	}
	if delete(c.missing, e.Subtask); len(c.missing) > 0 {
		return
	}
	if c.current.Full {
		c.full = false
	}
	drained := c.cfg.Drained || c.purpose == stop && c.request.Then == dataflow.Drain && !c.wasAll
	c.phase = writing
	c.put(Effect{Kind: Write, ID: c.current.ID, What: What{
		Checkpoint: c.purpose != save, Savepoint: c.saves(), Drained: drained,
		Finished: c.sealing && (c.purpose == finish || c.wasAll || drained), Ref: c.request.Ref,
	}})
}

// written: the manifest is there, so the checkpoint counts.
func (c *Coordinator) written(now dataflow.Time) {
	id := c.current.ID
	c.tolerance.completed(id)
	c.after(now)
	if c.purpose != save {
		c.put(Effect{Kind: Complete, ID: id})
		c.keep(id)
	}
	switch {
	case c.purpose == save:
		c.phase = idle
		c.reply(id, nil)
	case c.sealing:
		if c.purpose == stop {
			c.reply(id, nil)
		}
		c.end(Effect{Kind: Stop})
	case c.purpose == periodic:
		c.phase = idle
	case c.settled():
		c.trigger(now, true)
	default:
		c.phase = settling
	}
}

// settled tells whether all sinks have committed what current holds.
func (c *Coordinator) settled() bool {
	for _, s := range c.cfg.Committers {
		if c.committed[s] < c.current.ID.Counter {
			return false
		}
	}
	return true
}

// keep adds a completed checkpoint and lets go what is too many.
func (c *Coordinator) keep(id dataflow.CheckpointID) {
	c.kept = append(c.kept, Name(id))
	for len(c.kept) > max(c.cfg.Retain, 1) {
		c.put(Effect{Kind: Release, Name: c.kept[0]})
		c.kept = c.kept[1:]
	}
}

// failed gives current up.
func (c *Coordinator) failed(now dataflow.Time, f Failure, cause error) {
	id := c.current.ID
	clear(c.missing)
	c.put(Effect{Kind: Abort, ID: id, Failure: f, Err: cause})
	c.after(now)
	c.phase = idle
	err := fmt.Errorf("savepoint not taken: %s: %w", f.Words(), cause)
	switch {
	case c.purpose == stop: // the sources have halted or ended: there is no way on but back
		c.reply(dataflow.CheckpointID{}, err)
		c.end(Effect{Kind: Fail, Err: fmt.Errorf("stop: %w", err)})
		return
	case c.purpose == save && f == Short && c.request.tries < retriesShort && !c.stopWaits():
		c.request.tries++
		c.queue, c.asked, c.held = slices.Insert(c.queue, 0, c.request), false, now.Add(retryShort)
		return
	case c.purpose == save:
		c.reply(dataflow.CheckpointID{}, err)
		if f == IO { // nothing is wrong with the job
			return
		}
	}
	if err := c.tolerance.failed(id, f, cause); err != nil {
		c.end(Effect{Kind: Fail, Err: err})
	}
}

// after sets when the next periodic checkpoint, or the next try of the last one,
// is due: current has ended at now.
func (c *Coordinator) after(now dataflow.Time) {
	if c.cfg.Interval > 0 {
		c.next = max(c.began.Add(c.cfg.Interval), now.Add(c.cfg.MinPause))
	}
	c.retry = now.Add(max(c.cfg.MinPause, retryFinal))
}

func (c *Coordinator) answer(r Request, id dataflow.CheckpointID, err error) {
	c.put(Effect{Kind: Answer, Ref: r.Ref, ID: id, Err: err})
}

// reply answers the request of current.
func (c *Coordinator) reply(id dataflow.CheckpointID, err error) {
	c.asked = false
	c.answer(c.request.Request, id, err)
}

// end says the last thing, and that nobody who waits will get what he waits for.
func (c *Coordinator) end(e Effect) {
	c.phase = ended
	if c.asked {
		c.reply(dataflow.CheckpointID{}, ErrEnding)
	}
	for _, r := range c.queue {
		c.answer(r.Request, dataflow.CheckpointID{}, ErrEnding)
	}
	c.queue = nil
	c.put(e)
}

func (c *Coordinator) put(e Effect) { c.effects = append(c.effects, e) }
