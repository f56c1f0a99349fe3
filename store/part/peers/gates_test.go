package peers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// distant is a transport that reads 16 KiB a second from other sites, and reaches no node
// of which the name begins with "lost".
type distant struct {
	mesh.Transport
	site mesh.Site
}

func (d *distant) Open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error) {
	if strings.HasPrefix(string(to), "lost") {
		<-ctx.Done()
		return nil, mesh.ErrUnreachable
	}
	s, err := d.Transport.Open(ctx, to, kind)
	if err != nil || s.Peer().Site == d.site {
		return s, err
	}
	return distantStream{s}, nil
}

type distantStream struct{ mesh.Stream }

func (s distantStream) Read(p []byte) (int, error) {
	<-time.After(time.Second) // of the fake clock
	return s.Stream.Read(p[:min(len(p), 16<<10)])
}

// What goes to other sites takes as many streams as there may be, for long: what is pushed
// within a site does not wait for it, neither where it is served nor where it is fetched.
func TestPushWhileOthersFetch(t *testing.T) {
	const mib = 1 << 20
	for name, test := range map[string]struct {
		sites []mesh.Site // of nodes that fetch
		ways  int
		from  mesh.NodeID
		here  bool // one of those that fetch pushes; else the site that serves does
	}{
		"two sites":                {[]mesh.Site{"s1", "s2"}, 4, "b", false},
		"many streams":             {[]mesh.Site{"s1"}, 8, "b", false},
		"by the one that fetches":  {[]mesh.Site{"s1"}, 8, "b", true},
		"by one that does not get": {[]mesh.Site{"s1"}, 4, "lost", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net, nodes := site(t, "a", "b")
				big := nodes[1].put(t, strings.Repeat("0123456789abcdef", mib))
				ctx, cancel := context.WithCancelCause(t.Context())
				var all sync.WaitGroup
				pusher, to := nodes[0], mesh.NodeID("b")
				over := errors.New("it is over")
				for _, s := range test.sites {
					x, w := away(t, net, mesh.NodeID("x-"+s), s)
					away(t, net, mesh.NodeID("z-"+s), s)
					x.peers.o.Transport, x.peers.o.Ways = &distant{w, s}, test.ways
					if test.here {
						pusher, to = x, mesh.NodeID("z-"+s)
					}
					for range 12 {
						all.Go(func() {
							if err := x.peers.Fetch(ctx, []mesh.NodeID{test.from}, big); !errors.Is(err, over) && test.from != "lost" {
								t.Errorf("the fetch ended: %v", err)
							}
						})
					}
				}
				<-time.After(5 * time.Second)
				began := time.Now()
				if _, err := pusher.peers.Push(t.Context(), to, "j7", id(1, 4), []store.Part{pusher.put(t, "small")}); err != nil || time.Since(began) > time.Second {
					t.Errorf("a push within the site took %v: %v", time.Since(began), err)
				}
				cancel(over)
				all.Wait()
			})
		})
	}
}

// A site has so many streams and no more, whatever other ones do; who waits gives up when
// it is told to, and nothing is left of a site of which nobody is inside.
func TestGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(2)
		if !g.try("s1") || !g.enter("s1", nil) || g.try("s1") || !g.try("s2") {
			t.Fatal("two of s1 and one of s2 are to get in, and not a third of s1")
		}
		in := make(chan bool)
		go func() { in <- g.enter("s1", nil) }()
		synctest.Wait()
		g.leave("s2")
		synctest.Wait()
		select {
		case <-in:
			t.Fatal("a third of s1 got in as one of s2 left")
		default:
		}
		g.leave("s1")
		if !<-in {
			t.Fatal("a third of s1 did not get in when one had left")
		}
		quit := make(chan struct{})
		go func() { in <- g.enter("s1", quit) }()
		synctest.Wait()
		close(quit)
		if <-in {
			t.Fatal("one got in that was told to give up")
		}
		g.leave("s1")
		g.leave("s1")
		if len(g.all) > 0 {
			t.Fatalf("%d gates are left", len(g.all))
		}
	})
}
