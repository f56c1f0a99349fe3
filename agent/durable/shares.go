package durable

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// SharesOptions are what Shares look after.
type SharesOptions struct {
	State       *State
	Tables      map[dataflow.SubtaskID][]runtime.TableOf // of the subtasks that run here
	Parallelism map[dataflow.OperatorID]int
	Base        *Base // that the subtasks are restored from; nil: their first snapshots go on from nothing

	// Post hands a function to the owner's goroutine; any goroutine calls it, and it
	// must not block. False: the owner has ended, and the function is not called.
	Post func(func()) bool
	// Stored is told each share in the owner's goroutine.
	Stored func(Stored)
	Events func(string) // what a person should know; must not block
}

// Shares is an agent's part in the checkpoints of one attempt: it stores what
// subtasks hand over at barriers, knows which parts on disk each one's state is
// made of, and merges them when they become many. What a checkpoint is made of
// its shares is decided elsewhere: Checkpointer in one process, a site's leader
// in a mesh.
//
// One goroutine, the owner, calls all methods. What is done in the background
// comes back to it through Post. Bounded by the barriers under way: one snapshot
// a subtask and barrier.
type Shares struct {
	o       SharesOptions
	schemas map[place]string // by operator and table, of subtask 0
	work    sync.WaitGroup
	quit    chan struct{} // closed by Quiet: merges stop
	quiet   bool

	chains    map[place]*chain
	base      map[dataflow.SubtaskID][]store.Part // of those that have no share yet
	storing   map[dataflow.SubtaskID][]*share     // the first is being stored
	positions map[dataflow.SubtaskID][]runtime.SplitPosition
	merging   *chain // nil: none
	lasts     bool   // a checkpoint has completed since that began
}

// Stored is what became of a subtask's share of a barrier.
type Stored struct {
	Subtask      dataflow.SubtaskID
	Barrier      dataflow.Barrier
	Pause, Align time.Duration
	Parts        int   // written for it
	Bytes        int64 // of them
	// Err is why there is none, and Failure what kind of failure that is. Rows are
	// gone then: nothing builds on the subtask's chains until a full snapshot.
	Err     error
	Failure checkpoint.Failure
}

// NewShares makes the shares of an attempt, of which nothing is on disk but the
// parts of its base.
func NewShares(o SharesOptions) *Shares {
	c := &Shares{
		o: o, quit: make(chan struct{}), schemas: make(map[place]string),
		chains: make(map[place]*chain), base: make(map[dataflow.SubtaskID][]store.Part), storing: make(map[dataflow.SubtaskID][]*share), positions: make(map[dataflow.SubtaskID][]runtime.SplitPosition),
	}
	for s, tables := range o.Tables {
		for _, t := range tables {
			c.chains[place{t.Operator, t.Name, s.Index}] = &chain{}
			c.schemas[place{t.Operator, t.Name, 0}] = avro.SchemaOf(t.Name, t.Schema, t.Keyed)
		}
		c.begin(o.Base, s, tables)
	}
	return c
}

// Take begins to store a subtask's share, unless an older one of it is being
// stored: chains grow in order.
func (c *Shares) Take(t runtime.SnapshotTaken) {
	if t.Err != nil {
		c.lose(t.Subtask)
		c.o.Stored(Stored{Subtask: t.Subtask, Barrier: t.Barrier, Failure: checkpoint.Declined, Err: fmt.Errorf("subtask %s: %w", t.Subtask, t.Err)})
		return
	}
	queue := append(c.storing[t.Subtask], &share{taken: t})
	c.storing[t.Subtask] = queue
	if len(queue) == 1 {
		c.storeNext(t.Subtask)
	}
}

func (c *Shares) storeNext(sub dataflow.SubtaskID) {
	queue := c.storing[sub]
	if len(queue) == 0 {
		return
	}
	s := queue[0]
	s.parts, s.base = c.partsOf(s), c.base[sub]
	delete(c.base, sub)
	c.work.Go(func() {
		c.store(s)
		if !c.o.Post(func() { c.stored(s) }) {
			c.letGo(s.parts)
		}
	})
}

// stored: a share is on disk, or lost.
func (c *Shares) stored(s *share) {
	sub := s.taken.Subtask
	c.storing[sub] = c.storing[sub][1:]
	e := Stored{Subtask: sub, Barrier: s.taken.Barrier, Pause: s.taken.Pause, Align: s.taken.Align}
	switch {
	case s.err != nil:
		c.lose(sub)
		e.Err = fmt.Errorf("subtask %s: %w", sub, s.err)
	case c.link(s):
		e.Err = fmt.Errorf("subtask %s: what changed before it is lost", sub)
	default:
		c.positions[sub] = s.taken.Positions
		for i := range s.parts {
			if u := s.parts[i].use; u.Rows > 0 {
				e.Bytes, e.Parts = e.Bytes+u.Size, e.Parts+1
			}
		}
	}
	if e.Err != nil {
		e.Failure = checkpoint.Async
	}
	c.o.Stored(e)
	c.storeNext(sub)
}

// Operators are a subtask's share of a manifest as it is on disk now: with its
// own positions and parts only (manifest.Share). It is for Stored: later on the
// next share may be in the chains.
func (c *Shares) Operators(sub dataflow.SubtaskID) (all []manifest.Operator) {
	at := func(op dataflow.OperatorID) *manifest.Operator {
		i := slices.IndexFunc(all, func(o manifest.Operator) bool { return o.ID == op })
		if i < 0 {
			i = len(all)
			all = append(all, manifest.Operator{ID: op, Parallelism: c.o.Parallelism[op]})
		}
		return &all[i]
	}
	for _, t := range c.o.Tables[sub] {
		o := at(t.Operator)
		table := manifest.Table{
			Name: t.Name, Schema: c.schemas[place{t.Operator, t.Name, 0}], Keyed: t.Keyed, Spread: uint8(t.Spread), Identity: t.Identity,
			Shards: make([]manifest.Shard, o.Parallelism),
		}
		for i := range table.Shards {
			table.Shards[i].Subtask = i
		}
		table.Shards[sub.Index].Parts = slices.Clone(c.chains[place{t.Operator, t.Name, sub.Index}].parts)
		o.Tables = append(o.Tables, table)
	}
	for _, p := range c.positions[sub] {
		o := at(p.Operator)
		o.Positions = append(o.Positions, manifest.Position{Split: p.Split, Offset: p.Offset, Ended: p.Ended})
	}
	for i := range all {
		p := all[i].Positions
		sort.Slice(p, func(i, j int) bool { return p[i].Split < p[j].Split })
	}
	return all
}

// Quiet ends merges and waits until nothing is being stored. Everything that was
// posted until then may still be heard; what it begins another Quiet waits for.
func (c *Shares) Quiet() {
	if !c.quiet {
		c.quiet = true
		close(c.quit)
	}
	c.work.Wait()
}

// Close gives back the parts that no manifest names. It comes after Quiet, when
// Post takes nothing any more.
func (c *Shares) Close() {
	for _, ch := range c.chains { // now a last manifest holds their parts itself
		for _, u := range ch.parts {
			c.o.State.parts.Unpin(u.Part)
		}
		ch.parts = nil
	}
}

// hold pins the parts of all chains: while a savepoint is made of them the chains
// may get others.
func (c *Shares) hold() []store.Part {
	var held []store.Part
	for _, ch := range c.chains {
		for _, u := range ch.parts {
			if err := c.o.State.parts.Pin(u.Part); err == nil { // one that is gone fails the merge
				held = append(held, u.Part)
			}
		}
	}
	return held
}

// The parts of a chain that is longer are merged into one: reading it back, and
// the manifests that name it, stay short.
const (
	longChain  = 16
	shortChain = 4  // long enough, where the deltas are as large as the first part
	mostParts  = 64 // then the next snapshot is a whole one

	// The same while checkpoints do not complete: what was merged stays on disk too then,
	// so that where little changes it is done less often.
	longOpen = 256
	mostOpen = 320
)

// TooLong tells whether a chain has so many parts that merging fails, or cannot
// keep up: the next barrier should be Full. One that became long while checkpoints did
// not complete may be so until its turn to be merged has come.
func (c *Shares) TooLong() bool {
	for _, ch := range c.chains {
		most := mostParts
		if ch.open && !ch.stuck {
			most = mostOpen
		}
		if len(ch.parts) >= most {
			return true
		}
	}
	return false
}

func (c *Shares) longest() (n int) {
	for _, ch := range c.chains {
		n = max(n, len(ch.parts))
	}
	return n
}

// Merge makes one part of the longest chain, in the background, one chain at a
// time. It is called after each checkpoint.
func (c *Shares) Merge() {
	if c.merging != nil && c.lasts {
		c.merging.stuck = true
	}
	c.mergeFrom(longChain)
	c.lasts = true
}

// MergeOpen is Merge for after a share whose checkpoint, and the one before it, have not
// completed: else chains would grow for as long as none does. Who calls it has pinned all
// parts of shares of which it is not known what became. It tells whether a chain is too
// long even so.
func (c *Shares) MergeOpen() (tooLong bool) {
	for _, ch := range c.chains {
		ch.open = ch.open || len(ch.parts) >= longChain
	}
	c.mergeFrom(longOpen)
	return c.longest() >= mostOpen
}

// mergeFrom merges a chain of so many parts, or a shorter one that is mostly deltas: that
// writes no more than they did.
func (c *Shares) mergeFrom(long int) {
	if c.merging != nil {
		return
	}
	var worst place
	most := 0
	for at, ch := range c.chains {
		if n := len(ch.parts); !ch.broken && (n >= long || n >= shortChain && deltas(ch.parts) >= ch.parts[0].Size) && (n > most || n == most && less(at, worst)) {
			worst, most = at, n
		}
	}
	if most == 0 {
		return
	}
	ch := c.chains[worst]
	parts := slices.Clone(ch.parts)
	for i, u := range parts { // the chain may be replaced meanwhile
		if err := c.o.State.parts.Pin(u.Part); err != nil {
			for _, pinned := range parts[:i] {
				c.o.State.parts.Unpin(pinned.Part)
			}
			c.notMerged(worst, len(parts), err)
			return
		}
	}
	c.merging, c.lasts = ch, false
	_, table := c.tableOf(worst)
	c.work.Go(func() {
		use, err := c.o.State.merge(table, parts, c.quit)
		for _, u := range parts {
			c.o.State.parts.Unpin(u.Part)
		}
		posted := c.o.Post(func() {
			c.merging = nil
			if errors.Is(err, errQuit) {
				return // of no account: the next attempt merges
			}
			if err != nil {
				c.notMerged(worst, len(parts), err)
				return
			}
			c.merged(worst, parts, use)
		})
		if !posted && err == nil {
			c.o.State.parts.Unpin(use.Part)
		}
	})
}

// notMerged: it is tried again after each share or checkpoint, and told once.
func (c *Shares) notMerged(at place, parts int, err error) {
	ch := c.chains[at]
	if !ch.told {
		c.o.Events(fmt.Sprintf("merging %d parts of state %q of operator %q failed; they stay as they are, and it is tried again: %v", parts, at.table, at.operator, err))
	}
	ch.stuck, ch.told = true, true
}

// tableOf is the table of a place, and the subtask that has it.
func (c *Shares) tableOf(at place) (dataflow.SubtaskID, operator.StateTable) {
	for s, tables := range c.o.Tables {
		for _, t := range tables {
			if s.Index == at.subtask && t.Operator == at.operator && t.Name == at.table {
				return s, t.StateTable
			}
		}
	}
	panic("durable: a chain of no table")
}

func deltas(parts []manifest.PartUse) (n int64) {
	for _, u := range parts[1:] {
		n += u.Size
	}
	return n
}

func less(a, b place) bool {
	return cmp.Or(cmp.Compare(a.operator, b.operator), cmp.Compare(a.table, b.table), cmp.Compare(a.subtask, b.subtask)) < 0
}

// merged puts the part that was made of the first of a chain in their place, if
// they are still there.
func (c *Shares) merged(at place, of []manifest.PartUse, use manifest.PartUse) {
	ch := c.chains[at]
	same := func(a, b manifest.PartUse) bool { return a.Digest == b.Digest }
	if len(ch.parts) < len(of) || !slices.EqualFunc(ch.parts[:len(of)], of, same) {
		c.o.State.parts.Unpin(use.Part)
		return
	}
	for _, u := range of {
		c.o.State.parts.Unpin(u.Part)
	}
	ch.parts, ch.open, ch.stuck, ch.told = slices.Replace(ch.parts, 0, len(of), use), false, false, false
	sub, _ := c.tableOf(at)
	// Before deltas it stays: they build on a whole part. One that is being stored may
	// be such a delta.
	if use.Rows == 0 && len(ch.parts) == 1 && len(c.storing[sub]) == 0 {
		c.o.State.parts.Unpin(use.Part)
		ch.parts = nil
	}
}
