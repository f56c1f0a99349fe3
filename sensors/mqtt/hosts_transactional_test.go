//go:build hosts

package mqtt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// saved is the one checkpoint that the child of the test keeps, on a real disk.
type saved struct {
	Counter uint64
	Next    int // the first row that is not in it
	Pending []sensors.Pending
}

const (
	childRows = 3000
	childStep = 40 // rows of a transaction
)

// TestHostsTransactionalChild is the process that is killed: it is restored
// from its checkpoint, and writes, prepares, saves and commits to the end.
func TestHostsTransactionalChild(t *testing.T) {
	dir := os.Getenv("TIDEMARK_TEST_CHILD")
	if dir == "" {
		t.Skip("only a child of another test")
	}
	qos, _ := strconv.Atoi(os.Getenv("TIDEMARK_TEST_QOS"))
	w, err := mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
		WriterOptions: mqtt.WriterOptions{
			Connection: mqtt.Connection{Broker: os.Getenv("TIDEMARK_TEST_BROKER"), ClientID: "job/sink", BackoffMin: 5000},
			Topic:      "out/x", Schema: oneColumn, QoS: byte(qos), Encode: encodeText, MaxInFlight: 16,
		},
		Parallelism: 1, Dir: filepath.Join(dir, "sinks"), FS: disk.Shared, MaxPending: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	var s saved
	name := filepath.Join(dir, "checkpoint")
	if b, err := os.ReadFile(name); err == nil {
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := w.Recover(ctx, s.Pending, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for s.Next < childRows {
		var texts []string
		for range childStep {
			texts = append(texts, strconv.Itoa(s.Next))
			s.Next++
		}
		if err := w.Write(ctx, textBatch(texts...)); err != nil {
			t.Fatal(err)
		}
		s.Counter++
		id := dataflow.CheckpointID{Counter: s.Counter}
		held, err := (sensortest.Held{}).Prepare(w, id, true)
		if err != nil {
			t.Fatal(err)
		}
		s.Pending = sensortest.Pending(held)
		b, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(name+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(name+".new", name)
		}
		if err == nil {
			err = w.CommitThrough(ctx, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// readPatiently reads for as long as something comes: patience begins anew with each
// row. How long all of them take is up to the machine's disk.
func readPatiently(t *testing.T, in *mqtt.Reader, out *sensors.Records) func(most int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel() })
	return func(most int) error {
		err := in.Read(ctx, out, most)
		if out.Len() > 0 {
			cancel()
			ctx, cancel = context.WithTimeout(context.Background(), patience)
		}
		return err
	}
}

// The writing process is killed (-9) again and again, at random moments, and
// in one case Mosquitto is restarted as well. A subscriber of its own counts.
func TestHostsTransactionalKilled(t *testing.T) {
	for _, c := range []struct {
		name    string
		qos     int
		restart bool
	}{{"qos 2", 2, false}, {"qos 2, broker restarted", 2, true}, {"qos 1", 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			m := startMosquitto(t, "max_queued_messages 0\nautosave_interval 1")
			ev := newEvents()
			in := openReader(t, mqtt.ReaderOptions{Connection: quick(m.url(), "counter", ev), Topics: []string{"out/#"}, QoS: 2})
			ev.wait(t, mqtt.Subscribed)
			dir := t.TempDir()
			r := rand.New(rand.NewPCG(1, uint64(c.qos)))
			child := func() *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestHostsTransactionalChild$", "-test.v")
				cmd.Env = append(os.Environ(), "TIDEMARK_TEST_CHILD="+dir, "TIDEMARK_TEST_BROKER="+m.url(), fmt.Sprint("TIDEMARK_TEST_QOS=", c.qos))
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return cmd
			}
			seen := make(map[string]int)
			total, kills, next := 0, 0, r.IntN(150)
			cmd := child()
			var out sensors.Records
			read := readPatiently(t, in, &out)
			for len(seen) < childRows {
				if err := read(64); err != nil {
					t.Fatalf("%d rows: %v", len(seen), err)
				}
				for i := range out.Len() {
					seen[string(out.Payload(i))]++
					total++
				}
				if out.Len() > 0 {
					in.Ack(sensors.Position{Offset: out.Next})
				}
				if total >= next && len(seen) < childRows-200 {
					kills++
					_ = cmd.Process.Signal(syscall.SIGKILL)
					_ = cmd.Wait()
					if c.restart && kills%5 == 0 {
						m.stop(syscall.SIGTERM)
						m.start()
					}
					cmd = child()
					next = total + 1 + r.IntN(150)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the last child: %v", err)
			}
			p := newPublisher(t, m.addr)
			p.publish(t, "out/end", 2, false, []byte("end"))
			for ended := false; !ended; {
				if err := read(64); err != nil {
					t.Fatal(err)
				}
				for i := range out.Len() {
					if string(out.Payload(i)) == "end" {
						ended = true
					} else {
						total++
					}
				}
			}
			t.Logf("killed %d times: %d rows, %d messages", kills, len(seen), total)
			switch twice := total - childRows; {
			case c.qos == 2 && twice != 0:
				t.Errorf("%d rows came twice", twice)
			case twice > 16*kills:
				t.Errorf("%d rows came twice in %d crashes: more than a piece each", twice, kills)
			}
			if kills < 10 {
				t.Errorf("killed only %d times", kills)
			}
		})
	}
}
