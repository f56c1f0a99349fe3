// Package link is the mesh's transport: QUIC with mutual TLS on one UDP port. It
// has two connections to each peer that it talks to, one for what is urgent and
// one for rows, logs and parts, and a stream for each conversation; a stream's
// flow control is the back-pressure, and the connections' never bind.
//
// It decides who is let in by what Security says, and where to dial by what
// Resolver says. It never tries again by itself: who opens a stream does. It
// knows nothing of what streams carry; docs/WIRE.md has the bytes, mesh/wire
// cuts frames. A new agent's first conversation is in join.go.
//
// A connection that nobody answers on is lost after Config.Idle; one whose peer
// has left its port sooner, by the probe (probe.go) or a stateless reset; one of
// a process that was started again at once, by the number in its welcome.
package link
