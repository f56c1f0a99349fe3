package restore

import (
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Base are the parts, by table, that subtask i of an operator had and has again:
// what it changes from here on can be written as deltas on them. ok is false where
// its first snapshot must be a whole one: if rows come from other subtasks or go to
// others, if they are read by another schema than they were written with, or if one
// of tables, all that the operator has now, has deltas and is not keyed. Of such a
// table everybody gets everybody's rows and forgets those of others, which would
// stay in its parts for ever. Tables whose snapshots hold all rows have no base.
func (o *OperatorPlan) Base(i int, tables []operator.StateTable) (base map[string][]manifest.PartUse, ok bool) {
	if o.From != o.To {
		return nil, false
	}
	base = make(map[string][]manifest.PartUse)
	for _, t := range tables {
		if t.Identity == 0 {
			continue
		}
		if !t.Keyed {
			return nil, false
		}
		p := o.table(t.Name)
		if p == nil {
			continue // it was not there: all its rows will have changed
		}
		if p.Saved.Schema != p.Reader || p.Saved.Schema != avro.SchemaOf(t.Name, t.Schema, t.Keyed) || p.Saved.Identity != t.Identity {
			return nil, false
		}
		for _, sh := range o.Shares(t.Name, i, nil) {
			if len(sh.Parts) == 0 {
				continue
			}
			if sh.Old != i || !sh.all() {
				return nil, false
			}
			base[t.Name] = sh.Parts
		}
	}
	return base, true
}

func (o *OperatorPlan) table(name string) *TablePlan {
	for i := range o.Tables {
		if o.Tables[i].Table.Name == name {
			return &o.Tables[i]
		}
	}
	return nil
}
