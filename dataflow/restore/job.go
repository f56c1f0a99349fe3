package restore

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Job is what is to be restored.
type Job struct {
	Name           string
	MaxParallelism int  // key groups it would have by itself
	Named          bool // the job says max_parallelism: then it must be what was saved
	Operators      []Operator
}

// Operator is one operator of the job, with state or without.
type Operator struct {
	ID          dataflow.OperatorID
	Was         dataflow.OperatorID // its id when the state was saved, if the job says so
	Role        graph.Role
	Parallelism int
	Tables      []Table // of its own and those the task keeps at its place
}

// Table is a table of an operator's state.
type Table struct {
	operator.StateTable
	// Avro is the schema to read it with; empty: that of its columns, in which
	// one that was not saved is null. Its own gives other defaults, or aliases.
	Avro string
}

// reader is the schema that the job reads the table with.
func (t *Table) reader() string {
	if t.Avro != "" {
		return t.Avro
	}
	return avro.SchemaOf(t.Name, t.Schema, t.Keyed)
}

// JobOf is a stream graph as something to be restored. tables names the tables
// that the subtasks of an operator have.
func JobOf(g *graph.StreamGraph, tables func(dataflow.OperatorID) []operator.StateTable) Job {
	j := Job{Name: g.Job, MaxParallelism: g.MaxParallelism, Named: g.MaxNamed}
	for _, n := range g.Nodes {
		o := Operator{ID: n.ID, Was: n.Was, Role: n.Role, Parallelism: n.Parallelism}
		for _, t := range tables(n.ID) {
			o.Tables = append(o.Tables, Table{StateTable: t})
		}
		j.Operators = append(j.Operators, o)
	}
	return j
}
