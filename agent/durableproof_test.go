package agent_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	tstore "github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// lineJob passes rows on; sumJob sums them up in windows. Both have one row a
// read, with batches of one.
const lineJob = `name: %s
checkpoint: {interval: 1ms, tolerable_failures: 1000}
restart: {strategy: none}
sources:
  in: {file: {path: %q}, format: json, fields: {ts: {type: timestamp, unit: us}, v: bigint, wm: bigint}, event_time: ts}
sinks:
  - {id: out, from: in, file: {path: %q, timestamps: us}}
`

const sumJob = `name: %s
checkpoint: {interval: 1ms, tolerable_failures: 1000}
restart: {strategy: none}
sources:
  in:
    file: {path: %q}
    format: json
    fields: {ts: {type: timestamp, unit: us}, v: bigint, wm: {type: timestamp, unit: us}}
    event_time: ts
    watermark: {punctuated: {when: wm is not null, at: wm, emit: false}}
steps:
  - {id: sums, from: in, window: {tumbling: 10us}, select: {total: sum(v)}}
sinks:
  - {id: out, from: sums, file: {path: %q, timestamps: us}}
`

// events writes a file of events and watermarks, as SEMANTICS has them: e4 is an
// event at 4 with the value 4, w9 the watermark 9.
func events(list string) string {
	var b strings.Builder
	for e := range strings.FieldsSeq(list) {
		if at, ok := strings.CutPrefix(e, "w"); ok {
			fmt.Fprintf(&b, "{\"ts\":%s,\"wm\":%s}\n", at, at)
			continue
		}
		fmt.Fprintf(&b, "{\"ts\":%s,\"v\":%[1]s}\n", e[1:])
	}
	return b.String()
}

func put(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// values are the values of a column of a file's rows, in order.
func values(t *testing.T, path, column string) (all []int64) {
	t.Helper()
	for _, l := range read(t, path) {
		_, v, _ := strings.Cut(l, `"`+column+`":`)
		var n int64
		if _, err := fmt.Sscanf(v, "%d", &n); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		all = append(all, n)
	}
	return all
}

// until runs the job up to a read: there it is stopped, drained or ended.
func (d *stateful) until(text string, g *gate, s setting, end func(*agent.Local), change func(*agent.LocalOptions)) (agent.Outcome, error) {
	d.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	g.more = make(chan struct{})
	local, state := d.begin(text, s, func(o *agent.LocalOptions) {
		o.Checkpoints, o.Wrap = g.hear, g.wrap
		if change != nil {
			change(o)
		}
	})
	g.crash = func() { cancel(errCrash) }
	if end != nil {
		g.crash = func() { end(local) }
	}
	err := local.Run(ctx)
	if cerr := state.Close(); cerr != nil {
		d.Errorf("%v", cerr)
	}
	return local.Outcome(), err
}

// manifestDisk refuses manifests of checkpoints, and then crashes with one:
// before it is there, or when it is, and nobody is told.
type manifestDisk struct {
	tstore.FS
	there bool
	crash func()

	mu     sync.Mutex // guards what follows
	refuse bool
	left   int // the crash is this many manifests away; 0: none is to come
}

func (m *manifestDisk) Rename(old, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.refuse || !strings.Contains(name, "checkpoints") || !strings.HasSuffix(name, ".manifest") {
		return m.FS.Rename(old, name)
	}
	if m.left--; m.left == 0 {
		if m.there {
			if err := errors.Join(m.FS.Rename(old, name), m.FS.SyncDir(filepath.Dir(name))); err != nil {
				return err
			}
		}
		m.crash()
	}
	return storetest.ErrPower
}

// E52: the sink gets r1..r3, checkpoint 1 completes; r4..r6, and a crash before
// or after checkpoint 2 has completed, of which the sink does not hear. Either
// way r1..r3 are visible then, and r1..r6 once each after the restart.
func TestE52_CrashAroundTheSecondCheckpoint(t *testing.T) {
	for _, there := range []bool{false, true} {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
		put(t, in, events("e1 e2 e3 e4 e5 e6"))
		text := fmt.Sprintf(lineJob, "e52", in, out)
		d := newStateful(t, filepath.Join(dir, "state"))
		ctx, cancel := context.WithCancelCause(context.Background())
		// r4 waits for a checkpoint of r1 to r3. There is none while r4 to r6 are
		// read; the second after that has all of them.
		g := &gate{stops: []int{3, 6}, more: make(chan struct{})}
		tell := func(line string) { fmt.Fprintln(d.said, line) }
		disk := &manifestDisk{FS: d.disk, there: there, crash: func() {
			// Not before the sink has heard of the checkpoint that has r3: it commits
			// beside the one that writes manifests.
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C { // it only decides how long a failing test takes
				if text, _ := os.ReadFile(out); bytes.Count(text, []byte("\n")) >= 3 {
					break
				}
			}
			cancel(errCrash)
		}}
		state, err := agent.OpenState(d.dir, agent.StateOptions{FS: disk, Events: tell})
		if err != nil {
			t.Fatal(err)
		}
		g.passing = func(n int) {
			disk.mu.Lock()
			defer disk.mu.Unlock()
			if disk.refuse = n >= 4; n == 6 {
				disk.left = 2
			}
		}
		local, err := agent.NewLocal(load(t, text, setting{}), agent.LocalOptions{BatchRows: 1, State: state, Events: tell, Wrap: g.wrap, Checkpoints: g.hear})
		if err != nil {
			t.Fatal(err)
		}
		if err := local.Run(ctx); !errors.Is(err, errCrash) {
			t.Fatalf("%v\n%s", err, d.said)
		}
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
		if got := values(t, out, "v"); !slices.Equal(got, []int64{1, 2, 3}) {
			t.Errorf("there %t: after the crash %v are visible", there, got)
		}
		if o, err := d.run(text, setting{}, nil); err != nil || o.Status != coordinator.Finished {
			t.Fatalf("%+v, %v\n%s", o, err, d.said)
		}
		if got := values(t, out, "v"); !slices.Equal(got, []int64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("there %t: after the restart %v are visible\n%s", there, got, d.said)
		}
	}
}

// E65, stopped without drain: nothing fires, and the windows go on.
func TestE65_StopAndResume(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	text := fmt.Sprintf(sumJob, "e65", in, out)
	d := newStateful(t, filepath.Join(dir, "state"))
	o, err := d.until(text, &gate{crashAt: 4}, setting{batchRows: 1}, (*agent.Local).Stop, nil)
	if err != nil || o.Status != coordinator.Stopped || o.Savepoint == "" {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	if got := values(t, out, "total"); len(got) > 0 {
		t.Errorf("the stop fired %v", got)
	}
	put(t, in, events("e8 e15 w9 w19"))
	if o, err = d.run(text, setting{batchRows: 1}, nil); err != nil || o.Status != coordinator.Finished {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
		t.Errorf("totals %v, want 13 and 27", got)
	}
}

// E65, drained: the windows fire with what they have. The savepoint is refused,
// and so is another start of the job.
func TestE65_DrainIsTheEnd(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	text := fmt.Sprintf(sumJob, "e65", in, out)
	d := newStateful(t, filepath.Join(dir, "state"))
	o, err := d.until(text, &gate{crashAt: 4}, setting{batchRows: 1}, (*agent.Local).Drain, nil)
	if err != nil || o.Status != coordinator.Stopped || !o.Drained || o.Savepoint == "" {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{5, 12}) {
		t.Errorf("the drain fired %v, want 5 and 12", got)
	}
	put(t, in, events("e8 e15 w9 w19"))
	if _, err := d.run(text, setting{}, nil); !errors.Is(err, agent.ErrDrained) {
		t.Errorf("started again: %v", err)
	}
	other := fmt.Sprintf(sumJob, "other", in, filepath.Join(dir, "other.jsonl"))
	if _, err := d.run(other, setting{}, func(l *agent.LocalOptions) { l.From = o.Savepoint }); !errors.Is(err, restore.ErrRefused) {
		t.Errorf("begun at its savepoint: %v", err)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{5, 12}) {
		t.Errorf("after the refusals %v", got)
	}
}

// E66, copy: two jobs begin at one savepoint; it is deleted when each has a
// checkpoint of its own, and a crash after that loses nothing.
func TestE66_TwoJobsFromOneSavepoint(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	d := newStateful(t, filepath.Join(dir, "state"))
	job := func(name string) (text, out string) {
		out = filepath.Join(dir, name+".jsonl")
		return fmt.Sprintf(sumJob, name, in, out), out
	}
	first, _ := job("first")
	o, err := d.until(first, &gate{crashAt: 4}, setting{batchRows: 1}, (*agent.Local).Stop, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	put(t, in, events("e8 e15 w9 w19"))
	from := func(l *agent.LocalOptions) { l.From = o.Savepoint }
	for _, name := range []string{"a", "b"} { // one read, a checkpoint, and a crash
		text, _ := job(name)
		if _, err := d.until(text, &gate{stops: []int{1}, crashAt: 2}, setting{batchRows: 1, parallelism: 2}, nil, from); !errors.Is(err, errCrash) {
			t.Fatalf("%s: %v\n%s", name, err, d.said)
		}
	}
	_, state := d.begin(first, setting{}, nil)
	if err := state.Store().Delete(o.Savepoint); err != nil {
		t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		text, out := job(name)
		if o, err := d.run(text, setting{parallelism: 3}, nil); err != nil || o.Status != coordinator.Finished {
			t.Fatalf("%s: %+v, %v\n%s", name, o, err, d.said)
		}
		if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
			t.Errorf("%s: totals %v, want 13 and 27", name, got)
		}
	}
}

// E66: a savepoint that a job was started from and needs still is not deleted;
// without a checkpoint of its own the job begins there again. One that is
// claimed goes when the job has as many checkpoints as it keeps.
func TestE66_ClaimAndNeed(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	d := newStateful(t, filepath.Join(dir, "state"))
	o, err := d.until(fmt.Sprintf(sumJob, "first", in, filepath.Join(dir, "first.jsonl")), &gate{crashAt: 4}, setting{batchRows: 1}, (*agent.Local).Stop, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	put(t, in, events("e8 e15 w9 w19"))
	out := filepath.Join(dir, "out.jsonl")
	text := fmt.Sprintf(sumJob, "second", in, out)
	slow := strings.Replace(text, "interval: 1ms", "interval: 1h", 1)
	claim := func(l *agent.LocalOptions) { l.From, l.Claim = o.Savepoint, true }
	if _, err := d.until(slow, &gate{crashAt: 1}, setting{batchRows: 1}, nil, claim); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, d.said)
	}
	_, state := d.begin(text, setting{}, nil)
	if err := state.Store().Delete(o.Savepoint); err == nil {
		t.Error("the savepoint that the job needs was deleted")
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.until(text, &gate{stops: []int{1, 1, 2, 3}}, setting{batchRows: 1}, nil, nil); err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
		t.Errorf("totals %v, want 13 and 27", got)
	}
	if slices.ContainsFunc(d.disk.Files(), func(n string) bool { return strings.Contains(n, o.Savepoint) }) {
		t.Errorf("the claimed savepoint is still there:\n%s", strings.Join(d.disk.Files(), "\n"))
	}
}

// partsOf is the files of parts that the manifest of a checkpoint names, without
// those that were there before.
func (d *stateful) partsOf(checkpoint string, before []string) (parts []string) {
	d.Helper()
	files := d.disk.Files()
	k := slices.IndexFunc(files, func(f string) bool { return strings.Contains(f, checkpoint+".") && strings.HasSuffix(f, ".manifest") })
	if k < 0 {
		d.Errorf("%s has no manifest:\n%s", checkpoint, strings.Join(files, "\n"))
		return nil
	}
	var m []byte
	if err := d.disk.Damage(files[k], func(b []byte) []byte { m = bytes.Clone(b); return b }); err != nil {
		d.Errorf("%v", err)
	}
	for _, f := range files {
		digest, err := hex.DecodeString(strings.TrimSuffix(filepath.Base(f), ".avro"))
		if err == nil && bytes.Contains(m, digest) && !slices.Contains(before, f) {
			parts = append(parts, f)
		}
	}
	return parts
}

// A part that is damaged or gone is named, and the checkpoint before is used,
// loudly; a damaged manifest the same. With nothing whole left the job does not
// begin afresh.
func TestDamageGoesBackLoudly(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, *storetest.FS, string){
		"bit": func(t *testing.T, f *storetest.FS, file string) {
			if err := f.Damage(file, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, f *storetest.FS, file string) {
			if err := f.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
			put(t, in, events("e1 e2 w2 e3 e4 e5 e12"))
			text := fmt.Sprintf(sumJob, "damage", in, out)
			d := newStateful(t, filepath.Join(dir, "state"))
			// It crashes with the first checkpoint that has parts which the one before,
			// that is kept, has not. None completes after that: it would have those parts
			// too, and the one before would be kept no longer.
			disk := &manifestDisk{FS: d.disk}
			d.fs = disk
			var before, newer []string
			g := &gate{stops: []int{1, 2, 3, 4, 5, 6}}
			_, err := d.until(text, g, setting{batchRows: 1}, nil, func(l *agent.LocalOptions) {
				l.Checkpoints = func(c durable.Completed) {
					if before != nil && newer == nil {
						if newer = d.partsOf(c.Name, before); newer != nil {
							disk.mu.Lock()
							disk.refuse = true
							disk.mu.Unlock()
							g.crash()
						}
					}
					before = d.disk.Files()
					g.hear(c)
				}
			})
			if !errors.Is(err, errCrash) {
				t.Fatalf("%v\n%s", err, d.said)
			}
			d.fs = nil
			for _, f := range newer {
				damage(t, d.disk, f)
			}
			if o, err := d.run(text, setting{}, nil); err != nil || o.Status != coordinator.Finished {
				t.Fatalf("%+v, %v\n%s", o, err, d.said)
			}
			if !slices.ContainsFunc(newer, func(f string) bool { return strings.Contains(d.said.String(), filepath.Base(f)) }) {
				t.Errorf("it named none of %v:\n%s", newer, d.said)
			}
			for _, want := range []string{"DAMAGED: checkpoint chk-1-", "operator", "goes back to the older chk-1-"} {
				if !strings.Contains(d.said.String(), want) {
					t.Errorf("it did not say %q:\n%s", want, d.said)
				}
			}
			if got := values(t, out, "total"); !slices.Equal(got, []int64{15, 12}) {
				t.Errorf("totals %v, want 15 and 12\n%s", got, d.said)
			}
		})
	}
}

func TestNothingWholeIsNoFreshStart(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
	put(t, in, events("e1 e2 e3"))
	text := fmt.Sprintf(lineJob, "nothing", in, out)
	d := newStateful(t, filepath.Join(dir, "state"))
	if _, err := d.until(text, &gate{stops: []int{1}, crashAt: 2}, setting{batchRows: 1}, nil, nil); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, d.said)
	}
	for _, f := range d.disk.Files() {
		if strings.HasSuffix(f, ".manifest") {
			if err := d.disk.Damage(f, func(b []byte) []byte { return b[:len(b)-1] }); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := read(t, out)
	if o, err := d.run(text, setting{}, nil); err == nil || !strings.Contains(err.Error(), "no checkpoint can be used") || o.Status != coordinator.Failed {
		t.Errorf("%+v, %v", o, err)
	}
	if !slices.Equal(before, read(t, out)) {
		t.Error("the output was touched")
	}
}

// A disk without room fails checkpoints, and the job goes on; with room again
// they complete, and nothing is missing.
func TestFullDiskFailsCheckpointsOnly(t *testing.T) {
	for _, kind := range []error{syscall.ENOSPC, syscall.EIO} {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
		put(t, in, events("e1 e2 w2 e3 e4 e5 e12"))
		text := fmt.Sprintf(sumJob, "full", in, out)
		d := newStateful(t, filepath.Join(dir, "state"))
		g := &gate{stops: []int{2, 4}}
		failures := 0
		g.passing = func(n int) {
			if n == 2 {
				d.disk.FailFrom(1, kind)
			}
		}
		o, err := d.until(text, g, setting{batchRows: 1}, nil, func(l *agent.LocalOptions) {
			tell := l.Events
			l.Events = func(line string) {
				if tell(line); strings.Contains(line, " of job full failed: ") {
					if failures++; failures == 5 {
						d.disk.Heal()
					}
				}
			}
		})
		if err != nil || o.Status != coordinator.Finished || o.Restarts > 0 || failures < 5 {
			t.Fatalf("%v: %+v, %d failures, %v\n%s", kind, o, failures, err, d.said)
		}
		if got := values(t, out, "total"); !slices.Equal(got, []int64{15, 12}) {
			t.Errorf("%v: totals %v, want 15 and 12\n%s", kind, got, d.said)
		}
	}
}

var errBroken = errors.New("the reader broke")

// A job that fails some times is started again from its last checkpoint as its
// strategy says, each failure told with its cause; one time too many is final.
func TestRestartInTheProcess(t *testing.T) {
	for _, fails := range []int{2, 3} {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
		put(t, in, events("e1 e2 w2 e3 e4 e5 e12"))
		text := strings.Replace(fmt.Sprintf(sumJob, "restart", in, out), "strategy: none", "strategy: fixed-delay, attempts: 2, delay: 1ms", 1)
		d := newStateful(t, filepath.Join(dir, "state"))
		left := fails
		g := &gate{stops: []int{2, 4}, breaks: func(n int) error {
			if n > 4 && left > 0 {
				left--
				return errBroken
			}
			return nil
		}}
		o, err := d.until(text, g, setting{batchRows: 1}, nil, nil)
		if told := strings.Count(d.said.String(), errBroken.Error()); told != min(fails, 2) {
			t.Errorf("%d failures: told %d times\n%s", fails, told, d.said)
		}
		if fails == 3 {
			if !errors.Is(err, errBroken) || o.Status != coordinator.Failed || o.Restarts != 2 {
				t.Errorf("%d failures: %+v, %v", fails, o, err)
			}
			continue
		}
		if err != nil || o.Status != coordinator.Finished || o.Restarts != 2 {
			t.Fatalf("%d failures: %+v, %v\n%s", fails, o, err, d.said)
		}
		if got := values(t, out, "total"); !slices.Equal(got, []int64{15, 12}) {
			t.Errorf("totals %v, want 15 and 12\n%s", got, d.said)
		}
	}
}
