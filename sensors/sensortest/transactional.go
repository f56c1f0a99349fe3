package sensortest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// TransactionalCase tells the Transactional suite about one connector.
type TransactionalCase struct {
	// Open makes a world that no other test shares; it ends with the test.
	Open func(t *testing.T) World
}

// World is what outlives the processes that write to it.
type World struct {
	// Start makes the writer of a subtask of WriterSchema in a new process;
	// Recover was not called on it.
	Start func(t rapid.TB, subtask, parallelism int) sensors.Transactional
	// Visible returns the column n of the rows that a reader of the targets sees:
	// of each target in order. It waits until there are at least n of them; with 0
	// it only looks.
	Visible func(t rapid.TB, n int) []int64
	// End, if it is not nil, ends the world before the test does.
	End func()
}

// Transactional runs the suite.
func Transactional(t *testing.T, c TransactionalCase) {
	for name, f := range map[string]func(t *testing.T, r *run){
		"visible when committed":            visibleWhenCommitted,
		"several wait":                      severalWait,
		"E52 crash after completion":        crashAfterCompletion,
		"E52 crash before completion":       crashBeforeCompletion,
		"recovered again and again":         recoveredAgain,
		"a checkpoint that did not succeed": prepareFails,
		"many rows":                         manyRows,
		"other parallelism":                 otherParallelism,
		"manners":                           manners,
	} {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			t.Cleanup(cancel)
			r := newRun(t, ctx, c.Open(t))
			t.Cleanup(r.kill)
			f(t, r)
		})
	}
	t.Run("random", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
		t.Cleanup(cancel)
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			if n++; n > 60 { // a world may be a broker
				return
			}
			w := c.Open(t)
			if w.End != nil {
				defer w.End()
			}
			random(rt, newRun(rt, ctx, w))
		})
	})
}

// run is a job that writes rows 0, 1, 2 …, row i through subtask i mod p, and
// checkpoints as a job has them.
type run struct {
	t         rapid.TB
	ctx       context.Context
	world     World
	pool      *batch.Pool
	schema    *batch.Schema
	w         []sensors.Transactional
	held      []Held // of each subtask, as of its last Prepare
	next      int    // the next row to be written
	counter   uint64
	completed checkpoint // the last that completed
	several   bool       // there were several targets at some time
}

type checkpoint struct {
	id   dataflow.CheckpointID
	held []Held
	next int
}

func newRun(t rapid.TB, ctx context.Context, world World) *run {
	return &run{t: t, ctx: ctx, world: world, pool: batch.NewPool(0, nil), schema: WriterSchema()}
}

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// start makes the writers of a process, restored from the last checkpoint that
// completed.
func (r *run) start(parallelism int) {
	r.t.Helper()
	pending := Pending(r.completed.held...)
	r.held = make([]Held, parallelism)
	if len(r.completed.held) == parallelism { // deltas go on upon what was restored
		copy(r.held, r.completed.held)
	}
	for i := range parallelism {
		w := r.world.Start(r.t, i, parallelism)
		r.w = append(r.w, w)
		r.must(w.Recover(r.ctx, pending, Owns(i, parallelism)))
	}
	r.next = r.completed.next
	r.several = r.several || parallelism > 1
}

func (r *run) kill() {
	for _, w := range r.w {
		_ = w.Close()
	}
	r.w = nil
}

// write writes the next n rows.
func (r *run) write(n int) {
	r.t.Helper()
	for i, w := range r.w {
		bl := batch.NewBuilder(r.pool, r.schema)
		for k := r.next; k < r.next+n; k++ {
			if k%len(r.w) == i {
				bl.SetString(0, fmt.Sprintf("row-%d", k))
				bl.SetInt(1, int64(k))
				bl.EndRow(dataflow.Time(k))
			}
		}
		b := bl.Take()
		if b == nil {
			continue
		}
		r.must(w.Write(r.ctx, b))
		if !b.LastReference() {
			r.t.Fatal("Write kept the batch it only borrowed")
		}
		b.Release()
	}
	r.next += n
}

// prepare has all subtasks prepare a checkpoint.
func (r *run) prepare(full bool) checkpoint {
	r.t.Helper()
	r.counter++
	c := checkpoint{id: dataflow.CheckpointID{Token: dataflow.FencingToken{Attempt: 1}, Counter: r.counter}, next: r.next}
	for i, w := range r.w {
		h, err := r.held[i].Prepare(w, c.id, full)
		r.must(err)
		r.held[i] = h
		c.held = append(c.held, h)
	}
	return c
}

func (r *run) commit(c checkpoint) {
	r.t.Helper()
	for _, w := range r.w {
		r.must(w.CommitThrough(r.ctx, c.id))
	}
}

// want checks that exactly the rows before n are visible, once each.
func (r *run) want(n int) {
	r.t.Helper()
	got := r.world.Visible(r.t, n)
	if r.several {
		got = slices.Clone(got)
		slices.Sort(got)
	}
	if !slices.Equal(got, upTo(n)) {
		r.t.Fatalf("%d rows are visible, want the first %d: %v", len(got), n, got)
	}
}

func visibleWhenCommitted(_ *testing.T, r *run) {
	r.start(1)
	r.write(3)
	r.want(0)
	c := r.prepare(false)
	r.want(0)
	r.write(2)
	r.commit(c)
	r.want(3)
	r.commit(c)
	r.want(3)
	empty := r.prepare(false)
	nothing := r.prepare(false)
	r.commit(empty)
	r.want(5)
	r.commit(nothing)
	r.commit(c)
	r.want(5)
	for k := range r.held[0].pieces {
		if k.piece > 0 && r.prepare(false).held[0].pieces[k] != nil {
			r.t.Errorf("piece %d is held after its commit", k.piece)
		}
	}
}

func severalWait(_ *testing.T, r *run) {
	r.start(1)
	for range 4 {
		r.write(2)
		r.prepare(false)
	}
	r.write(1)
	c := r.prepare(true)
	r.write(7)
	r.want(0)
	r.commit(c)
	r.want(9)
	r.completed = r.prepare(false)
	r.kill()
	r.start(1)
	r.want(16)
}

// crashAfterCompletion is E52: the second checkpoint completed, and the sink
// never heard of it.
func crashAfterCompletion(_ *testing.T, r *run) {
	r.start(1)
	r.write(3)
	r.commit(r.prepare(false))
	r.write(3)
	r.completed = r.prepare(false)
	r.write(2)
	r.want(3)
	r.kill()
	r.start(1)
	r.want(6)
	r.write(2)
	r.commit(r.prepare(false))
	r.want(8)
}

// crashBeforeCompletion is E52: the second transaction is given up, and its
// rows come again.
func crashBeforeCompletion(_ *testing.T, r *run) {
	r.start(1)
	r.write(3)
	r.completed = r.prepare(false)
	r.commit(r.completed)
	r.write(3)
	r.prepare(false)
	r.kill()
	r.start(1)
	r.want(3)
	r.write(3)
	r.commit(r.prepare(false))
	r.want(6)
}

func recoveredAgain(_ *testing.T, r *run) {
	r.start(1)
	r.write(3)
	r.commit(r.prepare(false))
	r.write(3)
	r.completed = r.prepare(false)
	for k := range 4 {
		if k%2 == 0 {
			r.commit(r.completed)
		}
		r.write(2)
		r.prepare(false)
		r.kill()
		r.start(1)
		r.want(6)
	}
	if err := r.w[0].Recover(r.ctx, nil, Owns(0, 1)); err == nil {
		r.t.Error("Recover twice")
	}
}

// prepareFails: what a failed Prepare emitted is forgotten, its rows are not.
func prepareFails(_ *testing.T, r *run) {
	r.start(1)
	r.write(3)
	r.commit(r.prepare(false))
	r.write(3)
	full := errors.New("no room for this piece")
	for after := range 3 {
		r.counter++
		n := 0
		err := r.w[0].Prepare(dataflow.CheckpointID{Token: dataflow.FencingToken{Attempt: 1}, Counter: r.counter}, false, func(sensors.Pending) error {
			if n++; n > after {
				return full
			}
			return nil
		})
		if !errors.Is(err, full) && n > after {
			r.t.Fatalf("Prepare: %v", err)
		}
	}
	r.write(2)
	r.want(3)
	r.completed = r.prepare(true)
	r.kill()
	r.start(1)
	r.want(8)
}

// manyRows: more than a piece holds.
func manyRows(_ *testing.T, r *run) {
	const n = 9000
	r.start(1)
	for range 3 {
		r.write(n / 3)
		r.prepare(false)
	}
	r.completed = r.prepare(false)
	r.kill()
	r.start(1)
	r.want(n)
	r.write(n / 3)
	r.commit(r.prepare(true))
	r.want(n + n/3)
}

func otherParallelism(_ *testing.T, r *run) {
	rows := 0
	for _, p := range []int{1, 3, 2, 3, 1, 2} {
		r.start(p)
		r.want(rows)
		r.write(7)
		r.commit(r.prepare(false))
		r.write(5)
		r.completed = r.prepare(false)
		rows = r.completed.next
		r.write(4)
		r.kill()
	}
	r.start(1)
	r.want(rows)
}

func manners(_ *testing.T, r *run) {
	r.start(1)
	r.write(1)
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	c := r.prepare(false)
	if err := r.w[0].CommitThrough(ctx, c.id); err != nil && !errors.Is(err, context.Canceled) { // one that need not wait may go on
		r.t.Errorf("with an ended context: %v", err)
	}
	r.commit(c)
	r.want(1)
	r.write(2)
	r.must(errors.Join(r.w[0].Close(), r.w[0].Close()))
	r.want(1)
	if err := r.w[0].CommitThrough(r.ctx, c.id); err == nil {
		r.t.Error("CommitThrough after Close")
	}
}

// random compares a random life with what must be visible after each step.
func random(t *rapid.T, r *run) {
	defer r.kill()
	r.start(rapid.IntRange(1, 3).Draw(t, "parallelism"))
	var waiting []checkpoint
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"write", "write", "prepare", "prepare", "complete", "crash", "stop"}).Draw(t, "step") {
		case "write":
			r.write(rapid.IntRange(1, 30).Draw(t, "rows"))
		case "prepare":
			waiting = append(waiting, r.prepare(rapid.Bool().Draw(t, "full")))
		case "complete":
			if len(waiting) == 0 {
				continue
			}
			k := rapid.IntRange(0, len(waiting)-1).Draw(t, "which")
			r.completed, waiting = waiting[k], waiting[k+1:]
			for _, w := range r.w[:rapid.IntRange(0, len(r.w)).Draw(t, "that hear of it")] {
				r.must(w.CommitThrough(r.ctx, r.completed.id))
			}
		case "crash":
			r.kill()
			waiting = nil
			r.start(rapid.IntRange(1, 3).Draw(t, "parallelism"))
			r.want(r.completed.next)
		case "stop":
			r.completed, waiting = r.prepare(true), nil
			r.commit(r.completed)
			r.want(r.completed.next)
		}
	}
	r.completed = r.prepare(false)
	r.commit(r.completed)
	r.want(r.next)
}
