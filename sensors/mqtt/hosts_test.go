//go:build hosts

package mqtt_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

const mosquittoPath = "/usr/sbin/mosquitto"

// mosquitto is a real broker with a folder of its own.
type mosquitto struct {
	t    testing.TB
	conf string
	addr string
	cmd  *exec.Cmd
}

func startMosquitto(t testing.TB, settings string) *mosquitto {
	t.Helper()
	if _, err := os.Stat(mosquittoPath); err != nil {
		t.Skipf("no %s: apt-get install mosquitto", mosquittoPath)
	}
	addr := sensortest.FreeAddr(t)
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location %s/\n%s\n", port, dir, settings)
	m := &mosquitto{t: t, conf: filepath.Join(dir, "mosquitto.conf"), addr: addr}
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(func() { m.stop(syscall.SIGKILL) })
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(mosquittoPath, "-c", m.conf)
	m.cmd.Stderr = &strings.Builder{}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mosquitto) stop(s syscall.Signal) {
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(s)
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

func (m *mosquitto) url() string { return "mqtt://" + m.addr }

// count is what came through a reader: how often each text, and whether each
// topic kept its order.
type count struct {
	seen  map[string]int
	total int
}

// readTexts reads until every one of n texts has come.
func readTexts(t testing.TB, r *mqtt.Reader, n int, each func(total int)) count {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := count{seen: make(map[string]int, n)}
	var out sensors.Records
	for len(c.seen) < n {
		if err := r.Read(ctx, &out, 4096); err != nil {
			t.Fatalf("%d different ones of %d after %d: %v; %+v", len(c.seen), n, c.total, err, r.Stats())
		}
		for i := range out.Len() {
			c.seen[string(out.Payload(i))]++
			c.total++
		}
		if out.Len() > 0 {
			r.Ack(sensors.Position{Split: out.Split, Offset: out.Next})
			each(c.total)
		}
	}
	return c
}

// publishTexts writes from several writers at once, each to its own topic, and
// returns them when they have committed.
func publishTexts(t testing.TB, url string, writers, each int) (wait func() (republished int64)) {
	var wg sync.WaitGroup
	ws := make([]*mqtt.Writer, writers)
	for k := range ws {
		ws[k] = openWriter(t, mqtt.WriterOptions{
			Connection: quick(url, fmt.Sprint("writer-", k), newEvents()),
			Topic:      fmt.Sprint("t/", k), QoS: 1, Schema: oneColumn, Encode: encodeText,
		})
		wg.Add(1)
		go func() {
			defer wg.Done()
			for from := 0; from < each; from += 100 {
				var texts []string
				for i := from; i < min(each, from+100); i++ {
					texts = append(texts, fmt.Sprintf("%d %d", k, i))
				}
				writeText(t, ws[k], texts...)
			}
		}()
	}
	return func() (republished int64) {
		wg.Wait()
		for _, w := range ws {
			republished += w.Stats().Republished
		}
		return republished
	}
}

const raised = "max_queued_messages 0\nmax_inflight_messages 1000\nautosave_interval 1"

func TestHostsMosquittoAll(t *testing.T) {
	const writers, each = 4, 25_000
	m := startMosquitto(t, raised)
	ev := newEvents()
	r := openReader(t, mqtt.ReaderOptions{Connection: quick(m.url(), "feed", ev), Topics: []string{"t/#"}, QoS: 1})
	ev.wait(t, mqtt.Subscribed)
	wait := publishTexts(t, m.url(), writers, each)
	c := readTexts(t, r, writers*each, func(int) {})
	if again := wait(); c.total != writers*each || again != 0 {
		t.Errorf("%d messages read, want %d; %d published again", c.total, writers*each, again)
	}
	if s := r.Stats(); s.Duplicates != 0 || s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// Mosquitto is stopped and started again while messages flow. Nothing is lost,
// and nothing is read twice but what a writer had to publish twice, since it
// got no acknowledgement: that is QoS 1.
func TestHostsMosquittoRestarted(t *testing.T) {
	const writers, each = 4, 25_000
	m := startMosquitto(t, raised)
	ev := newEvents()
	r := openReader(t, mqtt.ReaderOptions{Connection: quick(m.url(), "feed", ev), Topics: []string{"t/#"}, QoS: 1})
	ev.wait(t, mqtt.Subscribed)
	wait := publishTexts(t, m.url(), writers, each)
	restarts := 0
	c := readTexts(t, r, writers*each, func(total int) {
		if total > (restarts+1)*writers*each/4 && restarts < 3 {
			restarts++
			m.stop(syscall.SIGTERM)
			m.start()
		}
	})
	again := wait()
	twice := 0
	for text, n := range c.seen {
		if n > 2 {
			t.Errorf("%q came %d times", text, n)
		}
		twice += n - 1
	}
	s := r.Stats()
	t.Logf("%d restarts, %d published again, %d read twice, reader %+v", restarts, again, twice, s)
	if int64(twice) > again {
		t.Errorf("%d were read twice, but only %d published again", twice, again)
	}
	if restarts != 3 || s.Connects < 4 {
		t.Errorf("%d restarts, %d connections", restarts, s.Connects)
	}
}

// Killed, Mosquitto forgets what it had not saved: it sends again what was
// acknowledged since, with DUP, and that is recognised.
func TestHostsMosquittoKilled(t *testing.T) {
	const writers, each = 4, 10_000
	m := startMosquitto(t, raised)
	ev := newEvents()
	r := openReader(t, mqtt.ReaderOptions{Connection: quick(m.url(), "feed", ev), Topics: []string{"t/#"}, QoS: 1})
	ev.wait(t, mqtt.Subscribed)
	wait := publishTexts(t, m.url(), writers, each)
	var republished int64
	done := make(chan struct{})
	go func() { republished = wait(); close(done) }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	seen := make(map[string]int)
	total, killed := 0, 0
	var out sensors.Records
	for ended := false; ; {
		// What was lost will not come: the end is when all writers are done and
		// a tick says that nothing came for a while.
		if err := r.Read(ctx, &out, 4096); err != nil {
			t.Fatal(err)
		}
		if out.Len() == 0 && ended && !out.Deaf {
			break
		}
		select {
		case <-done:
			ended = true
		default:
		}
		for i := range out.Len() {
			seen[string(out.Payload(i))]++
			total++
		}
		if out.Len() > 0 {
			r.Ack(sensors.Position{Offset: out.Next})
		}
		if total > (killed+1)*writers*each/4 && killed < 2 {
			killed++
			m.stop(syscall.SIGKILL)
			m.start()
		}
	}
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	s := r.Stats()
	t.Logf("killed %d times, %d published again, %d lost, %d read twice, reader %+v", killed, republished, writers*each-len(seen), twice, s)
	if int64(twice) > republished {
		t.Errorf("%d were read twice, but only %d published again", twice, republished)
	}
}

// What Mosquitto allows a publisher of QoS 2 to have open.
func TestHostsMosquittoQoS2(t *testing.T) {
	const n = 2000
	m := startMosquitto(t, "")
	ev, wev := newEvents(), newEvents()
	r := openReader(t, mqtt.ReaderOptions{Connection: quick(m.url(), "feed", ev), Topics: []string{"t/#"}, QoS: 2})
	ev.wait(t, mqtt.Subscribed)
	w := openWriter(t, mqtt.WriterOptions{Connection: quick(m.url(), "w", wev), Topic: "t/a", QoS: 2, Schema: oneColumn, Encode: encodeText})
	go func() {
		for i := range n {
			if err := w.Write(timeout(t), textBatch(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		}
	}()
	wantNumbers(t, read(t, r, n, true), 0)
	if err := w.Commit(timeout(t)); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Connects != 1 || s.Republished != 0 {
		t.Errorf("%+v", s)
	}
}

// A process ends while retained messages wait in the broker's queue, behind its
// window. The next one gets them all, and none twice.
func TestHostsRetainedRest(t *testing.T) {
	const n = 200
	m := startMosquitto(t, "")
	for up := false; !up; {
		c, err := net.Dial("tcp", m.addr)
		if up = err == nil; up {
			_ = c.Close()
		}
	}
	pub := newPublisher(t, m.addr)
	for i := range n {
		pub.publish(t, fmt.Sprint("t/", i), 1, true, []byte(fmt.Sprint(i)))
	}
	log := new(kept)
	open := func() *mqtt.Reader {
		return openReader(t, mqtt.ReaderOptions{Connection: mqtt.Connection{Broker: m.url(), ClientID: "feed"}, Topics: []string{"t/#"}, QoS: 1, TickEvery: -1, Recall: log.recall})
	}
	seen := make(map[string]int)
	r := open()
	for len(seen) < n {
		out := new(sensors.Records)
		if err := r.Read(timeout(t), out, 1); err != nil {
			t.Fatalf("after %d of %d: %v", len(seen), n, err)
		}
		log.log = append(log.log, out)
		if out.Len() == 0 {
			continue
		}
		seen[string(out.Payload(0))]++
		if len(seen) == 10 { // nothing was acknowledged so far
			_ = r.Close()
			r = open()
		} else if len(seen) > 10 {
			r.Ack(sensors.Position{Split: out.Split, Offset: out.Next})
		}
	}
	for text, k := range seen {
		if k != 1 {
			t.Errorf("%s came %d times", text, k)
		}
	}
	pub.publish(t, "t/end", 1, false, []byte("end"))
	if rest := log.until(t, r, "end"); len(rest) != 1 {
		t.Errorf("%d came twice", len(rest)-1)
	}
}
