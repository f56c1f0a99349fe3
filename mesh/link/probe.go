package link

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// How often a peer's port is asked, and how long nothing may have been heard of
// it when it says that nobody is there.
const (
	probeEvery = 500 * time.Millisecond
	probeAgain = 100 * time.Millisecond
	probeHeard = 1200 * time.Millisecond // more than two keepalives of the default
)

var errPortClosed = errors.New("its port is closed: the process has ended")

// probe finds out sooner than QUIC could that a peer's process has gone: its
// machine answers with ICMP "port unreachable", which a connected socket hears.
// A router on the way may say so too, though the peer is well: so it counts only
// if nothing is heard of it. It ends with the peer's connections.
func (l *Link) probe(p *peer) {
	var socket *net.UDPConn
	var at string
	var heard uint64
	var since time.Time // when a packet was heard last, as far as it was looked
	defer func() {
		if socket != nil {
			socket.Close() //nolint:errcheck // nothing was lost with it
		}
	}()
	for {
		conns, packets := l.heard(p)
		if conns == nil {
			return
		}
		if packets != heard || since.IsZero() {
			heard, since = packets, time.Now()
		}
		if addr := conns[0].q.RemoteAddr().String(); addr != at || socket == nil {
			if socket != nil {
				socket.Close() //nolint:errcheck // nothing was lost with it
			}
			at = addr
			socket = dialProbe(conns[0].q.RemoteAddr())
		}
		pause := probeEvery
		if asks(socket) {
			if pause = probeAgain; time.Since(since) > probeHeard {
				for _, c := range conns {
					l.end(c, errPortClosed)
				}
				continue
			}
		}
		if !sleep(l.ctx, pause) {
			return
		}
	}
}

// heard is the peer's connections and the packets that came on them; nil: it has
// none, and the probe is over.
func (l *Link) heard(p *peer) (conns []*conn, packets uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range p.conns {
		conns = append(conns, list...)
	}
	if l.closed || len(conns) == 0 {
		p.probing = false
		return nil, 0
	}
	for _, c := range conns {
		packets += c.q.ConnectionStats().PacketsReceived
	}
	return conns, packets
}

func dialProbe(to net.Addr) *net.UDPConn {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return nil
	}
	s, err := net.DialUDP("udp", nil, a)
	if err != nil {
		return nil
	}
	return s
}

// asks sends a byte that QUIC ignores, and tells whether the port is said to be
// closed.
func asks(s *net.UDPConn) bool {
	if s == nil {
		return false
	}
	s.SetDeadline(time.Now().Add(probeAgain)) //nolint:errcheck // a read without it ends with the socket
	_, err := s.Write([]byte{0})
	if err == nil {
		_, err = s.Read(make([]byte, 1))
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// sleep waits, and tells whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
