package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// NodeID names an agent's data folder: it is born with it and never given to
// another one. A folder that was wiped is another node.
type NodeID string

// Site is the name of a set of agents with one Raft group.
type Site string

// Kind says what a stream carries. It is the stream's first byte.
type Kind uint8

// The kinds of streams. The order is that of urgency: where bytes must wait,
// those of a lower kind go first.
const (
	Control Kind = iota + 1 // between an agent and the leader: docs/CONTROL.md
	Raft                    // the library's own protocol
	Call                    // HTTP, to an agent's API through another one
	Channel                 // rows, from one subtask to another
	Log                     // a feed's log, to its copies
	Parts                   // checkpoint parts, fetched and pushed
)

var kindNames = [...]string{Control: "control", Raft: "raft", Call: "call", Channel: "channel", Log: "log", Parts: "parts"}

// String is the name in errors.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// BetweenSites tells whether an agent of another site may open a stream of the
// kind. What it may do there is for who takes the kind.
func (k Kind) BetweenSites() bool { return k == Call || k == Log || k == Parts }

// Peer is who is at the other end of a stream, as its certificate says.
type Peer struct {
	Node NodeID
	Site Site
	Addr string // host:port where it is now
}

// Stream is an ordered two-way stream of bytes. One goroutine reads, one writes;
// Close may come from any.
type Stream interface {
	io.Reader // blocks; io.EOF after the peer's CloseWrite
	// Write may block for the peer's window: that is the back-pressure. Write
	// large pieces; small ones cost a packet each. The callee borrows p.
	io.Writer
	// CloseWrite ends this direction after what was written.
	CloseWrite() error
	// Close ends both directions now: what was written may still arrive, Read and
	// Write return at once, the peer's Write fails. It may be called again.
	Close() error
	// SetDeadline bounds Read and Write, as in package net.
	SetDeadline(t time.Time) error
	Peer() Peer
}

// Transport reaches the other agents of the mesh. Any goroutine may call it.
type Transport interface {
	Self() NodeID
	// Open opens a stream to a node. It connects if need be, until ctx ends.
	// ErrUnreachable, ErrRefused.
	Open(ctx context.Context, to NodeID, kind Kind) (Stream, error)
	// Handle sets who takes the streams of a kind that others open, each in a
	// goroutine of its own; it owns the stream. Once for each kind, before Start.
	Handle(kind Kind, take func(Stream))
	// Watch calls f when the last connection to a node ended (up false) and when
	// one stands again; f must not block.
	Watch(f func(node NodeID, up bool))
}

// The kinds of errors of a transport.
var (
	ErrUnreachable = errors.New("not reached")            // try again later
	ErrRefused     = errors.New("refused by the peer")    // its reason is in the text
	ErrUnknown     = errors.New("no address of it known") // gossip has not told yet
)

// ErrRemoved is an ErrRefused: this agent was taken out of its site, and nobody there
// lets it in any more.
var ErrRemoved = fmt.Errorf("%w for good", ErrRefused)

// ErrTwin is that two processes have one identity.
var ErrTwin = errors.New("another agent runs with this one's identity: was its data folder copied?")

// Member is an agent as gossip knows it.
type Member struct {
	Node    NodeID
	Boot    uint64 // of its process: greater after each start
	Name    string // that its user gave it; unique in its site
	Site    Site
	Link    string // host:port of its QUIC port
	Gossip  string // host:port of gossip
	HTTP    string // host:port of its API; empty: only through others
	Host    string // of the machine, so that voters and copies are spread over machines
	Labels  map[string]string
	Slots   int
	Version string
	Level   uint32 // the greatest feature level that it knows
	Status  MemberStatus
}

// MemberStatus is what gossip thinks of a member.
type MemberStatus uint8

// What a member can be, and what follows what:
//
//	alive   -> suspect (it does not answer), left
//	suspect -> alive (it answered), failed
//	failed  -> alive (it is back, with a greater Boot or healed)
//	left    -> alive (it joined again)
const (
	Alive MemberStatus = iota + 1
	Suspect
	Failed
	Left
)

var statusNames = [...]string{Alive: "alive", Suspect: "suspect", Failed: "failed", Left: "left"}

// String is the name that a user sees.
func (s MemberStatus) String() string { return statusNames[s] }
