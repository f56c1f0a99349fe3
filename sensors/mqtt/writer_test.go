package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// sink opens a writer on a peer.
func sink(t testing.TB, p *peer, o mqtt.WriterOptions) (*mqtt.Writer, *events) {
	t.Helper()
	ev := newEvents()
	o.Connection = quick(p.url(), "sink", ev)
	o.Topic, o.Schema, o.Encode = "out/{text}", oneColumn, encodeText
	return openWriter(t, o), ev
}

// published expects PUBLISH packets with these payloads and returns their ids.
func (c *pconn) published(dup bool, texts ...string) (ids []uint16) {
	c.t.Helper()
	for _, want := range texts {
		m, ok := c.get().(*packets.PublishPacket)
		if !ok || string(m.Payload) != want || m.TopicName != "out/"+want || m.Dup != dup {
			c.t.Fatalf("got %v, want %q with DUP %v", m, want, dup)
		}
		ids = append(ids, m.MessageID)
	}
	return ids
}

func (c *pconn) answer(kind byte, ids ...uint16) {
	c.t.Helper()
	for _, id := range ids {
		switch p := packets.NewControlPacket(kind).(type) {
		case *packets.PubackPacket:
			p.MessageID = id
			c.send(p)
		case *packets.PubrecPacket:
			p.MessageID = id
			c.send(p)
		case *packets.PubcompPacket:
			p.MessageID = id
			c.send(p)
		}
	}
}

func write(t testing.TB, w *mqtt.Writer, texts ...string) {
	t.Helper()
	if err := w.Write(timeout(t), textBatch(texts...)); err != nil {
		t.Fatal(err)
	}
}

func commit(t testing.TB, w *mqtt.Writer) <-chan error {
	done := make(chan error, 1)
	ctx := timeout(t)
	go func() { done <- w.Commit(ctx) }()
	return done
}

// What the broker did not acknowledge is published again, in order, with DUP;
// what it did is not.
func TestWriterPublishesAgain(t *testing.T) {
	p := newPeer(t)
	w, ev := sink(t, p, mqtt.WriterOptions{QoS: 1})
	write(t, w, "a", "b", "c") // before there is a connection
	c := p.connect(t, 0, false)
	ids := c.published(false, "a", "b", "c")
	c.answer(packets.Puback, ids[1]) // out of order, as a broker may
	write(t, w, "d")
	more := c.published(false, "d")
	c.answer(packets.Puback, more...)
	c.nothing() // both have been heard
	c.cut()
	ev.wait(t, mqtt.Lost)
	write(t, w, "e")
	done := commit(t, w)
	c = p.connect(t, 0, false)
	again := c.published(true, "a", "c")
	last := c.published(false, "e")
	if again[0] != ids[0] || again[1] != ids[2] {
		t.Errorf("published again as %v, first as %v", again, ids)
	}
	c.answer(packets.Puback, again...)
	c.answer(packets.Puback, last...)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Acked != 5 || s.Published != 5 || s.Republished != 2 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

// QoS 2: what the broker has is not published again, only released.
func TestWriterQoS2(t *testing.T) {
	p := newPeer(t)
	w, ev := sink(t, p, mqtt.WriterOptions{QoS: 2})
	write(t, w, "a", "b")
	c := p.connect(t, 0, false)
	ids := c.published(false, "a", "b")
	c.answer(packets.Pubrec, ids[0])
	c.acks(packets.Pubrel, ids[0])
	c.cut()
	ev.wait(t, mqtt.Lost)
	c = p.connect(t, 0, true)
	c.acks(packets.Pubrel, ids[0])
	c.published(true, "b")
	c.cut()
	ev.wait(t, mqtt.Lost)
	c = p.connect(t, 0, false) // a broker that lost the session lost the message too
	c.published(true, "a", "b")
	c.answer(packets.Pubrec, ids...)
	c.acks(packets.Pubrel, ids...)
	c.answer(packets.Pubcomp, ids...)
	if err := <-commit(t, w); err != nil {
		t.Fatal(err)
	}
}

// Write blocks at the bound until there is room or the context ends, and the
// error says why there is none.
func TestWriterBlocks(t *testing.T) {
	p := newPeer(t)
	w, ev := sink(t, p, mqtt.WriterOptions{QoS: 1, MaxInFlight: 2})
	p.connect(t, 5, false)
	ev.wait(t, mqtt.Refused)
	ctx, cancel := context.WithCancel(context.Background())
	blocked := make(chan error)
	go func() { blocked <- w.Write(ctx, textBatch("a", "b", "c")) }()
	for w.Stats().InFlight < 2 {
		p.connect(t, 5, false)
		ev.wait(t, mqtt.Refused)
	}
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "authorised") {
		t.Errorf("Write returned %v", err)
	}
	go func() { blocked <- w.Write(timeout(t), textBatch("c", "d")) }()
	c := p.connect(t, 0, false)
	c.answer(packets.Puback, c.published(false, "a", "b")...)
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	c.answer(packets.Puback, c.published(false, "c", "d")...)
	if err := <-commit(t, w); err != nil {
		t.Fatal(err)
	}
}

func TestWriterBoundsBytes(t *testing.T) {
	p := newPeer(t)
	w, _ := sink(t, p, mqtt.WriterOptions{QoS: 1, MaxBytes: 10})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Write(ctx, textBatch("one longer than ten bytes", "another")); !errors.Is(err, context.Canceled) {
		t.Errorf("Write returned %v", err)
	}
	if s := w.Stats(); s.InFlight != 1 {
		t.Errorf("%+v", s)
	}
}

func TestWriterClosed(t *testing.T) {
	p := newPeer(t)
	w, _ := sink(t, p, mqtt.WriterOptions{QoS: 1})
	write(t, w, "a")
	done := commit(t, w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, mqtt.ErrClosed) {
		t.Errorf("Commit returned %v", err)
	}
	if err := w.Write(timeout(t), textBatch("b")); !errors.Is(err, mqtt.ErrClosed) {
		t.Errorf("Write returned %v", err)
	}
}

// QoS 0: what was not written when the connection was lost is published on the
// next one; what was written is gone with it.
func TestWriterQoS0Reconnects(t *testing.T) {
	const n = 150
	p := newPeer(t)
	ev := newEvents()
	big := strings.Repeat("x", 64<<10)
	w := openWriter(t, mqtt.WriterOptions{
		Connection: quick(p.url(), "sink", ev), Topic: "out", Schema: oneColumn,
		Encode: func(dst []byte, b *batch.Batch, pos int) []byte { return append(encodeText(dst, b, pos), big...) },
	})
	c := p.connect(t, 0, false) // and does not read: the sockets fill up
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("%3d", i))
	}
	write(t, w, texts...)
	if left := w.Stats().InFlight; left == 0 {
		t.Fatal("all rows fit into the sockets: nothing is tested")
	}
	c.cut()
	ev.wait(t, mqtt.Lost)
	left := w.Stats().InFlight
	done := commit(t, w)
	c = p.connect(t, 0, false)
	for i := n - left; i < n; i++ {
		m, ok := c.get().(*packets.PublishPacket)
		if !ok || string(m.Payload[:3]) != texts[i] || len(m.Payload) != 3+len(big) || m.Dup {
			t.Fatalf("row %d comes as %.20v", i, m)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Acked != n || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

// More rows than packet ids, in a window that is small: ids are used again.
func TestWriterManyRows(t *testing.T) {
	const n = 70000
	b := startBroker(t)
	sub := newSubscriber(t, b.Addr(), "out/#", 0)
	ev := newEvents()
	w := openWriter(t, mqtt.WriterOptions{
		Connection: quick("mqtt://"+b.Addr(), "w", ev), QoS: 1, MaxInFlight: 2000,
		Topic: "out/x", Schema: oneColumn, Encode: encodeText,
	})
	go func() {
		for from := 0; from < n; from += batch.MaxRows {
			texts := make([]string, 0, batch.MaxRows)
			for i := from; i < min(n, from+batch.MaxRows); i++ {
				texts = append(texts, fmt.Sprint(i))
			}
			write(t, w, texts...)
		}
	}()
	for i := range n {
		if m := sub.next(t); string(m.payload) != fmt.Sprint(i) {
			t.Fatalf("row %d is %s", i, m.payload)
		}
	}
	if err := <-commit(t, w); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Acked != n || s.Republished != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWriterOptionsRefused(t *testing.T) {
	good := mqtt.WriterOptions{Connection: mqtt.Connection{Broker: "mqtt://h"}, Topic: "a/{text}", Schema: oneColumn, Encode: encodeText}
	for word, change := range map[string]func(o *mqtt.WriterOptions){
		"scheme":            func(o *mqtt.WriterOptions) { o.Broker = "h:1883" },
		"qos":               func(o *mqtt.WriterOptions) { o.QoS = 3 },
		"in flight":         func(o *mqtt.WriterOptions) { o.MaxInFlight = 65536 },
		"client id":         func(o *mqtt.WriterOptions) { o.QoS = 2 },
		"column \"sensor\"": func(o *mqtt.WriterOptions) { o.Topic = "a/{sensor}" },
		"{name}":            func(o *mqtt.WriterOptions) { o.Topic = "a/{text" },
		"without +":         func(o *mqtt.WriterOptions) { o.Topic = "a/+" },
	} {
		o := good
		change(&o)
		w, err := mqtt.NewWriter(o)
		if err == nil {
			_ = w.Close()
			t.Errorf("%s: accepted", word)
		} else if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: the error reads %q", word, err)
		}
	}
}
