// Package config owns the agent's configuration: one tree of defaults, file and
// flags, in this order, checked as a whole, and explained.
//
// It opens nothing. What it holds is the operator's; what the mesh gave the
// agent (certificates, node id, gossip key) is mesh/identity's. Read config.go
// for the keys, load.go for how a file becomes one; docs/AGENT.md is the
// operator's page.
package config
