package durable

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
)

// Layout is where the operators of a job run.
type Layout struct {
	Subtasks    []dataflow.SubtaskID
	Sources     []dataflow.SubtaskID
	Tables      map[dataflow.SubtaskID][]runtime.TableOf // in the order in which they are restored
	Parallelism map[dataflow.OperatorID]int
}

// LayoutOf puts the tables of a job's operators where its execution graph has
// them.
func LayoutOf(x *graph.ExecutionGraph, tables []runtime.TableOf) Layout {
	l := Layout{Tables: make(map[dataflow.SubtaskID][]runtime.TableOf), Parallelism: make(map[dataflow.OperatorID]int)}
	for i := range x.Subtasks {
		st := &x.Subtasks[i]
		l.Subtasks = append(l.Subtasks, st.ID)
		if st.Task.Head().Role == graph.SourceNode {
			l.Sources = append(l.Sources, st.ID)
		}
		at := make(map[dataflow.OperatorID]bool)
		for _, link := range st.Task.Links {
			l.Parallelism[link.Node.ID] = st.Task.Parallelism
			at[link.Node.ID] = true
		}
		for _, t := range tables {
			if at[t.Operator] {
				l.Tables[st.ID] = append(l.Tables[st.ID], t)
			}
		}
	}
	return l
}

// TablesOf are the tables of one operator.
func TablesOf(tables []runtime.TableOf) func(dataflow.OperatorID) []operator.StateTable {
	return func(id dataflow.OperatorID) []operator.StateTable {
		var own []operator.StateTable
		for _, t := range tables {
			if t.Operator == id {
				own = append(own, t.StateTable)
			}
		}
		return own
	}
}
