// Package agent wires: it turns a checked job into connectors, tasks and a
// running job in this process. It is the only place where drivers of different
// folders meet.
//
// It decides nothing about rows; it opens what a job names, starts things in
// order and stops them in reverse. Read local.go; connectors are made in agent/connect.
package agent
