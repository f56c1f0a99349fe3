// Package join is how a new agent becomes a member: it shows a token to an agent
// whose certificate authority the token names, and gets a certificate, the
// gossip key and the addresses of others.
package join
