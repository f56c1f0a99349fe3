package mqtt_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// gives is the next UNSUBSCRIBE, or nil if an acknowledgement of id comes before.
func (c *pconn) gives(id uint16) *packets.UnsubscribePacket {
	c.t.Helper()
	for {
		switch p := c.get().(type) {
		case *packets.UnsubscribePacket:
			return p
		case *packets.PubackPacket:
			if p.MessageID == id {
				return nil
			}
		}
	}
}

func (c *pconn) unsuback(u *packets.UnsubscribePacket) {
	c.t.Helper()
	a := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	a.MessageID = u.MessageID
	c.send(a)
}

func on(topic string, m *packets.PublishPacket) *packets.PublishPacket {
	m.TopicName = topic
	return m
}

// Old filters are given up where the session is that of before, on each connection, behind
// SUBSCRIBE. What comes of them still is taken as ever.
func TestFiltersOfBefore(t *testing.T) {
	p, clk := newPeer(t), newClock()
	r, ev := feed(t, p, mqtt.ReaderOptions{Connection: mqtt.Connection{Clock: clk, ConnectTimeout: dataflow.Hour}, Topics: []string{"t/a/+", "t/b"}, Left: []string{"t/#", "u"}})
	next := func(want string) {
		t.Helper()
		out := new(sensors.Records)
		for out.Len() == 0 {
			if err := r.Read(timeout(t), out, 1); err != nil {
				t.Fatal(err)
			}
		}
		if got := string(out.Payload(0)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		r.Ack(sensors.Position{Split: out.Split, Offset: out.Next})
	}
	// until lets time pass whenever somebody waits for it.
	until := func(k mqtt.Kind) mqtt.Event {
		t.Helper()
		for ctx, lost := timeout(t), false; ; clk.advance(dataflow.Hour) {
			select {
			case e := <-ev.c:
				if lost = lost || e.Kind == mqtt.Lost; e.Kind == k && lost == (k == mqtt.Connecting) {
					return e
				}
			case <-clk.set:
			case <-ctx.Done():
				t.Fatalf("no event %v", k)
			}
		}
	}
	// A session that is new has nothing of before.
	c := p.session(t, false)
	ev.wait(t, mqtt.Subscribed)
	for id := range uint16(20) { // it has time
		c.send(on("t/a/x", publish(id+100, 1, false, "A1")))
		next("A1")
		if c.gives(id+100) != nil {
			t.Fatal("filters are given up that the session never had")
		}
	}
	c.cut()
	until(mqtt.Connecting)

	for n := range 2 {
		c = p.session(t, true)
		u := c.gives(0)
		if !slices.Equal(u.Topics, []string{"t/#", "u"}) {
			t.Fatalf("gives up %q", u.Topics)
		}
		topics := []string{"t/c", "t/b", "u", "other", "t/a/x"}
		for i, topic := range topics {
			c.send(on(topic, publish(uint16(10*n+i+2), 1, false, topic)))
		}
		for i, want := range topics {
			next(want)
			c.acks(packets.Puback, uint16(10*n+i+2))
		}
		if s := r.Stats(); s.Retained != 0 || s.Unacked != 0 {
			t.Errorf("%+v", s)
		}
		if n == 0 {
			if e := until(mqtt.Unsubscribed); e.Err == nil {
				t.Error("it is told that the broker has answered")
			}
			c.cut()
			until(mqtt.Connecting)
			continue
		}
		c.unsuback(u)
		if e := ev.wait(t, mqtt.Unsubscribed); e.Err != nil || !slices.Equal(e.Topics, u.Topics) {
			t.Errorf("%v", e)
		}
	}
}

// There are brokers that know a filter without what it begins with: what they gave up was
// the new one. It is subscribed to once more.
func TestFiltersThatAreOneToTheBroker(t *testing.T) {
	for _, w := range [][2]string{
		{"$share/g/t/#", "t/#"}, {"t/#", "$share/g/t/#"}, {"$share/g/t/#", "$share/h/t/#"}, {"t/a", "$exclusive/t/a"},
		{"$queue/t/a", "t/a"}, {"$share/$queue/t/#", "$queue/t/#"}, {"$queue/$share/g/t", "t"},
	} {
		p := newPeer(t)
		r, ev := feed(t, p, mqtt.ReaderOptions{Topics: []string{"x/#", w[0]}, Left: []string{"u", w[1]}})
		c := p.session(t, true)
		u := c.gives(0)
		if !slices.Equal(u.Topics, []string{"u", w[1]}) {
			t.Fatalf("gives up %q", u.Topics)
		}
		c.unsuback(u)
		s, ok := c.get().(*packets.SubscribePacket)
		if !ok || !slices.Equal(s.Topics, w[:1]) || s.Qoss[0] != 1 {
			t.Fatalf("after %q was given up for %q: %v", w[1], w[0], s)
		}
		a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		a.MessageID, a.ReturnCodes = s.MessageID, []byte{0x80}
		c.send(a)
		if e := ev.wait(t, mqtt.Refused); !slices.Equal(e.Topics, w[:1]) {
			t.Errorf("%v", e)
		}
		if e := ev.wait(t, mqtt.Unsubscribed); e.Err != nil {
			t.Errorf("%v", e)
		}
		_ = r.Close()
	}
}

// What a refused filter is to bring may still come by an old one. So nothing is given up
// until the broker grants all of them.
func TestFiltersOfBeforeStayWhileOneIsRefused(t *testing.T) {
	p, clk := newPeer(t), newClock()
	r, ev := feed(t, p, mqtt.ReaderOptions{Connection: mqtt.Connection{Clock: clk}, Topics: []string{"u", "t/#"}, Left: []string{"t/+"}})
	for _, codes := range [][]byte{{0x80, 1}, {1}} {
		c := p.connect(t, 0, true)
		c.suback(codes...)
		ev.wait(t, mqtt.Subscribed)
		if codes[0] == 1 {
			if u := c.gives(0); !slices.Equal(u.Topics, []string{"t/+"}) {
				t.Errorf("gives up %q", u.Topics)
			}
			break
		}
		ev.wait(t, mqtt.Refused)
		for id := range uint16(20) { // it has time
			c.send(publish(id+1, 1, false, "A1"))
			read(t, r, 1, true)
			if u := c.gives(id + 1); u != nil {
				t.Fatalf("gives up %q", u.Topics)
			}
		}
		c.cut()
		again(t, ev, clk)
	}
}

// again lets the time pass until a lost connection is made anew.
func again(t *testing.T, ev *events, clk *clock) {
	t.Helper()
	ev.wait(t, mqtt.Lost)
	for ctx := timeout(t); ; {
		select {
		case e := <-ev.c:
			if e.Kind == mqtt.Connecting {
				return
			}
		case <-clk.set:
			clk.advance(dataflow.Hour)
		case <-ctx.Done():
			t.Fatal("it does not connect")
		}
	}
}

// Few filters are given up at a time. A broker that ends the connection over that serves
// the reader on the next one, and is not asked again.
func TestABrokerThatEndsTheConnectionOverFiltersOfBefore(t *testing.T) {
	p, clk := newPeer(t), newClock()
	left := strings.Fields("a b c d e f g h i j k")
	r, ev := feed(t, p, mqtt.ReaderOptions{Connection: mqtt.Connection{Clock: clk}, Topics: []string{"t/a"}, Left: left})
	c := p.session(t, true)
	u := c.gives(0)
	if !slices.Equal(u.Topics, left[:8]) {
		t.Fatalf("gives up %q", u.Topics)
	}
	c.unsuback(u)
	if u = c.gives(0); !slices.Equal(u.Topics, left[8:]) {
		t.Fatalf("gives up %q", u.Topics)
	}
	c.cut()
	if e := ev.wait(t, mqtt.Unsubscribed); e.Err == nil || !slices.Equal(e.Topics, left) {
		t.Errorf("%v", e)
	}
	again(t, ev, clk)
	c = p.session(t, true)
	for id := range uint16(20) {
		c.send(publish(id+1, 1, false, "A1"))
		read(t, r, 1, true)
		if u := c.gives(id + 1); u != nil {
			t.Fatalf("gives up %q", u.Topics)
		}
	}
}
