package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// act is what happens at a broker: time passes, and a message may come, or
// nothing can be heard.
type act struct {
	after   int64 // µs
	deaf    bool
	message string // JSON; empty: none
	topic   string
}

// wire is a broker that keeps a session for a client that dies now and then, and
// the wall clock of the client's machine. It sends again what was not
// acknowledged, and the client knows what it has by the notes in its log.
type wire struct {
	mu      sync.Mutex // guards what follows
	acts    []act
	next    int   // act that has not happened
	open    []int // acts whose messages were sent and not acknowledged
	now     int64 // µs; steps back and forth between two lives
	quota   int   // acts before it happen in this life
	reached func()
}

// Now is the wall clock of the machine.
func (w *wire) Now() dataflow.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return dataflow.Time(w.now)
}

// After does not wait for that clock.
func (w *wire) After(d dataflow.Duration) <-chan time.Time { return time.After(d.Go()) }

// wireSession is one life's session.
type wireSession struct {
	wire  *wire
	again []int // sent before, and not in the log
	acts  []int // of what was handed out, in order: offset k is acts[k]
	acked int
	tick  bool // time has been told in this life
	said  bool
}

func (w *wire) session(_ feed.Config, o feed.SessionOptions) (sensors.Reader, error) {
	known := make(map[uint32]bool)
	for r := range o.Recall {
		for _, tag := range r.Tags {
			known[tag] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &wireSession{wire: w}
	for _, i := range w.open {
		if !known[uint32(i)] {
			s.again = append(s.again, i)
		}
	}
	w.open = slices.Clone(s.again)
	return s, nil
}

func (*wireSession) Splits() int                 { return 1 }
func (*wireSession) Seek(sensors.Position) error { return nil }
func (*wireSession) Close() error                { return nil }

// Ack tells the broker what it need not keep.
func (s *wireSession) Ack(p sensors.Position) {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	for ; s.acked < int(p.Offset); s.acked++ {
		s.wire.open = slices.DeleteFunc(s.wire.open, func(i int) bool { return i == s.acts[s.acked] })
	}
}

func (s *wireSession) Read(ctx context.Context, r *sensors.Records, max int) error {
	w := s.wire
	w.mu.Lock()
	more := len(s.again) > 0 || w.next < w.quota
	if !more {
		first := !s.said
		s.said = true
		w.mu.Unlock()
		if first {
			w.reached()
		}
		<-ctx.Done()
		return ctx.Err()
	}
	defer w.mu.Unlock()
	r.Reset(0)
	r.First = int64(len(s.acts))
	switch {
	case !s.tick: // it hears from now on
		s.tick = true
	case len(s.again) > 0:
		for n := 0; len(s.again) > 0 && n < max; n++ {
			s.put(r, s.again[0])
			s.again = s.again[1:]
		}
	default:
		for n := 0; w.next < w.quota && n < max; n++ {
			a := &w.acts[w.next]
			if (a.deaf || a.message == "") && n > 0 {
				break
			}
			w.now += a.after
			w.next++
			if a.message == "" {
				r.Deaf = a.deaf
				s.tick = !a.deaf
				break
			}
			w.open = append(w.open, w.next-1)
			s.put(r, w.next-1)
		}
	}
	r.Clock, r.Next = w.now, int64(len(s.acts))
	return nil
}

func (s *wireSession) put(r *sensors.Records, i int) {
	a := &s.wire.acts[i]
	r.AppendMessage([]byte(a.topic), []byte(a.message), s.wire.now)
	r.Tags = append(r.Tags, uint32(i))
	s.acts = append(s.acts, i)
}

// logJob has all that depends on when a message came, and in which order.
const logJob = `name: %[1]s
checkpoint: {interval: 2ms}
restart: {strategy: none}
sources:
  in:
    %[2]s
    format: json
    fields: {device: {type: string, topic: 1}, id: bigint, ts: {type: timestamp, unit: us}, v: bigint, kind: string}
    dedupe: {by: [id], within: 40us}
    event_time: ts
    watermark: {punctuated: {when: kind = 'flush', at: ts}, per: device, idle_after: 60us}
steps:
  - {id: windows, from: in, key_by: [device], window: {tumbling: 20us}, select: {n: count(*), total: sum(v), f: first(v), l: last(v)}}
  - {id: sessions, from: in, key_by: [device], window: {session: 7us}, select: {n: count(*), total: sum(v)}}
  - {id: times, from: in, key_by: [device], window: {tumbling: 25us, time: processing}, select: {n: count(*), total: sum(v)}}
  - {id: counts, from: in, key_by: [device], window: {count: 3}, select: {total: sum(v)}}
  - {id: running, from: in, key_by: [device], select: {n: count(*), total: sum(v)}}
sinks:
  - {id: t0, from: windows, file: {path: '%[3]s/t0.jsonl', timestamps: us}}
  - {id: t1, from: windows.late, file: {path: '%[3]s/t1.jsonl', timestamps: us}}
  - {id: t2, from: sessions, file: {path: '%[3]s/t2.jsonl', timestamps: us}}
  - {id: t3, from: sessions.late, file: {path: '%[3]s/t3.jsonl', timestamps: us}}
  - {id: t4, from: times, file: {path: '%[3]s/t4.jsonl', timestamps: us}}
  - {id: t5, from: counts, file: {path: '%[3]s/t5.jsonl', timestamps: us}}
  - {id: t6, from: running, file: {path: '%[3]s/t6.jsonl', timestamps: us}}
  - {id: raw, from: in, file: {path: '%[3]s/raw.jsonl', timestamps: us}}
`

// lastID is the id of the message after which nothing happens any more.
const lastID = 1 << 30

func drawActs(t *rapid.T) (acts []act, messages int) {
	ts := int64(0)
	for i := range rapid.IntRange(10, 150).Draw(t, "acts") {
		a := act{after: int64(rapid.SampledFrom([]int{0, 0, 1, 2, 5, 30, 90}).Draw(t, "after"))}
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0: // time passes
		case 1:
			a.deaf = true
		default:
			ts += int64(rapid.IntRange(0, 4).Draw(t, "ts"))
			id, kind := i, "row"
			if i > 0 && rapid.IntRange(0, 5).Draw(t, "twice") == 0 {
				id = rapid.IntRange(max(0, i-8), i-1).Draw(t, "id")
			}
			if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				kind = "flush"
			}
			at := max(0, ts-int64(rapid.IntRange(0, 12).Draw(t, "behind")))
			a.topic = fmt.Sprintf("t/%d", rapid.IntRange(0, 3).Draw(t, "device"))
			a.message = fmt.Sprintf(`{"id":%d,"ts":%d,"v":%d,"kind":%q}`, id, at, i, kind)
			messages++
		}
		acts = append(acts, a)
	}
	return append(acts, act{after: 1, topic: "t/0", message: fmt.Sprintf(`{"id":%d,"ts":%d,"v":0,"kind":"row"}`, lastID, ts)}), messages + 1
}

// logLife is a life of the job.
type logLife struct {
	setting
	quota int
	after int // checkpoints after the quota was reached, at which it ends; 0: at once
	stop  bool
	jump  int64  // of the wall clock, before it
	from  string // the savepoint at which it begins; empty: none
	drop  bool   // state that it does not take is let go
}

func (l logLife) String() string {
	return fmt.Sprintf("%v: up to %d, %d checkpoints more, stop %t, clock jumps %dus", l.setting, l.quota, l.after, l.stop, l.jump)
}

// live runs a life. The one that comes to the end of all acts ends when their
// last message is in the output.
func (l logLife) live(t tester, w *wire, dir, out, text string) agent.Totals {
	t.Helper()
	w.now += l.jump
	w.quota = l.quota
	said := new(lockedBuffer)
	tell := func(line string) { fmt.Fprintln(said, line) }
	state, err := agent.OpenState(dir, agent.StateOptions{Clock: w, Session: w.session, Events: tell})
	if err != nil {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var local *agent.Local
	var mu sync.Mutex // guards reached and left
	reached, left := false, l.after
	var stops sync.WaitGroup
	var once sync.Once
	end := func() {
		once.Do(func() {
			if l.stop {
				stops.Go(local.Stop)
			} else {
				cancel(errCrash)
			}
		})
	}
	last := l.quota == len(w.acts)
	w.reached = func() {
		mu.Lock()
		defer mu.Unlock()
		if reached = true; left == 0 && !last {
			end()
		}
	}
	completed := func(durable.Completed) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case last:
			if b, err := os.ReadFile(filepath.Join(out, "raw.jsonl")); err == nil && strings.Contains(string(b), fmt.Sprint(lastID)) {
				end()
			}
		case reached:
			if left--; left < 0 {
				end()
			}
		}
	}
	local, err = agent.NewLocal(load(t, text, l.setting), agent.LocalOptions{BatchRows: l.batchRows, State: state, Events: tell, Checkpoints: completed, From: l.from, AllowNonRestored: l.drop})
	if err != nil {
		t.Fatalf("%v", err)
	}
	err = local.Run(ctx)
	stops.Wait()
	if cerr := state.Close(); cerr != nil {
		t.Fatalf("%v", cerr)
	}
	if err != nil && !errors.Is(err, errCrash) || last && err != nil {
		t.Fatalf("%v: %v\n%s", l, err, said)
	}
	return local.Totals()
}

// TestDurableLogMetamorphic: messages, silences and repetitions of a broker are
// recorded by a job that crashes, stops and starts with another parallelism while
// the wall clock of the machine steps back and forth by hours. Each message is in
// the log once. What the job wrote is what a job writes that reads the log in one
// go: lateness, idleness, dedupe, processing time and order depend on the log
// alone.
func TestDurableLogMetamorphic(t *testing.T) {
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		if runs >= *durableRuns/3 {
			return
		}
		runs++
		home := filepath.Join(dir, fmt.Sprint(runs))
		w := &wire{now: 1_000_000_000_000_000}
		var messages int
		w.acts, messages = drawActs(t)
		state := filepath.Join(home, "state")
		out := func(job string) string { return filepath.Join(home, job) }
		text := fmt.Sprintf(logJob, "live", `mqtt: {broker: "mqtt://127.0.0.1:1", topics: [t/+], retention: {size: 1GB}}`, out("live"))
		at := 0
		for at < len(w.acts) {
			l := logLife{
				setting: setting{parallelism: rapid.SampledFrom([]int{1, 2, 4}).Draw(t, "parallelism"), batchRows: rapid.SampledFrom([]int{1, 2, 5, batch.MaxRows}).Draw(t, "batch")},
				after:   rapid.IntRange(0, 3).Draw(t, "checkpoints"), stop: rapid.IntRange(0, 3).Draw(t, "stop") == 0,
				jump: rapid.SampledFrom([]int64{0, 0, 40, -3_600_000_000, 3_600_000_000}).Draw(t, "jump"),
			}
			at = min(len(w.acts), at+rapid.IntRange(0, len(w.acts)).Draw(t, "quota"))
			l.quota = at
			if at == len(w.acts) {
				l.stop = true
			}
			t.Logf("%v", l)
			l.live(t, w, state, out("live"), text)
		}
		ref := logLife{setting: setting{parallelism: 1, batchRows: batch.MaxRows}, quota: len(w.acts), stop: true}
		totals := ref.live(t, w, state, out("ref"), fmt.Sprintf(logJob, "ref", "feed: live.in", out("ref")))
		if totals.In != int64(messages) {
			t.Errorf("%d messages, %d in the log", messages, totals.In)
		}
		for _, sink := range []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6", "raw"} {
			got, want := read(t, filepath.Join(out("live"), sink+".jsonl")), read(t, filepath.Join(out("ref"), sink+".jsonl"))
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: through crashes %d rows\n%s\nin one go %d\n%s", sink, len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
			}
		}
		if err := os.RemoveAll(home); err != nil {
			t.Fatal(err)
		}
	})
}
