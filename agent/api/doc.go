// Package api owns the agent's HTTP API, its metrics and health, and the client
// that the verbs use. Any agent takes any request; what only the leader can
// answer is passed on to it, once.
//
// It decides nothing about jobs beyond what can be checked before a command is
// proposed (coordinator/jobmanager checks again), and knows the agent only as
// its Backend. Read backend.go for what that is, api.go for what comes before
// every request, forward.go for the way to the leader, types.go for what goes
// over the wire; docs/API.md is the user's page.
//
// It is large because routes, the forms of their answers and the client are one
// contract: each noun of the API has a file on either side.
package api
