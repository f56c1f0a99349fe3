package mqtt_test

import (
	"runtime"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// until reads until ok, and returns what was read last.
func until(t testing.TB, r *mqtt.Reader, ok func(*sensors.Records) bool) *sensors.Records {
	t.Helper()
	ctx := timeout(t)
	out := new(sensors.Records)
	for {
		if err := r.Read(ctx, out, 100); err != nil {
			t.Fatal(err)
		}
		if ok(out) {
			return out
		}
	}
}

// A broker that says nothing is asked. If it does not answer either, the reader
// is deaf, long before the connection ends; a sign of life, and it hears.
func TestSilentBroker(t *testing.T) {
	p, ev := newPeer(t), newEvents()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: p.url(), ClientID: "feed", KeepAlive: dataflow.Second, Events: ev.add},
		Topics:     []string{"t/#"}, QoS: 1, TickEvery: dataflow.Millisecond,
	})
	c := p.session(t, false)
	until(t, r, func(out *sensors.Records) bool { return !out.Deaf && out.Len() == 0 }) // a tick
	for range 2 {
		ev.wait(t, mqtt.Silent)
		deaf := until(t, r, func(out *sensors.Records) bool { return out.Deaf })
		if _, ok := c.get().(*packets.PingreqPacket); !ok {
			t.Fatal("it was not asked")
		}
		c.send(packets.NewControlPacket(packets.Pingresp))
		ev.wait(t, mqtt.Heard)
		next := until(t, r, func(*sensors.Records) bool { return true })
		if next.Deaf || next.Len() != 0 || next.Clock <= deaf.Clock {
			t.Fatalf("after the answer came %+v, deaf since %d", next, deaf.Clock)
		}
	}
	c.send(publish(1, 1, false, "x"))
	until(t, r, func(out *sensors.Records) bool { return out.Len() == 1 })
	if s := r.Stats(); s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// While the inbox is full nothing is heard, and that is not the devices' fault:
// the time until the socket is read again is nobody's silence.
func TestFullInboxIsDeaf(t *testing.T) {
	p, ev, clk := newPeer(t), newEvents(), newClock()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: p.url(), ClientID: "feed", Clock: clk, Events: ev.add},
		Topics:     []string{"t/#"}, QoS: 1, TickEvery: -1, InboxMessages: 1,
	})
	c := p.session(t, false)
	c.send(publish(1, 1, false, "0"))
	for ctx := timeout(t); r.Stats().Received == 0 && ctx.Err() == nil; {
		runtime.Gosched()
	}
	full := make(chan struct{})
	go func() { ev.wait(t, mqtt.InboxFull); close(full) }()
	for shut := false; !shut; { // something to read, until it reads no more
		c.send(packets.NewControlPacket(packets.Pingresp))
		select {
		case <-full:
			shut = true
		default:
		}
	}
	then := int64(clk.Now())
	clk.advance(dataflow.Minute)
	c.send(publish(2, 1, false, "1"))

	for _, want := range []struct {
		records int
		deaf    bool
		clock   int64
	}{
		{0, true, then}, {0, false, then}, // before it subscribed, and after
		{1, false, then},
		{0, true, then}, {0, false, then + int64(dataflow.Minute)},
		{1, false, then + int64(dataflow.Minute)},
	} {
		var out sensors.Records
		if err := r.Read(timeout(t), &out, 100); err != nil {
			t.Fatal(err)
		}
		if out.Len() != want.records || out.Deaf != want.deaf || out.Clock != want.clock {
			t.Fatalf("got %d records, deaf %v, at %d; want %+v", out.Len(), out.Deaf, out.Clock, want)
		}
	}
}
