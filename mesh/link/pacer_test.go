package link

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// foreign makes links of two sites; sink reads what b is sent, and drops it.
func foreign(t *testing.T, change func(*Config)) (s *site, a, b *Link) {
	s = newSite(t)
	other := func(c *Config) { // papers says that all peers are of site s
		c.Site = "other"
		change(c)
	}
	a, b = s.link("a", other), s.link("b", other)
	for _, kind := range []mesh.Kind{mesh.Call, mesh.Log, mesh.Parts} {
		b.Handle(kind, func(st mesh.Stream) {
			defer st.Close()                //nolint:errcheck // always nil
			_, _ = io.Copy(io.Discard, st)  // to its end
			_ = st.CloseWrite()             // so a knows that it is through
			_, _ = st.Read(make([]byte, 1)) // until a closes
		})
	}
	s.start(a, b)
	return s, a, b
}

func send(t *testing.T, a *Link, kind mesh.Kind, bytes int) {
	t.Helper()
	st, err := a.Open(t.Context(), "b", kind)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // always nil
	if n, err := st.Write(make([]byte, bytes)); err != nil || n != bytes {
		t.Fatalf("%d bytes of %v were sent: %v", n, kind, err)
	}
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(st); err != nil {
		t.Fatal(err)
	}
}

// What goes to another site takes as long as its rate says, at least; and a deadline, or
// the end of the stream, ends a wait.
func TestRateToOtherSites(t *testing.T) {
	_, a, _ := foreign(t, func(c *Config) { c.Rate = 1 << 20 })
	began := time.Now()
	send(t, a, mesh.Parts, 1<<19)
	send(t, a, mesh.Call, 1<<19)
	if took := time.Since(began); took < 800*time.Millisecond { // a tenth of a second's is saved up
		t.Errorf("1 MiB at 1 MiB/s took %v", took)
	}
	st, err := a.Open(t.Context(), "b", mesh.Parts)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := st.Write(make([]byte, 1<<30))
		failed <- err
	}()
	if err := st.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its deadline: %v", err)
	}
	if err := st.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := st.Write(make([]byte, 1<<30))
		failed <- err
	}()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("a gigabyte was sent on a stream that is closed")
	}
}

// Parts to another site go over as many connections as there may be; everything else
// over one.
func TestConnectionsToOtherSites(t *testing.T) {
	_, a, _ := foreign(t, func(c *Config) { c.Bulk = 3 })
	conns := func() (n int) {
		for _, c := range a.Stats() {
			if c.Class == "data" {
				n++
			}
		}
		return n
	}
	for i, want := range []int{1, 2, 3, 3, 3, 3} {
		st, err := a.Open(t.Context(), "b", mesh.Parts)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close() //nolint:errcheck // always nil
		if n := conns(); n != want {
			t.Errorf("%d connections for %d streams, want %d", n, i+1, want)
		}
	}
	for _, c := range a.Stats() {
		if c.Class == "data" && c.Streams != 2 {
			t.Errorf("%d of 6 streams on one of 3 connections", c.Streams)
		}
	}
	_, near, _ := foreign(t, func(c *Config) { c.Bulk, c.Site = 3, "s" })
	for range 4 {
		st, err := near.Open(t.Context(), "b", mesh.Parts)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close() //nolint:errcheck // always nil
	}
	if n := len(near.Stats()); n != 1 {
		t.Errorf("%d connections within a site", n)
	}
}
