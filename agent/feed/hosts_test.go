//go:build hosts

package feed_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
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

func startMosquitto(t testing.TB) *mosquitto {
	t.Helper()
	if _, err := os.Stat(mosquittoPath); err != nil {
		t.Skipf("no %s: apt-get install mosquitto", mosquittoPath)
	}
	addr := sensortest.FreeAddr(t)
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nmax_inflight_messages 1000\n", port, dir)
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

// publishAll writes the numbers from 0 to writers*each, each writer its own, and
// returns how many had to be published again when the broker has all.
func publishAll(t testing.TB, addr string, qos byte, writers, each int) (wait func() int64) {
	schema := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
	var wg sync.WaitGroup
	var ws []*mqtt.Writer
	for k := range writers {
		w, err := mqtt.NewWriter(mqtt.WriterOptions{
			Connection: mqtt.Connection{Broker: "mqtt://" + addr, ClientID: fmt.Sprint("writer-", k), BackoffMin: dataflow.Millisecond, BackoffMax: 20 * dataflow.Millisecond},
			Topic:      fmt.Sprint("t/", k), QoS: qos, Schema: schema,
			Encode: func(dst []byte, b *batch.Batch, pos int) []byte {
				return strconv.AppendInt(dst, b.Cols[0].Ints[pos], 10)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close() })
		ws = append(ws, w)
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := context.Background()
			for from := 0; from < each; from += 50 {
				bl := batch.NewBuilder(batch.NewPool(0, nil), schema)
				for i := from; i < min(each, from+50); i++ {
					bl.SetInt(0, int64(k*each+i))
					bl.EndRow(0)
				}
				b := bl.Take()
				if err := w.Write(ctx, b); err != nil {
					t.Error(err)
				}
				b.Release()
			}
			if err := w.Commit(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	return func() (again int64) {
		wg.Wait()
		for _, w := range ws {
			again += w.Stats().Republished
		}
		return again
	}
}

// Under a real broker that keeps its sessions on disk the network is cut, the
// broker is restarted and the process dies, while messages flow. Nothing is
// lost; of QoS 2 nothing is there twice, of QoS 1 only what a writer had to
// publish twice.
func TestHostsMosquittoFeed(t *testing.T) {
	for qos := 1; qos <= 2; qos++ {
		t.Run(fmt.Sprint("qos ", qos), func(t *testing.T) {
			const writers, each = 4, 5000
			m := startMosquitto(t)
			s := startProcess(t, t.TempDir(), m.addr, qos, 3)
			s.ev.wait(t, session(mqtt.Subscribed))
			wait := publishAll(t, m.addr, byte(qos), writers, each)
			for step := range 9 {
				s.atLeast(t, (step+1)*writers*each/12)
				switch step % 3 {
				case 0:
					s.p.cut()
				case 1:
					s = startProcess(t, s.die(t), m.addr, qos, 3)
				case 2:
					m.stop(syscall.SIGTERM)
					m.start()
				}
				s.ev.wait(t, session(mqtt.Subscribed))
			}
			again := wait()
			seen := s.all(t, writers*each)
			twice := 0
			for v, k := range seen {
				if k == 0 {
					t.Errorf("message %d is lost", v)
				}
				twice += max(0, k-1)
			}
			t.Logf("%d published again, %d there twice; %+v", again, twice, s.feed.Stats().Session)
			if qos == 2 && twice > 0 || int64(twice) > again {
				t.Errorf("%d are there twice, %d were published again", twice, again)
			}
		})
	}
}

// atLeast waits until the log has so many messages.
func (s *process) atLeast(t testing.TB, n int) {
	t.Helper()
	s.each(t, func(total int, _ []int) bool { return total >= n }, 1<<20)
}

// all waits until each of n messages is in the log, and a last one.
func (s *process) all(t testing.TB, n int) (seen []int) {
	t.Helper()
	s.each(t, func(_ int, counts []int) bool {
		seen = counts
		for _, k := range counts[:n] {
			if k == 0 {
				return false
			}
		}
		return true
	}, n)
	return seen
}

func (s *process) each(t testing.TB, enough func(total int, counts []int) bool, n int) {
	t.Helper()
	r, err := s.feed.Reader("test", s.feed.LanesOf(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	ctx := timeout(t)
	counts, total := make([]int, n), 0
	var out sensors.Records
	for {
		if err := r.Read(ctx, &out, 1000); err != nil {
			t.Fatalf("after %d: %v; %+v", total, err, s.feed.Stats())
		}
		for i := range out.Len() {
			v, err := strconv.Atoi(string(out.Payload(i)))
			if err != nil {
				t.Fatal(err)
			}
			counts[v]++
			total++
		}
		if out.Len() > 0 && enough(total, counts) {
			return
		}
	}
}

// A real broker gives up what a feed does not want any more.
func TestHostsMosquittoFilterTakenOut(t *testing.T) { givesUp(t, startMosquitto(t).addr) }
