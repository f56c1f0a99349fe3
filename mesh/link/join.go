package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// JoinConn is the one stream of a connection in which a new agent asks to be let
// in. Whoever dialled writes first, reads the answer to its end, and closes.
type JoinConn struct {
	q      *quic.Conn
	s      *quic.Stream
	ended  atomic.Bool // CloseWrite was called
	once   sync.Once   // of Close
	closed func()
}

// Read reads what the other side wrote; io.EOF after its Close or CloseWrite.
func (j *JoinConn) Read(p []byte) (int, error) {
	n, err := j.s.Read(p)
	return n, joinMeaning(err)
}

// Write may block.
func (j *JoinConn) Write(p []byte) (int, error) {
	n, err := j.s.Write(p)
	return n, joinMeaning(err)
}

func joinMeaning(err error) error {
	var app *quic.ApplicationError
	if errors.As(err, &app) && app.Remote && app.ErrorCode == codeRefused {
		return fmt.Errorf("%w: %s", mesh.ErrRefused, app.ErrorMessage)
	}
	return err
}

// CloseWrite ends this side's direction after what was written.
func (j *JoinConn) CloseWrite() error {
	j.ended.Store(true)
	return j.s.Close()
}

// SetDeadline bounds Read and Write.
func (j *JoinConn) SetDeadline(t time.Time) error { return j.s.SetDeadline(t) }

// ConnectionState is how the handshake went: whose certificates were shown.
func (j *JoinConn) ConnectionState() tls.ConnectionState { return j.q.ConnectionState().TLS }

// RemoteAddr is where the other side is.
func (j *JoinConn) RemoteAddr() net.Addr { return j.q.RemoteAddr() }

// Close ends the conversation; any goroutine may call it, and again. On the side
// that was dialled what was written before CloseWrite is still delivered, if the
// dialler waits for it.
func (j *JoinConn) Close() error {
	j.once.Do(func() {
		j.s.CancelRead(streamClosed)
		if !j.ended.Load() {
			j.s.CancelWrite(streamClosed)
		}
		j.closed()
	})
	return nil
}

// HandleJoin sets who answers new agents, from begin to end of a conversation: in
// a goroutine of its own, at most
// 128 at a time, for at most 30 s. Once, before Start; without it nobody can
// join through this agent.
func (l *Link) HandleJoin(take func(*JoinConn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.join = take
}

// takeJoin answers a new agent.
func (l *Link) takeJoin(q *quic.Conn) {
	select {
	case l.joins <- struct{}{}:
		defer func() { <-l.joins }()
	default:
		q.CloseWithError(codeRefused, "too many agents ask to join at the same time: try again") //nolint:errcheck // always nil
		return
	}
	if !l.hold(q) {
		q.CloseWithError(codeClosed, "the agent stops") //nolint:errcheck // always nil
		return
	}
	defer l.release(q)
	ctx, cancel := context.WithTimeout(l.ctx, joinTime)
	defer cancel()
	defer q.CloseWithError(codeClosed, "") //nolint:errcheck // always nil
	first, stop := context.WithTimeout(ctx, lingerTime)
	defer stop()
	s, err := q.AcceptStream(first)
	if err != nil {
		return
	}
	// One stream is all it gets: with a second one it takes memory, and goes.
	l.wg.Go(func() {
		if _, err := q.AcceptStream(ctx); err == nil {
			q.CloseWithError(codeRefused, "one stream is enough to join") //nolint:errcheck // always nil
		}
	})
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline) //nolint:errcheck // always nil
	j := &JoinConn{q: q, s: s, closed: func() {}}
	l.join(j)
	j.Close() //nolint:errcheck // always nil
	last, stop := context.WithTimeout(ctx, lingerTime)
	defer stop()
	select { // the dialler closes when it has read the answer
	case <-q.Context().Done():
	case <-last.Done():
	}
}

// DialJoin reaches an agent at host:port to ask it to be let in. conf decides
// whether it is the right one; its protocol is set here. ErrUnreachable,
// ErrRefused, or what conf's verification says.
func DialJoin(ctx context.Context, addr string, conf *tls.Config) (*JoinConn, error) {
	to, err := resolve(ctx, addr)
	if err == nil {
		err = ctx.Err() // a dial may be refused before it looks
	}
	if err != nil {
		return nil, fmt.Errorf("joining at %s: %w: %w", addr, mesh.ErrUnreachable, err)
	}
	udp, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("joining at %s: %w", addr, err)
	}
	var c Config
	c.fill()
	conf = conf.Clone()
	conf.NextProtos = []string{ALPNJoin}
	tr := &quic.Transport{Conn: udp}
	j, err := dialJoin(ctx, tr, to, conf, c.quicConfig())
	if err != nil {
		tr.Close()  //nolint:errcheck // err is the reason
		udp.Close() //nolint:errcheck // err is the reason
		return nil, fmt.Errorf("joining at %s: %w", addr, err)
	}
	j.closed = func() {
		j.q.CloseWithError(codeClosed, "") //nolint:errcheck // always nil
		tr.Close()                         //nolint:errcheck // nothing is under way
		udp.Close()                        //nolint:errcheck // nothing is under way
	}
	return j, nil
}

func dialJoin(ctx context.Context, tr *quic.Transport, to net.Addr, conf *tls.Config, qc *quic.Config) (*JoinConn, error) {
	q, err := tr.Dial(ctx, to, conf, qc)
	if err != nil {
		var crypto *quic.TransportError
		switch {
		case errors.As(err, &crypto) && crypto.ErrorCode.IsCryptoError() && crypto.Remote:
			return nil, fmt.Errorf("%w: %w", mesh.ErrRefused, err)
		case errors.As(err, &crypto) && crypto.ErrorCode.IsCryptoError():
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", mesh.ErrUnreachable, err)
	}
	s, err := q.OpenStreamSync(ctx)
	if err != nil {
		q.CloseWithError(codeClosed, "") //nolint:errcheck // always nil
		return nil, joinMeaning(err)
	}
	return &JoinConn{q: q, s: s}, nil
}
