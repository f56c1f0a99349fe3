package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// shake lets a client and a server meet over a pipe. Each side then reads a byte
// of the other: a client of TLS 1.3 learns of a refusal only by reading.
func shake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(30 * time.Second)
	if err := errors.Join(a.SetDeadline(deadline), b.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		s := tls.Server(b, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		if err != nil {
			b.Close()
		}
		done <- err
	}()
	c := tls.Client(a, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	a.Close()
	return c.ConnectionState(), clientErr, <-done
}

func TestMutualTLS(t *testing.T) {
	f := newBox(t, "2026-03-01")
	server := f.found("plant", "hall")
	b := newBox(t, "2026-03-01")
	client := b.joins(server)
	other := newBox(t, "2026-03-01").found("other", "hall")
	twin := newBox(t, "2026-03-01").found("plant", "hall")
	listen := server.ListenTLS("tidemark/1")

	cs, ce, se := shake(t, client.ClientTLS(server.Node(), "tidemark/1"), listen)
	if ce != nil || se != nil || cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "tidemark/1" {
		t.Fatalf("client %v, server %v, %s", ce, se, cs.NegotiatedProtocol)
	}
	if p, err := client.Verify(&cs, server.Node()); err != nil || p.Node != server.Node() || p.Site != "hall" {
		t.Errorf("the peer is %v, %v", p, err)
	}
	trusting := func(c *tls.Config) *tls.Config { // a client that believes everybody
		c.VerifyConnection = nil
		return c
	}
	for name, c := range map[string]struct {
		client           *tls.Config
		clientIs, serves error // nil: some error; a client that trusts hears an alert only
	}{
		"another mesh":         {other.ClientTLS("", "tidemark/1"), ErrMesh, nil},
		"another mesh, trusts": {trusting(other.ClientTLS("", "tidemark/1")), nil, ErrMesh},
		"a mesh of that name":  {trusting(twin.ClientTLS("", "tidemark/1")), nil, ErrForeign},
		"another node":         {client.ClientTLS(client.Node(), "tidemark/1"), ErrNode, nil},
		"no certificate":       {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"tidemark/1"}}, nil, nil},
		"TLS 1.2":              {&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, nil, nil},
		"another protocol":     {client.ClientTLS("", "h3"), nil, nil},
	} {
		_, ce, se := shake(t, c.client, listen)
		if ce == nil || se == nil || c.clientIs != nil && !errors.Is(ce, c.clientIs) || c.serves != nil && !errors.Is(se, c.serves) {
			t.Errorf("%s: client %v, server %v", name, ce, se)
		}
	}

	f.clock = at("2027-03-02")
	_, ce, se = shake(t, trusting(client.ClientTLS("", "tidemark/1")), listen)
	if ce == nil || !errors.Is(se, ErrExpired) || !strings.Contains(se.Error(), "2027-03-02") {
		t.Errorf("the server's own certificate ended: client %v, server %v", ce, se)
	}
	f.clock, b.clock = at("2026-03-01"), at("2027-03-02")
	_, ce, se = shake(t, trusting(client.ClientTLS("", "tidemark/1")), listen)
	if !errors.Is(ce, ErrExpired) || se == nil || !strings.Contains(ce.Error(), "join again") {
		t.Errorf("the client's own certificate ended: client %v, server %v", ce, se)
	}
}

func TestExpiredPeer(t *testing.T) {
	f := newBox(t, "2026-03-01")
	server := f.found("plant", "hall")
	b := newBox(t, "2026-03-01")
	client := b.joins(server)
	// The server renewed, the client did not, and its clock stands still.
	f.clock = at("2027-01-01")
	csr, err := server.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := server.Issue(csr, server.Node(), "hall", f.clock)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Renew(chain); err != nil {
		t.Fatal(err)
	}
	if _, ce, se := shake(t, client.ClientTLS("", "x"), server.ServerTLS("x")); ce != nil || se != nil {
		t.Errorf("while it lasts: client %v, server %v", ce, se)
	}
	f.clock = at("2027-03-02")
	_, ce, se := shake(t, client.ClientTLS("", "x"), server.ServerTLS("x"))
	if ce == nil || !errors.Is(se, ErrExpired) || !strings.Contains(se.Error(), string(client.Node())) {
		t.Errorf("client %v, server %v", ce, se)
	}
}

// TestTwoMeshes: side by side, with the same names of sites, neither sees the
// other.
func TestTwoMeshes(t *testing.T) {
	a, b := newBox(t, "2026-03-01").found("plant", "hall"), newBox(t, "2026-03-01").found("depot", "hall")
	a2, b2 := newBox(t, "2026-03-01").joins(a), newBox(t, "2026-03-01").joins(b)
	for _, c := range []struct {
		from, to *Identity
		ok       bool
	}{{a, a2, true}, {a2, a, true}, {b, b2, true}, {a, b, false}, {b2, a2, false}, {a2, b, false}} {
		_, ce, se := shake(t, c.from.ClientTLS(c.to.Node(), "x"), c.to.ServerTLS("x"))
		if (ce == nil && se == nil) != c.ok || !c.ok && (!errors.Is(ce, ErrMesh) || !strings.Contains(ce.Error(), c.to.Mesh())) {
			t.Errorf("%s to %s: client %v, server %v", c.from.Mesh(), c.to.Mesh(), ce, se)
		}
	}
	if bytes.Equal(a.GossipKey(), b.GossipKey()) {
		t.Error("they have the same gossip key")
	}
}

func TestJoinTLS(t *testing.T) {
	f := newBox(t, "2026-03-01")
	server := f.found("plant", "hall")
	twin := newBox(t, "2026-03-01").found("plant", "hall")
	listen := server.ListenTLS("tidemark/1")
	clock := func(s string) func() time.Time { return func() time.Time { return at(s) } }
	for _, when := range []string{"2026-03-01", "1970-01-01"} {
		cs, ce, se := shake(t, JoinTLS(server.NewToken(), clock(when)), listen)
		if ce != nil || se != nil || cs.NegotiatedProtocol != JoinALPN {
			t.Errorf("%s: client %v, server %v, %s", when, ce, se, cs.NegotiatedProtocol)
		}
	}
	for name, c := range map[string]struct {
		token  Token
		when   string
		listen *tls.Config
		want   error
	}{
		"another mesh's token":           {twin.NewToken(), "2026-03-01", listen, ErrMesh},
		"long after":                     {server.NewToken(), "2040-03-01", listen, ErrExpired},
		"a server that hides its root":   {server.NewToken(), "2026-03-01", server.ServerTLS(JoinALPN), ErrForeign},
		"a server that shows our root":   {server.NewToken(), "2026-03-01", showing(twin, server), ErrForeign},
		"a server that only has a name":  {server.NewToken(), "2026-03-01", showing(newBox(t, "2026-03-01").found("x", "hall"), server), ErrMesh},
		"a server with a root of itself": {server.NewToken(), "2026-03-01", twin.JoinServerTLS(), ErrMesh},
	} {
		_, ce, se := shake(t, JoinTLS(c.token, clock(c.when)), c.listen)
		if !errors.Is(ce, c.want) || se == nil {
			t.Errorf("%s: client %v, server %v, want %v", name, ce, se, c.want)
		}
	}
	// Who has a certificate shows it, for a renewal; a wrong one is refused.
	client := newBox(t, "2026-03-01").joins(server)
	if _, ce, se := shake(t, client.ClientTLS("", JoinALPN), listen); ce != nil || se != nil {
		t.Errorf("renewal: client %v, server %v", ce, se)
	}
	foreign := twin.ClientTLS("", JoinALPN)
	foreign.VerifyConnection = nil
	if _, ce, se := shake(t, foreign, listen); ce == nil || !errors.Is(se, ErrForeign) {
		t.Errorf("renewal with a foreign certificate: client %v, server %v", ce, se)
	}
	if _, ce, se := shake(t, JoinTLS(server.NewToken(), clock("2026-03-01")), server.ServerTLS(JoinALPN)); ce == nil || se == nil {
		t.Error("a joiner came into the mesh's own protocol")
	}
}

// showing is a server of one mesh that shows another one's root.
func showing(id, root *Identity) *tls.Config {
	c := id.JoinServerTLS()
	inner := c.GetCertificate
	c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := inner(h)
		if err == nil {
			cert.Certificate[2] = root.Root().Raw
		}
		return cert, err
	}
	return c
}

func TestPlainText(t *testing.T) {
	server := newBox(t, "2026-03-01").found("plant", "hall")
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(b, server.ListenTLS("x")).Handshake()
		b.Close()
	}()
	if _, err := a.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = a.Read(make([]byte, 64)) // its alert
	if err := <-done; err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
		t.Errorf("the server says %v", err)
	}
	a.Close()
	if _, err := server.Verify(&tls.ConnectionState{}, ""); !errors.Is(err, ErrPlain) {
		t.Errorf("no TLS at all: %v", err)
	}
	if _, err := VerifyJoin(&tls.ConnectionState{}, server.NewToken(), at("2026-03-01")); !errors.Is(err, ErrPlain) {
		t.Errorf("no TLS at all: %v", err)
	}
}

func TestSameSitePeers(t *testing.T) {
	f := newBox(t, "2026-03-01")
	server := f.found("plant", "hall")
	client := newBox(t, "2026-03-01").joins(server)
	server.SetAllow(func(p mesh.Peer) error {
		if p.Site != "depot" {
			return errors.New("only the depot may")
		}
		return nil
	})
	if _, ce, se := shake(t, client.ClientTLS("", "x"), server.ServerTLS("x")); ce == nil || !errors.Is(se, ErrRefused) || !strings.Contains(se.Error(), "only the depot") {
		t.Errorf("client %v, server %v", ce, se)
	}
}
