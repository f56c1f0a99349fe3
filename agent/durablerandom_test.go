package agent_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// gate decides how far the sources of a job read: it stops them at some reads
// until another checkpoint has completed, and ends the job at one.
type gate struct {
	mu       sync.Mutex // guards what follows
	reads    int
	complete int
	stops    []int // reads before which a checkpoint of all reads before it must have completed
	waits    bool  // at the first of stops
	enough   int   // complete checkpoints, for it to be passed
	crashAt  int   // 0: never
	crash    func()
	more     chan struct{} // closed and replaced when another completes

	passing func(reads int)       // when a read may be; nil: nothing
	breaks  func(reads int) error // fails a read; nil: never
}

func (g *gate) wrap(_ dataflow.OperatorID, r sensors.Reader) sensors.Reader {
	return &gated{Reader: r, gate: g}
}

// hear is told the checkpoints that complete.
func (g *gate) hear(durable.Completed) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.complete++
	close(g.more)
	g.more = make(chan struct{})
}

// pass waits until the next read may be.
func (g *gate) pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		if g.crashAt > 0 && g.reads >= g.crashAt {
			g.mu.Unlock()
			g.crash()
			<-ctx.Done() // a stop comes as a barrier
			return ctx.Err()
		}
		here := len(g.stops) > 0 && g.reads >= g.stops[0]
		if here && !g.waits {
			g.waits, g.enough = true, g.complete+2 // one may be under way, and not know the last read
		}
		if !here || g.complete >= g.enough {
			if here {
				g.stops, g.waits = g.stops[1:], false
			}
			g.reads++
			n := g.reads
			g.mu.Unlock()
			return g.after(n)
		}
		more := g.more
		g.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done(): // the barrier comes this way
			return ctx.Err()
		}
	}
}

func (g *gate) after(n int) error {
	if g.passing != nil {
		g.passing(n)
	}
	if g.breaks != nil {
		return g.breaks(n)
	}
	return nil
}

type gated struct {
	sensors.Reader
	gate *gate
}

func (g *gated) Read(ctx context.Context, r *sensors.Records, max int) error {
	if err := g.gate.pass(ctx); err != nil {
		return err
	}
	return g.Reader.Read(ctx, r, max)
}

func (g *gated) SplitName(k int) string { return g.Reader.(sensors.SplitNamer).SplitName(k) }

// life is one run of a job, until it crashes, is stopped or ends.
type life struct {
	setting
	stops   []int
	crashAt int
	stop    bool // with a savepoint, in place of the crash
	power   int  // the power goes off at this write; 0: never
	image   uint64
}

func (l life) String() string {
	return fmt.Sprintf("%v, checkpoints before reads %v, end at %d (stop %t), power off at %d, image %d", l.setting, l.stops, l.crashAt, l.stop, l.power, l.image)
}

func drawLife(t *rapid.T, last bool) life {
	l := life{setting: setting{
		parallelism: rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "parallelism"),
		batchRows:   rapid.SampledFrom([]int{1, 1, 1, 2, 5, batch.MaxRows}).Draw(t, "batch"),
	}}
	l.stops = slices.Sorted(slices.Values(rapid.SliceOfN(rapid.IntRange(0, 40), 0, 4).Draw(t, "stops")))
	if !last {
		l.crashAt = rapid.IntRange(1, 40).Draw(t, "end at")
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			l.stop = true
		case 1, 2:
			l.power, l.image = rapid.IntRange(1, 200).Draw(t, "power off at"), rapid.Uint64().Draw(t, "image")
		}
	}
	return l
}

// live runs one life; with both, the output is on the disk that loses power. It
// is true if the job ended by itself.
func (l life) live(t *rapid.T, d *stateful, text string, both bool) bool {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	g := &gate{stops: l.stops, crashAt: l.crashAt, more: make(chan struct{})}
	local, state := d.begin(text, l.setting, func(o *agent.LocalOptions) {
		o.Checkpoints, o.Wrap = g.hear, g.wrap
		if both {
			o.Files = d.disk
		}
	})
	g.crash = func() { cancel(errCrash) }
	if l.stop {
		g.crash = local.Stop
	}
	if l.power > 0 {
		d.disk.PowerOffAt(l.power)
	}
	err := local.Run(ctx)
	if cerr := state.Close(); cerr != nil {
		t.Fatalf("%v", cerr)
	}
	off := d.disk.Off()
	if l.power > 0 {
		d.disk = d.disk.Crash(l.image)
	}
	if err != nil && !errors.Is(err, errCrash) && !off {
		t.Fatalf("%v: %v\n%s", l, err, d.said)
	}
	return err == nil && local.Outcome().Status == coordinator.Finished
}

// durableRuns bounds the random jobs: each is run several times, and waits for
// the disk.
var durableRuns = flag.Int("durable.runs", 25, "random jobs through crashes")

var stdoutSink = regexp.MustCompile(`\{id: (t\d+), from: (\S+), stdout: \{timestamps: us\}\}`)

// TestDurableMetamorphic runs random jobs on random input through crashes, stops
// and starts with another parallelism: what is in the files at the end is what
// the model says, whatever happened.
func TestDurableMetamorphic(t *testing.T) { durableMetamorphic(t, false, false) }

// TestDurableMetamorphicPower is the same where the output is on the disk that
// loses power: what was in it and not synced is gone, or there in part.
func TestDurableMetamorphicPower(t *testing.T) { durableMetamorphic(t, false, true) }

// TestDurableMetamorphicDevices is the same where devices come and go.
func TestDurableMetamorphicDevices(t *testing.T) { durableMetamorphic(t, true, false) }

func durableMetamorphic(t *testing.T, devices, both bool) {
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		if runs >= *durableRuns {
			return
		}
		j := drawJob(t, filepath.Join(dir, "*.jsonl"), devices)
		files := j.drawInput()
		store(t, dir, files)
		j.model(files)
		runs++
		home := filepath.Join(dir, fmt.Sprint(runs))
		text := strings.Replace(j.yaml.String(), "BOUND", fmt.Sprint(j.source.bound), 1)
		text = stdoutSink.ReplaceAllString(text, fmt.Sprintf("{id: $1, from: $2, file: {path: '%s/$1.jsonl', timestamps: us}}", home))
		text = "checkpoint: {interval: 1ms}\nrestart: {strategy: none}\n" + text
		t.Logf("strict %t\n%s\n%s", j.strict, text, strings.Join(inputText(files), "---\n"))
		d := newStateful(t, filepath.Join(home, "state"))
		var lived []life
		for ended := false; !ended; {
			l := drawLife(t, len(lived) == 4)
			if n := len(lived); n > 0 && rapid.Bool().Draw(t, "as parallel as before") { // what it is restored from goes on
				l.parallelism = lived[n-1].parallelism
			}
			lived = append(lived, l)
			ended = l.live(t, d, text, both)
		}
		r := &ran{}
		for _, o := range j.outputs {
			name := filepath.Join(home, o.tag+".jsonl")
			if both {
				r.lines = append(r.lines, d.lines(name)...)
			} else {
				r.lines = append(r.lines, read(t, name)...)
			}
		}
		j.checkRows(t, lived[len(lived)-1].setting, r)
		if t.Failed() {
			t.Logf("lives: %v\n%s", lived, d.said)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Fatal(err)
		}
	})
}

// lines are those of a file on the disk in memory.
func (d *stateful) lines(name string) []string {
	d.Helper()
	f, err := d.disk.Open(name, os.O_RDONLY)
	if err != nil {
		d.Fatalf("%v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		d.Fatalf("%v", err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		d.Fatalf("%v", err)
	}
	return lines(string(b))
}
