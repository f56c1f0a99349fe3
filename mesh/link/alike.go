package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// errSelf is that a connection of this process to itself came back to it.
var errSelf = errors.New("this agent answers itself there")

// Alike tells whether another process with this node's identity answers at
// host:port: it has shown the certificate, and heard of this one. An error says
// why it is not known; who is seen to be somebody else is no error. It may be
// called before Start, and waits until ctx ends.
func (l *Link) Alike(ctx context.Context, addr string) (bool, error) {
	to, err := resolve(ctx, addr)
	if err != nil {
		return false, fmt.Errorf("%w: %w", mesh.ErrUnreachable, err)
	}
	if closed(to) {
		return false, nil
	}
	conf := l.cfg.Security.ClientTLS(l.cfg.Self, ALPNControl)
	conf.VerifyConnection = nil
	patient := l.conf.Clone()
	patient.HandshakeIdleTimeout = time.Hour // ctx ends it
	q, err := l.quic.Dial(ctx, to, conf, patient)
	if err != nil {
		return false, fmt.Errorf("%w: %s", mesh.ErrUnreachable, text(err))
	}
	defer q.CloseWithError(codeClosed, "") //nolint:errcheck // always nil
	cs := q.ConnectionState().TLS
	if _, err := l.cfg.Security.Verify(&cs, l.cfg.Self); err != nil {
		return false, nil
	}
	k, err := callOf(&cs)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	l.calls[k] = false
	l.mu.Unlock()
	l.tellRefusal(ctx, q, mesh.ErrTwin)
	l.mu.Lock()
	itself := l.calls[k]
	delete(l.calls, k)
	l.mu.Unlock()
	if q.Context().Err() == nil {
		return false, fmt.Errorf("%w: it does not answer in time", mesh.ErrUnreachable)
	}
	return !itself, nil
}

// closed tells whether a port is said to have no process.
func closed(to *net.UDPAddr) bool {
	s := dialProbe(to)
	if s == nil {
		return false
	}
	defer s.Close() //nolint:errcheck // nothing was lost with it
	return asks(s)
}

// call is what both ends of a connection know of it, and nobody else.
type call [32]byte

func callOf(cs *tls.ConnectionState) (k call, err error) {
	b, err := cs.ExportKeyingMaterial("EXPORTER-tidemark-call", nil, len(k))
	copy(k[:], b)
	return k, err
}

// alike is why a connection from this node's identity is not taken. The dialler
// is heard first: it may be this process, which found itself at an address that
// somebody told.
func (l *Link) alike(ctx context.Context, q *quic.Conn, cs *tls.ConnectionState, dialled bool) error {
	if dialled {
		return mesh.ErrTwin
	}
	readWelcome(ctx, q) //nolint:errcheck // whatever it says
	k, err := callOf(cs)
	if err != nil {
		return mesh.ErrTwin
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, own := l.calls[k]; own {
		l.calls[k] = true
		return errSelf
	}
	return mesh.ErrTwin
}
