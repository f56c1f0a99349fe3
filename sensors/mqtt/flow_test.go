package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// proxy stands between a client and a broker, so that a test can cut the
// connection and the broker keeps the session.
type proxy struct {
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex // guards what follows
	to     string
	conns  []net.Conn
	closed bool
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to}
	p.wg.Add(1)
	go p.serve()
	t.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "mqtt://" + p.ln.Addr().String() }

func (p *proxy) serve() {
	defer p.wg.Done()
	for {
		a, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		b, err := net.Dial("tcp", p.to)
		if err != nil || p.closed {
			_ = a.Close()
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, a, b)
		p.wg.Add(2)
		p.mu.Unlock()
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			go func() {
				defer p.wg.Done()
				_, _ = io.Copy(way[0], way[1])
				_ = way[0].Close()
				_ = way[1].Close()
			}()
		}
	}
}

// cut ends all connections at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// quick is a Connection whose back-off does not show in a test.
func quick(url, id string, ev *events) mqtt.Connection {
	return mqtt.Connection{Broker: url, ClientID: id, Events: ev.add, BackoffMin: dataflow.Millisecond, BackoffMax: 5 * dataflow.Millisecond}
}

// The connection is cut again and again while messages flow and the reader
// acknowledges: with a broker that keeps the session, each is read once.
func TestCutsWhileReading(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("qos %d", qos), func(t *testing.T) {
			const n, cuts = 3000, 10
			b := startBroker(t)
			p := newProxy(t, b.Addr())
			ev := newEvents()
			r := openReader(t, mqtt.ReaderOptions{Connection: quick(p.url(), "feed", ev), Topics: []string{"t/#"}, QoS: qos})
			ev.wait(t, mqtt.Subscribed)
			pub := newPublisher(t, b.Addr())
			var tokens []paho.Token
			for i := range n {
				tokens = append(tokens, pub.c.Publish("t/a", qos, false, strconv.Itoa(i)))
			}
			for _, k := range tokens {
				await(t, k)
			}
			seen := make([]int, n)
			ctx := timeout(t)
			var out sensors.Records
			for got, cut := 0, 0; got < n; {
				if err := r.Read(ctx, &out, 50); err != nil {
					t.Fatalf("after %d: %v; reader %+v, broker %+v", got, err, r.Stats(), b.Stats())
				}
				for i := range out.Len() {
					v, err := strconv.Atoi(string(out.Payload(i)))
					if err != nil {
						t.Fatal(err)
					}
					seen[v]++
				}
				got += out.Len()
				if out.Len() > 0 {
					r.Ack(sensors.Position{Offset: out.Next})
				}
				if cut < cuts && got > (cut+1)*n/(cuts+1) {
					cut++
					p.cut()
				}
			}
			for v, k := range seen {
				if k != 1 {
					t.Errorf("message %d was read %d times", v, k)
				}
			}
			if s := r.Stats(); s.Received != n {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The broker goes away with everything it knew, and comes back at the same
// address: the reader subscribes anew, the writer publishes again.
func TestBrokerRestarted(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: sensortest.FreeAddr(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	addr := b.Addr()
	ev, wev := newEvents(), newEvents()
	r := openReader(t, mqtt.ReaderOptions{Connection: quick("mqtt://"+addr, "feed", ev), Topics: []string{"t/#"}, QoS: 1})
	ev.wait(t, mqtt.Subscribed)
	w := openWriter(t, mqtt.WriterOptions{Connection: quick("mqtt://"+addr, "w", wev), Topic: "t/a", QoS: 1, Schema: oneColumn, Encode: encodeText})
	writeText(t, w, "before")
	wants(t, read(t, r, 1, true), "before")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ev.wait(t, mqtt.Lost)
	wev.wait(t, mqtt.Lost)
	if err := w.Write(timeout(t), textBatch("meanwhile")); err != nil { // taken, and kept
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Commit(ended); err == nil {
		t.Fatal("committed without a broker")
	}
	b2, err := broker.Start(broker.Options{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b2.Close() }()
	if e := ev.wait(t, mqtt.Connected); e.Resumed {
		t.Error("a broker without memory resumed the session")
	}
	ev.wait(t, mqtt.Subscribed)
	if err := w.Commit(timeout(t)); err != nil {
		t.Fatal(err)
	}
	writeText(t, w, "after")
	// The row published again is read if the reader had subscribed by then.
	got := read(t, r, 1, true)
	if got[0] == "meanwhile" {
		got = read(t, r, 1, true)
	}
	wants(t, got, "after")
}

// A reader that takes its time: the socket waits, the connection holds, and
// nothing is lost.
func TestBackPressure(t *testing.T) {
	const n = 4000
	b := startBroker(t)
	ev := newEvents()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: quick("mqtt://"+b.Addr(), "feed", ev), Topics: []string{"t/#"}, QoS: 1, InboxMessages: 100, InboxBytes: 1 << 20,
	})
	ev.wait(t, mqtt.Subscribed)
	pub := newPublisher(t, b.Addr())
	// 20 MB in all: more than the sockets' buffers take.
	text := func(i int) string { return fmt.Sprintf("%-5000d", i) }
	published := make(chan []paho.Token)
	go func() { // it has to wait as well, once all buffers between are full
		var tokens []paho.Token
		for i := range n {
			tokens = append(tokens, pub.c.Publish("t/a", 1, false, text(i)))
		}
		published <- tokens
	}()
	ev.wait(t, mqtt.InboxFull)
	for i, v := range read(t, r, n, true) {
		if v != text(i) {
			t.Fatalf("message %d is %s", i, v)
		}
	}
	for _, k := range <-published {
		await(t, k)
	}
	ev.wait(t, mqtt.InboxRoom)
	if s := r.Stats(); s.Connects != 1 || s.Shed != 0 || s.Duplicates != 0 {
		t.Errorf("%+v", s)
	}
	if s := b.Stats(); s.Dropped != 0 {
		t.Errorf("the broker dropped %d", s.Dropped)
	}
}

// fill sends messages from number from on until the reader has stopped
// reading, and returns the number after the last. The gate is looked at before
// each read of the socket, and messages take a moment from there to the inbox. One
// goes after the other: nobody may read any more when a write waits for room.
func fill(t testing.TB, r *mqtt.Reader, c *pconn, ev *events, from int) int {
	t.Helper()
	full := make(chan struct{})
	go func() { ev.wait(t, mqtt.InboxFull); close(full) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := from; ; {
		before := r.Stats().Received
		c.send(publish(uint16(n+1), 1, false, strconv.Itoa(n)))
		if n++; n-from > 5000 {
			t.Fatal("it never stops to read")
		}
		for r.Stats().Received == before {
			select {
			case <-full:
				return n
			case <-tick.C:
			}
		}
		select {
		case <-full:
			return n
		default:
		}
	}
}

func wantNumbers(t testing.TB, got []string, from int) {
	t.Helper()
	for i, v := range got {
		if v != strconv.Itoa(from+i) {
			t.Fatalf("message %d is %s", from+i, v)
		}
	}
}

// While the inbox is full the client still tells the broker that it lives.
func TestPingsWhileFull(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{InboxMessages: 1, Connection: mqtt.Connection{KeepAlive: dataflow.Second}})
	c := p.session(t, false)
	sent := fill(t, r, c, ev, 0)
	for pings := 0; pings < 5; { // paho alone would send one
		if _, ok := c.get().(*packets.PingreqPacket); ok {
			pings++
		}
	}
	wantNumbers(t, read(t, r, sent, true), 0)
	if s := r.Stats(); s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// A full inbox must not keep CONNACK and SUBACK waiting, nor Close.
func TestReconnectsWhileFull(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{InboxMessages: 1, Connection: mqtt.Connection{KeepAlive: dataflow.Second}})
	c := p.session(t, false)
	sent := fill(t, r, c, ev, 0)
	c.cut()
	ev.wait(t, mqtt.Lost) // who does not read learns that from the pings
	var again []packets.ControlPacket
	for i := range sent {
		again = append(again, publish(uint16(i+1), 1, true, strconv.Itoa(i)))
	}
	c = p.session(t, true, again...)
	wantNumbers(t, read(t, r, sent, true), 0)
	ev.wait(t, mqtt.Subscribed) // the answer came behind what waits for room
	next := fill(t, r, c, ev, sent)
	wantNumbers(t, read(t, r, next-sent, true), sent)
	fill(t, r, c, ev, next)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// The gate is there from CONNACK on: a broker sends what waits in a session
// before it answers to SUBSCRIBE, however much that is. And the time in which
// the gate is shut is not the broker's.
func TestFullBeforeSubscribed(t *testing.T) {
	p, clk := newPeer(t), newClock()
	r, ev := feed(t, p, mqtt.ReaderOptions{Connection: mqtt.Connection{Clock: clk, ConnectTimeout: dataflow.Hour}, InboxMessages: 8})
	c := p.connect(t, 0, true)
	clk.waits(t, dataflow.Hour)
	n := fill(t, r, c, ev, 0)
	if n > 20 {
		t.Errorf("%d messages for an inbox of 8", n)
	}
	for range 2 {
		clk.advance(dataflow.Hour)
		clk.waits(t, dataflow.Hour)
	}
	wantNumbers(t, read(t, r, n, true), 0)
	c.suback(1)
	ev.wait(t, mqtt.Subscribed)
	if s := r.Stats(); s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// A broker has a limit to answer to SUBSCRIBE, which begins anew while something
// comes: a message may take longer than that.
func TestSubscribeLimit(t *testing.T) {
	p, clk := newPeer(t), newClock()
	r, ev := feed(t, p, mqtt.ReaderOptions{Connection: mqtt.Connection{Clock: clk, ConnectTimeout: dataflow.Hour}})
	c := p.connect(t, 0, true)
	for i := range 3 {
		clk.waits(t, dataflow.Hour)
		c.send(publish(uint16(i+1), 1, false, "x"))
		read(t, r, 1, true)
		clk.advance(dataflow.Hour)
	}
	clk.waits(t, dataflow.Hour)
	clk.advance(dataflow.Hour)
	if e := ev.wait(t, mqtt.Lost); !strings.Contains(e.Err.Error(), "does not answer to SUBSCRIBE") {
		t.Errorf("%v", e.Err)
	}
}

// A flood of QoS 0: what does not fit is dropped and counted.
func TestShed(t *testing.T) {
	const n, room = 1000, 100
	p := newPeer(t)
	ev := newEvents()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: quick(p.url(), "feed", ev), Topics: []string{"t/#"}, InboxMessages: room, TickEvery: -1, Retained: mqtt.RetainedNever,
	})
	c := p.connect(t, 0, false)
	c.suback(0)
	for i := range n {
		c.send(publish(0, 0, false, strconv.Itoa(i)))
	}
	// An unwanted message is acknowledged when its turn comes: by then all of
	// them have been taken, or not.
	last := publish(1, 1, false, "unwanted")
	last.Retain = true
	c.send(last)
	c.acks(packets.Puback, 1)
	ev.wait(t, mqtt.Shedding)
	for i, v := range read(t, r, room, true) {
		if v != strconv.Itoa(i) {
			t.Fatalf("message %d is %s: the oldest must stay", i, v)
		}
	}
	c.send(publish(0, 0, false, "after"))
	wants(t, read(t, r, 1, true), "after")
	if e := ev.wait(t, mqtt.ShedEnd); e.Count != n-room {
		t.Errorf("%v", e)
	}
	if s := r.Stats(); s.Shed != n-room || s.Received != room+1 || s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// Retained messages of a real broker, and a session that outlives its reader.
func TestPersistentSession(t *testing.T) {
	b := startBroker(t)
	pub := newPublisher(t, b.Addr())
	pub.publish(t, "t/state", 1, true, []byte("on"))
	pub.publish(t, "other", 1, false, nil) // the broker answers before it delivers: now it has
	open := func() (*mqtt.Reader, *events) {
		ev := newEvents()
		r := openReader(t, mqtt.ReaderOptions{Connection: quick("mqtt://"+b.Addr(), "feed", ev), Topics: []string{"t/#"}, QoS: 1})
		return r, ev
	}
	r, ev := open()
	wants(t, read(t, r, 1, true), "on")
	ev.wait(t, mqtt.Subscribed)
	for ctx := timeout(t); b.Stats().Acknowledged == 0 && ctx.Err() == nil; { // what the broker has not heard of when the next one comes it sends again
		runtime.Gosched()
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	pub.publish(t, "t/a", 1, false, []byte("while away"))
	r, ev = open()
	if e := ev.wait(t, mqtt.Connected); !e.Resumed {
		t.Error("the session was not resumed")
	}
	wants(t, read(t, r, 1, true), "while away")
	ev.wait(t, mqtt.Subscribed)
	pub.publish(t, "t/a", 1, false, []byte("live"))
	wants(t, read(t, r, 1, true), "live") // and not "on" again
}

func TestSharedSubscription(t *testing.T) {
	const n = 200
	b := startBroker(t)
	got := make(chan string, n)
	ctx, cancel := context.WithCancel(timeout(t))
	var wg sync.WaitGroup
	for i := range 2 {
		ev := newEvents()
		r := openReader(t, mqtt.ReaderOptions{
			Connection: quick("mqtt://"+b.Addr(), fmt.Sprintf("r%d", i), ev), Topics: []string{"$share/group/t/#"}, QoS: 1})
		ev.wait(t, mqtt.Subscribed)
		wg.Add(1)
		go func() {
			defer wg.Done()
			var out sensors.Records
			for r.Read(ctx, &out, 10) == nil {
				for i := range out.Len() {
					got <- string(out.Payload(i))
				}
				r.Ack(sensors.Position{Offset: out.Next})
			}
		}()
	}
	pub := newPublisher(t, b.Addr())
	for i := range n {
		pub.publish(t, "t/a", 1, false, []byte(strconv.Itoa(i)))
	}
	seen := map[string]bool{}
	for range n {
		v := <-got
		if seen[v] {
			t.Errorf("%s came twice", v)
		}
		seen[v] = true
	}
	cancel()
	wg.Wait()
}

// A broker that sends and sends, and does not answer to SUBSCRIBE, is connected and no
// more: what it sends is of a session of before, at best.
func TestConnectedIsNotSubscribed(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{Connection: mqtt.Connection{ConnectTimeout: dataflow.Hour}})
	for n := range 2 { // it is asked anew on each connection
		c := p.connect(t, 0, true)
		c.send(publish(uint16(n+1), 1, false, "M"))
		out := new(sensors.Records)
		for out.Len() == 0 {
			if err := r.Read(timeout(t), out, 1); err != nil {
				t.Fatal(err)
			}
		}
		if s := r.Stats(); !s.Connected || s.Subscribed {
			t.Errorf("%+v", s)
		}
		c.suback(1)
		ev.wait(t, mqtt.Subscribed)
		if s := r.Stats(); !s.Connected || !s.Subscribed {
			t.Errorf("%+v", s)
		}
		c.cut()
		ev.wait(t, mqtt.Lost)
		if s := r.Stats(); s.Subscribed && !s.Connected {
			t.Errorf("%+v", s)
		}
	}
}
