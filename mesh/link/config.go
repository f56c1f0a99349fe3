package link

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// The protocols of connections, agreed on in the handshake.
const (
	ALPNControl = "tidemark/1"      // streams of the kinds Control, Raft, Call
	ALPNData    = "tidemark-data/1" // streams of the kinds Channel, Log, Parts
	ALPNJoin    = "tidemark-join/1" // one stream, for who has no certificate yet
)

// Security is who this agent is and whom it talks to; mesh/identity, as a rule.
// Any goroutine may call it, at each handshake anew. It may read no disk.
type Security interface {
	// ServerTLS and ClientTLS show this agent's certificate, and ask for the
	// other's; their VerifyConnection is not used: link calls Verify once the
	// handshake is through, so that it can tell the peer why not.
	ServerTLS(alpn ...string) *tls.Config
	ClientTLS(expect mesh.NodeID, alpn ...string) *tls.Config
	// JoinServerTLS is for ALPNJoin, used as it is.
	JoinServerTLS() *tls.Config
	// Verify judges the peer of a handshake (expect: the node that was dialled;
	// empty: any) and says who it is. The error's text is told to the peer.
	Verify(cs *tls.ConnectionState, expect mesh.NodeID) (mesh.Peer, error)
}

// Resolver says where a node may be: host:port, the best first; none: it is not
// known. It is asked at each dial, and must not block.
type Resolver interface {
	Addresses(node mesh.NodeID) []string
}

// Config is what a link is made with. Only the first five must be set.
type Config struct {
	Self     mesh.NodeID
	Site     mesh.Site
	Listen   string // host:port of UDP
	Security Security
	Resolver Resolver

	// Boot is greater after each start of the process: a peer that sees a greater
	// one lets the connections of the process before go.
	Boot uint64
	// ResetKey is a secret of the node that stays the same when the process starts
	// again: then it can end the connections of the process before. Zero: it
	// cannot.
	ResetKey [32]byte
	Events   func(Event) // must not block; nil: nobody listens
	// Takes decides about each stream that a peer opens; nil: all are taken. Any
	// goroutine calls it.
	Takes func(mesh.Peer, mesh.Kind) error

	// Rate bounds what is written to agents of other sites, all together, in bytes a
	// second: calls first, then logs, then parts, of which each has a sixteenth in
	// any case. 0: it is not bounded.
	Rate int64
	// Bulk is how many connections to an agent of another site carry its parts; 0: 1.
	Bulk int

	KeepAlive time.Duration // 0: 500 ms
	Idle      time.Duration // without any packet a connection is lost; 0: 3 s
	Dial      time.Duration // for one address; 0: 2 s
	NoProbe   bool          // do not ask whether a peer's port is still open
}

// Limits of a link.
const (
	maxStreams   = 10_000 // that a peer may have open in one connection; an Open beyond waits
	maxJoins     = 128    // at a time; more are refused
	joinTime     = 30 * time.Second
	lingerTime   = 5 * time.Second // for a joiner to open its stream, and to close when it is answered
	prefaceTime  = 10 * time.Second
	maxReason    = 400 // bytes of a refusal
	maxRounds    = 3   // connections that an Open may find ended
	bufferWanted = 7 << 20
)

// Codes of QUIC, when a connection or a stream ends: docs/WIRE.md.
const (
	codeClosed  quic.ApplicationErrorCode = 0
	codeRefused quic.ApplicationErrorCode = 1
	codeRemoved quic.ApplicationErrorCode = 2 // for good: it was taken out of the site

	streamClosed  quic.StreamErrorCode = 0
	streamRefused quic.StreamErrorCode = 1
	streamForeign quic.StreamErrorCode = 2
)

func (c *Config) fill() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.KeepAlive, 500*time.Millisecond)
	def(&c.Idle, 3*time.Second)
	def(&c.Dial, 2*time.Second)
	if c.Events == nil {
		c.Events = func(Event) {}
	}
}

// quicConfig has windows that bind each stream and never the connection: a
// stream that nobody reads holds up itself only. Peers have shown certificates,
// so their number bounds the memory; a join's second stream ends it.
func (c *Config) quicConfig() *quic.Config {
	const whole = (maxStreams + 1) * Window
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           c.Dial,
		MaxIdleTimeout:                 c.Idle,
		KeepAlivePeriod:                c.KeepAlive,
		InitialStreamReceiveWindow:     Window,
		MaxStreamReceiveWindow:         Window,
		InitialConnectionReceiveWindow: whole,
		MaxConnectionReceiveWindow:     whole,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          1, // the welcome
	}
}

// class is what a connection is for.
type class int

const (
	control class = iota
	data
	classes
)

func (c class) alpn() string { return [...]string{ALPNControl, ALPNData}[c] }

// classOf is the connection that a kind goes over.
func classOf(k mesh.Kind) class {
	if k <= mesh.Call {
		return control
	}
	return data
}

// urgency of a stream in its connection, as RFC 9218 counts.
func urgency(k mesh.Kind) int8 { return int8(min(max(int(k)-1, 0), 7)) }

// EventKind is what an Event says.
type EventKind uint8

// What may happen.
const (
	PeerUp      EventKind = iota + 1 // a first connection to a node stands
	PeerDown                         // the last one ended
	Refused                          // this agent does not let a peer in
	WasRefused                       // a peer does not let this agent in
	BadStream                        // a peer opened a stream that this agent cannot take
	SmallBuffer                      // the system gives the socket less memory than it should have
	Failed                           // the socket can be read no more: nobody is reached until the agent is started again
)

var eventNames = [...]string{
	PeerUp: "peer up", PeerDown: "peer down", Refused: "refused", WasRefused: "was refused", BadStream: "bad stream", SmallBuffer: "small buffer",
	Failed: "failed",
}

// String is the name in logs.
func (k EventKind) String() string { return eventNames[k] }

// Event is something that an operator may want to know.
type Event struct {
	Kind EventKind
	Peer mesh.Peer // Node and Site are empty where it is not known
	Why  string
}

// String is a line of a log.
func (e Event) String() string {
	s := e.Kind.String()
	if e.Peer.Node != "" {
		s += fmt.Sprintf(": node %s", e.Peer.Node)
	}
	if e.Peer.Addr != "" {
		s += " at " + e.Peer.Addr
	}
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}
