package mqtt_test

import (
	"slices"
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

func on(topic string, m *packets.PublishPacket) *packets.PublishPacket {
	m.TopicName = topic
	return m
}

// Old filters are given up where the session is that of before, on each connection, behind
// SUBSCRIBE. What comes of them only is acknowledged in its turn, and dropped.
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
		for i, topic := range []string{"t/c", "t/b", "u", "other", "t/a/x"} {
			c.send(on(topic, publish(uint16(10*n+i+2), 1, false, topic)))
		}
		for _, want := range []string{"t/b", "other", "t/a/x"} { // another one the broker may have named otherwise
			next(want)
		}
		for i := range 5 {
			c.acks(packets.Puback, uint16(10*n+i+2))
		}
		if s := r.Stats(); s.Left != int64(2*n+2) || s.Retained != 0 || s.Unacked != 0 {
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
		a := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
		a.MessageID = u.MessageID
		c.send(a)
		if e := ev.wait(t, mqtt.Unsubscribed); e.Err != nil || !slices.Equal(e.Topics, u.Topics) {
			t.Errorf("%v", e)
		}
	}
}
