//go:build unix

package mqtt_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// flood plays a broker that sends total messages of QoS 1 as fast as a window
// of inFlight unacknowledged ones allows, and costs next to nothing itself.
func flood(b *testing.B, p *peer, total, inFlight int, start <-chan struct{}, done chan<- struct{}) {
	c := p.connect(b, 0, false)
	c.suback(1)
	_ = c.c.SetReadDeadline(time.Time{})
	<-start
	acked := make(chan int, 100000)
	go func() {
		buf := make([]byte, 1<<16)
		rest := 0
		for {
			n, err := c.c.Read(buf)
			if err != nil {
				close(acked)
				return
			}
			acked <- (rest + n) / 4
			rest = (rest + n) % 4
		}
	}()
	payload := make([]byte, 81)
	var out []byte
	sent, open := 0, 0
	for sent < total || open > 0 {
		out = out[:0]
		for open < inFlight && sent < total && len(out) < 1<<16 {
			sent++
			open++
			out = append(out, 0x32, byte(2+7+2+len(payload)), 0, 7)
			out = append(out, "t/a/bcd"...)
			out = binary.BigEndian.AppendUint16(out, uint16(sent%65535)+1)
			out = append(out, payload...)
		}
		if _, err := c.c.Write(out); err != nil {
			b.Error(err)
			break
		}
		if open == inFlight || sent == total {
			n, ok := <-acked
			if !ok {
				b.Error("the client went away")
				break
			}
			open -= n
		}
		for more := true; more && len(acked) > 0; {
			n, ok := <-acked
			open -= n
			more = ok
		}
	}
	close(done)
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs the flood and reports the process's CPU time a message.
func measure(b *testing.B, p *peer, client func()) {
	start, done := make(chan struct{}), make(chan struct{})
	go flood(b, p, b.N, 1000, start, done)
	client()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	close(start)
	<-done
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkReader is the feed session, reading and acknowledging.
func BenchmarkReader(b *testing.B) {
	p := newPeer(b)
	measure(b, p, func() {
		r := openReader(b, mqtt.ReaderOptions{
			Connection: mqtt.Connection{Broker: p.url(), ClientID: "c"}, Topics: []string{"t/#"}, QoS: 1,
		})
		go func() {
			var out sensors.Records
			for r.Read(context.Background(), &out, 4096) == nil {
				r.Ack(sensors.Position{Offset: out.Next})
			}
		}()
	})
}

// BenchmarkBareClient is the limit: paho alone, with the same buffering, that
// only acknowledges.
func BenchmarkBareClient(b *testing.B) {
	p := newPeer(b)
	measure(b, p, func() {
		o := paho.NewClientOptions().AddBroker(p.url()).SetClientID("c").SetCleanSession(false).SetAutoReconnect(false)
		o.SetProtocolVersion(4)
		o.SetCustomOpenConnectionFn(func(u *url.URL, _ paho.ClientOptions) (net.Conn, error) {
			c, err := net.Dial("tcp", u.Host)
			if err != nil {
				return nil, err
			}
			return newBufConn(c), nil
		})
		o.SetDefaultPublishHandler(func(paho.Client, paho.Message) {})
		c := paho.NewClient(o)
		await(b, c.Connect())
		await(b, c.Subscribe("t/#", 1, nil))
		b.Cleanup(func() { c.Disconnect(100) })
	})
}

// bufConn buffers both ways; what gathers during one write goes with the next.
type bufConn struct {
	net.Conn
	r    io.Reader
	kick chan struct{}

	mu  sync.Mutex // guards out
	out []byte
}

func newBufConn(c net.Conn) *bufConn {
	bc := &bufConn{Conn: c, r: bufio.NewReaderSize(c, 64<<10), kick: make(chan struct{}, 1)}
	go func() {
		var buf []byte
		for {
			bc.mu.Lock()
			buf, bc.out = bc.out, buf[:0]
			bc.mu.Unlock()
			if len(buf) == 0 {
				<-bc.kick
			} else if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	return bc
}

func (c *bufConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *bufConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.out = append(c.out, p...)
	c.mu.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *bufConn) Close() error {
	err := c.Conn.Close()
	_, _ = c.Write([]byte{0}) // ends the goroutine
	return err
}

// BenchmarkWriter publishes rows with QoS 1 to a peer that acknowledges them.
func BenchmarkWriter(b *testing.B) {
	p := newPeer(b)
	w := openWriter(b, mqtt.WriterOptions{
		Connection: mqtt.Connection{Broker: p.url()}, Topic: "out/{text}", Schema: oneColumn, QoS: 1, Encode: encodeText,
	})
	c := p.connect(b, 0, false)
	_ = c.c.SetReadDeadline(time.Time{})
	go func() {
		in := bufio.NewReaderSize(c.c, 64<<10)
		var head [2]byte
		var acks, body []byte
		for {
			if _, err := io.ReadFull(in, head[:]); err != nil {
				return
			}
			body = slices.Grow(body[:0], int(head[1]))[:head[1]]
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			if head[0] != 0x32 {
				continue
			}
			at := 2 + int(body[0])<<8 + int(body[1])
			acks = append(acks, 0x40, 2, body[at], body[at+1])
			if in.Buffered() == 0 {
				if _, err := c.c.Write(acks); err != nil {
					return
				}
				acks = acks[:0]
			}
		}
	}()
	texts := make([]string, 500)
	for i := range texts {
		texts[i] = "row-" + strconv.Itoa(i)
	}
	rows := textBatch(texts...)
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for range (b.N + len(texts) - 1) / len(texts) {
		if err := w.Write(ctx, rows); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkLatency is the time from Write to a subscriber, in turns with a
// bare client's Publish, at a thousand messages a second, QoS 0.
func BenchmarkLatency(b *testing.B) {
	br := startBroker(b)
	sub := newSubscriber(b, br.Addr(), "t/#", 0)
	w := openWriter(b, mqtt.WriterOptions{
		Connection: mqtt.Connection{Broker: "mqtt://" + br.Addr()}, Topic: "t/a", Schema: batch.MustSchema(batch.Field{Name: "text", Type: batch.String}), Encode: encodeText,
	})
	bare := newPublisher(b, br.Addr())
	row := textBatch("x")
	if err := w.Write(context.Background(), row); err != nil {
		b.Fatal(err)
	}
	sub.next(b)
	var took [2][]time.Duration
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	b.ResetTimer()
	for i := range 2 * b.N {
		<-pace.C
		start := time.Now()
		if side := i % 2; side == 0 {
			if err := w.Write(context.Background(), row); err != nil {
				b.Fatal(err)
			}
		} else {
			bare.c.Publish("t/a", 0, false, "x")
		}
		sub.next(b)
		took[i%2] = append(took[i%2], time.Since(start))
	}
	for side, name := range []string{"writer", "bare"} {
		slices.Sort(took[side])
		b.ReportMetric(float64(took[side][len(took[side])*99/100].Microseconds()), name+"-p99-µs")
		b.ReportMetric(float64(took[side][len(took[side])/2].Microseconds()), name+"-p50-µs")
	}
}
