package mqtt_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// feed opens a reader on a peer, with back-off so short that it does not show.
func feed(t testing.TB, p *peer, o mqtt.ReaderOptions) (*mqtt.Reader, *events) {
	t.Helper()
	ev := newEvents()
	o.Broker, o.ClientID, o.Events = p.url(), "feed", ev.add
	o.BackoffMin, o.BackoffMax = dataflow.Microsecond, dataflow.Microsecond
	if o.Topics == nil {
		o.Topics = []string{"t/#"}
	}
	if o.QoS == 0 {
		o.QoS = 1
	}
	o.TickEvery = -1
	return openReader(t, o), ev
}

func wants(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestAcksFollowTheCaller(t *testing.T) {
	p := newPeer(t)
	r, _ := feed(t, p, mqtt.ReaderOptions{})
	c := p.session(t, false)
	for i := range uint16(5) {
		c.send(publish(10+i, 1, false, fmt.Sprint(i)))
	}
	wants(t, read(t, r, 5, false), "0", "1", "2", "3", "4")
	c.nothing()
	r.Ack(sensors.Position{Offset: 3})
	c.acks(packets.Puback, 10, 11, 12)
	c.nothing()
	r.Ack(sensors.Position{Offset: 2}) // an older position says nothing new
	r.Ack(sensors.Position{Offset: 99})
	c.acks(packets.Puback, 13, 14)
	if s := r.Stats(); s.Unacked != 0 || s.Received != 5 {
		t.Errorf("%+v", s)
	}
}

// What was not acknowledged comes again with DUP; it is handed out once, and
// acknowledged on the new connection, when its position is.
func TestRedeliveryBeforeAck(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{})
	c := p.session(t, false)
	c.send(publish(1, 1, false, "a"))
	c.send(publish(2, 1, false, "b"))
	wants(t, read(t, r, 2, false), "a", "b")
	c.cut()
	ev.wait(t, mqtt.Lost)

	c = p.session(t, true, publish(1, 1, true, "a"), publish(2, 1, true, "b"))
	c.send(publish(3, 1, false, "c"))
	wants(t, read(t, r, 1, false), "c")
	c.nothing()
	r.Ack(sensors.Position{Offset: 3})
	c.acks(packets.Puback, 1, 2, 3)
	if s := r.Stats(); s.Duplicates != 2 || s.Received != 3 || s.Connects != 2 {
		t.Errorf("%+v", s)
	}
}

// The acknowledgement is written while there is no connection, or lost with
// one: the redelivery is acknowledged at once and not handed out.
func TestRedeliveryAfterAck(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{})
	c := p.session(t, false)
	c.send(publish(1, 1, false, "a"))
	c.send(publish(2, 1, false, "b"))
	wants(t, read(t, r, 2, false), "a", "b")
	r.Ack(sensors.Position{Offset: 1})
	c.acks(packets.Puback, 1) // but suppose the broker died before it noted that
	c.cut()
	ev.wait(t, mqtt.Lost)
	r.Ack(sensors.Position{Offset: 2})

	c = p.connect(t, 0, true)
	c.send(publish(1, 1, true, "a"))
	c.send(publish(2, 1, true, "b"))
	got := map[uint16]bool{}
	for len(got) < 2 {
		if a, ok := c.get().(*packets.PubackPacket); ok {
			got[a.MessageID] = true
		}
	}
	if s := r.Stats(); s.Duplicates != 2 || s.Received != 2 {
		t.Errorf("%+v", s)
	}
	c.send(publish(1, 1, false, "a")) // the id again, with the same content, but not as a redelivery
	wants(t, read(t, r, 1, true), "a")
}

// DUP alone does not make a duplicate: the first sending may have been lost.
func TestRedeliveryOfWhatNeverCame(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{})
	c := p.session(t, false)
	c.send(publish(1, 1, false, "a"))
	wants(t, read(t, r, 1, true), "a")
	c.acks(packets.Puback, 1)
	c.cut()
	ev.wait(t, mqtt.Lost)
	c = p.session(t, true, publish(1, 1, true, "b"), publish(2, 1, true, "c"))
	wants(t, read(t, r, 2, true), "b", "c")
	c.acks(packets.Puback, 1, 2)
}

// A broker that lost the session numbers from the beginning: the ids mean
// other messages, and what was open is not acknowledged to it.
func TestSessionLost(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{})
	c := p.session(t, false)
	c.send(publish(1, 1, false, "a"))
	c.send(publish(2, 1, false, "b"))
	wants(t, read(t, r, 2, false), "a", "b")
	c.cut()
	ev.wait(t, mqtt.Lost)
	c = p.session(t, false)
	c.send(publish(1, 1, true, "a")) // the same text, but of another session
	wants(t, read(t, r, 1, false), "a")
	r.Ack(sensors.Position{Offset: 2})
	c.nothing()
	r.Ack(sensors.Position{Offset: 3})
	c.acks(packets.Puback, 1)
}

// A packet id of QoS 2 is used up until PUBREL, whatever the content and DUP.
func TestRedeliveryQoS2(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{QoS: 2})
	c := p.connect(t, 0, false)
	c.suback(2)
	c.send(publish(1, 2, false, "a"))
	c.send(publish(2, 2, false, "b"))
	wants(t, read(t, r, 2, false), "a", "b")
	r.Ack(sensors.Position{Offset: 1})
	c.acks(packets.Pubrec, 1)
	c.cut() // PUBREC of 1 is lost with it
	ev.wait(t, mqtt.Lost)

	c = p.connect(t, 0, true)
	c.suback(2)
	c.send(publish(1, 2, true, "a"))
	c.acks(packets.Pubrec, 1)
	c.send(publish(2, 2, true, "b"))
	rel := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
	rel.MessageID = 1
	c.send(rel)
	c.acks(packets.Pubcomp, 1)
	c.send(publish(1, 2, false, "c")) // 1 is free again
	wants(t, read(t, r, 1, false), "c")
	r.Ack(sensors.Position{Offset: 3})
	c.acks(packets.Pubrec, 2, 1)
	if s := r.Stats(); s.Duplicates != 2 || s.Received != 3 {
		t.Errorf("%+v", s)
	}
}

// Two lanes: each keeps the order of its topics, and acknowledgements still go
// out in the order in which messages came.
func TestLanes(t *testing.T) {
	p := newPeer(t)
	r, _ := feed(t, p, mqtt.ReaderOptions{Lanes: 2})
	if r.Splits() != 2 {
		t.Fatalf("%d splits", r.Splits())
	}
	c := p.session(t, false)
	const n = 20
	for i := range uint16(n) {
		m := publish(1+i, 1, false, fmt.Sprint(i))
		m.TopicName = fmt.Sprintf("t/%d", i%4)
		c.send(m)
	}
	var out sensors.Records
	last := map[string]int{}
	lanes := map[string]int{}
	next := make([]int64, 2)
	for total := 0; total < n; {
		if err := r.Read(timeout(t), &out, 3); err != nil {
			t.Fatal(err)
		}
		for i := range out.Len() {
			var v int
			topic := string(out.Topic(i))
			if _, err := fmt.Sscan(string(out.Payload(i)), &v); err != nil {
				t.Fatal(err)
			}
			if before, ok := last[topic]; ok && v != before+4 {
				t.Errorf("%s: %d after %d", topic, v, before)
			}
			if lane, ok := lanes[topic]; ok && lane != out.Split {
				t.Errorf("%s is in lanes %d and %d", topic, lane, out.Split)
			}
			last[topic], lanes[topic] = v, out.Split
		}
		if out.Len() > 0 && out.First != next[out.Split] {
			t.Errorf("lane %d: from %d, want %d", out.Split, out.First, next[out.Split])
		}
		next[out.Split] = out.Next
		total += out.Len()
	}
	if next[0] == 0 || next[1] == 0 {
		t.Fatalf("one lane has all: %v", next)
	}
	if lanes["t/0"] == 0 { // hold back the lane of the first message: nothing may be acknowledged
		r.Ack(sensors.Position{Split: 1, Offset: next[1]})
		c.nothing()
		r.Ack(sensors.Position{Split: 0, Offset: next[0]})
	} else {
		r.Ack(sensors.Position{Split: 0, Offset: next[0]})
		c.nothing()
		r.Ack(sensors.Position{Split: 1, Offset: next[1]})
	}
	for i := range uint16(n) {
		c.acks(packets.Puback, 1+i)
	}
}

func TestSeekNumbers(t *testing.T) {
	p := newPeer(t)
	r, _ := feed(t, p, mqtt.ReaderOptions{})
	c := p.session(t, false)
	c.send(publish(1, 1, false, "a"))
	if err := r.Seek(sensors.Position{Offset: 500}); err != nil {
		t.Fatal(err)
	}
	var out sensors.Records
	for out.Len() == 0 {
		if err := r.Read(timeout(t), &out, 10); err != nil {
			t.Fatal(err)
		}
	}
	if out.First != 500 || out.Next != 501 {
		t.Errorf("records %d to %d, want 500 to 501", out.First, out.Next)
	}
	r.Ack(sensors.Position{Offset: 501})
	c.acks(packets.Puback, 1)
	if r.Seek(sensors.Position{Offset: 600}) == nil {
		t.Error("a seek after the first read was accepted")
	}
	if r.Seek(sensors.Position{Split: 1}) == nil {
		t.Error("a seek in a split that is not there was accepted")
	}
}

func TestTooLong(t *testing.T) {
	p := newPeer(t)
	r, _ := feed(t, p, mqtt.ReaderOptions{MaxPayload: 4})
	c := p.session(t, false)
	for i, v := range []string{"1234", "12345", "1"} {
		c.send(publish(uint16(i+1), 1, false, v))
	}
	var got []string
	var long []int
	var out sensors.Records
	for len(got) < 3 {
		if err := r.Read(timeout(t), &out, 2); err != nil {
			t.Fatal(err)
		}
		for _, k := range out.TooLong {
			long = append(long, len(got)+int(k))
		}
		for i := range out.Len() {
			got = append(got, string(out.Payload(i)))
		}
	}
	wants(t, got, "1234", "1234", "1")
	if !slices.Equal(long, []int{1}) {
		t.Errorf("too long: %v, want [1]", long)
	}
}
