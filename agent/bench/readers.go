package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent"
	jobfile "github.com/tidemark-mesh/tidemark/dataflow/job"
)

const (
	lookAgain = 2 * time.Millisecond // how often a reader is asked whether all has come
	giveUp    = 10 * time.Second     // without a message: what is missing is lost
)

// until waits until count has reached n, or stands still.
func until(n int64, count func() int64) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	last, since := count(), time.Now()
	for ; last < n; <-tick.C {
		if now := count(); now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > giveUp {
			return
		}
	}
}

// startBare starts a client that only acknowledges. Its connection is buffered
// like that of the engine.
func startBare(p part) (func(order) (report, error), func() error, error) {
	var count atomic.Int64
	o := paho.NewClientOptions().AddBroker("tcp://" + p.Broker).SetClientID("bench-bare").SetAutoReconnect(false)
	o.SetProtocolVersion(4).SetCleanSession(false)
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			return nil, err
		}
		return newBuffered(c), nil
	})
	o.SetDefaultPublishHandler(func(paho.Client, paho.Message) { count.Add(1) })
	c := paho.NewClient(o)
	if err := settle(c.Connect()); err != nil {
		return nil, nil, err
	}
	if err := settle(c.Subscribe(p.Topic+"/+", 1, nil)); err != nil {
		return nil, nil, err
	}
	obey := func(o order) (report, error) {
		until(o.Until, count.Load)
		return spent(report{Count: count.Load()}), nil
	}
	return obey, func() error { c.Disconnect(100); return nil }, nil
}

// buffered buffers a connection both ways, as the engine's is: what gathers
// during one write goes with the next.
type buffered struct {
	net.Conn
	r    *bufio.Reader
	kick chan struct{} // 1: there is something to write, or it is closed

	mu     sync.Mutex // guards what follows
	out    []byte
	closed bool
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, r: bufio.NewReaderSize(c, 64<<10), kick: make(chan struct{}, 1)}
	go b.flush()
	return b
}

func (b *buffered) flush() {
	var buf []byte
	for range b.kick {
		for {
			b.mu.Lock()
			buf, b.out = b.out, buf[:0]
			closed := b.closed
			b.mu.Unlock()
			if len(buf) == 0 && closed {
				return
			}
			if len(buf) == 0 {
				break
			}
			if _, err := b.Conn.Write(buf); err != nil {
				return
			}
		}
	}
}

// Read is net.Conn's.
func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// Write is net.Conn's.
func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	b.out = append(b.out, p...)
	b.mu.Unlock()
	b.wake()
	return len(p), nil
}

func (b *buffered) wake() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// Close is net.Conn's.
func (b *buffered) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wake()
	return b.Conn.Close()
}

// messageJob is the job of the MQTT benchmarks; %[3]s is its checkpoint section.
const messageJob = `name: bench-mqtt
%[3]s
sources:
  in:
    mqtt: {broker: "mqtt://%[1]s", topics: ["%[2]s/+"], qos: 1, client_id: "bench-job-%[2]s"}
    format: json
    fields: {sensor: string, ts: timestamp, temperature: double, humidity: double}
    event_time: ts
    watermark: {bounded: 5s}
steps:
  - id: windows
    from: in
    key_by: [sensor]
    window: {tumbling: 1s}
    select: {n: count(*), mean: avg(temperature), most: max(humidity)}
sinks:
  - {id: out, from: windows, blackhole: {}}
`

// startMessageJob runs the job, with a log if it has a folder.
func startMessageJob(ctx context.Context, p part) (func(order) (report, error), func() error, error) {
	var section string
	if p.Interval > 0 {
		section = fmt.Sprintf("checkpoint: {interval: %v}", p.Interval)
	}
	local, stop, err := startJob(ctx, p.Dir, fmt.Appendf(nil, messageJob, p.Broker, p.Topic, section))
	if err != nil {
		return nil, nil, err
	}
	obey := func(o order) (report, error) {
		until(o.Until, func() int64 { return local.Totals().In })
		t := local.Totals()
		return spent(report{Count: t.In, Bad: t.Rejected + t.Late}), nil
	}
	return obey, stop, nil
}

// startJob runs a job until stop, and returns when it hears. dir is its state
// folder; empty: it keeps none.
func startJob(ctx context.Context, dir string, text []byte) (_ *agent.Local, stop func() error, err error) {
	j, err := jobfile.Load("bench.yaml", text, jobfile.Options{})
	if err != nil {
		return nil, nil, err
	}
	var o agent.LocalOptions
	release := func() error { return nil }
	if dir != "" {
		if o.State, err = agent.OpenState(dir, agent.StateOptions{}); err != nil {
			return nil, nil, err
		}
		release = o.State.Close
	}
	local, err := agent.NewLocal(j, o)
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	ended := make(chan error, 1)
	go func() { ended <- local.Run(ctx) }()
	stop = func() error { local.Stop(); return errors.Join(<-ended, release()) }
	select {
	case <-local.Heard():
		return local, stop, nil
	case err := <-ended:
		return nil, nil, errors.Join(fmt.Errorf("the job ended: %w", err), release())
	case <-ctx.Done():
		return nil, nil, errors.Join(ctx.Err(), stop())
	}
}
