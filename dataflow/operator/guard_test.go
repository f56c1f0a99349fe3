package operator_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

var (
	ones     = batch.MustSchema(batch.Field{Name: "v", Type: batch.Bigint})
	onesBad  = batch.MustSchema(batch.Field{Name: "v", Type: batch.Bigint}, batch.Field{Name: "reason", Type: batch.String})
	poisoned = func(v int64) bool { return v%10 == 7 }
)

// doubling emits each value twice, two rows a batch, and says More between them;
// it panics over some.
type doubling struct {
	reject bool
	total  bool // it has state
	chunks bool // it emits as it goes, before it may panic
}

func (doubling) Output() *batch.Schema { return ones }
func (f doubling) Side(s operator.Side) *batch.Schema {
	if s == operator.Rejected && f.reject {
		return onesBad
	}
	return nil
}

func (f doubling) New() operator.Operator {
	d := &doubler{factory: f}
	if f.total {
		return &summing{doubler: d}
	}
	return d
}

type doubler struct {
	operator.Stateless
	factory doubling
	ctx     *operator.Context
	work    *batch.Batch // what it emits
	in      *batch.Batch
	rank    int
}

func (d *doubler) Open(ctx *operator.Context) error { d.ctx = ctx; return nil }

func (d *doubler) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	d.in, d.rank = b.Retain(), 0
	if !d.factory.chunks { // all at once: nothing is out when it panics
		for k := range b.Len() {
			d.touch(b.Cols[0].Ints[b.Position(k)])
		}
	}
	return d.Resume(out)
}

func (d *doubler) touch(v int64) {
	d.ctx.Counters.Filtered++
	if poisoned(v) {
		panic(fmt.Sprintf("cannot double %d", v))
	}
}

func (d *doubler) Resume(out operator.Output) (operator.Progress, error) {
	for d.rank < d.in.Len() {
		p := d.in.Position(d.rank)
		if d.factory.chunks {
			d.touch(d.in.Cols[0].Ints[p])
		}
		d.rank++
		var marks []batch.Mark
		for _, m := range d.in.Marks {
			if int(m.Row) <= p && (d.rank == 1 || int(m.Row) > d.in.Position(d.rank-2)) {
				m.Row = 0
				marks = []batch.Mark{m}
			}
		}
		d.work = d.in.Gather([]int32{int32(p), int32(p)}, marks)
		free := out.Emit(d.work)
		d.work.Release()
		d.work = nil
		if !free {
			return operator.More, nil
		}
	}
	if n := len(d.in.Marks); n > 0 && (d.in.Len() == 0 || int(d.in.Marks[n-1].Row) > d.in.Position(d.in.Len()-1)) {
		m := d.ctx.Pool.MarksOnly(ones, d.in.Marks[n-1])
		out.Emit(m)
		m.Release()
	}
	d.in.Release()
	d.in = nil
	return operator.Done, nil
}

func (d *doubler) Abandon() {
	if d.in != nil {
		d.in.Release()
	}
}

// summing is doubling with state: what a row did to it cannot be taken back.
type summing struct{ *doubler }

func (*summing) StateTables() []operator.StateTable {
	return []operator.StateTable{{Name: "sum", Schema: ones}}
}

// sink takes what a guard emits.
type sink struct {
	refuse  int // every so many-th batch; 0: none
	n       int
	main    []string
	side    []string
	explode bool
}

func (s *sink) Emit(b *batch.Batch) bool {
	if s.explode {
		panic("the channel is broken")
	}
	s.main = append(s.main, elements(b)...)
	return s.more()
}

func (s *sink) EmitSide(_ operator.Side, b *batch.Batch) bool {
	s.side = append(s.side, elements(b)...)
	return s.more()
}
func (s *sink) Wanted(operator.Side) bool { return true }
func (s *sink) more() bool {
	s.n++
	return s.refuse == 0 || s.n%s.refuse != 0
}

// elements are the rows and marks of a batch in order.
func elements(b *batch.Batch) (all []string) {
	mark := 0
	marks := func(upTo int) {
		for ; mark < len(b.Marks) && int(b.Marks[mark].Row) <= upTo; mark++ {
			all = append(all, fmt.Sprintf("wm %d", b.Marks[mark].Watermark))
		}
	}
	for k := range b.Len() {
		p := b.Position(k)
		marks(p)
		s := fmt.Sprint(b.Cols[0].Ints[p])
		if len(b.Cols) > 1 {
			s += " " + string(b.Cols[1].At(p))
		}
		all = append(all, s)
	}
	marks(b.Rows)
	return all
}

func guarded(t rapid.TB, f operator.Factory, pool *batch.Pool) (*operator.Guard, *operator.Counters) {
	c := new(operator.Counters)
	g, err := operator.NewGuard(f, &operator.Context{Operator: "op", Parallelism: 1, MaxParallelism: 16, Pool: pool, Counters: c})
	if err != nil {
		t.Fatal(err)
	}
	return g, c
}

func drive(g *operator.Guard, b *batch.Batch, out operator.Output) error {
	p, err := g.Process(b, out)
	for err == nil && p == operator.More {
		p, err = g.Resume(out)
	}
	return err
}

func rowsOf(pool *batch.Pool, values ...int64) *batch.Batch {
	bl := batch.NewBuilder(pool, ones)
	for i, v := range values {
		bl.SetInt(0, v)
		bl.EndRow(dataflow.Time(i))
		if v%3 == 0 {
			bl.Mark(batch.Mark{Watermark: dataflow.Time(i), Arrival: dataflow.MinTime})
		}
	}
	return bl.Take()
}

// Whatever the rows, the output's patience and the selection: the rows that can
// be processed come out as if the others had not been there, marks at their
// place, and no memory is lost.
func TestPoisonedRowsAreRejectedAndAllOthersGoOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := batch.NewPool(0, nil)
		g, count := guarded(t, doubling{reject: true}, pool)
		out := &sink{refuse: rapid.IntRange(0, 3).Draw(t, "refuse")}
		var want, bad []string
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			values := rapid.SliceOfN(rapid.Int64Range(0, 40), 1, 12).Draw(t, "values")
			b := rowsOf(pool, values...)
			d := pool.DeriveAll(b)
			sel := d.OwnSel(b.Rows)
			for i := range b.Rows {
				if rapid.IntRange(0, 4).Draw(t, "selected") > 0 {
					sel = append(sel, int32(i))
				}
			}
			d.Sel = sel
			for _, p := range sel {
				if v := values[p]; poisoned(v) {
					bad = append(bad, fmt.Sprintf("%d panic: cannot double %d", v, v))
				} else {
					want = append(want, fmt.Sprint(v), fmt.Sprint(v))
				}
			}
			if err := drive(g, d, out); err != nil {
				t.Fatal(err)
			}
			if len(b.Marks) > 0 {
				last := fmt.Sprintf("wm %d", b.Marks[len(b.Marks)-1].Watermark)
				if !slices.Contains(out.main, last) {
					t.Fatalf("the last mark %s did not come out: %q", last, out.main)
				}
			}
			d.Release()
			b.Release()
		}
		isMark := func(s string) bool { return strings.HasPrefix(s, "wm") }
		main, side := slices.DeleteFunc(slices.Clone(out.main), isMark), slices.DeleteFunc(slices.Clone(out.side), isMark)
		if !slices.Equal(main, want) {
			t.Fatalf("rows %q\nwant %q", main, want)
		}
		if !slices.Equal(side, bad) {
			t.Fatalf("rejected %q\nwant %q", side, bad)
		}
		if count.Rejected != int64(len(bad)) || (count.FirstRejected != "") != (len(bad) > 0) {
			t.Fatalf("%d counted as rejected, first %q; %d are", count.Rejected, count.FirstRejected, len(bad))
		}
		if count.Filtered != int64(len(want)/2) {
			t.Fatalf("%d rows counted by the operator, %d were processed", count.Filtered, len(want)/2)
		}
		if n := pool.Out(); n != 0 {
			t.Fatalf("%d batches were not released", n)
		}
	})
}

// A row between two marks stays between them, on both streams.
func TestMarksKeepTheirPlaceAmongPoisonedRows(t *testing.T) {
	pool := batch.NewPool(0, nil)
	g, _ := guarded(t, doubling{reject: true}, pool)
	out := new(sink)
	if err := drive(g, rowsOf(pool, 3, 7, 1, 6, 17, 9), out); err != nil {
		t.Fatal(err)
	}
	if want := strings.Split("3 3|wm 0|1 1|6 6|wm 3|9 9|wm 5", "|"); strings.Join(out.main, " ") != strings.Join(want, " ") {
		t.Errorf("main stream %q", out.main)
	}
	if want := "wm 0|7 panic: cannot double 7|wm 3|17 panic: cannot double 17"; strings.Join(out.side, "|") != want {
		t.Errorf("rejected %q", out.side)
	}
}

// Without on_error: reject, and where the operator has state, the error names the
// row as well as it is known, and the panic.
func TestPoisonedRowsAreNamedWhereTheJobFails(t *testing.T) {
	for name, c := range map[string]struct {
		f       operator.Factory
		out     sink
		row     string
		message string
	}{
		"no rejects":         {doubling{}, sink{}, "v=17", "cannot double 17"},
		"with state":         {doubling{reject: true, total: true}, sink{}, "", "cannot double 17"},
		"rows had gone on":   {doubling{reject: true, chunks: true}, sink{}, "", "cannot double 17"},
		"not the operator's": {doubling{reject: true}, sink{explode: true}, "", "the channel is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			pool := batch.NewPool(0, nil)
			g, _ := guarded(t, c.f, pool)
			values := []int64{1, 17, 2}
			if c.out.explode {
				values = []int64{1, 2}
			}
			err := drive(g, rowsOf(pool, values...), &c.out)
			var p *operator.PanicError
			if !errors.As(err, &p) {
				t.Fatalf("error %v", err)
			}
			if p.Value != c.message || !strings.Contains(p.Row, c.row) || (c.row == "") != (p.Row == "") {
				t.Errorf("panic %q, row %q; want %q, %q", p.Value, p.Row, c.message, c.row)
			}
			if !strings.Contains(p.Stack, "guard_test.go") {
				t.Errorf("the stack does not lead to the panic:\n%s", p.Stack)
			}
			if len(c.out.side) > 0 {
				t.Errorf("rejected %q", c.out.side)
			}
		})
	}
}

// opening panics when it is opened.
type opening struct{ doubling }

func (opening) New() operator.Operator { panic("no operator today") }

func TestPanicOfOpenIsAnError(t *testing.T) {
	_, err := operator.NewGuard(opening{}, &operator.Context{})
	var p *operator.PanicError
	if !errors.As(err, &p) || p.Value != "no operator today" {
		t.Errorf("error %v", err)
	}
}
