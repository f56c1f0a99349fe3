// Package job owns the YAML job: it parses it, checks everything in it at once,
// and makes the stream graph and the specs of its connectors.
//
// It never opens a file, a broker or an environment variable: it is given text,
// and secrets stay references until a connector resolves them. It runs nothing.
// Load is the one door in; the keys are described in docs/JOBS.md. What the
// graph is for is in dataflow/graph; what steps become in dataflow/operator and
// dataflow/window.
//
// It is large because every key has its check and its hint for people, and all
// findings of a job are told at once.
package job
