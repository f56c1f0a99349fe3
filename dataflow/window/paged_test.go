package window_test

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/statetest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// sortedLines are the lines of a stream in an order that only what they say
// decides.
func sortedLines(s optest.Stream) string {
	l := strings.Split(s.String(), "\n")
	sort.Strings(l)
	return strings.Join(l, "\n")
}

// TestRunningPaged: running aggregates whose keys are on disk give what they give
// in memory, in each of the seven ways; and so where sets keep them in memory.
func TestRunningPaged(t *testing.T) {
	all := []string{"count(*)", "count(v)", "sum(v)", "avg(v)", "min(d)", "max(d)", "first(s)", "last(s)", "min(s)", "max(s)", "stddev(v)", "max(b)", "last(t)"}
	rapid.Check(t, func(t *rapid.T) {
		spec := window.Spec{Form: window.Running, Keys: []int{0}, Input: input()}
		aggs := all
		if rapid.IntRange(0, 4).Draw(t, "sets") == 0 {
			aggs = append(aggs[:3:3], "distinct(s)")
		}
		if rapid.Bool().Draw(t, "two keys") {
			spec.Keys = []int{3, 0}
		}
		spec.Aggregates = aggregates(t, input(), aggs...)
		f := factory(t, spec)
		var s strings.Builder
		for i := range rapid.IntRange(1, 12).Draw(t, "rows") {
			if rapid.IntRange(0, 5).Draw(t, "mark") == 0 {
				fmt.Fprintf(&s, "wm %d\n", i)
			}
			some := func(name string, values ...string) string {
				return fmt.Sprintf(" %s=%s", name, rapid.SampledFrom(append(values, "null")).Draw(t, name))
			}
			s.WriteString(rapid.SampledFrom([]string{"a", "b", "c", `"a longer name of a key"`}).Draw(t, "k") + fmt.Sprintf("@%d", i))
			s.WriteString(some("v", "1", "-5", "7") + some("d", "1.5", "-0", "nan", "2") + some("s", "x", `"something longer than a cell"`, `""`) + some("b", "true", "false") + some("t", "5", "9"))
			s.WriteByte('\n')
		}
		c := optest.Case{Factory: f, Input: optest.MustParse(t, input(), s.String()), OrderBy: []string{"k"}, HashBy: spec.Keys}
		want := optest.Check(t, c)
		c.Backing = func() optest.Backing { return statetest.NewMemory(1) }
		if got := optest.Check(t, c); sortedLines(got.Main) != sortedLines(want.Main) || got.Counters.KeysLive != want.Counters.KeysLive {
			t.Fatalf("paged, %d keys:\n%s\nwant, %d keys\n%s", got.Counters.KeysLive, got.Main, want.Counters.KeysLive, want.Main)
		}
	})
}

// TestRunningPagedIsBounded: far more keys than memory has room for.
func TestRunningPagedIsBounded(t *testing.T) {
	const memory, keys = 1 << 18, 30_000
	disk := statetest.NewMemory(memory)
	f := factory(t, window.Spec{Form: window.Running, Keys: []int{0}, Input: input(), Aggregates: aggregates(t, input(), "count(*)", "sum(v)")})
	ctx := &operator.Context{Parallelism: 1, MaxParallelism: 1, Pool: batch.NewPool(0, nil), Counters: &operator.Counters{}, Backing: disk}
	op := f.New()
	if err := op.Open(ctx); err != nil {
		t.Fatal(err)
	}
	last := map[string]int64{}
	bl := batch.NewBuilder(ctx.Pool, input())
	for i := range 2 * keys {
		bl.SetString(0, fmt.Sprintf("key-%06d", i%keys))
		bl.SetInt(1, int64(i))
		bl.EndRow(dataflow.Time(i))
		if !bl.Full() && i < 2*keys-1 {
			continue
		}
		b := bl.Take()
		out := optest.Stream{Schema: f.Output()}
		p, err := op.Process(b, gather{&out})
		for err == nil && p != operator.Done {
			if err = disk.Sync(context.Background()); err == nil {
				p, err = op.Resume(gather{&out})
			}
		}
		if b.Release(); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Rows() {
			last[r.Values[0].(string)] = r.Values[1].(int64)
		}
		if n := ctx.Counters.StateBytes; n > 8*memory {
			t.Fatalf("%d bytes of state after %d rows", n, i)
		}
	}
	for k, n := range last {
		if n != 2 {
			t.Fatalf("%s was counted %d times", k, n)
		}
	}
	if len(last) != keys || ctx.Counters.KeysLive != keys {
		t.Errorf("%d keys came out, %d live, want %d", len(last), ctx.Counters.KeysLive, keys)
	}
}

// gather is an output that keeps everything.
type gather struct{ s *optest.Stream }

func (g gather) Emit(b *batch.Batch) bool                  { g.s.Flatten(b); return true }
func (g gather) EmitSide(operator.Side, *batch.Batch) bool { return true }
func (g gather) Wanted(operator.Side) bool                 { return false }
