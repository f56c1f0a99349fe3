package window_test

import (
	"fmt"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// fleet is the subtasks of one step, each with its range of key groups.
type fleet struct {
	t    optest.TB
	e    example
	pool *batch.Pool
	ops  []operator.Operator
	ctx  []*operator.Context
	out  []optest.Stream // by subtask
}

const groups = 16

func newFleet(t optest.TB, e example, pool *batch.Pool, p int) *fleet {
	f := &fleet{t: t, e: e, pool: pool, out: make([]optest.Stream, p)}
	made := factory(t, e.spec)
	for i := range p {
		c := &operator.Context{Subtask: i, Parallelism: p, MaxParallelism: groups, KeyGroups: dataflow.RangeOf(i, p, groups), Pool: pool, Counters: &operator.Counters{}}
		op := made.New()
		if err := op.Open(c); err != nil {
			t.Fatalf("%v", err)
		}
		f.ops, f.ctx = append(f.ops, op), append(f.ctx, c)
		f.out[i].Schema = made.Output()
	}
	return f
}

// Emit and its like make a fleet's subtask an output.
type collector struct {
	f *fleet
	i int
}

func (c collector) Emit(b *batch.Batch) bool {
	if err := b.Check(); err != nil {
		c.f.t.Fatalf("%v", err)
	}
	c.f.out[c.i].Flatten(b)
	return true
}
func (c collector) EmitSide(operator.Side, *batch.Batch) bool { return true }
func (c collector) Wanted(operator.Side) bool                 { return false }

// feed gives each subtask its rows of the elements, and all marks.
func (f *fleet) feed(elements []optest.Element, size int) {
	s := optest.Stream{Schema: f.e.spec.Input, Elements: elements}
	for _, b := range s.Batches(f.pool, size) {
		state.HashKeys(b, f.e.spec.Keys)
		for i, op := range f.ops {
			part := f.pool.DeriveAll(b)
			sel := part.OwnSel(b.Rows)
			for r := range b.Rows {
				if f.ctx[i].KeyGroups.Contains(dataflow.KeyGroupOf(b.Hashes[r], groups)) {
					sel = append(sel, int32(r))
				}
			}
			part.Sel = sel
			if p, err := op.Process(part, collector{f, i}); err != nil || p != operator.Done {
				f.t.Fatalf("%v %v", p, err)
			}
			part.Release()
		}
		b.Release()
	}
}

// move gives the state of all subtasks to those of another fleet, each row to
// the one that owns its key group, the clock to all.
func (f *fleet) move(to *fleet) {
	tables := f.ops[0].StateTables()
	for n, table := range tables {
		for _, op := range f.ops {
			err := op.Snapshot(false, func(at int, b *batch.Batch) error {
				if at != n {
					return nil
				}
				for i, next := range to.ops {
					part := f.pool.DeriveAll(b)
					if table.Keyed {
						sel := part.OwnSel(b.Rows)
						for r := range b.Rows {
							if to.ctx[i].KeyGroups.Contains(dataflow.KeyGroupOf(b.Hashes[r], groups)) {
								sel = append(sel, int32(r))
							}
						}
						part.Sel = sel
					}
					if err := next.Restore(n, part); err != nil {
						return err
					}
					part.Release()
				}
				return nil
			})
			if err != nil {
				f.t.Fatalf("%v", err)
			}
		}
	}
}

// perKey lists the output rows of each key, in order.
func (f *fleet) perKey(rows map[string][]string) {
	for _, s := range f.out {
		addPerKey(rows, s, len(f.e.spec.Keys))
	}
}

func addPerKey(rows map[string][]string, s optest.Stream, nkeys int) {
	for _, r := range s.Rows() {
		k := fmt.Sprintf("%#v", r.Values[:nkeys])
		rows[k] = append(rows[k], fmt.Sprintf("%d %d %s", r.Kind, r.Time, rounded(r.Values)))
	}
}

// rounded prints doubles to nine digits: sums may be formed in another order.
func rounded(values []any) string {
	s := ""
	for _, v := range values {
		if d, is := v.(float64); is {
			v = fmt.Sprintf("%.9g", d+0)
		}
		s += fmt.Sprintf("%v ", v)
	}
	return s
}

// TestRescaled runs random steps at one parallelism, moves their state by key
// group to another in the middle of the input, and goes on: each key's results
// are those of the reference.
func TestRescaled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawExample(t)
		t.Logf("%s\n%s", e.spec.Describe(), e.input)
		pool := batch.NewPool(0, nil)
		r := newReference(e.spec, e.exprs, factory(t, e.spec).Output())
		r.run(e.input)
		want, got := map[string][]string{}, map[string][]string{}
		addPerKey(want, r.out, len(e.spec.Keys))

		size := rapid.SampledFrom([]int{1, 7, 1000}).Draw(t, "size")
		rest := e.input.Elements
		fl := newFleet(t, e, pool, rapid.IntRange(1, 4).Draw(t, "parallelism"))
		for len(rest) > 0 {
			n := rapid.IntRange(1, len(rest)).Draw(t, "part")
			fl.feed(rest[:n], size)
			fl.perKey(got)
			rest = rest[n:]
			next := newFleet(t, e, pool, rapid.IntRange(1, 4).Draw(t, "parallelism"))
			fl.move(next)
			fl = next
		}
		keys := map[string]bool{}
		for _, m := range []map[string][]string{want, got} {
			for k := range m {
				keys[k] = true
			}
		}
		var sorted []string
		for k := range keys {
			sorted = append(sorted, k)
		}
		sort.Strings(sorted)
		for _, k := range sorted {
			if fmt.Sprint(got[k]) != fmt.Sprint(want[k]) {
				t.Fatalf("key %s:\n got %q\nwant %q", k, got[k], want[k])
			}
		}
	})
}
