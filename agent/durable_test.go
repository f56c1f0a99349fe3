package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	tstore "github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// stateful is a job that keeps its state in a folder, run again and again.
type stateful struct {
	tester
	dir  string // the state folder
	disk *storetest.FS
	fs   tstore.FS // what the next life sees of it; nil: disk
	said *lockedBuffer
}

// newStateful makes a state folder in memory, but for its lock.
func newStateful(t tester, dir string) *stateful {
	return &stateful{tester: t, dir: dir, disk: storetest.New(), said: new(lockedBuffer)}
}

// begin opens the folder and builds the job.
func (d *stateful) begin(text string, s setting, change func(*agent.LocalOptions)) (*agent.Local, *agent.State) {
	d.Helper()
	tell := func(line string) { fmt.Fprintln(d.said, line) }
	var fs tstore.FS = d.disk
	if d.fs != nil {
		fs = d.fs
	}
	state, err := agent.OpenState(d.dir, agent.StateOptions{FS: fs, Events: tell})
	if err != nil {
		d.Fatalf("%v", err)
	}
	opt := agent.LocalOptions{Stdout: new(lockedBuffer), Stdin: strings.NewReader(""), BatchRows: s.batchRows, State: state, Events: tell}
	if change != nil {
		change(&opt)
	}
	local, err := agent.NewLocal(load(d, text, s), opt)
	if err != nil {
		d.Fatalf("%v\n%s", err, text)
	}
	return local, state
}

// run runs the job until it ends by itself.
func (d *stateful) run(text string, s setting, change func(*agent.LocalOptions)) (agent.Outcome, error) {
	d.Helper()
	local, state := d.begin(text, s, change)
	err := local.Run(context.Background())
	if cerr := state.Close(); cerr != nil {
		d.Errorf("%v", cerr)
	}
	return local.Outcome(), err
}

var errCrash = errors.New("crash")

// crash runs the job until the n-th checkpoint has completed, and gives it up
// at once: nothing is committed or closed in order. It is false if the job ended
// before.
func (d *stateful) crash(text string, s setting, n int, change func(*agent.LocalOptions)) bool {
	d.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	local, state := d.begin(text, s, func(o *agent.LocalOptions) {
		if change != nil {
			change(o)
		}
		o.Checkpoints = func(durable.Completed) {
			if n--; n <= 0 {
				cancel(errCrash)
			}
		}
	})
	err := local.Run(ctx)
	if cerr := state.Close(); cerr != nil {
		d.Errorf("%v", cerr)
	}
	if err != nil && !errors.Is(err, errCrash) {
		d.Fatalf("%v\n%s", err, d.said)
	}
	return err != nil
}

const countJob = `name: counts
checkpoint: {interval: 1ms}
restart: {strategy: none}
sources:
  in: {generate: {rate: 0, keys: 7, rows: %d, seed: 5}, event_time: ts, watermark: {bounded: 1ms}}
steps:
  - {id: sums, from: in, key_by: [key], window: {tumbling: 1ms}, select: {n: count(*), total: sum(seq)}}
sinks:
  - {id: out, from: sums, file: {path: %q}}
`

func TestDurableRunFinishesAndSaysSo(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.jsonl")
	text := fmt.Sprintf(countJob, 50_000, out)
	d := newStateful(t, filepath.Join(dir, "state"))
	o, err := d.run(text, setting{parallelism: 2}, nil)
	if err != nil || o.Status != coordinator.Finished || o.Before {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if n := total(t, out, "n"); n != 50_000 {
		t.Errorf("%d rows counted", n)
	}
	if o, err = d.run(text, setting{parallelism: 2}, nil); err != nil || o.Status != coordinator.Finished || !o.Before {
		t.Errorf("again: %+v, %v", o, err)
	}
	if again, err := os.ReadFile(out); err != nil || string(again) != string(first) {
		t.Errorf("the second run changed the output (%v)", err)
	}
	if again := "delete " + filepath.Join(d.dir, "jobs", "counts"); !strings.Contains(d.said.String(), "has finished before") || !strings.Contains(d.said.String(), again) {
		t.Errorf("it did not say that it had finished:\n%s", d.said)
	}
}

// Who interrupts a job that cannot even begin is told why it could not.
func TestInterruptedBeforeItBegan(t *testing.T) {
	dir := t.TempDir()
	d := newStateful(t, filepath.Join(dir, "state"))
	local, state := d.begin(fmt.Sprintf(countJob, 1, filepath.Join(dir, "out.jsonl")), setting{parallelism: 1}, func(o *agent.LocalOptions) { o.From = "sp-none" })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := local.Run(ctx); err == nil || !strings.Contains(err.Error(), "sp-none") || local.Outcome().Status != coordinator.Stopped {
		t.Errorf("%v, %v", err, local.Outcome().Status)
	}
	if err := state.Close(); err != nil {
		t.Error(err)
	}
}

// total adds up a column of a file of JSON lines.
func total(t tester, path, column string) (sum int64) {
	t.Helper()
	for _, l := range read(t, path) {
		_, v, _ := strings.Cut(l, `"`+column+`":`)
		var n int64
		if _, err := fmt.Sscan(strings.Map(func(r rune) rune {
			if r == ',' || r == '}' {
				return ' '
			}
			return r
		}, v), &n); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		sum += n
	}
	return sum
}
