package bench

import (
	"context"
	"fmt"
	"runtime"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

const (
	managerBar = 1.2
	simRound   = 2 * dataflow.Second // of virtual time
)

// runAgents compares what an agent costs the JobManager of a site of a thousand
// with what it costs those of a hundred sites of ten. Each site has one job on
// one agent, so that agents are all in which they differ. What an agent costs is
// its leases, its going and coming back, and, where there are a thousand, what the
// job costs more than where there are ten.
func runAgents(ctx context.Context, o Options) ([]Figure, error) {
	n := o.scaled(100, 2)
	c := siteCourse{id: "scale/agents", many: siteSize{1, 10 * n, 1, 1}, few: siteSize{n, 10, 1, 1}, units: 10 * n,
		what: fmt.Sprintf("an agent, a second of virtual time; one site of %d agents beside %d of ten, one job each", 10*n, n),
		cost: func(many, few siteCost) (work, work) { return many.agents.beyond(many.jobs, few.jobs, n), few.agents }}
	return c.run(ctx, o)
}

// runJobs compares what a job costs where there are a hundred with what it costs
// where it is the only one, on ten agents. What the agents cost more where there
// are a hundred jobs is theirs too.
func runJobs(ctx context.Context, o Options) ([]Figure, error) {
	n := o.scaled(100, 2)
	c := siteCourse{id: "scale/jobs", many: siteSize{1, 10, n, 10}, few: siteSize{n, 10, 1, 10}, units: n,
		what: fmt.Sprintf("a job, a second of virtual time; one site of ten agents with %d jobs beside %d with one", n, n),
		cost: func(many, few siteCost) (work, work) { return many.jobs.beyond(many.agents, few.agents, n), few.jobs }}
	return c.run(ctx, o)
}

// siteSize is how many sites, and what each has; parallel is the parallelism of
// its jobs.
type siteSize struct{ sites, agents, jobs, parallel int }

// siteCost is what sites cost in a round.
type siteCost struct{ agents, jobs work }

// siteCourse compares one site that has many of something with several that have
// few; units is how many of it each side has in all, and cost what they cost.
type siteCourse struct {
	id, what  string
	many, few siteSize
	units     int
	cost      func(many, few siteCost) (work, work)
}

// run runs the two sides in turn.
func (c siteCourse) run(ctx context.Context, o Options) ([]Figure, error) {
	defer oneCore()()
	var sides [2]simSites
	for k, z := range []siteSize{c.many, c.few} {
		s, err := newSimSites(z)
		if err != nil {
			return nil, fmt.Errorf("bench %s: %w", c.id, err)
		}
		sides[k] = s
	}
	var measures [2]samples
	seconds := dataflow.Duration(o.scaled(int(simRound), int(dataflow.Second)))
	before := sides[0].checkpoints() + sides[1].checkpoints()
	rounds := o.rounds(3)
	for i := range rounds {
		o.progress("%s: round %d of %d", c.id, i+1, rounds)
		var costs [2]siteCost
		for k, s := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			runtime.GC()
			agents, jobs, err := s.pass(seconds)
			if err != nil {
				return nil, fmt.Errorf("bench %s: %w", c.id, err)
			}
			costs[k] = siteCost{agents, jobs}
		}
		per := float64(c.units) * float64(seconds) / float64(dataflow.Second)
		many, few := c.cost(costs[0], costs[1])
		measures[0].add(many, true, per)
		measures[1].add(few, true, per)
	}
	f := compare(c.id, measures[0].median(), measures[1].median(), managerBar)
	f.Unit = "ns/s"
	what := c.what
	if f.Note != "" {
		what += "; " + f.Note
	}
	f.Note = fmt.Sprintf("%s; %d checkpoints were completed", what, sides[0].checkpoints()+sides[1].checkpoints()-before)
	return []Figure{f}, nil
}
