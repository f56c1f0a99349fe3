// Package graph owns the three pictures of a job: the stream graph (what the
// user wrote), the job graph (operators joined into chains) and the execution
// graph (chains split into subtasks, with their channels and key groups), and
// the texts that show them.
//
// It runs nothing and knows no YAML; dataflow/job makes stream graphs from
// YAML, Builder makes them in code, dataflow/task makes running chains from job
// graphs. Read stream.go, jobgraph.go, execution.go in this order.
package graph
