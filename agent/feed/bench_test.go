//go:build unix

package feed_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// flood plays a broker that sends total messages of QoS 1 as fast as a window
// of inFlight unacknowledged ones allows, and costs next to nothing itself.
func flood(b *testing.B, c net.Conn, total, inFlight int) {
	acked := make(chan int, 100_000)
	go func() {
		buf := make([]byte, 1<<16)
		rest := 0
		for {
			n, err := c.Read(buf)
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
	for sent, open := 0, 0; sent < total || open > 0; {
		out = out[:0]
		for open < inFlight && sent < total && len(out) < 1<<16 {
			sent++
			open++
			out = append(out, 0x32, byte(2+7+2+len(payload)), 0, 7)
			out = append(out, "t/a/bcd"...)
			out = binary.BigEndian.AppendUint16(out, uint16(sent%65535)+1)
			out = append(out, payload...)
		}
		if _, err := c.Write(out); err != nil {
			b.Error(err)
			return
		}
		if open == inFlight || sent == total {
			n, ok := <-acked
			if !ok {
				b.Error("the client went away")
				return
			}
			open -= n
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure reports the process's CPU time a message of the flood.
func measure(b *testing.B, c net.Conn) {
	_ = c.SetReadDeadline(time.Time{})
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	flood(b, c, b.N, 1000)
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkFeed is a feed with its log on the disk of the temporary folder, and
// nobody who reads.
func BenchmarkFeed(b *testing.B) {
	p := newPeer(b)
	f, _ := open(b, feed.Options{Dir: b.TempDir()}, config(p.url(), 1))
	measure(b, p.session(b, 1, false).c)
	b.ReportMetric(float64(b.N)/float64(f.Stats().Commits), "messages/commit")
}

// BenchmarkFeedRead is the same with a job's reader at the end of the log.
func BenchmarkFeedRead(b *testing.B) {
	p := newPeer(b)
	f, _ := open(b, feed.Options{Dir: b.TempDir()}, config(p.url(), 1))
	r, err := f.Reader("job", []int{0})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	go func() {
		var out sensors.Records
		for r.Read(b.Context(), &out, 4096) == nil {
		}
	}()
	measure(b, p.session(b, 1, false).c)
	b.ReportMetric(float64(b.N)/float64(f.Stats().Commits), "messages/commit")
}

// BenchmarkBareClient is the limit: paho alone, with the same buffering, that
// only acknowledges.
func BenchmarkBareClient(b *testing.B) {
	p := newPeer(b)
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
	go func() { c.Connect().Wait(); c.Subscribe("t/#", 1, nil) }()
	conn := p.session(b, 1, false)
	b.Cleanup(func() { c.Disconnect(100) })
	measure(b, conn.c)
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
	_, _ = c.Write([]byte{packets.Disconnect << 4}) // ends the goroutine
	return err
}
