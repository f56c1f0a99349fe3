package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// tap stands between a client and a host, and keeps what both send. What comes
// from others, as probes do, goes no further.
type tap struct {
	front, back *net.UDPConn // to the client, to the host
	host        netip.AddrPort

	mu       sync.Mutex     // guards what follows
	client   netip.AddrPort // the first that sent something
	up, down [][]byte
}

func newTap(t *testing.T, host *net.UDPAddr) *tap {
	t.Helper()
	p := &tap{front: listen(t), back: listen(t), host: netip.AddrPortFrom(host.AddrPort().Addr().Unmap(), uint16(host.Port))}
	var wg sync.WaitGroup
	wg.Go(func() {
		pump(p.front, func(b []byte, from netip.AddrPort) {
			p.mu.Lock()
			if !p.client.IsValid() {
				p.client = from
			}
			ok := from == p.client
			if ok {
				p.up = append(p.up, b)
			}
			p.mu.Unlock()
			if ok {
				p.back.WriteToUDPAddrPort(b, p.host) //nolint:errcheck // a datagram may be lost
			}
		})
	})
	wg.Go(func() {
		pump(p.back, func(b []byte, from netip.AddrPort) {
			if from != p.host {
				return
			}
			p.mu.Lock()
			to := p.client
			p.down = append(p.down, b)
			p.mu.Unlock()
			p.front.WriteToUDPAddrPort(b, to) //nolint:errcheck // a datagram may be lost
		})
	})
	t.Cleanup(func() {
		p.front.Close() //nolint:errcheck // it ends the goroutine
		p.back.Close()  //nolint:errcheck // it ends the goroutine
		wg.Wait()
	})
	return p
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pump hands datagrams on until the socket is closed.
func pump(c *net.UDPConn, take func([]byte, netip.AddrPort)) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n > 0 {
			take(bytes.Clone(b[:n]), from)
		}
	}
}

func (p *tap) addr() string { return p.front.LocalAddr().String() }

// again sends all that was kept once more, as it was and with a bit turned: from
// where it came, and from elsewhere. It returns how many datagrams it had.
func (p *tap) again(t *testing.T) int {
	t.Helper()
	other := listen(t)
	defer other.Close() //nolint:errcheck // what comes to it is nobody's
	p.mu.Lock()
	client, up, down := p.client, p.up, p.down
	p.mu.Unlock()
	send := func(all [][]byte, same *net.UDPConn, to netip.AddrPort) {
		for i, b := range all {
			turned := bytes.Clone(b)
			turned[i*7%len(b)] ^= 1
			for _, b := range [][]byte{b, turned} {
				same.WriteToUDPAddrPort(b, to)  //nolint:errcheck // a datagram may be lost
				other.WriteToUDPAddrPort(b, to) //nolint:errcheck // a datagram may be lost
			}
		}
	}
	send(up, p.back, p.host)
	send(down, p.front, client)
	return len(up) + len(down)
}

// Datagrams of a join and of a connection that stands, sent again by somebody who
// saw them pass, let nobody in and do nothing to the connection.
func TestDatagramsSentAgain(t *testing.T) {
	p := &places{at: map[mesh.NodeID]string{}}
	host := found(t, "plant")
	server := join.NewServer(signer{host})
	var joins atomic.Int32
	h := p.door(t, host, func(j *link.JoinConn) {
		joins.Add(1)
		if _, err := server.Serve(t.Context(), j, j.ConnectionState()); err != nil {
			t.Errorf("joining: %v", err)
		}
	})
	front := newTap(t, h.Addr())
	d := p.door(t, joinedAt(t, front.addr(), host.NewToken()), nobody)
	way := newTap(t, h.Addr())
	p.mu.Lock()
	p.at[host.Node()] = way.addr()
	p.mu.Unlock()

	st, err := d.Open(t.Context(), host.Node(), mesh.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()                                //nolint:errcheck // always nil
	st.SetDeadline(time.Now().Add(2 * time.Minute)) //nolint:errcheck // always nil
	got := make([]byte, 4)
	for _, word := range []string{"ping", "once", "more"} {
		if _, err := st.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(st, got); err != nil || string(got) != word {
			t.Fatalf("%q came back as %q: %v", word, got, err)
		}
		if a, b := front.again(t), way.again(t); a < 4 || b < 4 {
			t.Errorf("only %d and %d datagrams were there to be sent again", a, b)
		}
	}
	if err := st.CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(st); err != nil || len(rest) > 0 {
		t.Errorf("at the end %q came back: %v", rest, err)
	}
	if n := joins.Load(); n != 1 {
		t.Errorf("%d conversations with who joins", n)
	}
	for name, of := range map[string]*door{"host": h, "member": d} {
		if n := len(of.Stats()); n != 1 {
			t.Errorf("%s: %d connections", name, n)
		}
		for len(of.events) > 0 {
			if e := <-of.events; e.Kind != link.PeerUp && e.Kind != link.SmallBuffer {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
}

// joinedAt is the identity of a new agent that joined at an address.
func joinedAt(t *testing.T, addr string, token identity.Token) *identity.Identity {
	t.Helper()
	f := identity.OpenFolder(disk.Secret, t.TempDir(), time.Now)
	node, err := f.Node()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := f.Request()
	if err != nil {
		t.Fatal(err)
	}
	g, err := join.Join(t.Context(), func(ctx context.Context, conf *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
		j, err := link.DialJoin(ctx, addr, conf)
		if err != nil {
			return nil, tls.ConnectionState{}, err
		}
		return j, j.ConnectionState(), nil
	}, join.Applicant{Token: token, Node: node, CSR: csr, Name: "box", Version: "v1", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	id, err := f.Keep(g.Credentials())
	if err != nil {
		t.Fatal(err)
	}
	return id
}
