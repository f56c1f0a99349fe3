package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// What a run is, and what comes of it.
type (
	Bugs      = world.Bugs
	Violation = world.Violation
	Stats     = judge.Stats
)

// Config is one run.
type Config struct {
	Seed   uint64
	Agents int           // 0: 3 to 5, by the seed
	Faulty dataflow.Time // how long faults come; 0: 12 s
	Plan   string        // which jobs run; empty: by the seed
	Bugs   Bugs
	// Zombies makes most faults such after which somebody acts who should not:
	// processes that stand still for seconds, and leaders that are alone.
	Zombies bool
	// Heirs loses the disk of a log's owner, once, just when others than those of
	// the epoch before are to copy it.
	Heirs bool
	// Copies has agents know the feature level at which copies are made anew, and
	// loses disks for good at the end. With PlanPlain.
	Copies bool
	Trace  func(string) // a line for each thing worth telling; nil: nobody listens
}

const (
	ms  = world.Ms
	sec = world.Sec
)

// The bounds of the quiet end: when every job must have a checkpoint that began
// after it, when everything must have been read, and put out.
const (
	progressWithin = 25 * sec
	settleWithin   = 20 * sec
	commitWithin   = 3 * sec // after the checkpoint that has read all
)

// run is a site and what happens to it.
type run struct {
	cfg  Config
	w    *world.World
	site *site.Site
	jobs []*job
}

// Run runs a site from one seed: faults for a while, then a quiet end. It returns
// the first invariant that does not hold; nil: all do.
func Run(cfg Config) (*Stats, *Violation) {
	r := newRun(cfg)
	r.begin()
	r.jobs = jobsOf(r.cfg.Plan)
	for _, j := range r.jobs {
		r.submit(j)
	}
	if r.cfg.Plan == PlanSplit {
		r.split()
	} else {
		r.faults()
	}
	if r.w.Failed() == nil {
		r.end()
	}
	if r.cfg.Copies && r.w.Failed() == nil {
		r.loseForGood()
	}
	stats := &r.site.Judge.Stats
	stats.Steps = r.w.Steps
	return stats, r.w.Failed()
}

// faults lets them come for a while.
func (r *run) faults() {
	r.w.Run(3 * sec)
	for _, j := range r.jobs {
		if j.rescaled {
			r.w.After(500*ms, func() { r.rescale(j) })
		}
		if j.stopped {
			r.w.After(2*sec, func() { r.stop(j) })
		}
	}
	for r.w.Now() < 3*sec+r.cfg.Faulty && r.w.Failed() == nil {
		r.fault()
		r.w.Run(r.w.Soon(300 * ms))
	}
}

// newRun makes a site in which nothing has happened.
func newRun(cfg Config) *run {
	r := &run{cfg: cfg, w: world.New(world.Config{Seed: cfg.Seed, Bugs: cfg.Bugs, Trace: cfg.Trace})}
	if r.cfg.Agents == 0 {
		r.cfg.Agents = 3 + r.w.Rand.IntN(3)
	}
	if r.cfg.Plan == PlanSplit {
		r.cfg.Agents = 5 // so that three are left
	}
	if r.cfg.Faulty == 0 {
		r.cfg.Faulty = 12 * sec
		if cfg.Heirs { // members are replaced when they were away for 5 s
			r.cfg.Faulty *= 2
		}
	}
	switch {
	case r.cfg.Plan != "":
	case cfg.Heirs:
		r.cfg.Plan = PlanPlain
	default:
		r.cfg.Plan = planOf(cfg.Seed)
	}
	r.site = site.New(r.w, "s")
	if r.cfg.Plan == PlanAgain {
		r.site.Level = coordinator.AdoptLevel
	}
	if r.cfg.Copies {
		r.site.Level = coordinator.Level
	}
	r.site.EpochBegan = r.faultHeirs
	for i := range r.cfg.Agents {
		r.site.Add(fmt.Sprintf("n%d", i+1))
	}
	return r
}

// begin starts everything; somebody publishes all the time, until the site is to
// settle.
func (r *run) begin() {
	r.site.Begin()
	r.w.Broker.PublishAll()
}

// propose has a leader decide something, again and again until one has.
func (r *run) propose(c *coordinator.Command, done func(jobmanager.Result)) {
	c.Level = c.Needs()
	again := func() { r.w.After(50*ms, func() { r.propose(c, done) }) }
	l := r.site.Leader()
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

// submit submits a job.
func (r *run) submit(j *job) {
	r.propose(&coordinator.Command{JobSubmitted: &coordinator.JobSubmitted{Name: j.name, Spec: []byte(j.spec), Request: j.name, Feeds: j.feeds()}},
		func(res jobmanager.Result) {
			if res.Err != nil {
				r.w.Fail(0, "job %s is refused: %v", j.name, res.Err)
			}
		})
}

// rescale gives a job another parallelism, now and then.
func (r *run) rescale(j *job) {
	if r.w.Calm {
		return
	}
	r.w.After(1500*ms, func() { r.rescale(j) })
	l, now := r.site.Leader(), r.site.Job(j.name)
	if l == nil || now == nil {
		return
	}
	n := 1 + r.w.Rand.IntN(3)
	r.w.Tell("job %s is to have parallelism %d", now.ID, n)
	l.Propose(&coordinator.Command{Level: coordinator.BaseLevel, JobRescaled: &coordinator.JobRescaled{Job: now.ID, Parallelism: n}}, func(uint64, jobmanager.Result, error) {})
}

// end heals everything and looks that all goes on (10), and that all rows are
// there, and nothing else (1, 2).
func (r *run) end() {
	r.w.Heal()
	before := make(map[string]string)
	for _, j := range r.jobs {
		if now := r.site.Job(j.name); now != nil && now.Newest() != nil {
			before[j.name] = now.Newest().Name
		}
	}
	r.within(progressWithin, 500*ms, "the last fault", func() string {
		for _, j := range r.jobs {
			now := r.site.Job(j.name)
			if j.bounded {
				if now == nil || now.Status != coordinator.Finished {
					return fmt.Sprintf("job %s has not finished: %s", j.name, r.plight(j.name))
				}
				continue
			}
			if j.stopped || now == nil || now.Status != coordinator.Running || now.Newest() == nil || now.Newest().Name == before[j.name] || now.Newest().ID.Token.Attempt != now.Attempt {
				return fmt.Sprintf("job %s does not go on: %s", j.name, r.plight(j.name))
			}
		}
		return ""
	})
	r.w.Broker.Closed = true
	r.within(settleWithin, sec, "the last message", r.site.Judge.Acknowledged)
	if r.w.Failed() == nil {
		r.site.Judge.Logs()
	}
	r.within(settleWithin, sec, "the last message was acknowledged", func() string {
		for _, j := range r.jobs {
			if why := r.site.Judge.Behind(r.site.Job(j.name)); why != "" && !j.bounded {
				return why
			}
		}
		return ""
	})
	r.w.Run(r.w.Now() + commitWithin)
	for _, j := range r.jobs {
		if r.w.Failed() == nil {
			r.judge(j)
		}
	}
}

// within runs until nothing is wrong any more: 10, what must come comes.
func (r *run) within(most, step dataflow.Time, since string, wrong func() string) {
	for began := r.w.Now(); r.w.Failed() == nil; {
		why := wrong()
		if why == "" {
			return
		}
		if r.w.Now() > began+most {
			r.w.Fail(10, "%d s after %s %s", most/sec, since, why)
		}
		r.w.Run(r.w.Now() + step)
	}
}

func (r *run) judge(j *job) {
	now := r.site.Job(j.name)
	for _, path := range slices.Sorted(maps.Keys(j.files)) {
		r.site.Judge.Files(now, path, j.files[path])
	}
	if j.outside != nil {
		r.site.Judge.Published(now, j.outside)
	}
}

func (r *run) plight(name string) string {
	j := r.site.Job(name)
	if j == nil {
		return "it is not there"
	}
	text := fmt.Sprintf("%s (%s), attempt %d", j.Status, j.Why, j.Attempt)
	if n := j.Newest(); n != nil {
		text += ", newest checkpoint " + n.Name
	}
	if f := r.site.State().Feeds[j.OwnFeed("in")]; f != nil {
		text += fmt.Sprintf("; feed: epoch %d of %s, members %s", f.Log.Epoch, f.Log.Owner, judge.NodesText(f.Log.Members))
	}
	return text
}
