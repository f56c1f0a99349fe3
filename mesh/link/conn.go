package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// What each side says once: docs/WIRE.md.
const (
	frameWelcome = 1
	frameRefusal = 2
	welcomeBytes = 8
)

// incoming sees every handshake that begins, to say why it failed if it does.
func (l *Link) incoming(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	context.AfterFunc(ctx, func() {
		var crypto *quic.TransportError
		err := context.Cause(ctx)
		if !errors.As(err, &crypto) || !crypto.ErrorCode.IsCryptoError() {
			return
		}
		l.tellOnce(Event{Kind: Refused, Peer: mesh.Peer{Addr: info.RemoteAddr.String()}, Why: crypto.Error()})
	})
	return ctx, nil
}

// accept takes the connections that others dial.
func (l *Link) accept(listener *quic.Listener) {
	for {
		q, err := listener.Accept(l.ctx)
		if err != nil {
			if l.ctx.Err() == nil {
				l.cfg.Events(Event{Kind: Failed, Why: err.Error()})
			}
			return
		}
		l.wg.Go(func() {
			if q.ConnectionState().TLS.NegotiatedProtocol == ALPNJoin {
				l.takeJoin(q)
				return
			}
			ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Dial)
			defer cancel()
			if c, err := l.welcome(ctx, q, "", false); err == nil {
				l.serve(c)
			}
		})
	}
}

// dial tries the addresses of a node one after the other.
func (l *Link) dial(d *dial, node mesh.NodeID, k class, addrs []string) {
	c, err := l.dialAny(node, k, addrs)
	l.mu.Lock()
	d.err = err
	p := l.of(node)
	p.dials[k] = nil
	if errors.Is(err, mesh.ErrRefused) {
		p.refusedBy(err)
	}
	close(d.done)
	l.mu.Unlock()
	if c != nil {
		l.serve(c)
	}
}

func (l *Link) dialAny(node mesh.NodeID, k class, addrs []string) (*conn, error) {
	var errs []error
	for _, addr := range addrs {
		ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Dial)
		c, err := l.dialOne(ctx, node, k, addr)
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("at %s: %w", addr, err))
	}
	return nil, errors.Join(errs...)
}

func (l *Link) dialOne(ctx context.Context, node mesh.NodeID, k class, addr string) (*conn, error) {
	to, err := resolve(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mesh.ErrUnreachable, err)
	}
	conf := l.cfg.Security.ClientTLS(node, k.alpn())
	conf.VerifyConnection = nil // welcome verifies, and tells the peer why not
	q, err := l.quic.Dial(ctx, to, conf, l.conf)
	if err != nil {
		return nil, l.refusal(mesh.Peer{Node: node, Addr: addr}, err)
	}
	return l.welcome(ctx, q, node, true)
}

// resolve is where host:port is.
func resolve(ctx context.Context, addr string) (*net.UDPAddr, error) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return net.UDPAddrFromAddrPort(a), nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q: port: %w", addr, err)
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	return &net.UDPAddr{IP: ips[0].IP, Port: int(n), Zone: ips[0].Zone}, nil
}

// refusal sorts the errors of a handshake.
func (l *Link) refusal(p mesh.Peer, err error) error {
	var app *quic.ApplicationError
	var tr *quic.TransportError
	switch {
	case errors.As(err, &app) && app.Remote && refusedBy(app) != nil:
		l.tellOnce(Event{Kind: WasRefused, Peer: p, Why: app.ErrorMessage})
		return fmt.Errorf("%w: %s", refusedBy(app), app.ErrorMessage)
	case errors.As(err, &tr) && tr.ErrorCode.IsCryptoError():
		l.tellOnce(Event{Kind: WasRefused, Peer: p, Why: tr.Error()})
		return fmt.Errorf("%w: %s", mesh.ErrRefused, tr.Error())
	}
	return fmt.Errorf("%w: %s", mesh.ErrUnreachable, text(err))
}

// refusedBy is what a code of a refusal means; nil: it is none.
func refusedBy(app *quic.ApplicationError) error {
	switch app.ErrorCode {
	case codeRefused:
		return mesh.ErrRefused
	case codeRemoved:
		return mesh.ErrRemoved
	}
	return nil
}

// welcome judges who is at the other end, says so, and waits until it has said
// so too. The connection is known then, or closed.
func (l *Link) welcome(ctx context.Context, q *quic.Conn, expect mesh.NodeID, dialled bool) (*conn, error) {
	if !l.hold(q) {
		q.CloseWithError(codeClosed, "the agent stops") //nolint:errcheck // always nil
		return nil, errClosing
	}
	c, err := l.greet(ctx, q, expect, dialled)
	if err != nil {
		l.release(q)
		q.CloseWithError(codeClosed, text(err)) //nolint:errcheck // always nil; nothing, if it is closed already
	}
	return c, err
}

func (l *Link) greet(ctx context.Context, q *quic.Conn, expect mesh.NodeID, dialled bool) (*conn, error) {
	cs := q.ConnectionState().TLS
	at := mesh.Peer{Node: expect, Addr: q.RemoteAddr().String()}
	c := &conn{q: q, dialled: dialled, since: time.Now()}
	if cs.NegotiatedProtocol == ALPNData {
		c.class = data
	}
	var err error
	if c.peer, err = l.cfg.Security.Verify(&cs, expect); err == nil && c.peer.Node == l.cfg.Self {
		err = l.alike(ctx, q, &cs, dialled)
	}
	if errors.Is(err, errSelf) {
		return nil, err
	}
	if err != nil {
		if dialled {
			l.tellRefusal(ctx, q, err)
		}
		l.refuse(q, at, err)
		// Not wrapped: who was removed is the other one.
		return nil, fmt.Errorf("%w: this agent does not let it in: %s", mesh.ErrRefused, err)
	}
	c.peer.Addr = at.Addr
	if c.peer.Site != l.cfg.Site {
		c.pacer = l.pacer
	}
	// The dialler speaks first: so it is not told that it is welcome before its
	// number has been looked at.
	if dialled {
		if err := say(q, frameWelcome, l.number()); err != nil {
			return nil, l.refusal(c.peer, err)
		}
	}
	if c.boot, err = readWelcome(ctx, q); errors.Is(err, wire.ErrFormat) {
		l.refuse(q, c.peer, err)
		return nil, fmt.Errorf("%w: this agent does not let it in: %w", mesh.ErrRefused, err)
	} else if err != nil {
		return nil, l.refusal(c.peer, err)
	}
	if err := l.add(c); err != nil {
		if errors.Is(err, errOlder) {
			l.refuse(q, c.peer, err)
		}
		return nil, err
	}
	if !dialled {
		if err := say(q, frameWelcome, l.number()); err != nil {
			l.drop(c, err)
			return nil, l.refusal(c.peer, err)
		}
	}
	return c, nil
}

// refuse closes a connection with the reason, for the peer and for this side.
func (l *Link) refuse(q *quic.Conn, p mesh.Peer, why error) {
	l.tellOnce(Event{Kind: Refused, Peer: p, Why: reason(why)})
	code := codeRefused
	if errors.Is(why, mesh.ErrRemoved) {
		code = codeRemoved
	}
	q.CloseWithError(code, reason(why)) //nolint:errcheck // always nil
}

// maxSaid bounds what tellOnce remembers.
const maxSaid = 1024

// tellOnce tells of a refusal that was not told since a connection was made last:
// who is refused comes again and again.
func (l *Link) tellOnce(e Event) {
	l.mu.Lock()
	told := l.said[e]
	if len(l.said) >= maxSaid {
		clear(l.said)
	}
	l.said[e] = true
	l.mu.Unlock()
	if !told {
		l.cfg.Events(e)
	}
}

func reason(why error) string {
	s := why.Error()
	return s[:min(len(s), maxReason)]
}

// tellRefusal gives the reason on a stream and waits for the peer to close. A
// reason in the packet that ends the connection would be lost as long as the
// peer has not seen the end of the handshake.
func (l *Link) tellRefusal(ctx context.Context, q *quic.Conn, why error) {
	if say(q, frameRefusal, []byte(reason(why))) == nil {
		select {
		case <-q.Context().Done():
		case <-ctx.Done():
		}
	}
}

// number is that of this start, as a welcome has it.
func (l *Link) number() []byte { return binary.LittleEndian.AppendUint64(nil, l.cfg.Boot) }

// say sends the one frame of this side.
func say(q *quic.Conn, kind byte, payload []byte) error {
	s, err := q.OpenUniStream()
	if err != nil {
		return err
	}
	if _, err := s.Write(wire.Append(nil, kind, payload)); err != nil {
		return err
	}
	return s.Close()
}

func readWelcome(ctx context.Context, q *quic.Conn) (boot uint64, err error) {
	s, err := q.AcceptUniStream(ctx)
	if err != nil {
		return 0, err
	}
	if t, ok := ctx.Deadline(); ok {
		s.SetReadDeadline(t) //nolint:errcheck // always nil
	}
	r := wire.NewReader(s, wire.Limit{Kind: frameWelcome, Bytes: welcomeBytes}, wire.Limit{Kind: frameRefusal, Bytes: maxReason})
	kind, p, err := r.Next()
	switch {
	case err != nil:
		return 0, err
	case kind == frameRefusal:
		return 0, &quic.ApplicationError{Remote: true, ErrorCode: codeRefused, ErrorMessage: string(p)}
	case len(p) != welcomeBytes:
		return 0, fmt.Errorf("%w: a welcome of %d bytes", wire.ErrFormat, len(p))
	}
	boot = binary.LittleEndian.Uint64(p)
	if kind, _, err := r.Next(); err == nil {
		return 0, fmt.Errorf("%w: more than a welcome: a frame of kind %d", wire.ErrFormat, kind)
	} else if err != io.EOF {
		return 0, fmt.Errorf("after the welcome: %w", err)
	}
	return boot, nil
}

// hold notes a connection that Close must close; false: it has been already.
func (l *Link) hold(q *quic.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.raw[q] = struct{}{}
	return true
}

func (l *Link) release(q *quic.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.raw, q)
}

// serve takes the streams that the peer opens, to the connection's end.
func (l *Link) serve(c *conn) {
	defer l.release(c.q)
	for {
		s, err := c.q.AcceptStream(context.Background())
		if err != nil {
			if w := c.why.Load(); w != nil {
				err = *w
			}
			l.drop(c, err)
			return
		}
		l.wg.Go(func() { l.take(c, s) })
	}
}

// take hands a stream to who takes its kind.
func (l *Link) take(c *conn, q *quic.Stream) {
	q.SetReadDeadline(time.Now().Add(prefaceTime)) //nolint:errcheck // always nil
	kind, err := wire.ReadPreface(q)
	l.mu.Lock()
	take := l.handlers[kind]
	l.mu.Unlock()
	if err == nil && (take == nil || classOf(kind) != c.class) {
		err = fmt.Errorf("kind %d, which nobody takes on this connection", kind)
	}
	bad, code := err != nil, streamRefused
	if err == nil && c.peer.Site != l.cfg.Site && !kind.BetweenSites() {
		bad, code = true, streamForeign
		err = fmt.Errorf("a stream for %v, which only agents of this site may open; it is of site %s", kind, c.peer.Site)
	}
	if err == nil && l.cfg.Takes != nil {
		err = l.cfg.Takes(c.peer, kind)
	}
	if err != nil {
		q.CancelRead(code)
		q.CancelWrite(code)
		switch {
		case !bad:
			l.tellOnce(Event{Kind: Refused, Peer: c.peer, Why: err.Error()})
		case c.q.Context().Err() == nil:
			l.cfg.Events(Event{Kind: BadStream, Peer: c.peer, Why: err.Error()})
		}
		return
	}
	q.SetReadDeadline(time.Time{}) //nolint:errcheck // always nil
	take(newStream(q, c, kind))
}
