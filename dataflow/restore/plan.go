package restore

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Plan is the distribution of saved state over the subtasks of a job.
type Plan struct {
	MaxParallelism int // key groups of the job: the graph must have as many
	Operators      []OperatorPlan
}

// Operator finds an operator of the job; nil if nothing was saved for it.
func (p *Plan) Operator(id dataflow.OperatorID) *OperatorPlan {
	for i := range p.Operators {
		if p.Operators[i].ID == id {
			return &p.Operators[i]
		}
	}
	return nil
}

// OperatorPlan is what one operator gets back.
type OperatorPlan struct {
	ID        dataflow.OperatorID
	Saved     dataflow.OperatorID // the id it was saved under
	From, To  int                 // parallelism, saved and now
	Positions []manifest.Position // of a source, to be found by split name
	Tables    []TablePlan         // in the order of the job's tables; only those that were saved

	max int
}

// TablePlan is a table that was saved and is wanted.
type TablePlan struct {
	Table  operator.StateTable // as the job has it
	Saved  manifest.Table      // its Schema is the writer's
	Reader string              // Avro schema: parts are resolved to it (avro.Reader.ResolveTo)
	AsIs   bool                // the schemas are equal: no row changes
}

// Share is what a new subtask takes of one old subtask's rows of a table.
type Share struct {
	Old    int                // old subtask
	Parts  []manifest.PartUse // to be read and merged, in this order
	Groups *dataflow.KeyGroupRange
	// First and End bound the rows that are kept, counted from the beginning of
	// the merged shard; End is -1 for all that follow. With Groups, rows are
	// chosen by their key group instead.
	First, End int64
	max        int
	of         int  // how many groups the old subtask had
	whole      bool // Groups are all of them
}

// Of is about how many rows are kept of so many that the old subtask had.
func (s *Share) Of(rows int64) int64 {
	switch {
	case s.Groups != nil && !s.whole:
		return rows/int64(s.of)*int64(s.Groups.Last-s.Groups.First+1) + 1
	case s.Groups == nil && s.End >= 0:
		return min(rows, s.End-s.First)
	}
	return rows
}

// Counts tells how many rows the merged shard of a table has. Where no shard
// has a delta the manifest knows it, and Counts may be nil.
type Counts func(table string, old int) int64

// Shares are the old subtasks that subtask i reads of a table, ascending, and
// what it keeps. A table that was not saved has none.
func (o *OperatorPlan) Shares(table string, subtask int, rows Counts) []Share {
	for i := range o.Tables {
		t := &o.Tables[i]
		if t.Table.Name != table {
			continue
		}
		switch {
		case t.Table.Keyed:
			return o.keyed(t, subtask)
		case t.Table.Spread == operator.Union:
			return o.union(t)
		case t.Table.Spread == operator.Broadcast:
			return o.broadcast(t, subtask)
		}
		return o.split(i, subtask, rows)
	}
	return nil
}

// Filter selects, in place, the rows of b that the share keeps, and returns how
// many. b, which nobody else sees, is the piece of the merged shard that begins
// at row first; rows of keyed tables have their hashes.
func (s *Share) Filter(b *batch.Batch, first int64) int {
	if s.all() {
		return b.Len()
	}
	sel := b.OwnSel(b.Len())
	for k := range b.Len() {
		if i := b.Position(k); s.keeps(b, i, first+int64(k)) {
			sel = append(sel, int32(i))
		}
	}
	b.Sel = sel
	return len(sel)
}

// Whole tells whether the subtask keeps all that the old one had.
func (s *Share) Whole() bool { return s.all() }

// all tells whether every row is kept, as where nothing was rescaled.
func (s *Share) all() bool {
	if s.Groups != nil {
		return s.whole
	}
	return s.First == 0 && s.End < 0
}

func (s *Share) keeps(b *batch.Batch, i int, at int64) bool {
	if s.Groups != nil {
		return s.Groups.Contains(dataflow.KeyGroupOf(b.Hashes[i], s.max))
	}
	return at >= s.First && (s.End < 0 || at < s.End)
}
