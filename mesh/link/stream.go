package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// stream is a QUIC stream as mesh.Stream has it.
type stream struct {
	s     *quic.Stream
	c     *conn
	kind  mesh.Kind
	ended atomic.Bool // CloseWrite was called
	over  atomic.Bool // Close was called

	// Of streams to other sites, whose bytes are bounded: the deadline, and that it
	// changed.
	pacer *pacer // nil: they are not
	late  atomic.Pointer[time.Time]
	moved chan struct{}
}

func newStream(s *quic.Stream, c *conn, kind mesh.Kind) *stream {
	s.SetPriority(urgency(kind), true)
	c.streams.Add(1)
	st := &stream{s: s, c: c, kind: kind, pacer: c.pacer}
	if st.pacer != nil {
		st.moved = make(chan struct{}, 1)
	}
	return st
}

// open opens a stream of a kind in a connection.
func (c *conn) open(ctx context.Context, kind mesh.Kind) (*stream, error) {
	q, err := c.q.OpenStreamSync(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", mesh.ErrUnreachable, context.Cause(ctx))
		}
		return nil, c.meaning(err)
	}
	s := newStream(q, c, kind)
	p := wire.Preface(kind)
	if _, err := s.Write(p[:]); err != nil {
		s.Close() //nolint:errcheck // always nil
		return nil, err
	}
	return s, nil
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.s.Read(p)
	if err != nil {
		err = s.meaning(err)
	}
	return n, err
}

func (s *stream) Write(p []byte) (done int, err error) {
	for err == nil && (done < len(p) || len(p) == 0) {
		piece := p[done:]
		if s.pacer != nil {
			piece = piece[:min(len(piece), pieceBytes)]
			err = s.pacer.take(paceOf(s.kind), len(piece), s.s.Context().Done(), s.deadline, s.moved)
		}
		if err == nil {
			var n int
			n, err = s.s.Write(piece)
			done += n
		}
		if len(p) == 0 {
			break
		}
	}
	if err != nil {
		err = s.meaning(err)
	}
	return done, err
}

func (s *stream) deadline() (t time.Time) {
	if at := s.late.Load(); at != nil {
		t = *at
	}
	return t
}

// meaning says an error of the library in the mesh's words.
func (s *stream) meaning(err error) error {
	var of *quic.StreamError
	switch {
	case s.over.Load() && !errors.Is(err, os.ErrDeadlineExceeded):
		return net.ErrClosed
	case errors.As(err, &of) && of.ErrorCode == streamRefused:
		return fmt.Errorf("node %s: %w: it takes no streams of kind %d", s.c.peer.Node, mesh.ErrRefused, s.kind)
	case errors.As(err, &of) && of.ErrorCode == streamForeign:
		return fmt.Errorf("node %s of site %s: %w: streams for %v are for agents of its own site", s.c.peer.Node, s.c.peer.Site, mesh.ErrRefused, s.kind)
	case errors.As(err, &of):
		return errReset
	case errors.Is(err, quic.ErrStreamClosed):
		return fmt.Errorf("written after CloseWrite: %w", net.ErrClosed)
	}
	return s.c.meaning(err)
}

// meaning says why a connection ended.
func (c *conn) meaning(err error) error {
	if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if w := c.why.Load(); w != nil {
		err = *w
	}
	kind := mesh.ErrUnreachable
	if app := new(quic.ApplicationError); errors.As(err, &app) && refusedBy(app) != nil {
		kind = refusedBy(app)
	}
	return fmt.Errorf("node %s at %s: %w: %s", c.peer.Node, c.peer.Addr, kind, text(err))
}

// text is an error of the library without its numbers.
func text(err error) string {
	var app *quic.ApplicationError
	switch {
	case errors.As(err, new(*quic.IdleTimeoutError)), errors.As(err, new(*quic.HandshakeTimeoutError)), errors.Is(err, context.DeadlineExceeded):
		return "nothing was heard of it"
	case errors.As(err, &app) && app.Remote:
		return "it says: " + app.ErrorMessage
	case errors.As(err, &app):
		return app.ErrorMessage
	case errors.As(err, new(*quic.StatelessResetError)):
		return "it was started again"
	}
	return err.Error()
}

// CloseWrite ends this direction; what was written is delivered, whatever comes
// after. It is no error that the peer reads no more: a Write would have said so.
func (s *stream) CloseWrite() error {
	if s.over.Load() {
		return net.ErrClosed
	}
	s.ended.Store(true)
	s.s.Close() //nolint:errcheck // it says only that
	return nil
}

// Close gives up what has not been delivered, unless CloseWrite came before.
func (s *stream) Close() error {
	if s.over.Swap(true) {
		return nil
	}
	s.c.streams.Add(-1)
	s.s.CancelRead(streamClosed)
	if !s.ended.Load() {
		s.s.CancelWrite(streamClosed)
	}
	return nil
}

func (s *stream) SetDeadline(t time.Time) error {
	if s.pacer != nil {
		s.late.Store(&t)
		select {
		case s.moved <- struct{}{}:
		default:
		}
	}
	return s.s.SetDeadline(t)
}

func (s *stream) Peer() mesh.Peer { return s.c.peer }
