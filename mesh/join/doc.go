// Package join is how a new agent becomes a member: it shows a token to an agent
// whose certificate authority the token names, and gets a certificate, the
// gossip key and the addresses of others. An agent of the mesh renews its
// certificate in the same way, showing the one it has.
//
// One request and one answer go over a connection of its own, TLS 1.3 with
// protocol identity.JoinALPN; any connection will do, mesh/link has one. Who may
// join is decided behind Issuer; no secret of a token goes further than the
// agent that the joiner reached. docs/SECURITY.md has the messages.
package join
