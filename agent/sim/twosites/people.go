package twosites

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

var errNoAnswer = errors.New("there is no answer")

// people do what the kind of the run says.
func (r *run) people() {
	switch r.cfg.Kind {
	case Failover, Frozen:
		r.whole(r.b)
		r.randomly()
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.a, r.b)
	case Wander, Roam, Mingle:
		r.wander()
	case Shared:
		r.bothThereAndBack()
	case Leave:
		r.thereAndBack(false)
	case Taken, Home:
		r.whole(r.b)
		r.randomly()
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.a, r.b)
		if r.owner() == r.b {
			r.move(jobName, r.b, r.a, r.cfg.Kind == Taken)
		}
		r.w.Run(max(r.w.Now(), r.quiet) + sec)
	case Stay:
		r.thereAndBack(true)
	case Return:
		r.goesBack()
	case Torn:
		r.torn()
	case Third:
		r.third()
	case Chain:
		r.chain()
	case Err:
		r.err()
	case Force:
		r.force()
	default:
		r.migrate()
	}
}

// wish asks a site's leader for something until it has answered without an error, or
// w says that there is nothing to ask for.
func (r *run) wish(s *site.Site, w func() *leader.Wish) {
	again := func() { r.w.After(500*ms, func() { r.wish(s, w) }) }
	wish, over := w(), false
	if wish == nil {
		return
	}
	l := s.Leader()
	if l == nil || !l.Reached() {
		again()
		return
	}
	end := func(err error) {
		if !over && err != nil {
			r.w.Tell("the wish is refused: %v", err)
			again()
		}
		over = true
	}
	r.w.After(2*sec, func() { end(errNoAnswer) })
	l.Wish(*wish, func(a leader.Answer) { end(a.Err) })
}

// migrate has the job move, and waits until it has, or a fault is over.
func (r *run) migrate() {
	r.randomly()
	r.move(jobName, r.a, r.b, false)
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// move has people want a job to move, and waits until it has, or not.
func (r *run) move(name string, from, to *site.Site, stays bool) {
	overs, tries := r.both.Overs, 1
	if r.cfg.Kind.shares() {
		tries = 3
	}
	for n := range tries {
		r.ask(name, from, to, stays, fmt.Sprint("r", n, name))
		r.until(25*sec, func() bool {
			return r.both.Overs > overs && r.goesOn(name) || n+1 < tries && calledOff(from, name)
		})
		if r.both.Overs > overs {
			return
		}
	}
}

// calledOff tells whether the last move of a job has come to nothing.
func calledOff(s *site.Site, name string) bool {
	for _, d := range s.State().Moves.Departures {
		if j := s.Job(name); j != nil && d.Job == j.ID && d.Phase == coordinator.DepartureAborted {
			return true
		}
	}
	return false
}

// ask has people want a job to move.
func (r *run) ask(name string, from, to *site.Site, stays bool, request string) {
	r.wish(from, func() *leader.Wish {
		j := from.Job(name)
		if r.w.Calm || j == nil || j.Status.Ended() || leaving(from, j) {
			return nil
		}
		return &leader.Wish{Migrate: &leader.Migrate{Begin: began(j, to.Name, request, stays)}}
	})
}

// leaving tells whether a job is on its way, or has just been.
func leaving(s *site.Site, j *coordinator.Job) bool {
	d := s.State().Leaving(j.ID)
	return d != nil && !d.Phase.Decided()
}

func began(j *coordinator.Job, to mesh.Site, request string, stays bool) *coordinator.MoveBegan {
	c := &coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: to, Request: request}
	if stays {
		c.Stay = []string{judge.FeedOf(j)}
	}
	return c
}

// thereAndBack has the job move, while the session of its feed stays or with it, and
// back.
func (r *run) thereAndBack(stays bool) {
	r.randomly()
	r.move(jobName, r.a, r.b, stays)
	r.w.Run(r.w.Now() + sec)
	if r.owner() == r.b {
		r.move(jobName, r.b, r.a, false)
	}
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// bothThereAndBack has two jobs move, one after the other, while the session of the feed
// that both read stays, and back to it.
func (r *run) bothThereAndBack() {
	r.randomly()
	for _, name := range r.cfg.Kind.jobs() {
		r.about = r.of(name)
		r.move(name, r.a, r.b, true)
		r.w.Run(r.w.Now() + sec)
	}
	for _, name := range r.cfg.Kind.jobs() {
		r.about = r.of(name)
		if r.ownerOf(name) == r.b {
			r.move(name, r.b, r.a, true)
		}
	}
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// goesBack has the job move while the session of its feed stays, the site to which it
// went be lost, and the job taken where the session is.
func (r *run) goesBack() {
	r.randomly()
	r.move(jobName, r.a, r.b, true)
	r.until(60*sec, func() bool { return r.owner() != r.b || r.keeps(r.a, "b") })
	if r.owner() == r.b {
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.b, r.a)
	}
}

// torn has the site lost from which the job is moving, when the other one has the first
// that it can go on from.
func (r *run) torn() {
	r.randomly()
	r.ask(jobName, r.a, r.b, true, "r")
	r.until(25*sec, func() bool { return r.both.Overs > 0 || r.keeps(r.b, "a") })
	if r.both.Overs == 0 && r.keeps(r.b, "a") {
		r.failover(r.a, r.b)
	}
}

// third has the site lost that a job is about to leave, when the target has all, and the
// job taken where it is kept.
func (r *run) third() {
	c := r.all[2]
	r.whole(c)
	r.randomly()
	r.at[Step{"b", "enters ArrivalPrepared", true}] = func() { r.lose(r.a) }
	r.ask(jobName, r.a, r.b, false, "r")
	r.until(25*sec, func() bool { return r.lost != "" })
	if r.lost != "" && r.keeps(c, "a") {
		r.failover(r.a, c)
	}
	r.comeBack()
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// chain has the job move while the session of its feed stays, the site to which it went
// be lost, and the job taken where it is kept, which is neither.
func (r *run) chain() {
	c := r.all[2]
	r.randomly()
	r.move(jobName, r.a, r.b, true)
	r.until(60*sec, func() bool { return r.owner() != r.b || r.keeps(c, "b") })
	if r.owner() == r.b {
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.b, c)
	}
}

// wander has people move a job to wherever it is not, or call that off.
func (r *run) wander() {
	r.randomly()
	n := 0
	var next func()
	next = func() {
		if r.w.Now() >= r.quiet || r.w.Calm {
			return
		}
		r.w.After(1500*ms, next)
		names := r.cfg.Kind.jobs()
		name := names[n%len(names)]
		s := r.ownerOf(name)
		if n++; s == nil || s.Leader() == nil {
			return
		}
		wish := &leader.Migrate{Why: "they think again"}
		j := s.Job(name)
		if d := s.State().Leaving(j.ID); d != nil {
			if wish.Cancel = d.ID; !r.w.Chance(4) {
				return
			}
		} else {
			to := mesh.Site("a")
			if s == r.a {
				to = "b"
			}
			wish.Begin = began(j, to, fmt.Sprint("r", n), (r.cfg.Kind == Roam || r.cfg.Kind == Mingle) && r.w.Chance(2))
		}
		s.Leader().Wish(leader.Wish{Migrate: wish}, func(a leader.Answer) { r.w.Tell("wish %d: move %s: %v", n, a.Move, a.Err) })
	}
	next()
	r.w.Run(r.quiet + sec)
}
