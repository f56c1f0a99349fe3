// Package coordinator holds the nouns of whoever looks after a site: the states
// that a job can be in, and which may follow which; the commands that change the
// replicated state, and that state; the messages between the leader and agents.
//
// It decides nothing. coordinator/jobmanager applies commands to the state,
// coordinator/leader and coordinator/worker decide at the two ends of the Control
// stream, coordinator/checkpoint when checkpoints are taken and when they count,
// coordinator/restart what follows a failure, coordinator/schedule what runs
// where; agent/node does what they say. Read status.go, command.go, state.go and
// message.go; docs/CONTROL_FLOW.md has the states, docs/COMMANDS.md and
// docs/CONTROL.md the bytes.
package coordinator
