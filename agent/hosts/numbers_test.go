//go:build hosts

package hosts

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// numbers publishes 0, 1, 2 and so on, each once, at QoS 1 over one connection,
// and knows what a numbersJob has to make of them. The first ones fill the
// job's state, a key each; the others update keys at random.
type numbers struct {
	conn net.Conn
	keys int
	wait sync.WaitGroup

	mu    sync.Mutex // guards what follows
	keyOf []int      // of each number that was published
	acked int
	err   error
}

// numbersJob has about 260 bytes of state for each key, and puts out a row for
// each number beyond the fill.
func numbersJob(broker string, keys int, sites string) string {
	return fmt.Sprintf(`
name: numbers
parallelism: 2
replicas: 2
replicate_to: [%[3]s]
checkpoint: {interval: 500ms}
restart: {strategy: exponential-delay, initial: 100ms, max: 1s}
sources:
  in:
    mqtt: {broker: "%[1]s", topics: [numbers/+], qos: 1, lanes: 2}
    format: json
    fields: {i: bigint, k: string, text: string}
steps:
  - {id: sums, from: in, key_by: [k], select: {n: count(*), i: max(i), total: sum(i), text: last(text)}}
  - {id: fresh, from: sums, where: "i >= %[2]d"}
  - {id: rows, from: fresh, select: [k, i, n, total]}
sinks:
  - {id: out, from: rows, mqtt: {broker: "%[1]s", topic: results, delivery: transactional}, constraints: {labels: {sink: here}}}
  - {id: files, from: rows, file: {path: rows.jsonl}, constraints: {labels: {sink: here}}}
`, broker, keys, sites)
}

// row is what the job says of a number.
type row struct {
	K     string `json:"k"`
	I     int    `json:"i"`
	N     int    `json:"n"`
	Total int    `json:"total"`
}

func newNumbers(t *testing.T, keys int, dial func(addr string) (net.Conn, error), addr string) *numbers {
	t.Helper()
	c, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &numbers{conn: c, keys: keys}
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession, hello.ClientIdentifier = "MQTT", 4, true, "numbers"
	in := bufio.NewReader(c)
	if err := hello.Write(c); err != nil {
		t.Fatal(err)
	}
	if _, err := packets.ReadPacket(in); err != nil {
		t.Fatal(err)
	}
	p.wait.Go(func() { p.receive(in) })
	t.Cleanup(func() {
		_ = c.Close()
		p.wait.Wait()
	})
	return p
}

// receive counts acknowledgements until the connection ends.
func (p *numbers) receive(in *bufio.Reader) {
	for {
		packet, err := packets.ReadPacket(in)
		p.mu.Lock()
		if _, ok := packet.(*packets.PubackPacket); ok && err == nil {
			p.acked++
		}
		p.err = err
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// publish sends the next n numbers.
func (p *numbers) publish(n int) error {
	var text [144]byte
	out := bufio.NewWriterSize(p.conn, 64<<10)
	for range n {
		p.mu.Lock()
		i := len(p.keyOf)
		rng := rand.New(rand.NewPCG(5, uint64(i)))
		key := i
		if i >= p.keys {
			key = rng.IntN(p.keys)
		}
		p.keyOf = append(p.keyOf, key)
		p.mu.Unlock()
		for j := range text {
			text[j] = byte(rng.Uint32())
		}
		pub := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		pub.TopicName, pub.Qos, pub.MessageID = fmt.Sprintf("numbers/%d", key%4), 1, uint16(i%65535+1)
		pub.Payload = fmt.Appendf(nil, `{"i":%d,"k":"k%05d","text":%q}`, i, key, base64.StdEncoding.EncodeToString(text[:]))
		if err := pub.Write(out); err != nil {
			return err
		}
	}
	return out.Flush()
}

// fill publishes a number for each key, and waits until the broker has them.
func (p *numbers) fill(t *testing.T) {
	t.Helper()
	for p.published() < p.keys {
		if err := p.publish(min(500, p.keys-p.published())); err != nil {
			t.Fatal(err)
		}
		p.awaitAcked(t)
	}
}

// flow publishes so many numbers a second until it is ended.
func (p *numbers) flow(t *testing.T, rate int) (end func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second / 50)
		defer tick.Stop()
		began, sent := time.Now(), 0
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-tick.C:
			}
			n := int(time.Since(began).Seconds()*float64(rate)) - sent
			if err := p.publish(n); err != nil {
				done <- err
				return
			}
			sent += n
		}
	}()
	var once sync.Once
	stopped := func() {
		once.Do(func() {
			close(stop)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stopped)
	return func() {
		t.Helper()
		stopped()
		p.awaitAcked(t)
	}
}

func (p *numbers) awaitAcked(t *testing.T) {
	t.Helper()
	await(t, "the broker to have all numbers", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.err != nil {
			t.Fatal(p.err)
		}
		return p.acked == len(p.keyOf)
	}, func() string { return fmt.Sprintf("%d published", p.published()) })
}

func (p *numbers) published() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.keyOf)
}

// want is the row of each number beyond the fill.
func (p *numbers) want() map[int]row {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows, n, total := make(map[int]row), make(map[int]int), make(map[int]int)
	for i, k := range p.keyOf {
		n[k]++
		total[k] += i
		if i >= p.keys {
			rows[i] = row{fmt.Sprintf("k%05d", k), i, n[k], total[k]}
		}
	}
	return rows
}

// compare compares what came out with what must, in any order.
func (p *numbers) compare(t *testing.T, where string, texts []string) {
	t.Helper()
	want, seen, wrong := p.want(), make(map[int]int), 0
	fail := func(format string, args ...any) {
		t.Helper()
		if wrong++; wrong <= 10 {
			t.Errorf(where+": "+format, args...)
		}
	}
	for at, text := range texts {
		var r row
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			fail("%v in %q", err, text)
			continue
		}
		if seen[r.I]++; seen[r.I] > 1 {
			fail("number %d for the %d. time, as row %d of %d: %+v", r.I, seen[r.I], at, len(texts), r)
		}
		if r != want[r.I] {
			fail("row %d is %+v, want %+v", at, r, want[r.I])
		}
	}
	for i, r := range want {
		if seen[i] == 0 {
			fail("no row for %+v", r)
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d mistakes in %d rows of %d numbers", where, wrong, len(texts), len(want))
	}
}
