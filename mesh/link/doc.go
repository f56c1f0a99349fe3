// Package link is the mesh's transport: QUIC with mutual TLS on one UDP port, one
// connection a peer, a stream for each conversation.
package link
