package work

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// warming restores a job that may come to run here, of one snapshot after the other:
// agent/executor's, with agent/durable's rules on which parts go on from which. It is
// in executor.warms until an attempt of the job begins: that one takes it, or drops it.
type warming struct {
	x     *executor
	job   *coordinator.Job
	pool  *batch.Pool
	next  *coordinator.Snapshot
	busy  bool   // one is being restored
	over  bool   // it was taken or dropped
	taken func() // the attempt goes on with this; nil: none waits

	tasks map[dataflow.SubtaskID]*task.Task // nil: it has nothing
	given map[place][]store.Digest          // the parts that each table was given
}

var errOtherState = errors.New("the state does not go on from what was restored early")

func (x *executor) warmUp(m *worker.Warm) {
	w := x.warms[m.Job.ID]
	if w != nil && !w.fits(m.Job) {
		x.coolDown(m.Job.ID)
		w = nil
	}
	if w == nil {
		w = &warming{x: x, job: m.Job, pool: batch.NewPool(0, nil)}
		x.warms[m.Job.ID] = w
		x.p.Judge.Warm(x.p.ID, m.Job.ID, +1)
	}
	w.next = m.From
	w.run()
}

func (x *executor) coolDown(id coordinator.JobID) {
	if w := x.warms[id]; w != nil {
		delete(x.warms, id)
		w.drop()
	}
}

// drop leaves nothing of it.
func (w *warming) drop() {
	if !w.over {
		w.over, w.tasks = true, nil
		w.x.p.Judge.Warm(w.x.p.ID, w.job.ID, -1)
	}
}

func (w *warming) fits(j *coordinator.Job) bool {
	was := w.job
	return was.Name == j.Name && bytes.Equal(was.Spec, j.Spec) && slices.Equal(was.Sets, j.Sets) && was.Parallelism == j.Parallelism && slices.Equal(was.Places, j.Places)
}

// run restores what comes next, unless it is at something.
func (w *warming) run() {
	from := w.next
	switch {
	case w.busy || w.over:
		return
	case w.taken != nil:
		taken := w.taken
		w.taken = nil
		taken()
		return
	case from == nil:
		return
	}
	w.busy, w.next = true, nil
	ref := coordinator.AttemptRef{Job: w.job.ID}
	a := &attempt{x: w.x, ref: ref, asked: &worker.Prepare{AttemptRef: ref, Job: w.job, From: from}, pool: w.pool}
	end := func(err error) {
		w.busy = false
		if w.over {
			return
		}
		if err != nil {
			w.x.p.W.Tell("%s: %s cannot be restored from %s before it comes: %v", w.x.p.ID, w.job.ID, from.Name, err)
			w.tasks = nil
		}
		w.x.p.Tell(worker.Event{Warmed: &coordinator.Warmed{Job: w.job.ID, Name: from.Name}})
		w.run()
	}
	if err := a.read(); err != nil {
		end(err)
		return
	}
	a.fetch(a.needed(), func() {
		w.x.p.After(10*ms, func() {
			if w.over {
				return
			}
			if w.tasks == nil {
				w.anew(a)
			}
			err := w.advance(a)
			if errors.Is(err, errOtherState) {
				w.anew(a)
				err = w.advance(a)
			}
			end(err)
		})
	}, func(why string) { end(errors.New(why)) })
}

// anew begins with tasks that have nothing.
func (w *warming) anew(a *attempt) {
	w.tasks, w.given = make(map[dataflow.SubtaskID]*task.Task), make(map[place][]store.Digest)
	for i := range a.plan.Subtasks {
		st := &a.plan.Subtasks[i]
		if st.Remote || st.Config.Source != nil {
			continue
		}
		cfg := st.Config
		cfg.Pool, cfg.Durable = w.pool, true
		t, err := task.New(cfg)
		if err != nil {
			w.x.p.W.Fail(0, "a task cannot be made early: %v", err)
			return
		}
		for _, tab := range a.spec.at[cfg.ID] {
			if t.Amends(tab.Operator, tab.Name) {
				w.tasks[cfg.ID] = t
			}
		}
	}
}

// advance gives the tasks what they lack of what an attempt goes on from.
func (w *warming) advance(a *attempt) error {
	if w.x.p.W.Bugs.WarmOld && len(w.given) > 0 {
		return nil
	}
	for _, id := range a.local() {
		t := w.tasks[id]
		if t == nil {
			continue
		}
		for _, tab := range a.spec.at[id] {
			if !t.Amends(tab.Operator, tab.Name) {
				continue
			}
			chain, err := a.chainOf(id, tab)
			if err != nil {
				return err
			}
			at := place{tab.Operator, tab.Name, id.Index}
			has := w.given[at]
			if len(has) > len(chain) {
				return errOtherState
			}
			for i, u := range chain {
				switch {
				case i < len(has) && has[i] != u.Digest || i >= len(has) && u.Delta != (i > 0):
					return errOtherState
				case i < len(has):
					continue
				}
				if err := a.giveEarly(t, id, tab, u); err != nil {
					return err
				}
				w.given[at] = append(w.given[at], u.Digest)
			}
		}
	}
	return nil
}

// chainOf is what an attempt's snapshot has of a table: it must be all that one subtask
// had, as it was saved.
func (a *attempt) chainOf(id dataflow.SubtaskID, tab runtime.TableOf) ([]manifest.PartUse, error) {
	o := a.rows.Operator(tab.Operator)
	if o == nil {
		return nil, nil
	}
	i := slices.IndexFunc(o.Tables, func(p restore.TablePlan) bool { return p.Table.Name == tab.Name })
	if i < 0 {
		return nil, nil
	}
	shares := o.Shares(tab.Name, id.Index, nil)
	switch {
	case len(shares) == 0:
		return nil, nil
	case len(shares) > 1 || !shares[0].Whole() || !o.Tables[i].AsIs:
		return nil, errOtherState
	}
	return shares[0].Parts, nil
}

// giveEarly gives a task a part of a table.
func (a *attempt) giveEarly(t *task.Task, id dataflow.SubtaskID, tab runtime.TableOf, u manifest.PartUse) error {
	data := a.x.p.Disk.Parts[u.Digest]
	if data == nil {
		return store.ErrMissing
	}
	rd, err := avro.NewReader(bytes.NewReader(data), batch.NewPool(0, nil))
	if err != nil {
		return err
	}
	if err := rd.ResolveTo(avro.SchemaOf(tab.Name, tab.Schema, tab.Keyed), tab.Schema); err != nil {
		return err
	}
	take := t.Restore
	if u.Delta {
		take = t.Amend
	}
	for {
		b, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = take(tab.Operator, tab.Name, b)
		b.Release()
		if err != nil {
			return err
		}
	}
}

// takeWarm ends what is restored early for the attempt, and gives the tasks what they
// lack. Where it does not fit the attempt restores all.
func (a *attempt) takeWarm(then func()) {
	w := a.early
	switch {
	case w == nil || w.over:
		then()
		return
	case !w.fits(a.asked.Job) || a.rows == nil:
		w.drop()
		then()
		return
	}
	w.taken = func() {
		if a.over {
			return
		}
		if w.tasks != nil {
			if err := w.advance(a); err != nil {
				a.x.p.W.Tell("%s: what was restored of %s before it came is of no use: %v", a.x.p.ID, w.job.ID, err)
				w.tasks = nil
			}
		}
		if w.tasks != nil {
			a.warm, a.given = w.tasks, w.given
		}
		w.drop()
		then()
	}
	w.run()
}

// early is the task of a subtask that was given state before it came; nil: there is
// none.
func (s *subtask) early() *task.Task {
	t := s.a.warm[s.id()]
	if t == nil || !t.Like(&s.sub.Config) {
		return nil
	}
	return t
}

// wasGiven tells whether a table of an early task needs nothing more. What the judge
// hears is what it was given.
func (s *subtask) wasGiven(tab runtime.TableOf) bool {
	if s.warm == nil || !s.warm.Amends(tab.Operator, tab.Name) {
		return false
	}
	want, _ := s.a.chainOf(s.id(), tab)
	var parts []store.Digest
	for _, u := range want {
		parts = append(parts, u.Digest)
	}
	s.a.x.p.Judge.Early(s.a.x.p.ID, s.a.ref, tab.Operator, s.a.given[place{tab.Operator, tab.Name, s.id().Index}], parts)
	return true
}
