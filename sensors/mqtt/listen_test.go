package mqtt_test

import (
	"context"
	"fmt"
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

// A broker that was silent, and refuses whoever comes back, is not heard: its answer is
// no word of the devices.
func TestRefusedIsNotHeard(t *testing.T) {
	p, ev := newPeer(t), newEvents()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: p.url(), ClientID: "feed", KeepAlive: dataflow.Second, Events: ev.add, BackoffMin: 50 * dataflow.Millisecond, BackoffMax: 50 * dataflow.Millisecond},
		Topics:     []string{"t/#"}, QoS: 1, TickEvery: dataflow.Millisecond,
	})
	c := p.session(t, false)
	ev.wait(t, mqtt.Silent)
	c.cut()
	ev.wait(t, mqtt.Lost)
	until(t, r, func(out *sensors.Records) bool { return out.Deaf })
	ctx, end := context.WithCancel(timeout(t))
	ticks := make(chan int)
	go func() {
		n := 0
		for out := new(sensors.Records); r.Read(ctx, out, 10) == nil; {
			if !out.Deaf {
				n++
			}
		}
		ticks <- n
	}()
	for range 3 {
		p.connect(t, 3, false)
		ev.wait(t, mqtt.Refused)
	}
	end()
	if n := <-ticks; n > 0 {
		t.Errorf("%d ticks without a connection", n)
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

// heardTime reads until ok, and returns how much time passed on a split meanwhile
// that counts as its devices' silence, or as between their messages.
func heardTime(t testing.TB, r *mqtt.Reader, split int, from dataflow.Time, ok func(*sensors.Records) bool) (passed dataflow.Duration) {
	t.Helper()
	last, deaf := int64(from), false
	until(t, r, func(out *sensors.Records) bool {
		if out.Split == split {
			if !deaf {
				passed += dataflow.Duration(max(0, out.Clock-last))
			}
			last, deaf = max(last, out.Clock), out.Deaf
		}
		return ok(out)
	})
	return passed
}

// stalled is a reader of two lanes whose inbox was filled with messages of the one; it has
// stopped reading from the socket, in which a message of the other one waits, whose topic
// that is. An hour passes.
func stalled(t *testing.T) (r *mqtt.Reader, c *pconn, ev *events, then dataflow.Time, other int) {
	p, clk := newPeer(t), newClock()
	ev = newEvents()
	r = openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: p.url(), ClientID: "feed", Clock: clk, Events: ev.add, KeepAlive: dataflow.Second},
		Topics:     []string{"t/#"}, QoS: 1, Lanes: 2, InboxMessages: 8,
	})
	c = p.session(t, false)
	ev.wait(t, mqtt.Subscribed)
	heard := make(map[int]bool)
	until(t, r, func(out *sensors.Records) bool {
		if !out.Deaf {
			heard[out.Split] = true
		}
		return len(heard) == 2
	})
	c.send(publish(1, 1, false, "x"))
	full := until(t, r, func(out *sensors.Records) bool { return out.Len() > 0 }).Split
	topic := ""
	for i := 0; topic == ""; i++ {
		m := publish(uint16(100+i), 1, false, "x")
		m.TopicName = fmt.Sprint("t/b", i)
		c.send(m)
		if until(t, r, func(out *sensors.Records) bool { return out.Len() > 0 }).Split != full {
			topic = m.TopicName
		}
	}
	fill(t, r, c, ev, 1)
	m := publish(50, 1, false, "waits")
	m.TopicName = topic
	c.send(m)
	then = clk.Now()
	clk.advance(dataflow.Hour)
	return r, c, ev, then, 1 - full
}

// What waits in the socket while the inbox is full is no silence of any lane, whichever
// lane filled it, and whatever is read first.
func TestFullInboxIsDeafOnEachLane(t *testing.T) {
	r, _, _, then, other := stalled(t)
	passed := heardTime(t, r, other, then, func(out *sensors.Records) bool { return out.Split == other && out.Len() > 0 })
	if passed > dataflow.Second {
		t.Errorf("%v passed in the lane whose message waited", passed)
	}
}

// Nor is it if the connection ends meanwhile.
func TestFullInboxIsDeafUntilTheConnectionEnds(t *testing.T) {
	for split := range 2 {
		r, c, ev, then, _ := stalled(t)
		c.cut()
		ev.wait(t, mqtt.Lost) // who does not read learns that from the pings
		lanes := 0
		passed := heardTime(t, r, split, then, func(out *sensors.Records) bool {
			if out.Deaf {
				lanes++
			}
			return lanes == 2
		})
		if passed > dataflow.Second {
			t.Errorf("lane %d: %v passed", split, passed)
		}
	}
}
