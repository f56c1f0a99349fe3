package link_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// door is a link whose events are looked at.
type door struct {
	*link.Link
	events chan link.Event
}

func (p *places) door(t *testing.T, id *identity.Identity, join func(*link.JoinConn)) *door {
	t.Helper()
	d := &door{events: make(chan link.Event, 1000)}
	var err error
	d.Link, err = link.New(link.Config{
		Self: id.Node(), Site: id.Site(), Listen: "127.0.0.1:0", Security: id, Resolver: p, Idle: time.Hour, Dial: time.Hour,
		Events: func(e link.Event) { d.events <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	d.Handle(mesh.Control, func(s mesh.Stream) {
		defer s.Close() //nolint:errcheck // always nil
		if _, err := io.Copy(s, s); err == nil {
			s.CloseWrite() //nolint:errcheck // the peer may have closed it
		}
	})
	d.HandleJoin(join)
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.at[id.Node()] = d.Addr().String()
	p.mu.Unlock()
	return d
}

// nobody is let in.
func nobody(*link.JoinConn) {}

// says waits until it tells of a refusal, by either side, with the reason.
func (d *door) says(t *testing.T, why string) {
	t.Helper()
	for {
		select {
		case e := <-d.events:
			if (e.Kind == link.Refused || e.Kind == link.WasRefused) && strings.Contains(e.Why, why) {
				return
			}
		case <-time.After(time.Minute):
			t.Fatalf("it did not tell of a refusal because of: %s", why)
		}
	}
}

// at is an identity of a mesh whose clock stands where it says.
func at(t *testing.T, meshName string, clock func() time.Time) *identity.Identity {
	t.Helper()
	id, err := identity.OpenFolder(disk.Secret, t.TempDir(), clock).Found(meshName, "hall")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// An agent of another mesh, of one that is called the same, and one whose
// certificate has ended are refused, and both sides say why.
func TestRefusedByCertificate(t *testing.T) {
	now := time.Now()
	clock := now
	host := at(t, "plant", func() time.Time { return clock })
	member := joined(t, host, now, func() time.Time { return now })
	clock = now.Add(364 * 24 * time.Hour) // the host has another certificate by then, the member has not
	csr, err := host.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := host.Issue(csr, host.Node(), host.Site(), clock)
	if err == nil {
		err = host.Renew(chain)
	}
	if err != nil {
		t.Fatal(err)
	}
	clock = now.Add(366 * 24 * time.Hour)
	steady := func() time.Time { return now }
	for _, c := range []struct {
		what string
		id   *identity.Identity
		why  string // on both sides
	}{
		{"another mesh", at(t, "depot", steady), "of another mesh"},
		{"a foreign authority", at(t, "plant", steady), "not signed by this mesh's authority"},
		{"ended", member, "expired on"},
	} {
		p := &places{at: map[mesh.NodeID]string{}}
		h, d := p.door(t, host, nobody), p.door(t, c.id, nobody)
		if err := greet(t, d.Link, host.Node()); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", c.what, err)
		}
		d.says(t, c.why)
		h.says(t, c.why)
	}
}

// joined is an identity of a new agent of a mesh.
func joined(t *testing.T, by *identity.Identity, when time.Time, clock func() time.Time) *identity.Identity {
	t.Helper()
	f := identity.OpenFolder(disk.Secret, t.TempDir(), clock)
	node, err := f.Node()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := f.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := by.Issue(csr, node, by.Site(), when)
	if err != nil {
		t.Fatal(err)
	}
	id, err := f.Keep(identity.Credentials{Mesh: by.Mesh(), Site: by.Site(), Chain: chain, Root: by.Root().Raw, Gossip: by.GossipKey()})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Who speaks QUIC but shows no certificate, one that it made itself, one whose key
// it has not (from the answer to a join of another, say), or another protocol is refused in the handshake, and told so; bytes that are no QUIC are
// let fall. The agent goes on.
func TestRefusedAtTheDoor(t *testing.T) {
	p := &places{at: map[mesh.NodeID]string{}}
	host := found(t, "plant")
	h := p.door(t, host, nobody)
	self := selfSigned(t, host.Node())
	csr, err := host.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := host.Issue(csr, host.Node(), host.Site(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stolen := tls.Certificate{Certificate: chain, PrivateKey: self.PrivateKey}
	for _, c := range []struct {
		what, alpn string
		certs      []tls.Certificate
		own, host  string // what each hears
	}{
		{"no certificate", link.ALPNControl, nil, "certificate required", "didn't provide a certificate"},
		{"its own certificate", link.ALPNControl, []tls.Certificate{self}, "not signed by this mesh's authority", "not signed by this mesh's authority"},
		{"another's certificate", link.ALPNControl, []tls.Certificate{stolen}, "decrypt", "invalid signature by the client certificate"},
		{"another protocol", "h3", []tls.Certificate{self}, "no application protocol", "unsupported application protocols"},
	} {
		err := knock(t, h.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{c.alpn}, Certificates: c.certs})
		if err == nil || !strings.Contains(err.Error(), c.own) {
			t.Errorf("%s: %v", c.what, err)
		}
		h.says(t, c.host)
	}
	udp, err := net.Dial("udp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close() //nolint:errcheck // nothing is lost
	r := rand.NewChaCha8([32]byte{1})
	for i := range 500 {
		b := make([]byte, 1+i*3%1400)
		r.Read(b) //nolint:errcheck // always nil
		if i%2 == 0 {
			copy(b, "GET / HTTP/1.1\r\n")
		}
		udp.Write(b) //nolint:errcheck // a full buffer loses it
	}
	d := p.door(t, joined(t, host, time.Now(), time.Now), nobody)
	if err := greet(t, d.Link, host.Node()); err != nil {
		t.Errorf("a member, after that: %v", err)
	}
}

// knock dials, and waits for how it ends.
func knock(t *testing.T, addr string, conf *tls.Config) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	q, err := quic.DialAddr(ctx, addr, conf, nil)
	if err != nil {
		return err
	}
	defer q.CloseWithError(0, "") //nolint:errcheck // always nil
	s, err := q.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(s)
	return fmt.Errorf("it was let in: %q, %v", text, err)
}

func selfSigned(t *testing.T, node mesh.NodeID) tls.Certificate {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: string(node)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
