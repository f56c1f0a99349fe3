// Package node is the agent as a daemon: it builds everything, starts it in
// order, and stops it in reverse; and it drives the machines that decide: office
// the leader's, hands the agent's own, replica the site's.
//
// It decides nothing about jobs, feeds or snapshots: coordinator/leader,
// coordinator/worker and coordinator/jobmanager do, and it performs what they
// say. It knows no rows. Read node.go for the life of an agent, wiring.go for
// what it is made of, office.go and hands.go for the two ends of the Control
// stream; docs/ARCHITECTURE.md has the picture, docs/CONTROL_FLOW.md the states.
//
// It is a little large because all parts meet here, and only here.
package node
