package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// echo answers streams of a kind with what came.
func echo(l *Link, kinds ...mesh.Kind) {
	for _, k := range kinds {
		l.Handle(k, func(s mesh.Stream) {
			defer s.Close() //nolint:errcheck // always nil
			if _, err := io.Copy(s, s); err == nil {
				s.CloseWrite() //nolint:errcheck // the peer may have closed it
			}
		})
	}
}

func ask(ctx context.Context, l *Link, to mesh.NodeID, kind mesh.Kind) error {
	s, err := l.Open(ctx, to, kind)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // always nil
	if _, err := s.Write([]byte("ping")); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && string(got) != "ping" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// watch collects what l is told, as "node up" and "node down".
func watch(l *Link) <-chan string {
	told := make(chan string, 100)
	l.Watch(func(n mesh.NodeID, up bool) {
		told <- fmt.Sprintf("%s %s", n, map[bool]string{true: "up", false: "down"}[up])
	})
	return told
}

func TestRefusedWithTheReasonOnBothSides(t *testing.T) {
	no := func(mesh.NodeID) error { return errors.New("its certificate expired on Monday") }
	for _, who := range []mesh.NodeID{"a", "b"} {
		t.Run("by "+string(who), func(t *testing.T) {
			s := newSite(t)
			refuse := func(c *Config) {
				if c.Self == who {
					c.Security.(*papers).refuse = no
				}
			}
			a, b := s.link("a", refuse), s.link("b", refuse)
			echo(b, mesh.Control)
			s.start(a, b)
			err := ask(t.Context(), a, "b", mesh.Control)
			if !errors.Is(err, mesh.ErrRefused) || !strings.Contains(err.Error(), "expired on Monday") {
				t.Errorf("error %v", err)
			}
			var kinds []EventKind
			for range 2 {
				e := <-s.events
				kinds = append(kinds, e.Kind)
				if e.Why != "its certificate expired on Monday" || e.Peer.Addr == "" {
					t.Errorf("event %v", e)
				}
			}
			if slices.Sort(kinds); !slices.Equal(kinds, []EventKind{Refused, WasRefused}) {
				t.Errorf("events %v", kinds)
			}
		})
	}
}

func TestAnotherNodeAnswers(t *testing.T) {
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	echo(b, mesh.Control)
	s.start(a, b)
	s.book.set("c", b.Addr().String())
	if err := ask(t.Context(), a, "c", mesh.Control); !errors.Is(err, mesh.ErrRefused) || !strings.Contains(err.Error(), "b answers instead of c") {
		t.Errorf("error %v", err)
	}
	// One address that leads nowhere does no harm.
	s.book.set("b", "nonsense", a.Addr().String(), b.Addr().String())
	if err := ask(t.Context(), a, "b", mesh.Control); err != nil {
		t.Errorf("the last of three addresses is right: %v", err)
	}
}

// TestAlike: a process of the same identity is found where it runs, and says so;
// nobody else is taken for one, this process itself least of all.
func TestAlike(t *testing.T) {
	s := newSite(t)
	b, twin, a, silent := s.link("b", nil), s.link("b", nil), s.link("a", nil), s.link("b", nil)
	s.start(b, a)
	for what, c := range map[string]struct {
		from *Link
		at   string
		want bool
	}{
		"a twin, before it has started": {twin, b.Addr().String(), true},
		"another agent":                 {twin, a.Addr().String(), false},
		"this agent":                    {b, b.Addr().String(), false},
		"a port that is closed":         {b, "127.0.0.1:1", false},
	} {
		if alike, err := c.from.Alike(t.Context(), c.at); alike != c.want || err != nil {
			t.Errorf("%s: %v, %v", what, alike, err)
		}
	}
	if e := s.wait(Refused, ""); e.Why != mesh.ErrTwin.Error() {
		t.Errorf("event %v", e)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if alike, err := silent.Alike(ctx, twin.Addr().String()); alike || !errors.Is(err, mesh.ErrUnreachable) {
		t.Errorf("one that lets nobody in yet: %v, %v", alike, err)
	}
	if len(b.calls)+len(twin.calls)+len(silent.calls) > 0 {
		t.Error("calls are kept")
	}
}

// joinable is a client's configuration that verifies nothing.
func (p *papers) joinable(alpn string) *tls.Config {
	c := p.config(alpn)
	c.VerifyConnection = nil
	return c
}

// All of a site begin to talk to each other at the same time.
func TestAllDialAtOnce(t *testing.T) {
	s := newSite(t)
	var all []*Link
	for _, n := range []mesh.NodeID{"a", "b", "c", "d"} {
		l := s.link(n, nil)
		echo(l, mesh.Control, mesh.Channel)
		all = append(all, l)
	}
	s.start(all...)
	var wg sync.WaitGroup
	for _, from := range all {
		for _, to := range all {
			for i := range 8 {
				wg.Go(func() {
					if err := ask(t.Context(), from, to.Self(), []mesh.Kind{mesh.Control, mesh.Channel}[i%2]); err != nil {
						t.Errorf("%s to %s: %v", from.Self(), to.Self(), err)
					}
				})
			}
		}
	}
	wg.Wait()
	st := all[0].Stats()
	if len(st) < 6 || st[0].Peer.Node != "b" || st[0].Class != "control" || st[0].BytesSent == 0 || st[0].RTT == 0 {
		t.Errorf("stats %+v", st)
	}
}

// Where both have dialled, both choose the connection that the lower one dialled.
func TestBothChooseAlike(t *testing.T) {
	mine, theirs := &conn{dialled: true}, &conn{}
	for _, c := range []struct {
		self, peer mesh.NodeID
		conns      []*conn
		want       *conn
	}{
		{"a", "b", nil, nil},
		{"a", "b", []*conn{theirs}, theirs},
		{"b", "a", []*conn{mine}, mine},
		{"a", "b", []*conn{mine, theirs}, mine},
		{"a", "b", []*conn{theirs, mine}, mine},
		{"b", "a", []*conn{mine, theirs}, theirs},
		{"b", "a", []*conn{theirs, mine}, theirs},
		{"a", "b", []*conn{{dialled: true}, theirs, mine}, mine},
	} {
		p := &peer{node: c.peer}
		p.conns[data] = c.conns
		if got := p.best(c.self, data); got != c.want {
			t.Errorf("%s to %s of %d: another one", c.self, c.peer, len(c.conns))
		}
	}
}

func TestAPortThatIsClosedIsFoundOut(t *testing.T) {
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	echo(b, mesh.Control, mesh.Channel)
	told := watch(a)
	s.start(a, b)
	for _, k := range []mesh.Kind{mesh.Control, mesh.Channel} {
		if err := ask(t.Context(), a, "b", k); err != nil {
			t.Fatal(err)
		}
	}
	st, err := a.Open(t.Context(), "b", mesh.Channel)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // always nil
	<-told
	b.Crash()
	if m := <-told; m != "b down" {
		t.Errorf("told %q", m)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, mesh.ErrUnreachable) || !strings.Contains(err.Error(), "its port is closed") {
		t.Errorf("error %v", err)
	}
	if e := s.wait(PeerDown, "b"); !strings.Contains(e.Why, "its port is closed") {
		t.Errorf("event %v", e)
	}
}

func TestSilenceEndsAConnection(t *testing.T) {
	s := newSite(t)
	quick := func(c *Config) { c.Idle, c.NoProbe = 500*time.Millisecond, true }
	a, b := s.link("a", quick), s.link("b", quick)
	echo(b, mesh.Control)
	s.start(a, b)
	st, err := a.Open(t.Context(), "b", mesh.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // always nil
	b.Crash()
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, mesh.ErrUnreachable) || !strings.Contains(err.Error(), "nothing was heard") {
		t.Errorf("error %v", err)
	}
}

// A process that takes the port of the one before resets its connections, though
// neither the probe nor silence has told of its end, once it is sent more than a
// keepalive.
func TestStartedAgainOnItsPort(t *testing.T) {
	s := newSite(t)
	blind := func(c *Config) { c.NoProbe = true }
	a, b := s.link("a", blind), s.link("b", blind)
	echo(b, mesh.Control)
	told := watch(a)
	s.start(a, b)
	if err := ask(t.Context(), a, "b", mesh.Control); err != nil {
		t.Fatal(err)
	}
	if m := <-told; m != "b up" { // else a fall that comes before it is left out
		t.Errorf("told %q", m)
	}
	at := b.Addr().String()
	b.Crash()
	again := s.link("b", func(c *Config) { c.NoProbe, c.Listen = true, at })
	echo(again, mesh.Control)
	s.start(again)
	if st, err := a.Open(t.Context(), "b", mesh.Control); err == nil {
		st.Write(make([]byte, 1000)) //nolint:errcheck // it may be reset
		defer st.Close()             //nolint:errcheck // always nil
	}
	if m := <-told; m != "b down" {
		t.Errorf("told %q", m)
	}
	if e := s.wait(PeerDown, "b"); e.Why != "it was started again" {
		t.Errorf("event %v", e)
	}
	if err := ask(t.Context(), a, "b", mesh.Control); err != nil {
		t.Error(err)
	}
}

// A process that comes back elsewhere ends what is left of the one before, and
// one that was started before it is not let in any more.
func TestStartedAgainElsewhere(t *testing.T) {
	s := newSite(t)
	boot := func(n uint64) func(*Config) {
		return func(c *Config) { c.NoProbe, c.Boot = true, n }
	}
	a, b := s.link("a", boot(1)), s.link("b", boot(7))
	echo(a, mesh.Control)
	echo(b, mesh.Control)
	told := watch(a)
	s.start(a, b)
	if err := ask(t.Context(), a, "b", mesh.Control); err != nil {
		t.Fatal(err)
	}
	if m := <-told; m != "b up" { // else a fall that comes before it is left out
		t.Errorf("told %q", m)
	}
	b.Crash()
	again := s.link("b", boot(8))
	echo(again, mesh.Control)
	s.start(again)
	if err := ask(t.Context(), again, "a", mesh.Control); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"b down", "b up"} {
		if m := <-told; m != want {
			t.Errorf("told %q, want %q", m, want)
		}
	}
	if err := ask(t.Context(), a, "b", mesh.Control); err != nil {
		t.Errorf("at the new address: %v", err)
	}
	old := s.link("b", boot(7))
	s.start(old)
	if err := ask(t.Context(), old, "a", mesh.Control); !errors.Is(err, mesh.ErrRefused) || !strings.Contains(err.Error(), "started later") {
		t.Errorf("a process of before: %v", err)
	}
}

func TestStreamsThatNobodyTakes(t *testing.T) {
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	echo(b, mesh.Control, mesh.Channel)
	s.start(a, b)
	if err := ask(t.Context(), a, "b", mesh.Control); err != nil {
		t.Fatal(err)
	}
	for _, preface := range [][]byte{{byte(mesh.Channel), wire.Version}, {byte(mesh.Control), 9}, {77, wire.Version}} {
		q, err := a.best("b", control).q.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.Write(preface); err != nil {
			t.Fatal(err)
		}
		var reset *quic.StreamError
		if _, err := q.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.ErrorCode != streamRefused {
			t.Errorf("preface %x: %v", preface, err)
		}
		if e := s.wait(BadStream, ""); e.Peer.Node != "a" || e.Why == "" {
			t.Errorf("event %v", e)
		}
	}
}

func TestJoin(t *testing.T) {
	s := newSite(t)
	b := s.link("b", nil)
	b.HandleJoin(func(j *JoinConn) {
		defer j.Close() //nolint:errcheck // always nil
		got, err := io.ReadAll(j)
		if err == nil {
			_, err = fmt.Fprintf(j, "welcome, %s", got)
		}
		if err := errors.Join(err, j.CloseWrite()); err != nil {
			t.Error(err)
		}
	})
	s.start(b)
	conf := newPapers(t, "new").joinable(ALPNJoin)
	conf.Certificates = nil
	j, err := DialJoin(t.Context(), b.Addr().String(), conf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Write([]byte("stranger")); err != nil {
		t.Error(err)
	}
	if err := j.CloseWrite(); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(j)
	if err != nil || string(got) != "welcome, stranger" {
		t.Errorf("got %q, %v", got, err)
	}
	if c := j.ConnectionState().PeerCertificates; len(c) != 1 || c[0].Subject.CommonName != "b" {
		t.Errorf("certificates %v", c)
	}
	if j.RemoteAddr().String() != b.Addr().String() {
		t.Errorf("at %v", j.RemoteAddr())
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestJoinWithTwoStreams(t *testing.T) {
	s := newSite(t)
	b := s.link("b", nil)
	b.HandleJoin(func(j *JoinConn) {
		defer j.Close()        //nolint:errcheck // always nil
		io.Copy(io.Discard, j) //nolint:errcheck // it is cut off
	})
	s.start(b)
	j, err := DialJoin(t.Context(), b.Addr().String(), newPapers(t, "new").joinable(ALPNJoin))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close() //nolint:errcheck // always nil
	if _, err := j.Write([]byte("1")); err != nil {
		t.Fatal(err)
	}
	second, err := j.q.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Write([]byte("2")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(j); !errors.Is(err, mesh.ErrRefused) || !strings.Contains(err.Error(), "one stream") {
		t.Errorf("error %v", err)
	}
}

func TestNobodyAnswersJoins(t *testing.T) {
	s := newSite(t)
	b := s.link("b", nil)
	s.start(b)
	if _, err := DialJoin(t.Context(), b.Addr().String(), newPapers(t, "new").joinable(ALPNJoin)); !errors.Is(err, mesh.ErrRefused) {
		t.Errorf("error %v", err)
	}
	if e := s.wait(Refused, ""); e.Peer.Addr == "" || !strings.Contains(e.Why, "application protocol") {
		t.Errorf("event %v", e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DialJoin(ctx, b.Addr().String(), newPapers(t, "new").joinable(ALPNJoin)); !errors.Is(err, mesh.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}

func TestThePortIsTaken(t *testing.T) {
	s := newSite(t)
	b := s.link("b", nil)
	_, err := New(Config{Self: "x", Listen: b.Addr().String(), Security: newPapers(t, "x"), Resolver: s.book})
	var op *net.OpError
	if !errors.As(err, &op) || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("error %v", err)
	}
}

// Handlers end with their streams when the link is closed.
func TestCloseEndsHandlers(t *testing.T) {
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	taken, ended := make(chan struct{}), make(chan error, 2)
	for _, l := range []*Link{a, b} {
		l.Handle(mesh.Channel, func(st mesh.Stream) {
			taken <- struct{}{}
			_, err := st.Read(make([]byte, 1))
			ended <- err
			st.Close() //nolint:errcheck // always nil
		})
	}
	s.start(a, b)
	for _, to := range []mesh.NodeID{"a", "b"} {
		st, err := a.Open(t.Context(), to, mesh.Channel)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close() //nolint:errcheck // always nil
		<-taken
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("error %v", err)
		}
	}
	if _, err := a.Open(t.Context(), "b", mesh.Channel); !errors.Is(err, mesh.ErrUnreachable) {
		t.Errorf("opened after Close: %v", err)
	}
	if e := s.wait(PeerDown, "a"); !strings.Contains(e.Why, "the agent stops") {
		t.Errorf("event %v", e)
	}
}

func TestGoldenBytesOfTheWelcome(t *testing.T) {
	text, err := os.ReadFile("../../docs/WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```hex welcome\n")
	block, _, _ = strings.Cut(block, "```")
	var want []byte
	for line := range strings.Lines(block) {
		digits, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	l := &Link{cfg: Config{Boot: 7}}
	if got := wire.Append(nil, frameWelcome, l.number()); !bytes.Equal(got, want) {
		t.Errorf("% x, the document says % x", got, want)
	}
}

// Who was removed hears that as such; who does not let somebody in because that one was
// removed is not removed itself.
func TestRemovedIsARefusalOfItsOwn(t *testing.T) {
	for why, want := range map[error]bool{errors.New("its certificate expired on Monday"): false, fmt.Errorf("%w: on Monday", mesh.ErrRemoved): true} {
		for _, who := range []mesh.NodeID{"a", "b"} {
			s := newSite(t)
			refuse := func(c *Config) {
				if c.Self == who {
					c.Security.(*papers).refuse = func(mesh.NodeID) error { return why }
				}
			}
			a, b := s.link("a", refuse), s.link("b", refuse)
			echo(b, mesh.Control)
			s.start(a, b)
			err := ask(t.Context(), a, "b", mesh.Control)
			if !errors.Is(err, mesh.ErrRefused) || errors.Is(err, mesh.ErrRemoved) != (want && who == "b") || !strings.Contains(err.Error(), "on Monday") {
				t.Errorf("%v, by %s: %v", why, who, err)
			}
		}
	}
}

// One that was let in, and is removed, hears it in the streams that it has.
func TestExpelledHearsThatItWasRemoved(t *testing.T) {
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	opened := make(chan mesh.Stream, 1)
	b.Handle(mesh.Control, func(st mesh.Stream) { opened <- st })
	s.start(a, b)
	st, err := a.Open(t.Context(), "b", mesh.Control)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-opened
	b.Expel("a", mesh.ErrRemoved)
	if _, err := io.ReadAll(st); !errors.Is(err, mesh.ErrRemoved) {
		t.Error(err)
	}
}
