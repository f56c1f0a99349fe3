package mqtt_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

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

func (p *peer) accept(t testing.TB) *pconn {
	t.Helper()
	_ = p.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := p.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &pconn{t, c}
}

// connect answers CONNECT.
func (p *peer) connect(t testing.TB, code byte, known bool) *pconn {
	t.Helper()
	c := p.accept(t)
	if _, ok := c.get().(*packets.ConnectPacket); !ok {
		t.Fatal("no CONNECT")
	}
	a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	a.ReturnCode, a.SessionPresent = code, known
	c.send(a)
	return c
}

// session answers CONNECT and SUBSCRIBE, and sends messages between the two if
// it knows the session, as brokers do.
func (p *peer) session(t testing.TB, known bool, between ...packets.ControlPacket) *pconn {
	t.Helper()
	c := p.connect(t, 0, known)
	for _, m := range between {
		c.send(m)
	}
	c.suback(1)
	return c
}

func (c *pconn) suback(codes ...byte) {
	c.t.Helper()
	for {
		s, ok := c.get().(*packets.SubscribePacket)
		if !ok {
			continue // an acknowledgement
		}
		a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		a.MessageID = s.MessageID
		for i := range s.Topics {
			a.ReturnCodes = append(a.ReturnCodes, codes[i%len(codes)])
		}
		c.send(a)
		return
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

// acks expects acknowledgements of one kind, in this order.
func (c *pconn) acks(kind byte, ids ...uint16) {
	c.t.Helper()
	for _, id := range ids {
		p := c.get()
		for asked := true; asked; { // a test that takes long is asked whether it still lives
			if _, asked = p.(*packets.PingreqPacket); asked {
				p = c.get()
			}
		}
		got := byte(0)
		switch p.(type) {
		case *packets.PubackPacket:
			got = packets.Puback
		case *packets.PubrecPacket:
			got = packets.Pubrec
		case *packets.PubcompPacket:
			got = packets.Pubcomp
		case *packets.PubrelPacket:
			got = packets.Pubrel
		}
		if got != kind || p.Details().MessageID != id {
			c.t.Fatalf("got %v of %d, want kind %d of %d", p, p.Details().MessageID, kind, id)
		}
	}
}

// nothing expects that the client sends nothing but the answer to what c sends
// now: a PUBREL of an id that is not in use, which must be answered.
func (c *pconn) nothing() {
	c.t.Helper()
	rel := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
	rel.MessageID = 60000
	c.send(rel)
	c.acks(packets.Pubcomp, 60000)
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

func (c *pconn) cut() { _ = c.c.Close() }

func publish(id uint16, qos byte, dup bool, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.MessageID, p.Qos, p.Dup, p.TopicName, p.Payload = id, qos, dup, "t/a", []byte(payload)
	return p
}

// clock is a sensors.Clock that a test moves.
type clock struct {
	mu     sync.Mutex // guards now and timers
	now    dataflow.Time
	timers []timer
	set    chan dataflow.Duration // each After tells its span here
}

type timer struct {
	at dataflow.Time
	c  chan time.Time
}

var _ sensors.Clock = (*clock)(nil)

func newClock() *clock {
	return &clock{now: 1_000_000, set: make(chan dataflow.Duration, 10000)}
}

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
	c.set <- d
	return t.c
}

// advance moves the clock (back, if by is negative) and fires what is due.
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

// waits blocks until somebody waits for a span of at least least.
func (c *clock) waits(t testing.TB, least dataflow.Duration) dataflow.Duration {
	t.Helper()
	after := time.After(patience)
	for {
		select {
		case d := <-c.set:
			if d >= least {
				return d
			}
		case <-after:
			t.Fatalf("nobody waits for %v", least)
		}
	}
}
