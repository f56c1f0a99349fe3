package optest_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

func schema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "v", Type: batch.Bigint})
}

// counter is a keyed operator: it emits each row with the sum of v of its key
// so far. Its state is one table, written as deltas. The faults break it.
type counter struct {
	ctx *operator.Context
	faults
	sums  map[string]int64
	order []string
	dirty map[string]bool
	dead  map[string]bool
	held  []int64
	first int64
}

// faults are the mistakes that the harness must find.
type faults struct {
	forgetState, forgetDelta, forgetDelete, noHashes   bool
	leak, writeInput, writeOutput, useReleased         bool
	dropMark, markEarly, looksAtDead, afterRefusal     bool
	emitsEmpty, wrongSchema, miscount, duplicateInSnap bool
}

func table() []operator.StateTable {
	return []operator.StateTable{{Name: "sums", Schema: schema(), Keyed: true, Identity: 1}}
}

type factory struct {
	s *batch.Schema
	f faults
}

func (f factory) Output() *batch.Schema               { return f.s }
func (f factory) Side(operator.Side) *batch.Schema    { return nil }
func (f factory) New() operator.Operator              { return &counter{faults: f.f} }
func (c *counter) StateTables() []operator.StateTable { return table() }

func (c *counter) Open(ctx *operator.Context) error {
	c.ctx, c.sums, c.dirty, c.dead = ctx, map[string]int64{}, map[string]bool{}, map[string]bool{}
	return nil
}

// add counts a row; the value -1 forgets the key.
func (c *counter) add(k string, v int64) int64 {
	if _, ok := c.sums[k]; !ok {
		c.order = append(c.order, k)
	}
	c.dirty[k] = true
	delete(c.dead, k)
	c.sums[k] += v
	if v == -1 {
		delete(c.sums, k)
		delete(c.dirty, k)
		c.dead[k] = true
		for i := range c.order {
			if c.order[i] == k {
				c.order = append(c.order[:i], c.order[i+1:]...)
				break
			}
		}
		return 0
	}
	return c.sums[k]
}

func (c *counter) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	if c.writeInput {
		b.Times[0] = 0
	}
	if c.held != nil && c.held[0] != c.first {
		c.ctx.Counters.Late++
	}
	if c.useReleased && c.held == nil && b.Rows > 0 {
		c.held, c.first = b.Times, b.Times[0]
	}
	if c.leak {
		b.Retain()
	}
	bl := batch.NewBuilder(c.ctx.Pool, schema())
	marks := b.Marks
	n := b.Len()
	if c.looksAtDead {
		n = b.Rows
	}
	for i := range n {
		p := i
		if !c.looksAtDead {
			p = b.Position(i)
		}
		for len(marks) > 0 && (int(marks[0].Row) <= p || c.markEarly) {
			if !c.dropMark {
				bl.Mark(marks[0])
			}
			marks = marks[1:]
		}
		if b.Cols[0].IsNull(p) || b.Cols[1].IsNull(p) {
			c.ctx.Counters.Filtered++
			continue
		}
		k := string(b.Cols[0].At(p))
		bl.SetString(0, k)
		bl.SetInt(1, c.add(k, b.Cols[1].Ints[p]))
		bl.EndRow(dataflow.Time(b.Times[p]))
	}
	for _, m := range marks {
		bl.Mark(m)
	}
	if c.miscount {
		c.ctx.Counters.Filtered++
	}
	o := bl.Take()
	if o == nil && c.emitsEmpty {
		o = c.ctx.Pool.Get(schema())
		for i := range o.Cols {
			o.Own(i, 0)
		}
	}
	return c.emit(o, out)
}

func (c *counter) emit(o *batch.Batch, out operator.Output) (operator.Progress, error) {
	if o == nil {
		return operator.Done, nil
	}
	if c.wrongSchema {
		o.Schema = batch.MustSchema(batch.Field{Name: "other", Type: batch.String}, schema().Field(1))
	}
	free := out.Emit(o)
	if c.writeOutput {
		o.Times = append([]int64(nil), o.Times...)
		o.Cols[1].Ints = append(o.Cols[1].Ints, 1)
	}
	o.Release()
	if c.afterRefusal && !free {
		m := c.ctx.Pool.MarksOnly(schema(), batch.Mark{Watermark: dataflow.MaxTime, Arrival: dataflow.MaxTime})
		out.Emit(m)
		m.Release()
	}
	return operator.Done, nil
}

func (c *counter) Resume(operator.Output) (operator.Progress, error) { return operator.Done, nil }

func (c *counter) Snapshot(delta bool, emit func(int, *batch.Batch) error) error {
	bl := batch.NewBuilder(c.ctx.Pool, table()[0].Schema)
	put := func(k string, v int64) {
		bl.SetString(0, k)
		bl.SetInt(1, v)
		bl.EndRow(0)
	}
	for _, k := range c.order {
		if !delta || c.dirty[k] && !c.forgetDelta {
			put(k, c.sums[k])
		}
		if c.duplicateInSnap {
			put(k, c.sums[k])
		}
	}
	if delta && !c.forgetDelete {
		for k := range c.dead {
			put(k, 0)
			bl.Kind(batch.Delete)
		}
	}
	clear(c.dirty)
	clear(c.dead)
	b := bl.Take()
	if b == nil {
		return nil
	}
	if !c.noHashes {
		state.HashKeys(b, []int{0})
	}
	defer b.Release()
	return emit(0, b)
}

func (c *counter) Restore(_ int, b *batch.Batch) error {
	for k := range b.Len() {
		p := b.Position(k)
		key := string(b.Cols[0].At(p))
		if !c.forgetState {
			c.sums[key] = b.Cols[1].Ints[p]
			c.order = append(c.order, key)
		}
	}
	return nil
}

const input = `a@1 v=1; b@2 v=2; wm 2; a@3 v=3; wm 3 arrival 5; b@4 v=-1; c@5 v=7; a@5 v=null; wm 4 arrival 5
	a@6 v=5; b@7 v=1; c@8 v=-1; wm 9 arrival 9; a@9 v=1; b@9 v=2; c@9 v=4; a@9 v=1; end`

// recorder is a test that remembers how it failed.
type recorder struct{ failed string }

type stop struct{}

func (r *recorder) Helper()                           {}
func (r *recorder) Errorf(format string, args ...any) { r.failed = fmt.Sprintf(format, args...) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(stop{})
}

func check(t *testing.T, f faults) (failed string) {
	t.Helper()
	var r recorder
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(stop); !ok {
				panic(p)
			}
			failed = r.failed
		}
	}()
	in := optest.MustParse(t, schema(), input)
	for seed := range uint64(20) {
		optest.Check(&r, optest.Case{
			Factory: factory{schema(), f}, Input: in, OrderBy: []string{"k"}, HashBy: []int{0}, Seed: seed,
			Want: `a@1 v=1; b@2 v=2; wm 2; a@3 v=4; wm 3 arrival 5; b@4 v=0; c@5 v=7; wm 4 arrival 5
				a@6 v=9; c@8 v=0; b@7 v=1; wm 9 arrival 9; a@9 v=10; b@9 v=3; a@9 v=11; c@9 v=4; end`,
		})
	}
	return r.failed
}

// TestHarnessFindsEveryFault: a right operator passes, and each mistake is found
// with the words that lead to it.
func TestHarnessFindsEveryFault(t *testing.T) {
	cases := []struct {
		name  string
		fault faults
		want  string
	}{
		{"none", faults{}, ""},
		{"state not restored", faults{forgetState: true}, "restored after every element: main stream"},
		{"change missing in delta", faults{forgetDelta: true}, "deltas on a base give"},
		{"deletion missing in delta", faults{forgetDelete: true}, "deltas on a base give"},
		{"keyed rows without hashes", faults{noHashes: true}, "no hashes"},
		{"row twice in a snapshot", faults{duplicateInSnap: true}, "same identity"},
		{"batch kept for ever", faults{leak: true}, "were not released"},
		{"input written to", faults{writeInput: true}, "wrote into its input"},
		{"output written to", faults{writeOutput: true}, "written to after it was emitted"},
		{"input read after release", faults{useReleased: true}, "counters differ"},
		{"mark dropped", faults{dropMark: true}, "main stream"},
		{"mark too early", faults{markEarly: true}, "main stream"},
		{"selection ignored", faults{looksAtDead: true}, "refuses every other batch"},
		{"emission after a refusal", faults{afterRefusal: true}, "after a refusal in the same call"},
		{"empty batch", faults{emitsEmpty: true}, "without a row and without a mark"},
		{"other schema", faults{wrongSchema: true}, "the factory says"},
		{"counted by batch", faults{miscount: true}, "counters differ"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := check(t, c.fault)
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("harness says %q, want %q", got, c.want)
			}
		})
	}
}

func TestNotationRoundTrip(t *testing.T) {
	s := batch.MustSchema(
		batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "d", Type: batch.Double},
		batch.Field{Name: "f", Type: batch.Boolean}, batch.Field{Name: "t", Type: batch.Timestamp}, batch.Field{Name: "y", Type: batch.Bytes},
	)
	rapid.Check(t, func(t *rapid.T) {
		in := optest.Stream{Schema: s}
		m := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			if rapid.Bool().Draw(t, "mark") {
				m.Watermark = dataflow.Time(rapid.Int64Min(int64(m.Watermark)).Draw(t, "wm"))
				m.Arrival = dataflow.Time(rapid.Int64Min(int64(m.Arrival)).Draw(t, "arrival"))
				m.Idle = rapid.Bool().Draw(t, "idle")
				in.Elements = append(in.Elements, optest.Element{Mark: m})
				continue
			}
			in.Elements = append(in.Elements, optest.Element{Row: &optest.Row{
				Time: dataflow.Time(rapid.Int64().Draw(t, "time")),
				Kind: batch.Kind(rapid.IntRange(0, 3).Draw(t, "kind")),
				Values: []any{rapid.OneOf(rapid.Just[any](nil), rapid.String().AsAny(), rapid.SampledFrom([]any{"null", "wm", "end", "-D", "a@b", "x=y", "#", "", "\xff"})).Draw(t, "k"),
					rapid.Float64().AsAny().Draw(t, "d"), rapid.Bool().AsAny().Draw(t, "f"), rapid.Int64().AsAny().Draw(t, "t"), rapid.String().AsAny().Draw(t, "y")},
			}})
		}
		text := in.String()
		again, err := optest.Parse(s, text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if again.String() != text || len(again.Elements) != len(in.Elements) {
			t.Fatalf("got\n%s\nwant\n%s", again, text)
		}
		var flat optest.Stream
		flat.Schema = s
		for _, b := range in.Batches(batch.NewPool(0, nil), 3) {
			flat.Flatten(b)
		}
		if got, want := flat.Coalesced().String(), in.Coalesced().String(); got != want {
			t.Fatalf("through batches\n%s\nwant\n%s", got, want)
		}
	})
}

func TestNotationErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a v=1":       "needs @time",
		"a@x":         `"x" is no time`,
		"a@1 v":       "is not column=value",
		"a@1 x=1":     `no column "x" among (k string, v bigint)`,
		"a@1 v=one":   `"one" is no bigint`,
		"wm":          "wm needs a time",
		"wm 1 soon":   `unknown word "soon"`,
		"\n\n\"a@1":   "line 3: unfinished quote",
		"a@1; wm 2 x": `line 1: "wm 2 x"`,
	} {
		if _, err := optest.Parse(schema(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
}
