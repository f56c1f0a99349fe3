package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Link is an agent's end of all its connections. Any goroutine may call it, but
// Handle and HandleJoin come before Start, and Start once.
type Link struct {
	cfg   Config
	conf  *quic.Config
	udp   *net.UDPConn
	quic  *quic.Transport
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	wg    sync.WaitGroup // every goroutine, of handlers too
	news  chan struct{}  // 1: watchers are to be told something
	joins chan struct{}  // a token for each join under way
	pacer *pacer         // of what goes to other sites; nil: as much as there is

	mu       sync.Mutex // guards what follows; never held while waiting or calling out
	listener *quic.Listener
	handlers map[mesh.Kind]func(mesh.Stream)
	join     func(*JoinConn)
	watchers []func(mesh.NodeID, bool)
	peers    map[mesh.NodeID]*peer
	own      []*Pipe // streams to itself
	raw      map[*quic.Conn]struct{}
	said     map[Event]bool // refusals that were told
	calls    map[call]bool  // of Alike, under way; true: it was this process that answered
	closed   bool
}

var _ mesh.Transport = (*Link)(nil)

// New takes the port. Nobody gets in before Start.
func New(cfg Config) (*Link, error) {
	cfg.fill()
	addr, err := net.ResolveUDPAddr("udp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", cfg.Listen, err)
	}
	udp, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on UDP %s: %w: does another agent run here?", cfg.Listen, err)
	}
	l := &Link{
		cfg: cfg, conf: cfg.quicConfig(), udp: udp,
		pacer: newPacer(cfg.Rate),
		news:  make(chan struct{}, 1), joins: make(chan struct{}, maxJoins),
		handlers: make(map[mesh.Kind]func(mesh.Stream)), peers: make(map[mesh.NodeID]*peer), said: make(map[Event]bool), calls: make(map[call]bool), raw: make(map[*quic.Conn]struct{}),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.quic = &quic.Transport{Conn: udp, ConnectionIDLength: 8, ConnContext: l.incoming}
	if cfg.ResetKey != [32]byte{} {
		key := quic.StatelessResetKey(cfg.ResetKey)
		l.quic.StatelessResetKey = &key
	}
	return l, nil
}

// Addr is where it listens.
func (l *Link) Addr() *net.UDPAddr { return l.udp.LocalAddr().(*net.UDPAddr) }

// Self is the node's id.
func (l *Link) Self() mesh.NodeID { return l.cfg.Self }

// Handle sets who takes the streams of a kind. Close waits for the handlers,
// whose streams fail then.
func (l *Link) Handle(kind mesh.Kind, take func(mesh.Stream)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil || l.handlers[kind] != nil {
		panic(fmt.Sprintf("link: a handler of kind %d is set twice, or after Start", kind))
	}
	l.handlers[kind] = take
}

// Watch adds a watcher. All are called by one goroutine, in order; a connection
// that was lost and stands again before they could be told is told as both.
func (l *Link) Watch(f func(node mesh.NodeID, up bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers = append(l.watchers, f)
}

// Start lets others in.
func (l *Link) Start() error {
	l.mu.Lock()
	conf := l.serverTLS()
	l.mu.Unlock()
	listener, err := l.quic.Listen(conf, l.conf)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", l.Addr(), err)
	}
	l.mu.Lock()
	l.listener = listener
	l.mu.Unlock()
	if got, ok := receiveBuffer(l.udp); ok && got < bufferWanted {
		l.cfg.Events(Event{Kind: SmallBuffer, Why: fmt.Sprintf(
			"the UDP receive buffer has %d KiB, it should have %d: raise net.core.rmem_max and wmem_max, or packets are lost under load", got>>10, bufferWanted>>10)})
	}
	l.wg.Go(func() { l.accept(listener) })
	l.wg.Go(l.tellWatchers)
	return nil
}

// serverTLS takes the configurations anew at each handshake: certificates are
// renewed while the agent runs.
func (l *Link) serverTLS() *tls.Config {
	join := l.join != nil
	sec := l.cfg.Security
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if join && slices.Contains(h.SupportedProtos, ALPNJoin) {
				return sec.JoinServerTLS(), nil
			}
			c := sec.ServerTLS(ALPNControl, ALPNData)
			c.ClientAuth = tls.RequireAnyClientCert
			c.VerifyConnection = nil // welcome verifies, and tells the peer why not
			return c, nil
		},
	}
}

// Open opens a stream to a node. It dials if no connection stands, and then
// waits until ctx ends or all addresses have been tried.
func (l *Link) Open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error) {
	s, err := l.open(ctx, to, kind)
	if err != nil {
		return nil, fmt.Errorf("stream to node %s: %w", to, err)
	}
	return s, nil
}

func (l *Link) open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error) {
	if to == l.cfg.Self {
		return l.openSelf(kind)
	}
	for rounds := 0; ; {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", mesh.ErrUnreachable, context.Cause(ctx))
		}
		c, dial, changed, err := l.pick(to, classOf(kind))
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			if kind == mesh.Parts {
				c = l.spread(ctx, c)
			}
			s, err := c.open(ctx, kind)
			if err == nil {
				return s, nil
			}
			if rounds++; rounds == maxRounds || ctx.Err() != nil {
				return nil, err
			}
			l.drop(c, err) // it ended meanwhile: another one may do
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-dial.done:
			if dial.err != nil && l.best(to, classOf(kind)) == nil {
				return nil, dial.err
			}
		}
	}
}

// errClosing is why streams of this agent end with it.
var errClosing = fmt.Errorf("%w: this agent's transport was closed", mesh.ErrUnreachable)

// openSelf is a stream inside the process.
func (l *Link) openSelf(kind mesh.Kind) (mesh.Stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	take := l.handlers[kind]
	switch {
	case l.closed:
		return nil, errClosing
	case take == nil || l.listener == nil:
		return nil, fmt.Errorf("%w: it takes no streams of kind %d", mesh.ErrRefused, kind)
	}
	me := mesh.Peer{Node: l.cfg.Self, Site: l.cfg.Site, Addr: l.Addr().String()}
	p := NewPipe(me, me, Window)
	l.own = append(slices.DeleteFunc(l.own, (*Pipe).Over), p)
	a, b := p.Ends()
	l.wg.Go(func() { take(b) })
	return a, nil
}

// Close ends all connections, telling the peers, and waits for every goroutine.
// A handler must not call it.
func (l *Link) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.stop()
	for _, p := range l.own {
		p.Break(errClosing)
	}
	raw := make([]*quic.Conn, 0, len(l.raw))
	for q := range l.raw {
		raw = append(raw, q)
	}
	listener := l.listener
	l.mu.Unlock()

	var wg sync.WaitGroup
	for _, q := range raw {
		wg.Go(func() { q.CloseWithError(codeClosed, "the agent stops") }) //nolint:errcheck // always nil
	}
	wg.Wait()
	var errs []error
	if listener != nil {
		errs = append(errs, listener.Close())
	}
	errs = append(errs, l.quic.Close())
	if err := l.udp.Close(); !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	l.wg.Wait()
	return errors.Join(errs...)
}
