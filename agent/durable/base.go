package durable

import (
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Base is what the first snapshots of an attempt go on from: the parts of the
// checkpoint that it was restored from, for those operators of which each subtask
// has the rows that it had (restore.OperatorPlan.Base). So a job that starts again
// where it was, or comes back, writes and sends only what changed. A nil Base has
// nothing.
//
// Two know of it, and the snapshot says what came of it: Shares, whose chains begin
// with the parts, and runtime.Options.GoesOn. A snapshot of an operator that was not
// told is whole (runtime.SnapshotTaken.Whole), and takes the place of the parts.
type Base struct {
	parts map[place][]manifest.PartUse
	ops   map[at]bool
}

// at is one subtask of an operator.
type at struct {
	operator dataflow.OperatorID
	subtask  int
}

// BaseOf is the base of an attempt that is restored as plan says; nil: it begins
// afresh.
func BaseOf(plan *restore.Plan, l Layout) *Base {
	b := &Base{parts: make(map[place][]manifest.PartUse), ops: make(map[at]bool)}
	if plan == nil {
		return b
	}
	for id, all := range l.Tables {
		own := make(map[dataflow.OperatorID][]operator.StateTable)
		for _, t := range all {
			own[t.Operator] = append(own[t.Operator], t.StateTable)
		}
		for op, tables := range own {
			o := plan.Operator(op)
			if o == nil {
				continue
			}
			parts, ok := o.Base(id.Index, tables)
			if !ok {
				continue
			}
			b.ops[at{op, id.Index}] = true
			for table, uses := range parts {
				b.parts[place{op, table, id.Index}] = uses
			}
		}
	}
	return b
}

// GoesOn is runtime.Options'.
func (b *Base) GoesOn(id dataflow.SubtaskID, op dataflow.OperatorID) bool {
	return b != nil && b.ops[at{op, id.Index}]
}

// begin puts the base's parts of a subtask's tables into its chains. A part that is
// gone makes the chain broken: the next share fails, and a full one comes.
func (c *Shares) begin(b *Base, id dataflow.SubtaskID, tables []runtime.TableOf) {
	if b == nil {
		return
	}
	for _, t := range tables {
		p := place{t.Operator, t.Name, id.Index}
		ch := c.chains[p]
		for _, u := range b.parts[p] {
			if err := c.o.State.parts.Pin(u.Part); err != nil {
				ch.broken = true
				c.o.Events(fmt.Sprintf("state %q of operator %q: %v", t.Name, t.Operator, err))
				break
			}
			ch.parts = append(ch.parts, u)
			c.base[id] = append(c.base[id], u.Part)
		}
		ch.parts = slices.Clip(ch.parts)
	}
}
