package mqtt_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// acts is a permit for so many acts, until somebody gives more.
type acts struct {
	mu   sync.Mutex // guards left
	left int
}

var errLease = errors.New("the lease is over")

func (a *acts) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == 0 {
		return errLease
	}
	a.left--
	return nil
}

func (a *acts) give(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = n
}

// brokerLog is a broker that answers everything and notes what it was sent,
// except pings.
type brokerLog struct {
	p    *peer
	done sync.WaitGroup

	mu  sync.Mutex // guards got
	got [][]string // of each connection, in the order in which they came
}

func newBrokerLog(t *testing.T) *brokerLog {
	b := &brokerLog{p: newPeer(t)}
	b.done.Go(func() {
		for n := 0; ; n++ {
			c, err := b.p.ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.got = append(b.got, nil)
			b.mu.Unlock()
			b.done.Go(func() { b.serve(c, n) })
		}
	})
	return b
}

func (b *brokerLog) serve(c net.Conn, n int) {
	defer c.Close()
	note := func(what string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.got[n] = append(b.got[n], what)
	}
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		kind := p.Details()
		answer := func(t byte) packets.ControlPacket { return packets.NewControlPacket(t) }
		var out []packets.ControlPacket
		switch p := p.(type) {
		case *packets.PingreqPacket:
			out = append(out, answer(packets.Pingresp))
		case *packets.ConnectPacket:
			note("connect")
			out = append(out, answer(packets.Connack))
		case *packets.SubscribePacket:
			note("subscribe")
			a := answer(packets.Suback).(*packets.SubackPacket)
			a.MessageID, a.ReturnCodes = p.MessageID, []byte{1}
			out = append(out, a, publish(7, 1, false, "hello"))
		case *packets.PubackPacket:
			note("puback")
		case *packets.PublishPacket:
			note("publish")
			if p.Qos == 1 {
				a := answer(packets.Puback).(*packets.PubackPacket)
				a.MessageID = kind.MessageID
				out = append(out, a)
			} else {
				a := answer(packets.Pubrec).(*packets.PubrecPacket)
				a.MessageID = kind.MessageID
				out = append(out, a)
			}
		case *packets.PubrelPacket:
			note("pubrel")
			a := answer(packets.Pubcomp).(*packets.PubcompPacket)
			a.MessageID = kind.MessageID
			out = append(out, a)
		case *packets.DisconnectPacket:
			note("disconnect")
		}
		for _, o := range out {
			if o.Write(c) != nil {
				return
			}
		}
	}
}

// end is everything that was sent, once every connection has ended.
func (b *brokerLog) end() []string {
	_ = b.p.ln.Close()
	b.done.Wait()
	return slices.Concat(b.got...)
}

// TestNothingLeavesWithoutAPermit: the permit ends at each act of a session in
// turn. What the broker has got by then is the beginning of what it gets
// otherwise, and that is all, for good.
func TestNothingLeavesWithoutAPermit(t *testing.T) {
	for name, c := range map[string]struct {
		full []string
		run  func(t *testing.T, ctx context.Context, conn mqtt.Connection) // does what needs n acts, and ends; some of it may be refused
	}{
		"reader": {[]string{"connect", "subscribe", "puback", "disconnect"}, func(t *testing.T, ctx context.Context, conn mqtt.Connection) {
			r := openReader(t, mqtt.ReaderOptions{Connection: conn, Topics: []string{"t/#"}, QoS: 1, TickEvery: -1})
			defer r.Close()
			var recs sensors.Records
			for recs.Len() == 0 {
				if err := r.Read(ctx, &recs, 10); err != nil {
					return
				}
			}
			r.Ack(sensors.Position{Offset: recs.Next})
		}},
		"writer": {[]string{"connect", "publish", "publish", "disconnect"}, func(t *testing.T, ctx context.Context, conn mqtt.Connection) {
			w := openWriter(t, mqtt.WriterOptions{Connection: conn, Topic: "out/{text}", Schema: oneColumn, QoS: 1, Encode: encodeText, MaxInFlight: 1})
			defer w.Close()
			_ = errors.Join(w.Write(ctx, textBatch("1", "2")), w.Commit(ctx))
		}},
		"transactional": {[]string{"connect", "disconnect", "connect", "publish", "pubrel", "disconnect"}, func(t *testing.T, ctx context.Context, conn mqtt.Connection) {
			w, err := mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
				WriterOptions: mqtt.WriterOptions{Connection: conn, Topic: "out/{text}", Schema: oneColumn, QoS: 2, Encode: encodeText}, Parallelism: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			_ = errors.Join(w.Recover(ctx, nil, func(string) bool { return false }), w.Write(ctx, textBatch("1")), w.Commit(ctx))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			all := false
			for n := 0; !all; n++ {
				if n > 100 {
					t.Fatal("it never comes to its end")
				}
				b, a := newBrokerLog(t), &acts{left: n}
				conn, waits := quick(b.p.url(), "client", newEvents()), 0
				ctx, cancel := context.WithCancel(timeout(t))
				conn.Permit, conn.Events = a, func(e mqtt.Event) {
					if e.Kind == mqtt.NotPermitted { // it is said once, and nothing comes of waiting
						waits++
						cancel()
					}
				}
				c.run(t, ctx, conn)
				cancel()
				got := b.end()
				if n < 3 && len(got) > 0 || waits > 1 || len(got) > len(c.full) || !slices.Equal(got, c.full[:len(got)]) {
					t.Fatalf("%d acts: the broker got %v, of %v; %d times it was said that there is no permit", n, got, c.full, waits)
				}
				all = len(got) == len(c.full)
			}
		})
	}
}

// A session that waits for its permit connects when it has one.
func TestSessionWaitsForItsPermit(t *testing.T) {
	b, a, ev := newBrokerLog(t), &acts{}, newEvents()
	conn := quick(b.p.url(), "client", ev)
	conn.Permit = a
	w := openWriter(t, mqtt.WriterOptions{Connection: conn, Topic: "out/{text}", Schema: oneColumn, QoS: 1, Encode: encodeText})
	if e := ev.wait(t, mqtt.NotPermitted); !errors.Is(e.Err, sensors.ErrNotPermitted) || !errors.Is(e.Err, errLease) {
		t.Errorf("it waits because of %v", e.Err)
	}
	a.give(1 << 30)
	ctx := timeout(t)
	if err := errors.Join(w.Write(ctx, textBatch("1")), w.Commit(ctx), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got := b.end(); !slices.Equal(got, []string{"connect", "publish", "disconnect"}) {
		t.Errorf("the broker got %v", got)
	}
}
