package sim

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// What a run is, and what comes of it.
type (
	Config    = world.Config
	Bugs      = world.Bugs
	Violation = world.Violation
	Stats     = judge.Stats
)

const (
	ms  = world.Ms
	sec = world.Sec
)

// The bounds of the quiet end: when every job must have a checkpoint that began
// after it, and when everything must have been put out.
const (
	progressWithin = 25 * sec
	settleWithin   = 20 * sec
)

// run is a site and what happens to it.
type run struct {
	w    *world.World
	site *site.Site
}

// Run runs a site from one seed: faults for a while, then a quiet end. It returns
// the first invariant that does not hold; nil: all do.
func Run(cfg Config) (*Stats, *Violation) {
	r := newRun(cfg)
	r.begin()
	r.submit("counts", countsSpec)
	r.submit("publish", publishSpec)
	r.w.Run(3 * sec)
	for r.w.Now() < 3*sec+r.w.Faulty && r.w.Failed() == nil {
		r.fault()
		r.w.Run(r.w.Soon(300 * ms))
	}
	if r.w.Failed() == nil {
		r.end()
	}
	stats := &r.site.Judge.Stats
	stats.Steps = r.w.Steps
	return stats, r.w.Failed()
}

// newRun makes a site in which nothing has happened.
func newRun(cfg Config) *run {
	w := world.New(cfg)
	if w.Agents == 0 {
		w.Agents = 3 + w.Rand.IntN(3)
	}
	if w.Faulty == 0 {
		w.Faulty = 12 * sec
		if w.Heirs { // members are replaced when they were away for 5 s
			w.Faulty *= 2
		}
	}
	r := &run{w: w, site: site.New(w, "s")}
	r.site.EpochBegan = r.faultHeirs
	for i := range w.Agents {
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

// submit submits a job, again and again until the site has taken it.
func (r *run) submit(name, spec string) {
	c := &coordinator.Command{Level: coordinator.BaseLevel, JobSubmitted: &coordinator.JobSubmitted{Name: name, Spec: []byte(spec), Request: name,
		Feeds: []coordinator.Feed{{Name: "in", Config: []byte(feedConfig)}}}}
	var try func()
	try = func() {
		l := r.site.Leader()
		if l == nil || !l.Reached() {
			r.w.After(50*ms, try)
			return
		}
		l.Propose(c, func(_ uint64, res jobmanager.Result, refused error) {
			if refused != nil {
				r.w.After(50*ms, try)
			} else if res.Err != nil {
				r.w.Fail(0, "job %s is refused: %v", name, res.Err)
			}
		})
	}
	try()
}

// end heals everything and looks that all goes on (10), that nothing is missing
// or there twice (1, 2).
func (r *run) end() {
	r.w.Heal()
	names := []string{"counts", "publish"}
	healed := r.w.Now()
	before := make(map[string]string)
	for _, name := range names {
		if j := r.site.Job(name); j != nil && j.Newest() != nil {
			before[name] = j.Newest().Name
		}
	}
	goesOn := func(name string) bool {
		j := r.site.Job(name)
		return j != nil && j.Status == coordinator.Running && j.Newest() != nil && j.Newest().Name != before[name] && j.Newest().ID.Token.Attempt == j.Attempt
	}
	for r.w.Failed() == nil && !(goesOn("counts") && goesOn("publish")) {
		r.w.Run(r.w.Now() + 500*ms)
		if r.w.Now() > healed+progressWithin {
			for _, name := range names {
				if !goesOn(name) {
					r.w.Fail(10, "%d s after the last fault job %s does not go on: %s", progressWithin/sec, name, r.plight(name))
				}
			}
		}
	}
	r.w.Broker.Closed = true
	closed := r.w.Now()
	for r.w.Failed() == nil {
		r.w.Run(r.w.Now() + sec)
		why := r.site.Judge.Unsettled(r.site.Job("counts"), r.site.Job("publish"))
		if why == "" || r.w.Failed() != nil {
			break
		}
		if r.w.Now() > closed+settleWithin {
			r.w.Fail(10, "%d s after the last message %s", settleWithin/sec, why)
		}
	}
	if r.w.Failed() == nil {
		r.site.Judge.Logs()
		r.site.Judge.Files(r.site.Job("counts"))
		r.site.Judge.Published(r.site.Job("publish"))
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
	if f := r.site.State().Feeds[string(j.ID)+".in"]; f != nil {
		text += fmt.Sprintf("; feed: epoch %d of %s, members %s", f.Log.Epoch, f.Log.Owner, judge.NodesText(f.Log.Members))
	}
	return text
}
