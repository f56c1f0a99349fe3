package durable

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// ErrOtherState: what is to be restored does not go on from what was restored
// early.
var ErrOtherState = errors.New("the state does not go on from what was restored early")

// Warmed is a job's state restored early: of each table that its tasks can be
// given so, the parts of one snapshot after the other, each behind the last. A
// part that was merged of others counts as these. After an error it is of no
// use. One goroutine uses it at a time.
type Warmed struct {
	state  *State
	to     Tasks
	order  []*early // a subtask's operators one after the other, their tables in order
	places map[place]*early
	made   map[store.Digest][]store.Digest // of what parts one was merged, none of them merged as far as is known
}

// Tasks take state early: runtime.Warm, which see.
type Tasks interface {
	Tables() map[dataflow.SubtaskID][]runtime.TableOf
	Expect(id dataflow.SubtaskID, op dataflow.OperatorID, table string, rows int64)
	Restore(id dataflow.SubtaskID, op dataflow.OperatorID, table string, b *batch.Batch) error
	Amend(id dataflow.SubtaskID, op dataflow.OperatorID, table string, b *batch.Batch) error
}

// early is a table of a subtask that is restored early.
type early struct {
	subtask dataflow.SubtaskID
	runtime.TableOf
	has []store.Digest // parts that it was given, none of them merged
}

// Warm begins to restore the state of tasks early.
func (s *State) Warm(to Tasks) *Warmed {
	w := &Warmed{state: s, to: to, places: make(map[place]*early), made: make(map[store.Digest][]store.Digest)}
	for id, tables := range to.Tables() {
		for _, t := range tables {
			e := &early{subtask: id, TableOf: t}
			w.order, w.places[place{t.Operator, t.Name, id.Index}] = append(w.order, e), e
		}
	}
	return w
}

// step is a part that a table lacks.
type step struct {
	to   *early
	part manifest.PartUse
}

// Advance gives the tasks what they lack of a plan, the parts of which are here;
// rows is how many that were. ErrOtherState: the tables have been given what is not in it, and
// nothing was changed.
func (w *Warmed) Advance(ctx context.Context, plan *restore.Plan) (rows int64, err error) {
	var steps []step
	for _, e := range w.order {
		chain, err := w.chain(plan, e, e.subtask.Index)
		if err == nil {
			steps, err = w.lacks(steps, e, chain)
		}
		if err != nil {
			return 0, fmt.Errorf("state %q of operator %q: %w", e.Name, e.Operator, err)
		}
	}
	for _, s := range steps {
		n, err := w.give(ctx, s)
		if rows += n; err != nil {
			return rows, fmt.Errorf("state %q of operator %q: %w", s.to.Name, s.to.Operator, err)
		}
	}
	return rows, nil
}

// chain is what a plan has of a table: it must be all that one subtask had, as it
// was saved.
func (w *Warmed) chain(plan *restore.Plan, e *early, subtask int) ([]manifest.PartUse, error) {
	o := plan.Operator(e.Operator)
	if o == nil {
		return nil, nil
	}
	i := slices.IndexFunc(o.Tables, func(t restore.TablePlan) bool { return t.Table.Name == e.Name })
	if i < 0 {
		return nil, nil
	}
	shares := o.Shares(e.Name, subtask, nil)
	switch {
	case len(shares) == 0:
		return nil, nil
	case len(shares) > 1 || !shares[0].Whole() || !o.Tables[i].AsIs:
		return nil, fmt.Errorf("%w: it was saved otherwise", ErrOtherState)
	}
	return shares[0].Parts, nil
}

// lacks adds the parts of a chain behind those that a table was given.
func (w *Warmed) lacks(steps []step, e *early, chain []manifest.PartUse) ([]step, error) {
	for _, u := range chain {
		if u.From != nil && w.made[u.Digest] == nil {
			w.made[u.Digest] = w.of(u.From...)
		}
	}
	has := 0
	for i, u := range chain {
		of := w.of(u.Digest)
		switch n := min(len(of), len(e.has)-has); {
		case n > 0 && !slices.Equal(of[:n], e.has[has:has+n]):
			return nil, ErrOtherState
		case n == len(of):
			has += n
		case n > 0: // a part of it was given, and what is behind is there no more
			return nil, ErrOtherState
		case u.Delta != (i > 0):
			return nil, ErrOtherState
		default:
			steps = append(steps, step{e, u})
		}
	}
	if has < len(e.has) {
		return nil, ErrOtherState
	}
	return steps, nil
}

// of are the parts of which others were merged; those that were not, or nobody
// knows of what, are themselves.
func (w *Warmed) of(parts ...store.Digest) (all []store.Digest) {
	for _, p := range parts {
		if from := w.made[p]; from != nil {
			all = append(all, from...)
		} else {
			all = append(all, p)
		}
	}
	return all
}

// give gives a table a part.
func (w *Warmed) give(ctx context.Context, s step) (rows int64, err error) {
	part, err := w.state.parts.Open(s.part.Part)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, part.Close()) }()
	rd, err := avro.NewReader(quitReader{part, ctx.Done()}, batch.NewPool(0, nil))
	if err != nil {
		return 0, err
	}
	h := headerOf(s.to.StateTable)
	h.Delta = s.part.Delta
	schema := avro.SchemaOf(h.Table, h.Schema, h.Keyed)
	if err := rd.ResolveTo(schema, h.Schema); err != nil {
		return 0, err
	}
	row, err := avro.RowBytes(schema)
	if err != nil {
		return 0, err
	}
	take := w.to.Restore
	if s.part.Delta {
		take = w.to.Amend
	} else {
		w.to.Expect(s.to.subtask, s.to.Operator, s.to.Name, w.state.believed(&s.part, row))
	}
	err = eachBatch(rd, func(b *batch.Batch) error {
		defer b.Release()
		rows += int64(b.Len())
		return take(s.to.subtask, s.to.Operator, s.to.Name, b)
	})
	s.to.has = append(s.to.has, w.of(s.part.Digest)...)
	return rows, err
}

// Rest is State.Restore without the tables that Advance has given the tasks.
func (w *Warmed) Rest(plan *restore.Plan, l Layout) runtime.Restore {
	rest := l
	rest.Tables = make(map[dataflow.SubtaskID][]runtime.TableOf)
	for id, tables := range l.Tables {
		rest.Tables[id] = slices.DeleteFunc(slices.Clone(tables), func(t runtime.TableOf) bool {
			e := w.places[place{t.Operator, t.Name, id.Index}]
			return e != nil && e.subtask == id
		})
	}
	return w.state.Restore(plan, rest)
}
