package link_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// sites are founders of two sites of one mesh.
func sites(t *testing.T) (hall, depot *identity.Identity) {
	t.Helper()
	folder := identity.OpenFolder(disk.Secret, t.TempDir(), time.Now)
	hall, err := folder.Found("plant", "hall")
	if err != nil {
		t.Fatal(err)
	}
	key, err := folder.RootKey()
	if err != nil {
		t.Fatal(err)
	}
	_, made, err := identity.SignSite(key, "depot", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token, sealed, err := identity.NewSiteToken(key, "depot", made)
	if err != nil {
		t.Fatal(err)
	}
	c := identity.Credentials{Mesh: "plant", Site: "depot", Root: hall.Root().Raw, Gossip: hall.GossipKey()}
	depot, err = identity.OpenFolder(disk.Secret, t.TempDir(), time.Now).FoundSite(token, c, sealed, func(mesh.NodeID) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return hall, depot
}

// between is a link that answers streams of all kinds with what it reads.
func (p *places) between(t *testing.T, id *identity.Identity, events chan<- link.Event) *link.Link {
	t.Helper()
	l, err := link.New(link.Config{Self: id.Node(), Site: id.Site(), Listen: "127.0.0.1:0", Security: id, Resolver: p, Idle: time.Hour, Dial: time.Hour,
		Events: func(e link.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for kind := mesh.Control; kind <= mesh.Parts; kind++ {
		l.Handle(kind, func(s mesh.Stream) {
			defer s.Close() //nolint:errcheck // always nil
			if _, err := io.Copy(s, s); err == nil {
				s.CloseWrite() //nolint:errcheck // the peer may have closed it
			}
		})
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.at[id.Node()] = l.Addr().String()
	p.mu.Unlock()
	return l
}

// An agent of another site of the mesh is let in, and may open streams of the kinds
// that are between sites; it hears why not of the others, and so does who refuses.
func TestDoorsBetweenSites(t *testing.T) {
	hall, depot := sites(t)
	p := &places{at: map[mesh.NodeID]string{}}
	events := make(chan link.Event, 1000)
	p.between(t, hall, events)
	from := p.between(t, depot, make(chan link.Event, 1000))
	allowed := map[mesh.Kind]bool{mesh.Call: true, mesh.Log: true, mesh.Parts: true}
	for kind := mesh.Control; kind <= mesh.Parts; kind++ {
		s, err := from.Open(t.Context(), hall.Node(), kind)
		if err != nil {
			t.Fatalf("%v: %v", kind, err)
		}
		_, err = fmt.Fprint(s, "hello")
		var text []byte
		if err == nil {
			err = s.CloseWrite()
		}
		if err == nil {
			text, err = io.ReadAll(s)
		}
		s.Close() //nolint:errcheck // always nil
		if allowed[kind] {
			if err != nil || string(text) != "hello" {
				t.Errorf("%v: %q, %v", kind, text, err)
			}
			continue
		}
		if !errors.Is(err, mesh.ErrRefused) || !strings.Contains(err.Error(), fmt.Sprintf("streams for %v are for agents of its own site", kind)) {
			t.Errorf("%v: %q, %v", kind, text, err)
		}
		want := fmt.Sprintf("a stream for %v, which only agents of this site may open; it is of site depot", kind)
		for found := false; !found; {
			select {
			case e := <-events:
				found = e.Kind == link.BadStream && e.Peer.Node == depot.Node() && strings.Contains(e.Why, want)
			case <-time.After(time.Minute):
				t.Fatalf("nothing is told of %v", kind)
			}
		}
	}
}
