package twosites

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Step is something that happens for the first time in a run: a site says
// something to the other one, or enters something about the move, or what is kept,
// or the job's deployments and logs, into its log. After is right behind it.
type Step struct {
	Site  mesh.Site
	What  string
	After bool
}

// String is a step for people.
func (s Step) String() string {
	when := "before"
	if s.After {
		when = "after"
	}
	return fmt.Sprintf("%s %s %s", when, s.Site, s.What)
}

// What goes wrong.
type What string

// The faults. Each ends after a while.
const (
	CrashLeader What = "the leader crashes"
	CrashAgent  What = "an agent crashes"
	CrashAll    What = "all agents crash"
	PauseLeader What = "the leader stands still"
	PauseAll    What = "all agents stand still"
	CutWAN      What = "the WAN is cut"          // both directions
	CutFrom     What = "nothing leaves the site" // over the WAN
	BadWAN      What = "letters are lost, repeated and late"
	ComesBack   What = "a, which was lost, comes back"
)

// Whats are all faults.
func Whats() []What {
	return []What{CrashLeader, CrashAgent, CrashAll, PauseLeader, PauseAll, CutWAN, CutFrom, BadWAN, ComesBack}
}

// Of tells whether a fault is of one site; else it is of the WAN as a whole.
func (w What) Of() bool { return w != CutWAN && w != BadWAN && w != ComesBack }

// Fault is one that comes at a step.
type Fault struct {
	At   Step
	What What
	Site mesh.Site     // whose; of CutWAN and BadWAN it is nobody's
	Long dataflow.Time // until it ends
}

// String is a fault for people.
func (f Fault) String() string {
	where := ""
	if f.What.Of() {
		where = " of " + string(f.Site)
	}
	return fmt.Sprintf("%s: %s%s for %g s", f.At, f.What, where, float64(f.Long)/float64(sec))
}

// step notes a step that comes for the first time, and has the faults come that
// are due.
func (r *run) step(at mesh.Site, what string, after bool) {
	s := Step{at, what, after}
	if r.w.Calm || r.seen[s.String()] > 0 {
		return
	}
	r.seen[s.String()]++
	r.steps = append(r.steps, s)
	r.w.Tell("STEP %s", s)
	for i := 0; i < len(r.faults); i++ {
		if f := r.faults[i]; f.At == s {
			r.faults = append(r.faults[:i:i], r.faults[i+1:]...)
			i--
			r.fired++
			r.fault(f)
		}
	}
}

// fault has a fault come, and end.
func (r *run) fault(f Fault) {
	w, s := r.w, r.mesh.Site(f.Site)
	w.Tell("FAULT %s", f)
	r.quiet = max(r.quiet, w.Now()+f.Long)
	switch f.What {
	case CrashLeader, PauseLeader:
		if l := s.Leader(); l != nil {
			r.hit(l.Node(), f)
		}
	case CrashAgent:
		r.hit(r.follower(s), f)
	case CrashAll, PauseAll:
		for _, n := range s.Nodes {
			r.hit(n, f)
		}
	case CutWAN, CutFrom:
		other := "a"
		if f.Site == "a" || f.Site == "" {
			other = "b"
		}
		from := string(f.Site)
		if from == "" {
			from = "a"
		}
		w.Wan.Cut(from, other)
		if f.What == CutWAN {
			w.Wan.Cut(other, from)
		}
		w.At(w.Now()+f.Long, func() { w.Wan.Join(from, other); w.Wan.Join(other, from) })
	case ComesBack:
		r.comeBack()
	case BadWAN:
		w.Wan.Bad = 5
		w.At(w.Now()+f.Long, func() { w.Wan.Bad = 0 })
	}
}

// follower is an agent that does not lead, the one that owns the job's log if it
// is not the leader.
func (r *run) follower(s *site.Site) *world.Node {
	lead := mesh.NodeID("")
	if l := s.Leader(); l != nil {
		lead = l.Node().ID
	}
	for _, f := range s.State().Feeds {
		if n := r.w.Node(f.Log.Owner); n != nil && n.ID != lead {
			return n
		}
	}
	for _, n := range s.Nodes {
		if n.ID != lead {
			return n
		}
	}
	return s.Nodes[0]
}

// hit kills or stops an agent, and lets it go on later.
func (r *run) hit(n *world.Node, f Fault) {
	if n.P == nil || n.P.Paused {
		return
	}
	if f.What == PauseLeader || f.What == PauseAll {
		n.Pause()
		r.w.At(r.w.Now()+f.Long, n.Resume)
		return
	}
	n.Kill()
	r.w.At(r.w.Now()+f.Long, func() {
		if !r.lost || n.Place != "a" {
			n.Again()
		}
	})
}

// randomly has faults come by the seed for a while, from now on. Faults of a lost site
// do nothing.
func (r *run) randomly() {
	if r.cfg.Random == 0 {
		return
	}
	whats, end := Whats(), r.w.Now()+r.cfg.Random
	r.quiet = max(r.quiet, end)
	var next func()
	next = func() {
		if r.w.Now() >= end || r.w.Calm {
			return
		}
		r.fired++
		r.fault(Fault{What: whats[r.w.Rand.IntN(len(whats)-1)], Site: [...]mesh.Site{"a", "b"}[r.w.Rand.IntN(2)], Long: 200*ms + dataflow.Time(r.w.Rand.Int64N(int64(6*sec)))})
		r.w.After(700*ms, next)
	}
	r.w.After(10*ms, next)
}

// failover has site a lost, its job taken at b, and a come back. The person who says
// that a is lost does not err.
func (r *run) failover() {
	r.await(20*sec, "nothing is whole at b", func() bool {
		for _, k := range r.b.State().Replicas {
			if k.Snapshot != nil {
				return true
			}
		}
		return false
	})
	r.randomly()
	r.w.Run(r.w.Now() + 2*sec)
	r.w.Tell("FAULT site a is lost")
	r.lost = true
	for _, n := range r.a.Nodes {
		n.Kill()
	}
	r.w.Run(r.w.Now() + 5*sec) // people look
	r.wish(r.b, func() *leader.Wish {
		for id, k := range r.b.State().Replicas {
			if j := r.job(r.b); r.lost && k.Snapshot != nil && (j == nil || j.Status.Ended()) {
				return &leader.Wish{Failover: &leader.Failover{Job: id, Why: "it is lost"}}
			}
		}
		return nil
	})
	r.until(20*sec, func() bool { return r.both.Overs > 0 && r.job(r.b) != nil && r.job(r.b).Status == coordinator.Running })
	r.w.Run(max(r.w.Now(), r.quiet))
	r.comeBack()
	r.until(max(6*sec, r.quiet-r.w.Now()+2*sec), func() bool { return false })
}

// comeBack ends the loss of a.
func (r *run) comeBack() {
	if !r.lost {
		return
	}
	r.w.Tell("FAULT site a comes back")
	r.lost = false
	for _, n := range r.a.Nodes {
		n.Again()
	}
}
