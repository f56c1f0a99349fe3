package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// found makes the identity of a mesh's founder.
func found(t *testing.T, name string) *identity.Identity {
	t.Helper()
	id, err := identity.OpenFolder(disk.Secret, t.TempDir(), time.Now).Found(name, "hall")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// signer gives a certificate to everybody.
type signer struct{ id *identity.Identity }

func (s signer) Issue(_ context.Context, r join.Request) (join.Grant, error) {
	chain, err := s.id.Issue(r.CSR, r.Node, s.id.Site(), time.Now())
	return join.Grant{Mesh: s.id.Mesh(), Site: s.id.Site(), Chain: chain, Root: s.id.Root().Raw, Gossip: s.id.GossipKey()}, err
}

// places is a Resolver.
type places struct {
	mu sync.Mutex
	at map[mesh.NodeID]string
}

func (p *places) Addresses(n mesh.NodeID) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.at[n]; a != "" {
		return []string{a}
	}
	return nil
}

func (p *places) start(t *testing.T, id *identity.Identity, handleJoin func(*link.JoinConn)) *link.Link {
	t.Helper()
	l, err := link.New(link.Config{Self: id.Node(), Site: id.Site(), Listen: "127.0.0.1:0", Security: id, Resolver: p, Idle: time.Hour, Dial: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	l.Handle(mesh.Control, func(s mesh.Stream) {
		defer s.Close() //nolint:errcheck // always nil
		if _, err := io.Copy(s, s); err == nil {
			s.CloseWrite() //nolint:errcheck // the peer may have closed it
		}
	})
	l.HandleJoin(handleJoin)
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.at[id.Node()] = l.Addr().String()
	p.mu.Unlock()
	return l
}

func greet(t *testing.T, from *link.Link, to mesh.NodeID) error {
	s, err := from.Open(t.Context(), to, mesh.Control)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // always nil
	if _, err := s.Write([]byte("hello")); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
		return errors.Join(err, errors.New("another answer"))
	}
	return nil
}

// A new agent joins with a token over the port that agents talk on, renews its
// certificate there, and then talks to the founder as an agent. One of another
// mesh does neither.
func TestJoinAndTalk(t *testing.T) {
	p := &places{at: map[mesh.NodeID]string{}}
	founder := found(t, "plant")
	server := join.NewServer(signer{founder})
	a := p.start(t, founder, func(j *link.JoinConn) {
		if _, err := server.Serve(t.Context(), j, j.ConnectionState()); err != nil {
			t.Errorf("joining: %v", err)
		}
	})
	dial := func(ctx context.Context, conf *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
		j, err := link.DialJoin(ctx, a.Addr().String(), conf)
		if err != nil {
			return nil, tls.ConnectionState{}, err
		}
		return j, j.ConnectionState(), nil
	}

	folder := identity.OpenFolder(disk.Secret, t.TempDir(), time.Now)
	node, err := folder.Node()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := folder.Request()
	if err != nil {
		t.Fatal(err)
	}
	applicant := join.Applicant{Token: founder.NewToken(), Node: node, CSR: csr, Name: "box", Version: "v1", Now: time.Now}
	g, err := join.Join(t.Context(), dial, applicant)
	if err != nil {
		t.Fatal(err)
	}
	id, err := folder.Keep(g.Credentials())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join.Renew(t.Context(), dial, id, "box", "v1"); err != nil {
		t.Errorf("renewing: %v", err)
	}
	b := p.start(t, id, func(*link.JoinConn) {})
	if err := greet(t, b, founder.Node()); err != nil {
		t.Errorf("to the founder: %v", err)
	}
	if err := greet(t, a, node); err != nil {
		t.Errorf("to the new agent: %v", err)
	}

	stranger := found(t, "other")
	c := p.start(t, stranger, func(*link.JoinConn) {})
	if err := greet(t, c, node); !errors.Is(err, mesh.ErrRefused) {
		t.Errorf("of another mesh: %v", err)
	}
	applicant.Token = stranger.NewToken()
	if _, err := join.Join(t.Context(), dial, applicant); !errors.Is(err, identity.ErrMesh) {
		t.Errorf("with another mesh's token: %v", err)
	}
}
