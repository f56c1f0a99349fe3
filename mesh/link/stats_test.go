package link

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// What a connection has done stays counted when it has ended, and when others follow it.
func TestTotalsNeverFall(t *testing.T) {
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	echo(b, mesh.Control, mesh.Channel)
	s.start(a, b)
	before := make(map[string]Total)
	look := func(what string) {
		t.Helper()
		all := a.Totals()
		if len(all) != 2 || all[0].Class != "control" || all[1].Class != "data" {
			t.Fatalf("%s: totals %+v", what, all)
		}
		for _, now := range all {
			was := before[now.Class]
			if now.Node != "b" || now.BytesSent < was.BytesSent || now.BytesReceived < was.BytesReceived || now.PacketsLost < was.PacketsLost {
				t.Errorf("%s: %+v, after %+v", what, now, was)
			}
			before[now.Class] = now
		}
	}
	for range 3 {
		for _, k := range []mesh.Kind{mesh.Control, mesh.Channel} {
			if err := ask(t.Context(), a, "b", k); err != nil {
				t.Fatal(err)
			}
		}
		sent := before["data"].BytesSent
		look("connected")
		if got := before["data"].BytesSent - sent; got < 1000 { // a handshake at least
			t.Errorf("a new connection sent %d bytes", got)
		}
		a.mu.Lock()
		var open []*conn
		for _, list := range a.peers["b"].conns {
			open = append(open, list...)
		}
		a.mu.Unlock()
		for _, c := range open {
			a.end(c, errClosing)
			look("one has ended")
		}
		if n := len(a.Stats()); n != 0 {
			t.Errorf("%d connections are open", n)
		}
	}
}
