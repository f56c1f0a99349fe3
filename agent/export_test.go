package agent

import (
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
)

// Store is the part of the folder that holds state.
func (s *State) Store() *durable.State { return s.store }

// Status is what each subtask has done so far, in the order of the execution
// graph.
func (l *Local) Status() []runtime.Status { return l.now().run.Status() }
