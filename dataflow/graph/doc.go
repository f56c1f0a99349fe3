// Package graph owns the three pictures of a job: the stream graph (what the
// user wrote), the job graph (operators joined into chains) and the execution
// graph (chains split into subtasks, with their channels and key groups).
//
// It runs nothing and knows no YAML; dataflow/job makes stream graphs from
// YAML, dataflow/task makes running chains from job graphs.
package graph
