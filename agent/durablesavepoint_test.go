package agent_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// A savepoint of a running job has whole parts only, commits nothing, and is not
// what the job recovers from; another job can begin there.
func TestSavepointOfARunningJob(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	text := strings.Replace(fmt.Sprintf(sumJob, "running", in, out), "interval: 1ms", "interval: 1h", 1)
	d := newStateful(t, filepath.Join(dir, "state"))
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	g := &gate{stops: []int{4}, more: make(chan struct{})}
	local, state := d.begin(text, setting{batchRows: 1}, func(o *agent.LocalOptions) { o.Wrap, o.Checkpoints = g.wrap, g.hear })
	name := make(chan string, 1)
	g.passing = func(n int) {
		switch n {
		case 4:
			go func() {
				last := ""
				for { // the gate wants two: the first may have begun before the fourth row was taken
					id, err := local.Savepoint(ctx)
					if err != nil {
						if ctx.Err() == nil {
							t.Error(err)
						}
						name <- last
						return
					}
					last = id
				}
			}()
		case 5: // a savepoint of four rows is there
			cancel(errCrash)
		}
	}
	if err := local.Run(ctx); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, d.said)
	}
	id := <-name
	m, err := state.Store().Manifest(id)
	if err != nil {
		t.Fatal(err)
	}
	if longest(m) > 1 || slices.ContainsFunc(partsOf(m), func(p manifest.PartUse) bool { return p.Delta }) {
		t.Errorf("not only whole parts: %+v", m.Operators)
	}
	if list, err := state.Store().Checkpoints("running"); err != nil || len(list) > 0 {
		t.Errorf("the job recovers from %v (%v)", list, err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, in, events("e8 e15 w9 w19"))
	other := filepath.Join(dir, "other.jsonl")
	for _, text := range []string{fmt.Sprintf(sumJob, "other", in, other), text} {
		from := func(l *agent.LocalOptions) {
			if strings.Contains(text, "other") {
				l.From = id
			}
		}
		if o, err := d.run(text, setting{parallelism: 2}, from); err != nil || o.Status != coordinator.Finished {
			t.Fatalf("%+v, %v\n%s", o, err, d.said)
		}
	}
	for _, path := range []string{out, other} {
		if got := values(t, path, "total"); !slices.Equal(got, []int64{13, 27}) {
			t.Errorf("%s: totals %v, want 13 and 27", path, got)
		}
	}
}

// A savepoint that does not fit is refused, and nothing has changed: the job
// goes on from where it was.
func TestARefusedSavepointChangesNothing(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	d := newStateful(t, filepath.Join(dir, "state"))
	sums := fmt.Sprintf(sumJob, "sums", in, out)
	if _, err := d.until(sums, &gate{crashAt: 4}, setting{batchRows: 1}, (*agent.Local).Stop, nil); err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	others := strings.Replace(fmt.Sprintf(sumJob, "others", in, filepath.Join(dir, "others.jsonl")), "sums, from", "odd, from", 1)
	others = strings.Replace(others, "from: sums", "from: odd", 1)
	o, err := d.until(others, &gate{crashAt: 2}, setting{batchRows: 1}, (*agent.Local).Stop, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	from := func(l *agent.LocalOptions) { l.From = o.Savepoint }
	if _, err := d.run(sums, setting{}, from); !errors.Is(err, restore.ErrRefused) || !strings.Contains(err.Error(), "odd") {
		t.Errorf("%v, want it to be refused", err)
	}
	put(t, in, events("e8 e15 w9 w19"))
	if o, err := d.run(sums, setting{}, nil); err != nil || o.Status != coordinator.Finished {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
		t.Errorf("totals %v, want 13 and 27", got)
	}
}

// No attempt ever gets the number of another, whatever became of it; and chains
// of deltas do not grow without end, because they are merged.
func TestAttemptsAndChains(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(countJob, 0, filepath.Join(dir, "out.jsonl")) // without end
	d := newStateful(t, filepath.Join(dir, "state"))
	var tokens []uint64
	for life := range 3 {
		merged, seen := false, 0
		ctx, cancel := context.WithCancelCause(context.Background())
		var local *agent.Local
		var state *agent.State
		local, state = d.begin(text, setting{parallelism: 2}, func(o *agent.LocalOptions) {
			o.Checkpoints = func(c durable.Completed) {
				m, err := state.Store().Manifest("counts/" + c.Name)
				if err != nil {
					t.Error(err)
				}
				tokens = append(tokens, m.ID.Token.Attempt)
				for _, p := range partsOf(m) {
					merged = merged || p.From != nil
				}
				if n := longest(m); n > 64 {
					t.Errorf("%s: a chain of %d parts", c.Name, n)
				}
				switch seen++; {
				case life == 0 || merged && life == 1:
					cancel(errCrash)
				case merged && life == 2:
					local.Stop()
				case seen > 5000:
					t.Error("nothing is ever merged")
					cancel(errCrash)
				}
			}
		})
		if err := local.Run(ctx); err != nil && !errors.Is(err, errCrash) {
			t.Fatalf("%v\n%s", err, d.said)
		}
		cancel(nil)
		if list, err := state.Store().Checkpoints("counts"); err != nil || len(list) > agent.DefaultRetained {
			t.Errorf("%d checkpoints are kept (%v)", len(list), err)
		}
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.IsSorted(tokens) || tokens[0] != 1 || tokens[len(tokens)-1] != 3 {
		t.Errorf("the attempts of three runs were %v", slices.Compact(tokens))
	}
}

func partsOf(m manifest.Manifest) (all []manifest.PartUse) {
	for _, o := range m.Operators {
		for _, tab := range o.Tables {
			for _, sh := range tab.Shards {
				all = append(all, sh.Parts...)
			}
		}
	}
	return all
}

func longest(m manifest.Manifest) (n int) {
	for _, o := range m.Operators {
		for _, tab := range o.Tables {
			for _, sh := range tab.Shards {
				n = max(n, len(sh.Parts))
			}
		}
	}
	return n
}
