package feed_test

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// patience only decides how long a failing test takes.
const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// peer is the broker's end of connections, played packet by packet.
type peer struct{ ln net.Listener }

func newPeer(t testing.TB) *peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return &peer{ln}
}

func (p *peer) url() string { return "mqtt://" + p.ln.Addr().String() }

// pconn is one connection as the broker sees it.
type pconn struct {
	t testing.TB
	c net.Conn
}

// session answers CONNECT and SUBSCRIBE, and sends messages between the two, as
// brokers do that know the session.
func (p *peer) session(t testing.TB, qos byte, known bool, between ...packets.ControlPacket) *pconn {
	t.Helper()
	_ = p.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	nc, err := p.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	c := &pconn{t, nc}
	if _, ok := c.get().(*packets.ConnectPacket); !ok {
		t.Fatal("no CONNECT")
	}
	a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	a.SessionPresent = known
	c.send(a)
	for _, m := range between {
		c.send(m)
	}
	for {
		s, ok := c.get().(*packets.SubscribePacket)
		if !ok {
			continue // an acknowledgement; who needs it sends after SUBACK
		}
		a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		a.MessageID = s.MessageID
		for range s.Topics {
			a.ReturnCodes = append(a.ReturnCodes, qos)
		}
		c.send(a)
		return c
	}
}

func (c *pconn) send(p packets.ControlPacket) {
	c.t.Helper()
	if err := p.Write(c.c); err != nil {
		c.t.Fatal(err)
	}
}

func (c *pconn) get() packets.ControlPacket {
	c.t.Helper()
	_ = c.c.SetReadDeadline(time.Now().Add(patience))
	p, err := packets.ReadPacket(c.c)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// answer is the next packet that is no ping.
func (c *pconn) answer() (kind byte, id uint16) {
	c.t.Helper()
	for {
		switch p := c.get().(type) {
		case *packets.PingreqPacket:
		case *packets.PubackPacket:
			return packets.Puback, p.MessageID
		case *packets.PubrecPacket:
			return packets.Pubrec, p.MessageID
		case *packets.PubcompPacket:
			return packets.Pubcomp, p.MessageID
		default:
			c.t.Fatalf("got %v", p)
		}
	}
}

// acks expects acknowledgements of one kind, in this order.
func (c *pconn) acks(kind byte, ids ...uint16) {
	c.t.Helper()
	for _, id := range ids {
		if k, got := c.answer(); k != kind || got != id {
			c.t.Fatalf("got kind %d of %d, want kind %d of %d", k, got, kind, id)
		}
	}
}

// pongs answers pings from now on, however long the test takes, and nobody else
// reads any more. A client that gets no answer for 5 s becomes deaf.
func (c *pconn) pongs() {
	_ = c.c.SetReadDeadline(time.Time{})
	go func() {
		for {
			p, err := packets.ReadPacket(c.c)
			if err != nil {
				return
			}
			if _, ping := p.(*packets.PingreqPacket); ping && packets.NewControlPacket(packets.Pingresp).Write(c.c) != nil {
				return
			}
		}
	}()
}

func publish(id uint16, qos byte, dup bool, topic, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.MessageID, p.Qos, p.Dup, p.TopicName, p.Payload = id, qos, dup, topic, []byte(payload)
	return p
}

func pubrel(id uint16) *packets.PubrelPacket {
	p := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
	p.MessageID = id
	return p
}

// events collects what feeds tell.
type events struct{ c chan feed.Event }

func newEvents() *events { return &events{make(chan feed.Event, 100_000)} }

func (e *events) add(v feed.Event) {
	select {
	case e.c <- v:
	default: // a test that does not look
	}
}

// wait takes events until one is what is wanted.
func (e *events) wait(t testing.TB, want func(feed.Event) bool) feed.Event {
	t.Helper()
	after := time.After(patience)
	var seen []feed.Event
	for {
		select {
		case v := <-e.c:
			if want(v) {
				return v
			}
			seen = append(seen, v)
		case <-after:
			t.Fatalf("an event is missing; seen: %v", seen)
		}
	}
}

func kind(k feed.Kind) func(feed.Event) bool { return func(e feed.Event) bool { return e.Kind == k } }

func session(k mqtt.Kind) func(feed.Event) bool {
	return func(e feed.Event) bool { return e.Kind == feed.Session && e.MQTT.Kind == k }
}

// image is what another process would find in a folder now, had this one died.
func image(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "state")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// open opens a feed in a state folder of a process of its own.
func open(t testing.TB, o feed.Options, c feed.Config) (*feed.Feed, *events) {
	t.Helper()
	ev := newEvents()
	o.Events = ev.add
	f, err := feed.New(o).Open("f", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, ev
}

func config(broker string, qos int) feed.Config {
	return feed.Config{Broker: broker, Topics: []string{"t/#"}, QoS: qos, ClientID: "feed"}
}

// entry is what a reader gets of a log, in words.
type entry struct {
	text    string // "" if it is no message
	lane    string
	topic   string
	clock   int64
	tick    bool
	deaf    bool
	next    int64
	arrival int64
}

// read reads until a message is last, and returns all entries.
func read(t testing.TB, r sensors.Reader, last string) []entry {
	t.Helper()
	ctx := timeout(t)
	var all []entry
	var out sensors.Records
	for {
		if err := r.Read(ctx, &out, 1000); err != nil {
			t.Fatalf("%v; so far %v", err, all)
		}
		e := entry{clock: out.Clock, deaf: out.Deaf, next: out.Next, lane: r.(sensors.SplitNamer).SplitName(out.Split)}
		if out.Len() == 0 {
			e.tick = !out.Deaf
			all = append(all, e)
		}
		for i := range out.Len() {
			e.text, e.topic, e.arrival = string(out.Payload(i)), string(out.Topic(i)), out.Arrivals[i]
			all = append(all, e)
			if e.text == last {
				return all
			}
		}
	}
}

// texts are the messages of some entries.
func texts(all []entry) []string {
	var s []string
	for _, e := range all {
		if e.text != "" {
			s = append(s, e.text)
		}
	}
	return s
}

// logged is what the log of a feed has up to a last message.
func logged(t testing.TB, f *feed.Feed, last string) []string {
	t.Helper()
	r, err := f.Reader("test", f.LanesOf(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	return texts(read(t, r, last))
}

func wants(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// step is a place of the pump.
type step struct {
	name string // "read", "append", "commit": behind it
	what what
}

// what is what passes there.
type what uint8

const (
	message what = iota
	release
	newSession
)

// gates stop the pump behind a step, the first time it comes there.
type gates struct {
	*mqtt.Reader
	at      step
	reached chan struct{}
	open    chan struct{}
	once    sync.Once
	has     [3]bool // what was read last, by what
}

func (g *gates) pass(name string) {
	if g.at.name == name && g.has[g.at.what] {
		g.once.Do(func() { close(g.reached) })
		<-g.open
	}
}

func (g *gates) Read(ctx context.Context, r *sensors.Records, max int) error {
	err := g.Reader.Read(ctx, r, max)
	g.has = [3]bool{message: r.Len() > 0}
	for _, n := range r.Notes {
		if n&0xffff == 0 {
			g.has[newSession] = true
		} else {
			g.has[release] = true
		}
	}
	if err == nil {
		g.pass("read")
	}
	return err
}

func (g *gates) Ready() bool {
	g.pass("append")
	return g.Reader.Ready()
}

func (g *gates) Ack(p sensors.Position) {
	g.pass("commit")
	g.Reader.Ack(p)
}

// clock is a sensors.Clock that a test moves.
type clock struct {
	mu     sync.Mutex // guards now and timers
	now    dataflow.Time
	timers []timer
	set    chan struct{}
}

type timer struct {
	at dataflow.Time
	c  chan time.Time
}

func newClock(now dataflow.Time) *clock { return &clock{now: now, set: make(chan struct{}, 100_000)} }

func (c *clock) Now() dataflow.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d dataflow.Duration) <-chan time.Time {
	c.mu.Lock()
	t := timer{c.now.Add(d), make(chan time.Time, 1)}
	c.timers = append(c.timers, t)
	c.mu.Unlock()
	if d == 200*dataflow.Millisecond { // a tick
		c.set <- struct{}{}
	}
	return t.c
}

func (c *clock) advance(by dataflow.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
	rest := c.timers[:0]
	for _, t := range c.timers {
		if t.at <= c.now {
			t.c <- time.Time{}
		} else {
			rest = append(rest, t)
		}
	}
	c.timers = rest
}

// waits blocks until somebody waits for the time of a tick.
func (c *clock) waits(t testing.TB) {
	t.Helper()
	select {
	case <-c.set:
	case <-time.After(patience):
		t.Fatal("nobody waits for the next tick")
	}
}
