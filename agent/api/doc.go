// Package api is the agent's HTTP API, metrics and health. Any agent takes any
// request; what only the leader can answer is passed on to it.
package api
