package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// latencyJob passes messages through where; %[1]s is the broker, %[2]d the QoS.
const latencyJob = `name: bench-latency
sources:
  in:
    mqtt: {broker: "%[1]s", topics: [bench/in], qos: %[2]d}
    format: json
    fields: {sent: bigint, turn: bigint, value: double}
steps:
  - {id: keep, from: in, where: value >= 5}
sinks:
  - {id: out, from: keep, mqtt: {broker: "%[1]s", topic: bench/out, qos: %[2]d}}
`

const (
	perSecond    = 1000 // messages
	mqttTimeout  = 10 * time.Second
	stragglers   = 2 * time.Second // how long the last messages are waited for
	warmSeconds  = 2               // one of each side
	latencyBarMs = 1
	loggedBarMs  = 10
)

// The sides of the latency benchmark: where messages are published, and where
// they come out.
var latencySides = [2]struct{ to, from string }{{"bench/in", "bench/out"}, {"bench/direct", "bench/direct"}}

// runLatency publishes 1,000 messages a second, one second through the job, one
// through the broker alone, in turn.
func runLatency(ctx context.Context, o Options) ([]Figure, error) {
	return measureLatency(ctx, o, &latencies{id: "latency/qos0", bar: latencyBarMs}, "")
}

// runLatencyLogged is the same with QoS 1 and a log.
func runLatencyLogged(ctx context.Context, o Options) (_ []Figure, err error) {
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	figures, err := measureLatency(ctx, o, &latencies{id: "latency/qos1", qos: 1, bar: loggedBarMs}, dir)
	if err != nil {
		return nil, err
	}
	ms, err := syncs(ctx, dir, o.scaled(1000, 10))
	if err != nil {
		return nil, err
	}
	figures[0].Note += fmt.Sprintf("; the disk makes 4 KiB safe in %.2f ms, p99 %.2f, and a message waits for two to four of these", median(ms), ms[len(ms)*99/100])
	return figures, nil
}

// syncs appends pages to a file and makes each safe: sorted, how many
// milliseconds it took.
func syncs(ctx context.Context, dir string, n int) (ms []float64, err error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page := make([]byte, 4096)
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	for range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		ms = append(ms, float64(time.Since(began))/float64(time.Millisecond))
	}
	slices.Sort(ms)
	return ms, nil
}

func measureLatency(ctx context.Context, o Options, l *latencies, dir string) (_ []Figure, err error) {
	b, err := startBroker(ctx)
	if err != nil {
		return nil, fmt.Errorf("bench %s: %w", l.id, err)
	}
	defer func() { err = errors.Join(err, b.close()) }()
	_, stop, err := startJob(ctx, dir, fmt.Appendf(nil, latencyJob, "mqtt://"+b.addr, l.qos))
	if err != nil {
		return nil, fmt.Errorf("bench %s: %w", l.id, err)
	}
	defer func() { err = errors.Join(err, stop()) }()

	l.began, l.all = time.Now(), make(chan struct{}, 1)
	receiver, err := connectMQTT(b.addr, "bench-receiver")
	if err != nil {
		return nil, err
	}
	defer receiver.Disconnect(100)
	for _, s := range latencySides {
		if err := settle(receiver.Subscribe(s.from, l.qos, l.receive)); err != nil {
			return nil, err
		}
	}
	publisher, err := connectMQTT(b.addr, "bench-publisher")
	if err != nil {
		return nil, err
	}
	defer publisher.Disconnect(100)
	turns := warmSeconds + 2*o.rounds(10)
	messages := o.scaled(perSecond, 20)
	if err := l.publish(ctx, o, publisher, turns, messages); err != nil {
		return nil, err
	}
	return l.figures(b.kind, turns*messages)
}

func connectMQTT(addr, id string) (paho.Client, error) {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).SetAutoReconnect(false).SetOrderMatters(true))
	return c, settle(c.Connect())
}

func settle(t paho.Token) error {
	if !t.WaitTimeout(mqttTimeout) {
		return errors.New("bench: the broker does not answer")
	}
	return t.Error()
}

// latencies is what came out.
type latencies struct {
	id    string
	qos   byte
	bar   float64 // ms
	began time.Time
	all   chan struct{} // 1: as many as want were received

	mu    sync.Mutex  // guards what follows
	turns [][]float64 // by turn: ms
	count int         // received
	want  int
}

// receive is the handler of the receiving client.
func (l *latencies) receive(_ paho.Client, m paho.Message) {
	now := time.Since(l.began)
	sent, ok := number(m.Payload(), `"sent":`)
	turn, known := number(m.Payload(), `"turn":`)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ok || !known || turn >= int64(len(l.turns)) {
		return // counted as lost
	}
	l.turns[turn] = append(l.turns[turn], float64(int64(now)-sent)/float64(time.Millisecond))
	if l.count++; l.count == l.want {
		l.all <- struct{}{}
	}
}

// number is the whole number after a key of a JSON object.
func number(payload []byte, key string) (int64, bool) {
	_, after, _ := bytes.Cut(payload, []byte(key))
	n := 0
	for n < len(after) && '0' <= after[n] && after[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(string(after[:n]), 10, 64)
	return v, err == nil
}

// publish sends messages, a turn a second. Message k of a turn is due at k
// thousandths of it; when it was really sent stands in it.
func (l *latencies) publish(ctx context.Context, o Options, c paho.Client, turns, messages int) error {
	l.mu.Lock()
	l.turns, l.want = make([][]float64, turns), turns*messages
	l.mu.Unlock()
	start := time.Now()
	payload := make([]byte, 0, 64)
	var last paho.Token // paho publishes in order, and waits for what it has sent
	for i := range turns * messages {
		turn := i / messages
		if i%messages == 0 {
			o.progress("%s: second %d of %d", l.id, turn+1, turns)
		}
		if wait := time.Until(start.Add(time.Duration(i) * time.Second / perSecond)); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		payload = fmt.Appendf(payload[:0], `{"sent":%d,"turn":%d,"value":%d.5}`, time.Since(l.began), turn, 5+i%90)
		last = c.Publish(latencySides[turn%2].to, l.qos, false, bytes.Clone(payload))
	}
	if err := settle(last); err != nil {
		return err
	}
	select {
	case <-l.all:
	case <-time.After(stragglers):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// figures is the median, over a side's seconds, of the 99th of 100 messages.
func (l *latencies) figures(broker string, published int) ([]Figure, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var p99, p50 [2][]float64
	for turn, ms := range l.turns {
		if len(ms) == 0 {
			return nil, fmt.Errorf("bench %s: no message of second %d came from %s", l.id, turn, latencySides[turn%2].from)
		}
		if turn >= warmSeconds {
			slices.Sort(ms)
			p99[turn%2] = append(p99[turn%2], ms[len(ms)*99/100])
			p50[turn%2] = append(p50[turn%2], ms[len(ms)/2])
		}
	}
	job, alone := median(p99[0]), median(p99[1])
	f := absolute(l.id, job-alone, &alone, "ms", l.bar)
	f.Note = fmt.Sprintf("%s; p99 %.3f ms through the job; p50 %.3f and %.3f ms", broker, job, median(p50[0]), median(p50[1]))
	if lost := published - l.count; lost > 0 {
		f.Note += fmt.Sprintf("; %d of %d messages lost", lost, published)
	}
	return []Figure{f}, nil
}
