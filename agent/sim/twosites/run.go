package twosites

import (
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

const (
	ms  = world.Ms
	sec = world.Sec
)

// Config is one run.
type Config struct {
	Seed   uint64
	Kind   Kind
	Faults []Fault
	Bugs   world.Bugs
	// Random faults come for so long besides, by the seed.
	Random dataflow.Time
	Trace  func(string) // a line for each thing worth telling; nil: nobody listens
}

// Result is what a run showed.
type Result struct {
	Violation *world.Violation // nil: every invariant held
	Steps     []Step           // that were taken, in order
	Open      []Fault          // that would have changed something, at each step, in that order
	Owner     mesh.Site        // in the end
	Overs     int              // hand-overs and failovers
	Pause     dataflow.Time    // the longest between two rows that were published
	Repeated  int              // rows that were published again
	Lost      int              // messages that a site that was lost had, and nobody else
	Took      dataflow.Time    // of the world's time
	Early     int              // tables that an attempt began with as they were restored before it came
	Fired     int              // faults that came
}

// run is two sites and what happens to them.
type run struct {
	cfg    Config
	w      *world.World
	all    []*site.Site
	a, b   *site.Site // the first two
	mesh   *site.Mesh
	both   *judge.Sites
	steps  []Step
	could  []Fault
	cuts   map[[2]string]dataflow.Time // until when a direction is cut
	bad    dataflow.Time               // until when the WAN is bad
	seen   map[string]int
	about  string // which job moves, of several: a step of each is one of its own
	faults []Fault
	at     map[Step]func() // what a step has come about
	fired  int
	quiet  dataflow.Time // when the last fault is over
	lost   mesh.Site     // that is lost; empty: none
}

// Run runs two sites: a while in peace, then what Kind says with the faults, then a
// quiet end.
func Run(cfg Config) *Result {
	r := &run{cfg: cfg, w: world.New(world.Config{Seed: cfg.Seed, Bugs: cfg.Bugs, Trace: cfg.Trace}), seen: make(map[string]int), cuts: make(map[[2]string]dataflow.Time), at: make(map[Step]func()), faults: slices.Clone(cfg.Faults)}
	var judges []*judge.Judge
	for _, name := range cfg.Kind.sites() {
		s := site.New(r.w, name)
		r.all, judges = append(r.all, s), append(judges, s.Judge)
		s.Level = coordinator.Level
		for i := range 3 {
			s.Add(fmt.Sprintf("%s%d", s.Name, i+1))
		}
	}
	r.a, r.b = r.all[0], r.all[1]
	r.both = judge.Together(r.w, judges...)
	r.mesh = site.Join(r.all...)
	for _, s := range r.all {
		s.Begin()
	}
	r.w.Broker.PublishAll()
	r.await(20*sec, "the sites do not know the newest level", func() bool {
		return !slices.ContainsFunc(r.all, func(s *site.Site) bool { return s.State().Level != coordinator.Level })
	})
	r.submit()
	r.await(20*sec, "a job does not run", func() bool {
		return !slices.ContainsFunc(cfg.Kind.jobs(), func(name string) bool {
			j := r.a.Job(name)
			return j == nil || j.Status != coordinator.Running || j.Newest() == nil || j.Newest().ID.Token.Attempt != j.Attempt
		})
	})
	r.mesh.Step = r.step
	r.people()
	if r.w.Failed() == nil {
		r.end()
	}
	return r.result()
}

func (r *run) result() *Result {
	res := &Result{Violation: r.w.Failed(), Steps: r.steps, Open: r.could, Overs: r.both.Overs, Pause: r.both.Longest, Repeated: r.both.Repeated, Lost: r.both.Lost(), Took: r.w.Now(), Fired: r.fired}
	for _, s := range r.all {
		res.Early += s.Judge.Stats.Early
	}
	if s := r.owner(); s != nil {
		res.Owner = s.Name
	}
	return res
}

func (r *run) job(s *site.Site) *coordinator.Job { return s.Job(jobName) }

// owner is the site that has the job deployed; nil: none, or both.
func (r *run) owner() *site.Site { return r.ownerOf(jobName) }

func (r *run) ownerOf(name string) (owner *site.Site) {
	for _, s := range r.all {
		if has(s.Job(name)) {
			if owner != nil {
				return nil
			}
			owner = s
		}
	}
	return owner
}

// has tells whether a site, which has j on record, may deploy it.
func has(j *coordinator.Job) bool {
	return j != nil && !j.Status.Ended() && j.Status != coordinator.Quarantined && !j.Isolated
}

// propose has a leader decide something, again and again until one has.
func (r *run) propose(s *site.Site, c *coordinator.Command, done func(jobmanager.Result)) {
	c.Level = c.Needs()
	again := func() { r.w.After(50*ms, func() { r.propose(s, c, done) }) }
	l := s.Leader()
	if l == nil || !l.Reached() {
		again()
		return
	}
	l.Propose(c, func(_ uint64, res jobmanager.Result, refused error) {
		if refused != nil {
			again()
			return
		}
		done(res)
	})
}

// until lets time pass until something is so, or the time is over; faults that are
// under way are waited for.
func (r *run) until(most dataflow.Time, ok func() bool) {
	for end := r.w.Now() + most; r.w.Failed() == nil && r.w.Now() < end && !ok(); {
		r.w.Run(r.w.Now() + 250*ms)
	}
}

func (r *run) await(within dataflow.Time, what string, ok func() bool) {
	if r.until(within, ok); r.w.Failed() == nil && !ok() {
		r.w.Fail(10, "%d s later %s", within/sec, what)
	}
}

// goesOn tells whether a job runs at its owner, with a checkpoint of its present
// attempt.
func (r *run) goesOn(name string) bool {
	s := r.ownerOf(name)
	if s == nil {
		return false
	}
	j := s.Job(name)
	return j.Status == coordinator.Running && j.Newest() != nil && j.Newest().ID.Token == j.Token(s.Name)
}
