package runtime

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
)

// Warm are tasks of a job that is to run here, which are given state before it is
// known where the job goes on: of their tables those that can be amended. Nothing
// of it acts on the world: no connector is opened, no file made, and what has a
// source or keeps state on disk is left out. Options.Warm has a job run them. One
// goroutine uses it at a time.
type Warm struct {
	pool  *batch.Pool
	room  chan struct{}
	tasks map[dataflow.SubtaskID]*task.Task
}

// NewWarm makes the local tasks of a plan that can be given state early. opt are
// the Options of the job that is to run; Memory and AtLeastOnce count.
func NewWarm(plan Plan, opt Options) (*Warm, error) {
	w := &Warm{room: make(chan struct{}, 1), tasks: make(map[dataflow.SubtaskID]*task.Task)}
	w.pool = batch.NewPool(opt.Memory, func() { signal(w.room) })
	for i := range plan.Subtasks {
		st := &plan.Subtasks[i]
		cfg := st.Config
		if st.Remote || cfg.Source != nil || onDisk(st) {
			continue
		}
		cfg.Pool, cfg.AtLeastOnce, cfg.Durable, cfg.Large = w.pool, opt.AtLeastOnce, true, largePages()
		t, err := task.New(cfg)
		if err != nil {
			return nil, err
		}
		for _, table := range t.Tables() {
			if t.Amends(table.Operator, table.Name) {
				w.tasks[cfg.ID] = t
			}
		}
	}
	return w, nil
}

func onDisk(st *Subtask) bool {
	for _, b := range st.Backings {
		if b != nil {
			return true
		}
	}
	return false
}

// Tables are those that the tasks can be given early.
func (w *Warm) Tables() map[dataflow.SubtaskID][]TableOf {
	all := make(map[dataflow.SubtaskID][]TableOf)
	for id, t := range w.tasks {
		for _, table := range t.Tables() {
			if t.Amends(table.Operator, table.Name) {
				all[id] = append(all[id], table)
			}
		}
	}
	return all
}

// Expect tells a task about how many rows Restore is going to give it of a table.
func (w *Warm) Expect(id dataflow.SubtaskID, op dataflow.OperatorID, table string, rows int64) {
	w.tasks[id].Expect(op, table, rows)
}

// Restore gives a task the first rows of a table. It borrows b.
func (w *Warm) Restore(id dataflow.SubtaskID, op dataflow.OperatorID, table string, b *batch.Batch) error {
	return w.tasks[id].Restore(op, table, b)
}

// Amend gives a task rows of a delta. It borrows b.
func (w *Warm) Amend(id dataflow.SubtaskID, op dataflow.OperatorID, table string, b *batch.Batch) error {
	return w.tasks[id].Amend(op, table, b)
}

// take is the task of a subtask; nil: there is none.
func (w *Warm) take(st *Subtask) (*task.Task, error) {
	if w == nil || w.tasks[st.Config.ID] == nil {
		return nil, nil
	}
	t := w.tasks[st.Config.ID]
	if !t.Like(&st.Config) {
		return nil, fmt.Errorf("subtask %s: what was restored early is of another job", st.Config.ID)
	}
	return t, nil
}
