package feed_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// proxy stands between a client and a broker, so that a test can cut the
// connection and the broker keeps the session.
type proxy struct {
	ln net.Listener
	to string
	wg sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conns  []net.Conn
	closed bool
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to}
	p.wg.Add(1)
	go p.serve()
	t.Cleanup(func() { p.close(); p.wg.Wait() })
	return p
}

func (p *proxy) serve() {
	defer p.wg.Done()
	for {
		a, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		b, err := net.Dial("tcp", p.to)
		if err != nil || p.closed {
			_ = a.Close()
			if err == nil {
				_ = b.Close()
			}
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, a, b)
		p.wg.Add(2)
		p.mu.Unlock()
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			go func() {
				defer p.wg.Done()
				_, _ = io.Copy(way[0], way[1])
				_ = way[0].Close()
				_ = way[1].Close()
			}()
		}
	}
}

// cut ends all connections at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// close ends it for good: nobody comes through any more.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.ln.Close()
	p.cut()
}

// process is a feed behind a proxy of its own.
type process struct {
	dir  string
	p    *proxy
	feed *feed.Feed
	ev   *events
	pump *pausable
}

// pausable is a session whose pump can be stopped between two acts, so that the
// folder can be copied as it is at one moment.
type pausable struct {
	*mqtt.Reader
	mu   sync.RWMutex // held by the pump while it is not in Read
	held bool
}

func (p *pausable) leave() {
	if p.held {
		p.mu.RUnlock()
	}
	p.held = false
}

func (p *pausable) enter() { p.mu.RLock(); p.held = true }

func (p *pausable) Read(ctx context.Context, r *sensors.Records, max int) error {
	p.leave()
	err := p.Reader.Read(ctx, r, max)
	if err == nil {
		p.enter()
	}
	return err
}

func (p *pausable) Ready() bool {
	p.leave()
	p.enter()
	return p.Reader.Ready()
}

func (p *pausable) Ack(at sensors.Position) {
	p.leave()
	p.enter()
	p.Reader.Ack(at)
}

func startProcess(t testing.TB, dir, addr string, qos, lanes int) *process {
	t.Helper()
	s := &process{dir: dir, p: newProxy(t, addr), pump: new(pausable)}
	c := config("mqtt://"+s.p.ln.Addr().String(), qos)
	c.Lanes = lanes
	s.feed, s.ev = open(t, feed.Options{Dir: dir, Session: func(c feed.Config, o feed.SessionOptions) (sensors.Reader, error) {
		var err error
		s.pump.Reader, err = quick(c, o)
		return s.pump, err
	}}, c)
	return s
}

// quick is an MQTT session whose back-off does not show in a test.
func quick(c feed.Config, s feed.SessionOptions) (*mqtt.Reader, error) {
	return mqtt.NewReader(mqtt.ReaderOptions{
		Connection: mqtt.Connection{
			Broker: c.Broker, ClientID: c.ClientID, Clock: s.Clock, Events: s.Events,
			BackoffMin: dataflow.Millisecond, BackoffMax: 5 * dataflow.Millisecond,
		},
		Topics: c.Topics, QoS: byte(c.QoS), Lanes: c.Lanes, Recall: s.Recall,
	})
}

// die ends the process without a goodbye and gives what it leaves on disk.
func (s *process) die(t testing.TB) string {
	t.Helper()
	s.pump.mu.Lock()
	defer s.pump.mu.Unlock()
	next := image(t, s.dir)
	s.p.close()
	return next
}

func publisher(t testing.TB, addr, id string) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).SetAutoReconnect(false)
	c := paho.NewClient(o)
	if k := c.Connect(); !k.WaitTimeout(patience) || k.Error() != nil {
		t.Fatal(k.Error())
	}
	t.Cleanup(func() { c.Disconnect(1000) })
	return c
}

// once checks that each of n messages is in the log of a feed once, and that
// topics kept their order where the broker keeps it.
func once(t testing.TB, f *feed.Feed, n int) {
	t.Helper()
	r, err := f.Reader("test", f.LanesOf(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	seen := make([]int, n)
	lanes := make(map[string]int)
	var out sensors.Records
	ctx := timeout(t)
	for got := 0; got < n; got += out.Len() {
		if err := r.Read(ctx, &out, 1000); err != nil {
			t.Fatalf("after %d: %v; %+v", got, err, f.Stats())
		}
		for i := range out.Len() {
			v, err := strconv.Atoi(string(out.Payload(i)))
			if err != nil || v >= n {
				t.Fatalf("%q", out.Payload(i))
			}
			seen[v]++
			topic := string(out.Topic(i))
			if lane, ok := lanes[topic]; ok && lane != out.Split {
				t.Errorf("%s is in lanes %d and %d", topic, lane, out.Split)
			}
			lanes[topic] = out.Split
		}
	}
	for v, k := range seen {
		if k != 1 {
			t.Errorf("message %d is there %d times", v, k)
		}
	}
}

// The connection is cut and the process dies again and again while messages
// flow: with a broker that keeps the session each is in the log once. This
// broker sends again in no particular order.
func TestCutsAndCrashes(t *testing.T) {
	for qos := 1; qos <= 2; qos++ {
		t.Run(fmt.Sprint("qos ", qos), func(t *testing.T) {
			const n, deaths = 3200, 8
			random := rand.New(rand.NewPCG(uint64(qos), 3))
			b, err := broker.Start(broker.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			s := startProcess(t, t.TempDir(), b.Addr(), qos, 3)
			s.ev.wait(t, session(mqtt.Subscribed))
			pub := publisher(t, b.Addr(), "publisher")
			var tokens []paho.Token
			for i := range n {
				tokens = append(tokens, pub.Publish(fmt.Sprint("t/", i%10), byte(qos), false, strconv.Itoa(i)))
				if i%(n/deaths) != n/deaths-1 {
					continue
				}
				// This broker loses what is published while a session changes hands.
				for _, k := range tokens {
					if !k.WaitTimeout(patience) || k.Error() != nil {
						t.Fatal(k.Error())
					}
				}
				tokens = tokens[:0]
				for range random.IntN(3) {
					s.p.cut()
					s.ev.wait(t, session(mqtt.Subscribed))
				}
				s = startProcess(t, s.die(t), b.Addr(), qos, 3)
				s.ev.wait(t, session(mqtt.Subscribed))
			}
			once(t, s.feed, n)
		})
	}
}

// Another client takes the id, with what the session holds, and acknowledges
// none of it: when it goes all comes to the feed, once.
func TestTakenOver(t *testing.T) {
	const n = 500
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	s := startProcess(t, t.TempDir(), b.Addr(), 1, 1)
	s.ev.wait(t, session(mqtt.Subscribed))
	pub := publisher(t, b.Addr(), "publisher")
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if k := pub.Publish("t/a", 1, false, strconv.Itoa(i)); !k.WaitTimeout(patience) || k.Error() != nil {
				t.Fatal(k.Error())
			}
		}
	}
	send(0, n/2)
	o := paho.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID("feed").SetCleanSession(false).SetAutoReconnect(false).SetAutoAckDisabled(true)
	o.SetDefaultPublishHandler(func(paho.Client, paho.Message) {})
	// It has the id for a moment, then the feed takes it back.
	thief := paho.NewClient(o)
	if k := thief.Connect(); !k.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	s.ev.wait(t, session(mqtt.Lost))
	thief.Disconnect(100)
	s.ev.wait(t, session(mqtt.Subscribed))
	send(n/2, n)
	once(t, s.feed, n)
}
