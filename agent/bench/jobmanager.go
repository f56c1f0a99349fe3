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
// with what it costs those of a hundred sites of ten. There is a job for each ten
// agents, so both sides have as many of everything.
func runAgents(ctx context.Context, o Options) ([]Figure, error) {
	n := o.scaled(100, 2)
	return compareSites(ctx, o, "scale/agents", fmt.Sprintf("an agent, a second of virtual time; %d sites of ten agents beside one of %d, a job for each ten agents", n, 10*n),
		10*n, siteSize{1, 10 * n, n}, siteSize{n, 10, 1})
}

// runJobs compares what a job costs where there are a hundred with what it costs
// where it is the only one, on ten agents.
func runJobs(ctx context.Context, o Options) ([]Figure, error) {
	n := o.scaled(100, 2)
	return compareSites(ctx, o, "scale/jobs", fmt.Sprintf("a job, a second of virtual time; %d sites of ten agents with one job each beside one with %d", n, n),
		n, siteSize{1, 10, n}, siteSize{n, 10, 1})
}

// siteSize is how many sites, and what each has.
type siteSize struct{ sites, agents, jobs int }

// compareSites runs two sides in turn; units is how many of what is counted each
// has in all.
func compareSites(ctx context.Context, o Options, id, what string, units int, sizes ...siteSize) ([]Figure, error) {
	defer oneCore()()
	var sides []simSites
	for _, z := range sizes {
		s, err := newSimSites(z.sites, z.agents, z.jobs)
		if err != nil {
			return nil, fmt.Errorf("bench %s: %w", id, err)
		}
		sides = append(sides, s)
	}
	measures := make([]samples, len(sides))
	seconds := dataflow.Duration(o.scaled(int(simRound), int(dataflow.Second)))
	before := sides[0].checkpoints() + sides[1].checkpoints()
	rounds := o.rounds(3)
	for i := range rounds {
		o.progress("%s: round %d of %d", id, i+1, rounds)
		for k, s := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			runtime.GC()
			w, err := s.pass(seconds)
			if err != nil {
				return nil, fmt.Errorf("bench %s: %w", id, err)
			}
			measures[k].add(w, true, float64(units)*float64(seconds)/float64(dataflow.Second))
		}
	}
	f := compare(id, measures[0].median(), measures[1].median(), managerBar)
	f.Unit = "ns/s"
	if f.Note != "" {
		what += "; " + f.Note
	}
	f.Note = fmt.Sprintf("%s; %d checkpoints were completed", what, sides[0].checkpoints()+sides[1].checkpoints()-before)
	return []Figure{f}, nil
}
