package leader

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
)

var (
	// ErrEarly answers a wish that comes before this leader knows how all stands.
	ErrEarly      = errors.New("this leader has only just begun; ask again")
	errRestarting = errors.New("the job failed meanwhile, and is restarted; ask again when it runs")
	errEnded      = errors.New("the job has ended; its last checkpoint or savepoint is where it can be started again")
)

// wish begins what a person asks for; the answer comes when it is done. Those
// that have none when this leader's term ends are the driver's to answer.
func (l *Leader) wish(w *Wish) {
	switch {
	case w.Savepoint != nil:
		l.wishSavepoint(w.Ref, *w.Savepoint)
	case w.Stop != nil:
		told := *w.Stop
		l.propose(coordinator.Command{JobTold: &told}, func(err error) {
			r := l.jobs[told.Job]
			switch j := l.st.Jobs[told.Job]; {
			case err != nil:
				l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: err}})
			case r != nil:
				r.stops = append(r.stops, w.Ref)
			case j != nil:
				l.put(Effect{Answer: &Answer{Ref: w.Ref, Savepoint: j.Savepoint}})
			default:
				l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: errEnded}})
			}
		})
	}
}

func (l *Leader) wishSavepoint(ref int, id coordinator.JobID) {
	r, j := l.jobs[id], l.st.Jobs[id]
	switch {
	case j == nil:
		l.put(Effect{Answer: &Answer{Ref: ref, Err: fmt.Errorf("no job %q", id)}})
	case r == nil:
		l.put(Effect{Answer: &Answer{Ref: ref, Err: errEnded}})
	case r.attempt == nil || r.attempt.coordinator == nil || r.attempt.phase != begun:
		l.put(Effect{Answer: &Answer{Ref: ref, Err: fmt.Errorf("job %s is %s; ask again when it runs", j.Name, j.Status)}})
	default:
		a := r.attempt
		a.asked++
		a.asks[a.asked] = ref
		l.step(r, checkpoint.Event{Kind: checkpoint.Requested, Request: checkpoint.Request{Ref: a.asked}})
	}
}

// unasked answers those who wait for a savepoint that will not be.
func (l *Leader) unasked(r *jobRun, err error) {
	if r.attempt == nil {
		return
	}
	for _, ref := range sorted(r.attempt.asks) {
		l.put(Effect{Answer: &Answer{Ref: r.attempt.asks[ref], Err: err}})
	}
	clear(r.attempt.asks)
}
