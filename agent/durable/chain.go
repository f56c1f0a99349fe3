package durable

import (
	"fmt"
	"io"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// place is one subtask's share of a table.
type place struct {
	operator dataflow.OperatorID
	table    string
	subtask  int
}

// chain is what is on disk of a place: a first part, then what changed. It begins
// with the parts that the place was restored from, where the first snapshot goes on
// from them (Base). The parts are pinned for as long as they are in it.
type chain struct {
	parts  []manifest.PartUse
	broken bool // a delta is lost: what comes after it builds on nothing, until a whole one comes
	open   bool // it became long while checkpoints did not complete, and has not been merged since
	stuck  bool // merging it failed, or did not end between two checkpoints that completed, and it has not been merged since
	told   bool // that it failed, since it was last merged
}

// share is one subtask's share of a checkpoint on its way to the disk.
type share struct {
	taken runtime.SnapshotTaken
	parts []sharePart  // of all tables of the subtask, in their order
	base  []store.Part // that it goes on from, if it is the first: a process that was killed may have left their names not durable
	err   error
}

// sharePart is the part of one table; without rows there is none.
type sharePart struct {
	table operator.StateTable
	place place
	use   manifest.PartUse
	whole bool // it replaces the chain
	first bool // it begins the chain: what it removes was never there
}

// partsOf are the parts that a share is going to have.
func (c *Shares) partsOf(s *share) []sharePart {
	var parts []sharePart
	for _, tab := range c.o.Tables[s.taken.Subtask] {
		p := sharePart{table: tab.StateTable, place: place{tab.Operator, tab.Name, s.taken.Subtask.Index}, whole: s.whole(tab)}
		p.first = !p.whole && len(c.chains[p.place].parts) == 0
		p.use.Delta = !p.whole && !p.first
		parts = append(parts, p)
	}
	return parts
}

// whole tells whether a share holds all rows of a table.
func (s *share) whole(t runtime.TableOf) bool {
	return s.taken.Barrier.Full || t.Identity == 0 || slices.Contains(s.taken.Whole, t.Operator)
}

// sort gives each part of a share its rows.
func (s *share) sort() ([][]*batch.Batch, error) {
	rows := make([][]*batch.Batch, len(s.parts))
	for _, r := range s.taken.State {
		i := slices.IndexFunc(s.parts, func(p sharePart) bool { return p.place.operator == r.Operator && p.place.table == r.Table })
		if i < 0 {
			return nil, fmt.Errorf("operator %q put out rows of state %q, which it does not name", r.Operator, r.Table)
		}
		rows[i] = append(rows[i], r.Batch)
	}
	return rows, nil
}

// store writes a share's parts. It runs in a goroutine of its own and owns the
// share until then.
func (c *Shares) store(s *share) {
	defer func() {
		for _, r := range s.taken.State {
			r.Batch.Release()
		}
		s.taken.State = nil
	}()
	if s.err = c.o.State.parts.Settle(s.base...); s.err != nil {
		return
	}
	rows, err := s.sort()
	if err != nil {
		s.err = err
		return
	}
	var writes []func(io.Writer) error
	var at []int
	for i := range s.parts {
		if len(rows[i]) > 0 {
			writes = append(writes, func(w io.Writer) error { return s.parts[i].write(w, rows[i]) })
			at = append(at, i)
		}
	}
	if len(writes) == 0 {
		return
	}
	parts, err := c.o.State.parts.PutAll(writes)
	for k, i := range at {
		if err != nil {
			s.parts[i].use.Rows = 0
			continue
		}
		s.parts[i].use.Part = parts[k]
		if s.parts[i].use.Rows == 0 { // all that it had was removed before it was ever saved
			c.o.State.parts.Unpin(parts[k])
		}
	}
	s.err = err
}

// write makes the part of a table.
func (p *sharePart) write(w io.Writer, rows []*batch.Batch) error {
	aw := avro.NewWriter(w, avro.Header{Table: p.table.Name, Schema: p.table.Schema, Keyed: p.table.Keyed, Delta: p.use.Delta})
	for _, b := range rows {
		if err := p.append(aw, b); err != nil {
			return fmt.Errorf("state %q of operator %q: %w", p.place.table, p.place.operator, err)
		}
	}
	p.use.Rows = aw.Rows()
	return aw.Close()
}

func (p *sharePart) append(w *avro.Writer, b *batch.Batch) error {
	if !p.first {
		return w.Append(b)
	}
	v := present(b)
	defer v.Release()
	return w.Append(v)
}

// present is b without the rows that are removed. The caller owns the reference.
func present(b *batch.Batch) *batch.Batch {
	v := b.Pool().DeriveAll(b)
	if b.Kinds == nil {
		return v
	}
	sel := v.OwnSel(b.Len())
	for k := range b.Len() {
		if i := b.Position(k); b.Kinds[i] != batch.Delete {
			sel = append(sel, int32(i))
		}
	}
	v.Sel, v.Kinds = sel, nil
	return v
}

// letGo gives back parts that are in no chain.
func (c *Shares) letGo(parts []sharePart) {
	for i := range parts {
		if parts[i].use.Rows > 0 {
			c.o.State.parts.Unpin(parts[i].use.Part)
		}
	}
}

// link adds a stored share to the chains. broken: part of it builds on what is
// lost, so that no checkpoint can be made of it.
func (c *Shares) link(s *share) (broken bool) {
	for i := range s.parts {
		p := &s.parts[i]
		ch := c.chains[p.place]
		if p.whole {
			for _, u := range ch.parts {
				c.o.State.parts.Unpin(u.Part)
			}
			ch.parts, ch.broken, ch.open, ch.stuck, ch.told = nil, false, false, false, false
		}
		if p.use.Rows > 0 {
			ch.parts = append(ch.parts, p.use)
		}
		broken = broken || ch.broken
	}
	return broken
}

// lose notes that a share is gone for good.
func (c *Shares) lose(sub dataflow.SubtaskID) {
	for _, t := range c.o.Tables[sub] {
		c.chains[place{t.Operator, t.Name, sub.Index}].broken = true
	}
}
