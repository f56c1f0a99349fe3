package twosites

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// The bounds of the quiet end. A move gives up what the other site does not answer
// after a minute.
const (
	progressWithin = 100 * sec
	settleWithin   = 20 * sec
	commitWithin   = 3 * sec
)

// end heals everything and looks that one site has the job, that it goes on (9, 10)
// and that all rows are there (1, 2).
func (r *run) end() {
	r.w.Heal()
	healed := r.w.Now()
	for r.w.Failed() == nil {
		why := r.open()
		if why == "" {
			break
		}
		if r.w.Now() > healed+progressWithin {
			r.w.Fail(9, "%d s after the last fault %s", progressWithin/sec, why)
		}
		r.w.Run(r.w.Now() + 500*ms)
	}
	r.w.Broker.Closed = true
	if r.w.Failed() != nil {
		return
	}
	s := r.owner()
	r.met(s)
	r.await(settleWithin, "not all messages are acknowledged", func() bool { return s.Judge.Acknowledged() == "" })
	feed := judge.FeedOf(r.job(s))
	if r.w.Failed() == nil {
		for _, o := range r.all {
			o.Judge.Logs()
		}
	}
	if at := r.both.Session(feed); (r.cfg.Kind == Stay || r.cfg.Kind == Return || r.cfg.Kind == Shared || r.cfg.Kind == Chain) && at != "a" {
		r.w.Fail(9, "the session of feed %s is at site %s, and it was to stay at a", feed, at)
	}
	for _, name := range r.cfg.Kind.jobs() {
		if r.w.Failed() == nil {
			r.endOf(name, r.ownerOf(name))
		}
	}
	for _, o := range r.all {
		if r.w.Failed() == nil {
			o.Judge.Cooled()
		}
	}
}

// endOf looks at all that a job has put out.
func (r *run) endOf(name string, s *site.Site) {
	r.await(settleWithin, "not all messages have been read", func() bool { return s.Judge.Behind(s.Job(name)) == "" })
	// All is put out with the second checkpoint from here on, or by the sink's clock.
	read := s.Job(name).Newest().ID
	r.until(commitWithin, func() bool { n := s.Job(name).Newest().ID; return n.Token != read.Token || n.Counter >= read.Counter+2 })
	r.w.Run(r.w.Now() + 300*ms)
	if r.w.Failed() == nil {
		r.judge(s, name)
	}
}

// met: where a person has erred the site that has the job has it at the greatest epoch,
// and the other one knows that, and has ended its copy (9). From here on nobody else acts.
func (r *run) met(s *site.Site) {
	if !r.both.Erred {
		return
	}
	j := r.job(s)
	for _, o := range r.all {
		if other := r.job(o); o != s && other != nil && (other.Status != coordinator.Moved || other.Owner != s.Name || other.Epoch != j.Epoch) {
			r.w.Fail(9, "site %s has the job at epoch %d, and at site %s it is %s, with owner %q at epoch %d", s.Name, j.Epoch, o.Name, other.Status, other.Owner, other.Epoch)
		}
	}
	r.both.Met(j)
}

func (r *run) judge(s *site.Site, name string) {
	j, path := s.Job(name), fileOf(name)+".jsonl"
	s.Judge.Mirrors(j)
	if r.both.Forced {
		s.Judge.Beside(j, path, judge.Counted)
	} else {
		s.Judge.Files(j, path, judge.Counted)
	}
	s.Judge.Published(j, judge.Counted)
}

// open says what is not decided yet; empty: one site has each job, and it runs.
func (r *run) open() string {
	for _, s := range r.all {
		st := s.State()
		if !s.Current() {
			return fmt.Sprintf("nobody leads site %s, or has applied all of its log", s.Name)
		}
		for id, d := range st.Moves.Departures {
			if !d.Phase.Decided() {
				return fmt.Sprintf("move %s is %s", id, d.Phase)
			}
		}
		for id, arr := range st.Moves.Arrivals {
			if !arr.Phase.Decided() {
				return fmt.Sprintf("move %s is %s at site %s", id, arr.Phase, s.Name)
			}
		}
	}
	for _, name := range r.cfg.Kind.jobs() {
		n, plights := 0, ""
		for _, s := range r.all {
			if has(s.Job(name)) {
				n++
			}
			plights += fmt.Sprintf("; at %s %s", s.Name, plight(s.Job(name)))
		}
		if n > 1 {
			return "two sites have the job" + plights
		}
		if !r.goesOn(name) {
			return "the job goes on nowhere" + plights
		}
	}
	return ""
}

func plight(j *coordinator.Job) string {
	if j == nil {
		return "it is not there"
	}
	text := fmt.Sprintf("it is %s (%s) at epoch %d, attempt %d", j.Status, j.Why, j.Epoch, j.Attempt)
	if n := j.Newest(); n != nil {
		text += ", newest checkpoint " + n.Name
	}
	return text
}
