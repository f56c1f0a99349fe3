package broker

import (
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync/atomic"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Options say how a broker listens and what it bounds.
type Options struct {
	Addr   string            // host:port; "" is 127.0.0.1:0, a free port
	TLS    *tls.Config       // nil: plain TCP
	Users  map[string]string // passwords by user name; empty: anybody, and then only on a loopback address
	Logger *slog.Logger      // nil: silent

	// InflightMax bounds the messages of QoS 1 and 2 that a session has not
	// acknowledged, connected or not; the broker drops and counts what is over
	// it. 0 is the protocol's most, 65,535.
	InflightMax int
	// PendingMax bounds the messages that wait for one client's socket; what is
	// over it is dropped and counted. 0 is 16,384, which costs 128 KiB a client.
	PendingMax int
}

const defaultPending = 16384

// Broker is a running broker. Its methods are safe for several goroutines.
type Broker struct {
	server   *mochi.Server
	listener *listener
	acks     *ackHook
	closed   atomic.Bool
}

// Stats counts what went through a broker since its start.
type Stats struct {
	Received  int64 // messages published by clients
	Sent      int64 // messages delivered to clients
	Dropped   int64 // deliveries given up because a client was too slow: PendingMax or InflightMax was reached
	Connected int64 // clients connected now

	Acknowledged  int64 // acknowledgements of deliveries with QoS 1 that came from clients
	Subscriptions int64 // of all sessions
}

// Start listens and serves until Close.
func Start(o Options) (*Broker, error) { return start(o) }

// start takes hooks that are asked before the broker's own.
func start(o Options, first ...mochi.Hook) (*Broker, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.InflightMax < 0 || o.InflightMax > math.MaxUint16 {
		return nil, fmt.Errorf("broker: InflightMax is %d; give 1 to %d, or 0 for the most", o.InflightMax, math.MaxUint16)
	}
	if o.PendingMax < 0 || o.PendingMax > math.MaxInt32 {
		return nil, fmt.Errorf("broker: PendingMax is %d; give 1 or more, or 0 for %d", o.PendingMax, defaultPending)
	}
	ln, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("broker: cannot listen on %s: %w; free the port or choose another address", o.Addr, err)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); len(o.Users) == 0 && (!ok || !a.IP.IsLoopback()) {
		return nil, errors.Join(fmt.Errorf("broker: %s can be reached from other machines; give user names and passwords, or listen on 127.0.0.1", o.Addr), ln.Close())
	}
	if o.TLS != nil {
		ln = tls.NewListener(ln, o.TLS)
	}
	s := mochi.New(serverOptions(o))
	sessions := &sessions{clients: s.Clients, holders: make(map[string]*conn)}
	l := &listener{ln: ln, sessions: sessions, conns: make(map[*conn]struct{}), goodbye: func() {
		for _, c := range s.Clients.GetAll() {
			if !c.Closed() {
				_ = s.DisconnectClient(c, packets.ErrServerShuttingDown)
			}
		}
	}}
	acks := &ackHook{}
	for _, h := range append(first, &authHook{users: o.Users, sessions: sessions}, acks, sessions) {
		err = errors.Join(err, s.AddHook(h, nil))
	}
	if err := errors.Join(err, s.AddListener(l), s.Serve()); err != nil {
		return nil, errors.Join(fmt.Errorf("broker: %w", err), ln.Close())
	}
	return &Broker{server: s, listener: l, acks: acks}, nil
}

func serverOptions(o Options) *mochi.Options {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumInflight = math.MaxUint16
	if o.InflightMax > 0 {
		c.MaximumInflight = uint16(o.InflightMax)
	}
	c.MaximumClientWritesPending = defaultPending
	if o.PendingMax > 0 {
		c.MaximumClientWritesPending = int32(o.PendingMax)
	}
	// A client with more QoS 2 messages open than this is thrown out.
	c.ReceiveMaximum = math.MaxUint16
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &mochi.Options{
		Capabilities:             c,
		Logger:                   log,
		ClientNetReadBufferSize:  16 << 10,
		ClientNetWriteBufferSize: 16 << 10,
		// Every refresh of the $SYS topics stops the process to read memory statistics.
		SysTopicResendInterval: 24 * 60 * 60,
	}
}

// Addr is the address it listens on, host:port.
func (b *Broker) Addr() string { return b.listener.Address() }

// Stats is a snapshot of the counters.
func (b *Broker) Stats() Stats {
	i := b.server.Info
	return Stats{
		Received:  atomic.LoadInt64(&i.MessagesReceived),
		Sent:      atomic.LoadInt64(&i.MessagesSent),
		Dropped:   atomic.LoadInt64(&i.MessagesDropped) + atomic.LoadInt64(&i.InflightDropped),
		Connected: atomic.LoadInt64(&i.ClientsConnected),

		Acknowledged:  b.acks.n.Load(),
		Subscriptions: atomic.LoadInt64(&i.Subscriptions),
	}
}

// Close disconnects every client, waits for their goroutines, and forgets all
// sessions. It may be called twice.
func (b *Broker) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	return b.server.Close()
}

// authHook lets clients in; what they may read and write is not restricted.
type authHook struct {
	mochi.HookBase
	users    map[string]string
	sessions *sessions
}

// ID names the hook in the broker's log.
func (h *authHook) ID() string { return "tidemark-auth" }

// Provides tells which of the broker's questions the hook answers.
func (h *authHook) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}

// OnConnectAuthenticate tells whether user and password fit, and takes the client
// id: what comes next cannot be refused any more.
func (h *authHook) OnConnectAuthenticate(cl *mochi.Client, pk packets.Packet) bool {
	return h.fit(pk) && h.sessions.take(cl)
}

func (h *authHook) fit(pk packets.Packet) bool {
	if len(h.users) == 0 {
		return true
	}
	want, known := h.users[string(pk.Connect.Username)]
	return known && subtle.ConstantTimeCompare([]byte(want), pk.Connect.Password) == 1
}

// OnACLCheck allows every topic.
func (h *authHook) OnACLCheck(*mochi.Client, string, bool) bool { return true }

// ackHook counts what clients acknowledge.
type ackHook struct {
	mochi.HookBase
	n atomic.Int64
}

// ID names the hook in the broker's log.
func (h *ackHook) ID() string { return "tidemark-acks" }

// Provides tells which of the broker's questions the hook answers.
func (h *ackHook) Provides(b byte) bool { return b == mochi.OnPacketRead }

// OnPacketRead changes nothing.
func (h *ackHook) OnPacketRead(_ *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if pk.FixedHeader.Type == packets.Puback {
		h.n.Add(1)
	}
	return pk, nil
}
