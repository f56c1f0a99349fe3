package durable

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// write writes the manifest of a checkpoint of which all shares are on disk.
func (c *Checkpointer) write(id dataflow.CheckpointID, what checkpoint.What) {
	m := c.manifest(id, what)
	savepoint := m
	if what.Savepoint {
		savepoint.Kind, savepoint.Name = manifest.Savepoint, newSavepointName()
		c.began[id.Counter].savepoint = savepoint.Name
	}
	c.outcome = Outcome{Finished: what.Finished, Drained: what.Drained, Checkpoint: m.Name, Savepoint: c.began[id.Counter].savepoint, Commits: what.Checkpoint}
	var held []store.Part
	if what.Savepoint {
		held = c.hold()
	}
	c.jobs <- func() {
		var mergers []merger
		var err, unsaved error
		if what.Savepoint {
			mergers, err = c.whole(m)
			c.state.parts.Unpin(held...)
		}
		if err != nil && what.Checkpoint { // its last checkpoint stands without
			what.Savepoint, unsaved, err = false, err, nil
		}
		if err == nil {
			err = c.publish(m, savepoint, what)
		}
		posted := c.post(func() {
			for _, one := range mergers {
				if p := c.began[id.Counter]; p != nil {
					p.delta, p.parts = p.delta+one.use.Size, p.parts+1
				}
				c.merged(one.at, one.of, one.use)
			}
			if unsaved != nil {
				c.began[id.Counter].unsaved, c.began[id.Counter].savepoint, c.outcome.Savepoint = unsaved, "", ""
			}
			e := checkpoint.Event{Kind: checkpoint.Written, ID: id}
			if err != nil {
				e.Kind, e.Failure, e.Err = checkpoint.Failed, checkpoint.IO, err
			}
			c.step(e)
		})
		if !posted {
			for _, one := range mergers {
				c.state.parts.Unpin(one.use.Part)
			}
		}
	}
}

// hold pins the parts of all chains: while a savepoint is made of them the chains
// may get others.
func (c *Checkpointer) hold() []store.Part {
	var held []store.Part
	for _, ch := range c.chains {
		for _, u := range ch.parts {
			if err := c.state.parts.Pin(u.Part); err == nil { // one that is gone fails the merge
				held = append(held, u.Part)
			}
		}
	}
	return held
}

// whole makes one part of each chain that a savepoint has, as a savepoint stands
// alone, and puts them in m. It is bounded by what is left of the checkpoint's time.
func (c *Checkpointer) whole(m manifest.Manifest) (done []merger, err error) {
	stop, ended := make(chan struct{}), make(chan struct{})
	defer close(ended)
	var late <-chan time.Time
	if c.o.Config.Timeout > 0 {
		late = c.o.Clock.After(max(0, c.o.Config.Timeout-m.Took))
	}
	var why error // set before stop is closed
	go func() {
		select {
		case <-ended:
			return
		case <-c.quit:
			why = errQuit
		case <-late:
			why = fmt.Errorf("it took longer than %v", c.o.Config.Timeout)
		}
		close(stop)
	}()
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for i := range t.Shards {
				sh := &t.Shards[i]
				if len(sh.Parts) < 2 {
					continue
				}
				one, err := c.wholeShard(place{o.ID, t.Name, sh.Subtask}, sh, stop)
				if errors.Is(err, errQuit) {
					err = why
				}
				if err != nil {
					return done, fmt.Errorf("merging %d parts of state %q of operator %q: %w", len(sh.Parts), t.Name, o.ID, err)
				}
				done = append(done, one)
			}
		}
	}
	return done, nil
}

func (c *Checkpointer) wholeShard(at place, sh *manifest.Shard, stop <-chan struct{}) (merger, error) {
	of := sh.Parts
	use, err := c.state.merge(c.tableOf(at), of, stop)
	if err != nil {
		return merger{}, err
	}
	sh.Parts = nil
	if use.Rows > 0 {
		sh.Parts = []manifest.PartUse{use}
	}
	return merger{at, of, use}, nil
}

// merger is a chain and the part that was made of it, which is pinned.
type merger struct {
	at  place
	of  []manifest.PartUse
	use manifest.PartUse
}

// publish makes the manifests visible: first a savepoint's, so that a job that
// says it stopped has one.
func (c *Checkpointer) publish(m, savepoint manifest.Manifest, what checkpoint.What) error {
	keep := func(m *manifest.Manifest) error {
		if c.o.Keep == nil {
			return nil
		}
		return c.o.Keep(m)
	}
	if what.Savepoint {
		err := c.state.Still(func() error {
			if err := keep(&savepoint); err != nil {
				return err
			}
			return c.state.savepoints.Put(savepoint)
		})
		if err != nil {
			return err
		}
	}
	if !what.Checkpoint {
		return nil
	}
	if err := keep(&m); err != nil {
		return err
	}
	return c.job.checkpoints.Put(m)
}

// newSavepointName is a name that nobody has. It is short enough to be typed.
func newSavepointName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "sp-" + hex.EncodeToString(b[:])
}

// manifest is what is on disk now. No share of a later barrier is in the chains,
// as none is triggered before this one is written.
func (c *Checkpointer) manifest(id dataflow.CheckpointID, what checkpoint.What) manifest.Manifest {
	m := manifest.Manifest{
		Kind: manifest.Checkpoint, Name: checkpoint.Name(id), Job: c.job.name, ID: id, Created: c.o.Clock.Now(), Took: c.took(id), MaxParallelism: c.o.MaxParallelism,
		Mode: manifest.ExactlyOnce, Drained: what.Drained, Finished: what.Finished,
	}
	if c.o.AtLeastOnce {
		m.Mode = manifest.AtLeastOnce
	}
	at := make(map[dataflow.OperatorID]int)
	operatorOf := func(op dataflow.OperatorID) *manifest.Operator {
		i, ok := at[op]
		if !ok {
			i = len(m.Operators)
			at[op] = i
			m.Operators = append(m.Operators, manifest.Operator{ID: op, Parallelism: c.o.Parallelism[op]})
		}
		return &m.Operators[i]
	}
	subtasks := c.o.Config.Subtasks
	for _, sub := range subtasks {
		for _, t := range c.tables[sub] {
			o := operatorOf(t.Operator)
			i := slices.IndexFunc(o.Tables, func(x manifest.Table) bool { return x.Name == t.Name })
			if i < 0 {
				i = len(o.Tables)
				o.Tables = append(o.Tables, manifest.Table{
					Name: t.Name, Schema: avro.SchemaOf(t.Name, t.Schema, t.Keyed), Keyed: t.Keyed, Spread: uint8(t.Spread), Identity: t.Identity,
				})
			}
			parts := slices.Clone(c.chains[place{t.Operator, t.Name, sub.Index}].parts)
			o.Tables[i].Shards = append(o.Tables[i].Shards, manifest.Shard{Subtask: sub.Index, Parts: parts})
		}
		for _, p := range c.positions[sub] {
			o := operatorOf(p.Operator)
			o.Positions = append(o.Positions, manifest.Position{Split: p.Split, Offset: p.Offset, Ended: p.Ended || what.Drained})
		}
	}
	for i := range m.Operators {
		slices.SortFunc(m.Operators[i].Positions, func(a, b manifest.Position) int { return cmp.Compare(a.Split, b.Split) })
	}
	return m
}

// took is how long a checkpoint took so far.
func (c *Checkpointer) took(id dataflow.CheckpointID) dataflow.Duration {
	if p := c.began[id.Counter]; p != nil {
		return max(0, dataflow.Duration(c.now()-p.began))
	}
	return 0
}

// The parts of a chain that is longer are merged into one: reading it back, and
// the manifests that name it, stay short.
const (
	longChain  = 16
	shortChain = 4  // long enough, where the deltas are as large as the first part
	mostParts  = 64 // then the next snapshot is a whole one
)

// merge makes one part of the longest chain, in the background, one chain at a
// time.
func (c *Checkpointer) merge() {
	if c.merging {
		return
	}
	var worst place
	most := 0
	for at, ch := range c.chains {
		if n := len(ch.parts); !ch.broken && (n >= longChain || n >= shortChain && deltas(ch.parts) >= ch.parts[0].Size) && (n > most || n == most && less(at, worst)) {
			worst, most = at, n
		}
	}
	if most == 0 {
		return
	}
	parts := slices.Clone(c.chains[worst].parts)
	for _, u := range parts { // the chain may be replaced meanwhile
		if err := c.state.parts.Pin(u.Part); err != nil {
			c.o.Events(fmt.Sprintf("state %q of operator %q: %v", worst.table, worst.operator, err))
			return
		}
	}
	c.merging = true
	table := c.tableOf(worst)
	c.work.Go(func() {
		use, err := c.state.merge(table, parts, c.quit)
		for _, u := range parts {
			c.state.parts.Unpin(u.Part)
		}
		posted := c.post(func() {
			c.merging = false
			if errors.Is(err, errQuit) {
				return // of no account: the next attempt merges
			}
			if err != nil {
				c.o.Events(fmt.Sprintf("merging %d parts of state %q of operator %q failed; they stay as they are: %v", len(parts), worst.table, worst.operator, err))
				return
			}
			c.merged(worst, parts, use)
		})
		if !posted && err == nil {
			c.state.parts.Unpin(use.Part)
		}
	})
}

// tableOf is the table of a place.
func (c *Checkpointer) tableOf(at place) operator.StateTable {
	for s, tables := range c.tables {
		for _, t := range tables {
			if s.Index == at.subtask && t.Operator == at.operator && t.Name == at.table {
				return t.StateTable
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
func (c *Checkpointer) merged(at place, of []manifest.PartUse, use manifest.PartUse) {
	ch := c.chains[at]
	same := func(a, b manifest.PartUse) bool { return a.Digest == b.Digest }
	if len(ch.parts) < len(of) || !slices.EqualFunc(ch.parts[:len(of)], of, same) {
		c.state.parts.Unpin(use.Part)
		return
	}
	for _, u := range of {
		c.state.parts.Unpin(u.Part)
	}
	ch.parts = slices.Replace(ch.parts, 0, len(of), use)
	if use.Rows == 0 && len(ch.parts) == 1 { // before deltas it stays: they build on a whole part
		c.state.parts.Unpin(use.Part)
		ch.parts = nil
	}
}
