package link

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

var _ Security = (*identity.Identity)(nil)

// papers is a Security whose certificates nobody signed: their names are
// believed. refuse says who is not let in.
type papers struct {
	node   mesh.NodeID
	cert   tls.Certificate
	refuse func(node mesh.NodeID) error
}

func newPapers(t testing.TB, node mesh.NodeID) *papers {
	t.Helper()
	seed := sha256.Sum256([]byte(node))
	key := ed25519.NewKeyFromSeed(seed[:])
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: string(node)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &papers{node: node, cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (p *papers) config(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: alpn, Certificates: []tls.Certificate{p.cert}, InsecureSkipVerify: true,
		VerifyConnection: func(tls.ConnectionState) error { return errors.New("link calls Verify itself") },
	}
}

func (p *papers) ServerTLS(alpn ...string) *tls.Config { return p.config(alpn...) }

func (p *papers) ClientTLS(_ mesh.NodeID, alpn ...string) *tls.Config { return p.config(alpn...) }

func (p *papers) JoinServerTLS() *tls.Config {
	c := p.config(ALPNJoin)
	c.VerifyConnection = nil
	return c
}

func (p *papers) Verify(cs *tls.ConnectionState, expect mesh.NodeID) (mesh.Peer, error) {
	node := mesh.NodeID(cs.PeerCertificates[0].Subject.CommonName)
	if expect != "" && expect != node {
		return mesh.Peer{}, fmt.Errorf("%s answers instead of %s", node, expect)
	}
	if p.refuse != nil {
		if err := p.refuse(node); err != nil {
			return mesh.Peer{}, err
		}
	}
	return mesh.Peer{Node: node, Site: "s"}, nil
}

// book is a Resolver.
type book struct {
	mu sync.Mutex
	at map[mesh.NodeID][]string
}

func (b *book) Addresses(node mesh.NodeID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at[node]
}

func (b *book) set(node mesh.NodeID, at ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[node] = at
}

// site is links on this machine that know each other.
type site struct {
	t      *testing.T
	book   *book
	events chan Event
}

func newSite(t *testing.T) *site {
	return &site{t: t, book: &book{at: map[mesh.NodeID][]string{}}, events: make(chan Event, 10_000)}
}

// link makes one that has not been started; change may change its config.
func (s *site) link(node mesh.NodeID, change func(*Config)) *Link {
	s.t.Helper()
	c := Config{
		Self: node, Site: "s", Listen: "127.0.0.1:0", Security: newPapers(s.t, node), Resolver: s.book,
		// No test depends on how soon a peer that is well answers.
		Idle: time.Hour, Dial: time.Hour, ResetKey: sha256.Sum256([]byte("reset " + node)),
		Events: func(e Event) {
			if e.Kind != SmallBuffer {
				s.events <- e
			}
		},
	}
	if change != nil {
		change(&c)
	}
	l, err := New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.book.set(node, l.Addr().String())
	s.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.t.Errorf("closing %s: %v", node, err)
		}
	})
	return l
}

func (s *site) start(all ...*Link) {
	s.t.Helper()
	for _, l := range all {
		if err := l.Start(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// wait is the next event of a kind about a node; empty: about any.
func (s *site) wait(k EventKind, of mesh.NodeID) Event {
	for e := range s.events {
		if e.Kind == k && (of == "" || e.Peer.Node == of) {
			return e
		}
	}
	return Event{}
}
