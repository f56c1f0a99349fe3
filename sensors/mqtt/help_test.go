package mqtt_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// patience only decides how long a failing test takes.
const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startBroker(t testing.TB) *broker.Broker {
	t.Helper()
	return startBrokerWith(t, broker.Options{})
}

func startBrokerWith(t testing.TB, o broker.Options) *broker.Broker {
	t.Helper()
	b, err := broker.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func openReader(t testing.TB, o mqtt.ReaderOptions) *mqtt.Reader {
	t.Helper()
	r, err := mqtt.NewReader(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func openWriter(t testing.TB, o mqtt.WriterOptions) *mqtt.Writer {
	t.Helper()
	w, err := mqtt.NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// events collects what a session tells.
type events struct{ c chan mqtt.Event }

func newEvents() *events { return &events{make(chan mqtt.Event, 10000)} }

func (e *events) add(v mqtt.Event) {
	select {
	case e.c <- v:
	default: // a test that does not look
	}
}

// wait takes events until one of kind k comes.
func (e *events) wait(t testing.TB, k mqtt.Kind) mqtt.Event {
	t.Helper()
	after := time.After(patience)
	var seen []mqtt.Event
	for {
		select {
		case v := <-e.c:
			if v.Kind == k {
				return v
			}
			seen = append(seen, v)
		case <-after:
			t.Fatalf("no event %v; seen: %v", k, seen)
		}
	}
}

type message struct {
	topic   string
	payload []byte
	retain  bool
}

// publisher is a bare client that publishes and waits for the broker's answer.
type publisher struct{ c paho.Client }

var clientNumber atomic.Int64

func newPublisher(t testing.TB, addr string) publisher {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(fmt.Sprintf("publisher-%d", clientNumber.Add(1)))
	o.SetAutoReconnect(false)
	p := publisher{paho.NewClient(o)}
	await(t, p.c.Connect())
	t.Cleanup(func() { p.c.Disconnect(1000) })
	return p
}

func (p publisher) publish(t testing.TB, topic string, qos byte, retain bool, payload []byte) {
	t.Helper()
	await(t, p.c.Publish(topic, qos, retain, payload))
}

func await(t testing.TB, k paho.Token) {
	t.Helper()
	if !k.WaitTimeout(patience) {
		t.Fatal("the broker does not answer")
	}
	if err := k.Error(); err != nil {
		t.Fatal(err)
	}
}

// subscriber is a bare client that reads.
type subscriber struct{ c chan message }

func newSubscriber(t testing.TB, addr, filter string, qos byte) subscriber {
	t.Helper()
	s, _ := newStoppable(t, addr, filter, qos)
	return s
}

func newStoppable(t testing.TB, addr, filter string, qos byte) (s subscriber, stop func()) {
	t.Helper()
	s = subscriber{make(chan message, 100_000)}
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(fmt.Sprintf("subscriber-%d", clientNumber.Add(1)))
	o.SetAutoReconnect(false)
	c := paho.NewClient(o)
	await(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(1000) })
	await(t, c.Subscribe(filter, qos, func(_ paho.Client, m paho.Message) {
		s.c <- message{m.Topic(), m.Payload(), m.Retained()}
	}))
	return s, func() { c.Disconnect(0) }
}

func (s subscriber) within(d time.Duration) (message, bool) {
	select {
	case m := <-s.c:
		return m, true
	case <-time.After(d):
		return message{}, false
	}
}

func (s subscriber) next(t testing.TB) message {
	t.Helper()
	select {
	case m := <-s.c:
		return m
	case <-time.After(patience):
		t.Fatal("no message")
		return message{}
	}
}

// read returns the payloads of the next n records, acknowledging each run if
// ack is set.
func read(t testing.TB, r *mqtt.Reader, n int, ack bool) []string {
	t.Helper()
	ctx := timeout(t)
	var got []string
	var out sensors.Records
	for len(got) < n {
		if err := r.Read(ctx, &out, n-len(got)); err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		for i := range out.Len() {
			got = append(got, string(out.Payload(i)))
		}
		if ack && out.Len() > 0 {
			r.Ack(sensors.Position{Split: out.Split, Offset: out.Next})
		}
	}
	return got
}
