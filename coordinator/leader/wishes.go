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
	case w.Migrate != nil:
		l.wishMove(w.Ref, w.Migrate)
	case w.Failover != nil:
		l.wishFailover(w.Ref, w.Failover)
	case w.Savepoint != nil:
		l.wishSavepoint(w)
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

// ask is a savepoint that people wait for.
type ask struct {
	request string // empty: one that cannot be asked for twice
	refs    []int  // of the wishes
}

// wishSavepoint takes a savepoint, unless it is there or under way for the same
// request: who has lost the answer with a leader asks the next one again.
func (l *Leader) wishSavepoint(w *Wish) {
	id := *w.Savepoint
	r, j := l.jobs[id], l.st.Jobs[id]
	if name := l.requested(id, w.Request); name != "" {
		l.put(Effect{Answer: &Answer{Ref: w.Ref, Savepoint: name}})
		return
	}
	switch {
	case j == nil:
		l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: fmt.Errorf("no job %q", id)}})
	case r == nil:
		l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: l.askElsewhere(id, errEnded)}})
	case l.askElsewhere(id, nil) != nil: // it takes no other one than that with which it goes
		l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: l.askElsewhere(id, nil)}})
	case j.Status == coordinator.Running && (r.attempt == nil || r.attempt.phase == gathering || r.attempt.coordinator == nil):
		l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: ErrEarly}}) // not all agents have said yet that they run it
	case r.attempt == nil || r.attempt.coordinator == nil || r.attempt.phase != begun:
		l.put(Effect{Answer: &Answer{Ref: w.Ref, Err: fmt.Errorf("job %s is %s; ask again when it runs", j.Name, j.Status)}})
	default:
		a := r.attempt
		for n, of := range a.asks {
			if w.Request != "" && of.request == w.Request {
				of.refs = append(of.refs, w.Ref)
				a.asks[n] = of
				return
			}
		}
		a.asked++
		a.asks[a.asked] = ask{w.Request, []int{w.Ref}}
		l.step(r, checkpoint.Event{Kind: checkpoint.Requested, Request: checkpoint.Request{Ref: a.asked}})
	}
}

// askElsewhere says of a job that stops for a move, or has moved away, where to ask; of
// any other one it is err.
func (l *Leader) askElsewhere(id coordinator.JobID, err error) error {
	j := l.st.Jobs[id]
	switch {
	case j == nil:
		return err
	case j.Status == coordinator.Moved:
		return fmt.Errorf("job %s is at site %s: ask there", j.Name, j.Owner)
	case j.Move == "" || l.st.Leaving(id) == nil:
		return err
	}
	return fmt.Errorf("job %s is moving to site %s, by %s: ask there when it runs there, or here if the move is given up", j.Name, l.st.Leaving(id).To, j.Move)
}

// requested is the savepoint of a job that answers a request; empty: there is none.
func (l *Leader) requested(id coordinator.JobID, request string) string {
	for _, name := range sorted(l.st.Savepoints) {
		if s := l.st.Savepoints[name]; request != "" && s.Job == id && s.Request == request {
			return name
		}
	}
	return ""
}

// unasked answers those who wait for a savepoint that will not be.
func (l *Leader) unasked(r *jobRun, err error) {
	if r.attempt == nil {
		return
	}
	err = l.askElsewhere(r.id, err)
	for _, n := range sorted(r.attempt.asks) {
		for _, ref := range r.attempt.asks[n].refs {
			l.put(Effect{Answer: &Answer{Ref: ref, Err: err}})
		}
	}
	clear(r.attempt.asks)
}
