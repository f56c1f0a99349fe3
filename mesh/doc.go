// Package mesh is the vocabulary of agents that know and reach each other: node
// and site, members, and the contract of the transport between them.
//
// It owns no behaviour and never learns what a job is. Who is there is
// mesh/gossip's, how they talk mesh/link's, who may mesh/identity's; a
// transport for tests is mesh/simnet.
package mesh
