package runtime

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Fact is what the rest of a job must know of a subtask before rows flow.
type Fact struct {
	Subtask       dataflow.SubtaskID
	Source        bool
	Splits        int  // that it reads, of a source
	Transactional bool // it has sinks that commit with checkpoints, and says Committed
}

// Opened is what is known of subtasks that are open and restored: of those of
// one part of a job, or, all parts put together, of the whole job.
type Opened struct {
	Subtasks []Fact
	Moved    bool // a task of them is fed in another way than before: task.Task.Moved

	// Connecting and Restoring are how long it took to open connectors, and to give
	// tasks and sinks their state back; for people.
	Connecting, Restoring time.Duration
}

// facts are those of the local subtasks.
func (j *Job) facts() Opened {
	o := Opened{Connecting: j.connecting, Restoring: j.restoring}
	for _, d := range j.local {
		f := Fact{Subtask: d.sub.Config.ID, Source: d.sub.Config.Source != nil}
		if f.Source {
			f.Splits = d.splitCount()
		}
		for l := range d.writers {
			f.Transactional = f.Transactional || d.transactional(l)
		}
		o.Subtasks = append(o.Subtasks, f)
		o.Moved = o.Moved || d.task.Moved()
	}
	return o
}

// learn tells the local tasks what follows from the facts of all.
func (j *Job) learn(all Opened) error {
	known := make(map[dataflow.SubtaskID]Fact, len(all.Subtasks))
	for _, f := range all.Subtasks {
		known[f.Subtask] = f
	}
	splits := make([]int, len(j.plan.Subtasks)) // of sources; -1: it is none
	for i := range j.plan.Subtasks {
		cfg := &j.plan.Subtasks[i].Config
		f, ok := known[cfg.ID]
		if !ok || f.Source != (cfg.Source != nil) {
			return fmt.Errorf("job %q: nothing is known of subtask %s, or it is of another job", j.plan.Job, cfg.ID)
		}
		splits[i] = -1
		if f.Source {
			splits[i] = f.Splits
		}
	}
	alone := j.findAlone(splits)
	empty := j.findEmpty(splits)
	for _, d := range j.local {
		if d.sub.Config.Source != nil {
			d.sub.Config.Source.Alone = alone[d.index]
		}
		if len(empty[d.index]) < d.sub.Config.Channels {
			d.task.SetEmpty(empty[d.index])
		}
		if all.Moved {
			d.task.SplitsMoved()
		}
	}
	return nil
}

// findAlone finds the source subtasks that read something and whose stream meets
// no other one's.
func (j *Job) findAlone(splits []int) (alone []bool) {
	from := make([]int, len(splits)) // the source subtask whose stream comes here, plus one
	alone = make([]bool, len(splits))
	var visit func(i, source int, seen []bool)
	visit = func(i, source int, seen []bool) {
		if seen[i] {
			return
		}
		seen[i] = true
		if from[i] != 0 && from[i] != source+1 {
			alone[from[i]-1], alone[source] = false, false
		}
		from[i] = source + 1
		for _, targets := range j.plan.Subtasks[i].Targets {
			for _, to := range targets {
				visit(to.Subtask, source, seen)
			}
		}
	}
	for i, n := range splits {
		if n > 0 {
			alone[i] = true
			visit(i, i, make([]bool, len(splits)))
		}
	}
	return alone
}

// findEmpty finds, for each task, those of its channels that will never bring a
// row: a source with fewer splits than subtasks has some with nothing to read.
// If their watermark counted until their end has come through, which rows are
// late would depend on how quickly that happens. A task all of whose channels
// are empty sends nothing itself, so it needs no telling, but its receivers do.
func (j *Job) findEmpty(splits []int) (empty [][]int) {
	empty = make([][]int, len(splits))
	var next []int
	for i, n := range splits {
		if n == 0 {
			next = append(next, i)
		}
	}
	for len(next) > 0 {
		i := next[0]
		next = next[1:]
		for _, targets := range j.plan.Subtasks[i].Targets {
			for _, to := range targets {
				e := append(empty[to.Subtask], to.Channel)
				empty[to.Subtask] = e
				if len(e) == j.plan.Subtasks[to.Subtask].Config.Channels {
					next = append(next, to.Subtask)
				}
			}
		}
	}
	for i := range empty {
		slices.Sort(empty[i])
	}
	return empty
}
