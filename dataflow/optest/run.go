package optest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// maxResumes is when an operator that keeps saying More is taken for stuck.
const maxResumes = 1 << 20

// runner runs one case in one way.
type runner struct {
	t    TB
	c    Case
	w    way
	rng  *rand.Rand
	pool *batch.Pool
	ctx  *operator.Context
	op   operator.Operator
	out  sink
	sum  operator.Counters // of the operators before the present one
	kept stateStore
	disk Backing // of op; nil: none
}

func run(t TB, c Case, w way) Result {
	t.Helper()
	r := &runner{t: t, c: c, w: w, rng: rand.New(rand.NewPCG(c.Seed, 7)), pool: batch.NewPool(0, nil)}
	if !w.keep {
		r.pool.PoisonReleased()
	}
	r.out = sink{t: t, w: w, factory: c.Factory}
	r.out.main.Schema = c.Factory.Output()
	for s := range r.out.sides {
		r.out.sides[s].Schema = c.Factory.Side(operator.Side(s))
	}
	r.kept = newStateStore(r.pool)
	r.fresh()
	err := r.input()
	r.out.finish()
	r.closeDisk()
	if n, used := r.pool.Out(), r.pool.Used(); n != 0 {
		t.Fatalf("%s: %d batches (%d bytes) were not released", w.name, n, used)
	}
	res := Result{Main: r.out.main, Sides: r.out.sides, Counters: add(r.sum, *r.ctx.Counters), Err: err}
	return res
}

// sync has the disk read what the operator wants.
func (r *runner) sync() {
	r.t.Helper()
	if r.disk == nil {
		r.t.Fatalf("%s: Need of an operator without a Backing", r.w.name)
	}
	if err := r.disk.Sync(context.Background()); err != nil {
		r.t.Fatalf("%s: %v", r.w.name, err)
	}
}

// closeDisk ends the disk of the operator that was.
func (r *runner) closeDisk() {
	r.t.Helper()
	if r.disk == nil {
		return
	}
	if err := r.disk.Close(); err != nil {
		r.t.Fatalf("%s: %v", r.w.name, err)
	}
}

// fresh makes and opens a new operator in the place of the old one.
func (r *runner) fresh() {
	r.t.Helper()
	ctx := operator.Context{Operator: "op", Parallelism: 1, MaxParallelism: 128, KeyGroups: dataflow.KeyGroupRange{First: 0, Last: 127}}
	if r.c.Context != nil {
		ctx = *r.c.Context
	}
	if r.ctx != nil {
		r.sum = add(r.sum, *r.ctx.Counters)
	}
	ctx.Pool, ctx.Counters = r.pool, &operator.Counters{}
	r.closeDisk()
	if r.c.Backing != nil {
		r.disk = r.c.Backing()
		ctx.Backing = r.disk
	}
	r.ctx = &ctx
	r.op = r.c.Factory.New()
	if err := r.op.Open(r.ctx); err != nil {
		r.t.Fatalf("%s: open: %v", r.w.name, err)
	}
}

// add sums what is counted and takes what is measured from the later one.
func add(a, b operator.Counters) operator.Counters {
	b.In += a.In
	b.Out += a.Out
	b.Filtered += a.Filtered
	b.Late += a.Late
	b.NoWindow += a.NoWindow
	b.Rejected += a.Rejected
	b.Markers += a.Markers
	b.DivByZero += a.DivByZero
	b.Overflow += a.Overflow
	b.Fired += a.Fired
	if a.FirstRejected != "" {
		b.FirstRejected = a.FirstRejected
	}
	return b
}

// input gives the operator all batches; its error ends the run.
func (r *runner) input() error {
	r.t.Helper()
	rest := r.c.Input.Elements
	for n := 1; len(rest) > 0; n++ {
		size := r.w.size
		if size == 0 {
			size = 1 + r.rng.IntN(9)
		}
		size = min(size, len(rest), batch.MaxRows/2)
		b := r.build(rest[:size])
		rest = rest[size:]
		if err := r.process(b); err != nil {
			return err
		}
		if r.w.restore > 0 && n%r.w.restore == 0 {
			r.restore()
		}
	}
	return nil
}

func (r *runner) process(b *batch.Batch) error {
	r.t.Helper()
	before := fingerprint(b)
	r.out.begin()
	p, err := r.op.Process(b, &r.out)
	for n := 0; err == nil && p != operator.Done; n++ {
		if n == maxResumes {
			r.t.Fatalf("%s: %d times More or Need for one batch", r.w.name, n)
		}
		if p == operator.Need {
			r.sync()
		}
		r.out.begin()
		p, err = r.op.Resume(&r.out)
	}
	if after := fingerprint(b); after != before {
		r.t.Fatalf("%s: the operator wrote into its input\nbefore %s\nafter  %s", r.w.name, before, after)
	}
	b.Release()
	if err == nil {
		r.out.settled()
	}
	return err
}

// restore takes a snapshot and goes on with a fresh operator that was given it.
// With deltas the old operator may also stay for a while.
func (r *runner) restore() {
	r.t.Helper()
	tables := r.op.StateTables()
	delta := r.w.delta && r.kept.has
	if err := r.kept.take(tables, r.op, delta, r.ctx); err != nil {
		r.t.Fatalf("%s: %v", r.w.name, err)
	}
	if r.w.delta && r.rng.IntN(3) == 0 {
		return
	}
	if r.w.delta {
		if err := r.kept.compareWithFull(tables, r.op, r.ctx); err != nil {
			r.t.Fatalf("%s: %v", r.w.name, err)
		}
	}
	r.fresh()
	if err := r.kept.give(tables, r.op); err != nil {
		r.t.Fatalf("%s: restore: %v", r.w.name, err)
	}
}

// build makes a batch of the elements; with w.dead it has positions between
// them that its selection leaves out.
func (r *runner) build(elements []Element) *batch.Batch {
	bl := batch.NewBuilder(r.pool, r.c.Input.Schema)
	var sel []int32
	dead := func() {
		for r.w.dead && r.rng.IntN(3) == 0 && bl.Len() < batch.MaxRows-len(elements) {
			appendRow(bl, r.deadRow())
		}
	}
	for _, e := range elements {
		dead()
		if e.Row == nil {
			bl.Mark(e.Mark)
			continue
		}
		sel = append(sel, int32(bl.Len()))
		appendRow(bl, e.Row)
	}
	dead()
	b := bl.Take()
	if r.w.dead {
		b.Sel = append(b.OwnSel(len(sel)), sel...)
	}
	if r.w.hashed && len(r.c.HashBy) > 0 {
		state.HashKeys(b, r.c.HashBy)
	}
	return b
}

// deadRow is a row that nobody may look at: its values would divide by zero,
// overflow, fail to convert, or open a window of their own.
func (r *runner) deadRow() *Row {
	s := r.c.Input.Schema
	row := &Row{Time: dataflow.Time(r.rng.Int64()), Values: make([]any, s.Len())}
	for i := range row.Values {
		if r.rng.IntN(4) == 0 {
			continue
		}
		switch s.Field(i).Type {
		case batch.Boolean:
			row.Values[i] = r.rng.IntN(2) == 0
		case batch.Bigint, batch.Timestamp:
			row.Values[i] = []int64{0, -1, math.MinInt64, math.MaxInt64}[r.rng.IntN(4)]
		case batch.Double:
			row.Values[i] = []float64{0, math.NaN(), math.Inf(1), 1e300}[r.rng.IntN(4)]
		default:
			row.Values[i] = []string{"", "dead row", "dead\xffrow", "9999999999999999999999"}[r.rng.IntN(4)]
		}
	}
	return row
}

// fingerprint is all that a reader of b can see, dead positions too.
func fingerprint(b *batch.Batch) string {
	s := fmt.Sprintln(b.Rows, b.Times, b.Sel, b.Marks, b.Kinds, b.Hashes)
	for _, c := range b.Cols {
		s += fmt.Sprintln(c.Type, c.Valid, c.Ints, c.Doubles, c.Bits, c.Offsets, string(c.Data))
	}
	return s
}
