package twosites

import (
	"fmt"
	"slices"

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
	PauseAgent  What = "an agent stands still"
	PauseAll    What = "all agents stand still"
	CutAgent    What = "an agent is cut off"     // from all others, of both sites
	CutWAN      What = "the WAN is cut"          // both directions
	CutFrom     What = "nothing leaves the site" // over the WAN
	BadWAN      What = "letters are lost, repeated and late"
	ComesBack   What = "the lost site comes back"
)

// Whats are all faults.
func Whats() []What {
	return []What{CrashLeader, CrashAgent, CrashAll, PauseLeader, PauseAgent, PauseAll, CutAgent, CutWAN, CutFrom, BadWAN, ComesBack}
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
	s := Step{at, what + r.about, after}
	if r.w.Calm || r.seen[s.String()] > 0 {
		return
	}
	r.seen[s.String()]++
	r.steps = append(r.steps, s)
	for _, f := range Faults(r.cfg.Kind, s) {
		if !r.vain(f) {
			r.could = append(r.could, f)
		}
	}
	r.w.Tell("STEP %s", s)
	if do := r.at[s]; do != nil {
		do()
	}
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
	case CrashAgent, PauseAgent:
		if n := r.follower(s); n != nil {
			r.hit(n, f)
		}
	case CutAgent:
		if n := r.follower(s); n != nil {
			r.cutOff(n, f.Long)
		}
	case CrashAll, PauseAll:
		for _, n := range s.Nodes {
			r.hit(n, f)
		}
	case CutWAN, CutFrom:
		for _, way := range r.ways(f) {
			r.cut(way, f.Long)
		}
	case ComesBack:
		r.comeBack()
	case BadWAN:
		until := w.Now() + f.Long
		w.Wan.Bad, r.bad = 5, until
		w.At(until, func() {
			if r.bad <= until {
				w.Wan.Bad = 0
			}
		})
	}
}

// ways are the directions that a fault cuts.
func (r *run) ways(f Fault) (all [][2]string) {
	for _, from := range r.cfg.Kind.sites() {
		for _, to := range r.cfg.Kind.sites() {
			if from != to && (f.What == CutWAN || f.Site == from) {
				all = append(all, [2]string{string(from), string(to)})
			}
		}
	}
	return all
}

// cutOff has nothing of an agent reach any other, nor the other way round, for a while.
func (r *run) cutOff(n *world.Node, long dataflow.Time) {
	r.w.Tell("FAULT %s is cut off", n.ID)
	for _, o := range r.w.Nodes {
		if o != n {
			r.w.Lose(n.ID, o.ID)
			r.w.Lose(o.ID, n.ID)
			r.w.At(r.w.Now()+long, func() { r.w.Join(n.ID, o.ID) })
		}
	}
}

// cut cuts one direction until the last fault that has cut it is over.
func (r *run) cut(way [2]string, long dataflow.Time) {
	until := r.w.Now() + long
	r.cuts[way] = until
	r.w.Wan.Cut(way[0], way[1])
	r.w.At(until, func() {
		if r.cuts[way] <= until {
			r.w.Wan.Join(way[0], way[1])
		}
	})
}

// vain tells whether a fault would change nothing now: what it hits is down.
func (r *run) vain(f Fault) bool {
	s := r.mesh.Site(f.Site)
	switch f.What {
	case CrashLeader, PauseLeader:
		l := s.Leader()
		return l == nil || !hits(l.Node(), f)
	case CrashAgent, PauseAgent:
		n := r.follower(s)
		return n == nil || !hits(n, f)
	case CutAgent:
		n := r.follower(s)
		return n == nil || n.P.Paused
	case CrashAll, PauseAll:
		return !slices.ContainsFunc(s.Nodes, func(n *world.Node) bool { return hits(n, f) })
	case CutWAN, CutFrom:
		return !slices.ContainsFunc(r.ways(f), func(way [2]string) bool { return r.w.Wan.Carries(way[0], way[1]) })
	case ComesBack:
		return r.lost == ""
	}
	return r.w.Wan.Bad > 0
}

// follower is an agent that runs and does not lead, the one that owns the job's log
// if it is such a one; nil: there is none.
func (r *run) follower(s *site.Site) (other *world.Node) {
	lead := mesh.NodeID("")
	if l := s.Leader(); l != nil {
		lead = l.Node().ID
	}
	owns := make(map[mesh.NodeID]bool)
	for _, f := range s.State().Feeds {
		owns[f.Log.Owner] = true
	}
	for _, n := range s.Nodes {
		switch {
		case n.P == nil || n.ID == lead:
		case owns[n.ID]:
			return n
		case other == nil:
			other = n
		}
	}
	return other
}

// hits tells whether a fault does something to an agent: one that stands still can
// crash.
func hits(n *world.Node, f Fault) bool { return n.P != nil && !(n.P.Paused && f.What.pauses()) }

// pauses tells whether a fault has processes stand still.
func (w What) pauses() bool { return w == PauseLeader || w == PauseAgent || w == PauseAll }

// hit kills or stops an agent, and lets it go on later.
func (r *run) hit(n *world.Node, f Fault) {
	if !hits(n, f) {
		return
	}
	if f.What.pauses() {
		n.Pause()
	} else {
		n.Kill()
	}
	r.w.At(r.w.Now()+f.Long, func() {
		if r.lost == "" || n.Place != string(r.lost) {
			n.Resume()
			n.Again()
		}
	})
}

// frozen is for how long a site stands still that another one takes for lost: longer
// than a site goes on with its jobs without asking.
const frozen = 65 * sec

// randomly has faults come by the seed for a while, from now on. Faults of a lost site
// do nothing.
func (r *run) randomly() {
	if r.cfg.Random == 0 {
		return
	}
	whats, sites, end, pace := Whats(), r.cfg.Kind.sites(), r.w.Now()+r.cfg.Random, 700*ms
	if r.cfg.Kind == Roam || r.cfg.Kind == Mingle {
		pace = 3 * sec // so that moves succeed, one after the other
	}
	r.quiet = max(r.quiet, end)
	var next func()
	next = func() {
		if r.w.Now() >= end || r.w.Calm {
			return
		}
		r.fired++
		r.fault(Fault{What: whats[r.w.Rand.IntN(len(whats)-1)], Site: sites[r.w.Rand.IntN(len(sites))], Long: 200*ms + dataflow.Time(r.w.Rand.Int64N(int64(6*sec)))})
		r.w.After(pace, next)
	}
	r.w.After(10*ms, next)
}

// keeps tells whether a site has what it needs to take the jobs of another one.
func (r *run) keeps(s *site.Site, of mesh.Site) bool {
	n := 0
	for _, k := range s.State().Replicas {
		if k.From == of && k.Snapshot != nil {
			n++
		}
	}
	return n == len(r.cfg.Kind.jobs())
}

// whole waits until a site has what it needs to take the jobs of a.
func (r *run) whole(s *site.Site) {
	r.await(60*sec, fmt.Sprintf("nothing is whole at %s", s.Name), func() bool { return r.keeps(s, "a") })
}

// failover has a site lost, its jobs taken at the other one, and the lost one come back.
// The person who says that it is lost does not err.
func (r *run) failover(lost, taker *site.Site) {
	r.lose(lost)
	at := r.w.Now()
	r.w.Run(r.w.Now() + 5*sec) // people look
	for _, name := range r.cfg.Kind.jobs() {
		r.about = r.of(name)
		overs := r.both.Overs
		r.wish(taker, func() *leader.Wish {
			for id, k := range taker.State().Replicas {
				if j := taker.Job(name); k.Job.Name == name && r.lost != "" && k.Snapshot != nil && (j == nil || j.Status.Ended()) {
					return &leader.Wish{Failover: &leader.Failover{Job: id, Why: "it is lost"}}
				}
			}
			return nil
		})
		r.until(20*sec, func() bool {
			return r.both.Overs > overs && taker.Job(name) != nil && taker.Job(name).Status == coordinator.Running
		})
	}
	r.about = ""
	r.w.Run(max(r.w.Now(), r.quiet))
	if r.cfg.Kind == Frozen {
		r.w.Run(max(r.w.Now(), at+frozen))
	}
	r.comeBack()
	r.until(max(6*sec, r.quiet-r.w.Now()+2*sec), func() bool { return false })
}

// lose has a site lost, if it is not yet.
func (r *run) lose(s *site.Site) {
	if r.lost == s.Name {
		return
	}
	r.w.Tell("FAULT site %s is lost", s.Name)
	r.lost = s.Name
	for _, n := range s.Nodes {
		if r.cfg.Kind == Frozen && n.P != nil {
			n.Pause()
		} else {
			n.Kill()
		}
	}
}

// of names a job in steps, where there are several.
func (r *run) of(name string) string {
	if len(r.cfg.Kind.jobs()) == 1 {
		return ""
	}
	return " of " + name
}

// comeBack ends the loss of a site.
func (r *run) comeBack() {
	if r.lost == "" {
		return
	}
	r.w.Tell("FAULT site %s comes back", r.lost)
	for _, n := range r.mesh.Site(r.lost).Nodes {
		n.Resume()
		n.Again()
	}
	r.lost = ""
}

// apart is for how long the sites do not reach each other when people err.
const apart = 2 * lasts

// err has people at b take the job, as they do not reach a, where it runs on.
func (r *run) err() {
	r.whole(r.b)
	r.randomly()
	r.w.Run(r.w.Now() + 2*sec)
	r.fault(Fault{What: CutWAN, Long: apart})
	r.w.Run(r.w.Now() + sec)
	r.wish(r.b, func() *leader.Wish {
		for id, k := range r.b.State().Replicas {
			if j := r.job(r.b); !r.w.Calm && k.Snapshot != nil && (j == nil || j.Status.Ended()) {
				r.errs()
				return &leader.Wish{Failover: &leader.Failover{Job: id, Force: true, Why: "it seems to be lost"}}
			}
		}
		return nil
	})
	r.meet()
}

// force has the job move, and the sites part when b has all: people at b have it go on
// there, and those at a call the move off.
func (r *run) force() {
	r.faults = append(r.faults, Fault{At: Step{"b", "enters ArrivalPrepared", true}, What: CutWAN, Long: apart})
	r.randomly()
	r.ask(jobName, r.a, r.b, false, "r")
	prepared := func() coordinator.MoveID {
		for id, arr := range r.b.State().Moves.Arrivals {
			if arr.Phase == coordinator.ArrivalPrepared {
				return id
			}
		}
		return ""
	}
	r.until(25*sec, func() bool { return prepared() != "" || r.both.Overs > 0 })
	r.wish(r.b, func() *leader.Wish {
		if id := prepared(); id != "" && !r.w.Calm {
			r.errs()
			return &leader.Wish{Migrate: &leader.Migrate{Force: id, Sure: true, Why: "it seems to be lost"}}
		}
		return nil
	})
	r.w.Run(r.w.Now() + sec)
	r.wish(r.a, func() *leader.Wish {
		for id, d := range r.a.State().Moves.Departures {
			if !d.Phase.Decided() && !r.w.Calm {
				return &leader.Wish{Migrate: &leader.Migrate{Cancel: id, Why: "it takes long"}}
			}
		}
		return nil
	})
	r.meet()
}

// meet waits until the sites reach each other, and a knows that b has the job.
func (r *run) meet() {
	r.w.Run(max(r.w.Now(), r.quiet))
	r.until(15*sec, func() bool { return r.job(r.a) != nil && r.job(r.a).Status == coordinator.Moved })
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// errs: a person is about to have two sites run the job.
func (r *run) errs() { r.both.Erred, r.both.Two, r.w.Broker.Tells = true, true, true }
