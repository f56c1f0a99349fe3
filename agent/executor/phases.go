package executor

import (
	"fmt"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Preparation says how long what led to a deployment took, for people.
type Preparation struct {
	coordinator.AttemptRef
	From    string // the checkpoint or savepoint that it goes on from; empty: none
	Parts   int    // that were needed here
	Bytes   int64  // of them
	Fetched int64  // bytes that came from other agents
	Early   bool   // state was given back before it was decided that the job comes
	Phases  []Phase
}

// Phase is one step of a preparation.
type Phase struct {
	Name string
	Took time.Duration
}

// The phases, in their order. Opening and restoring are of all subtasks here.
const (
	phaseWait    = "wait"    // for the attempt before to end here
	phasePlan    = "plan"    // reading and planning the job
	phaseFetch   = "fetch"   // getting parts that are elsewhere
	phaseOpen    = "open"    // opening connectors, files cut back included
	phaseRestore = "restore" // giving state back
	phaseBegin   = "begin"   // until all other agents were prepared, too
)

// timeline notes when phases end.
type timeline struct {
	Preparation
	last time.Time
}

func newTimeline(ref coordinator.AttemptRef) *timeline {
	return &timeline{Preparation: Preparation{AttemptRef: ref}, last: time.Now()}
}

// ends notes that a phase ends now.
func (t *timeline) ends(name string) {
	now := time.Now()
	t.Phases = append(t.Phases, Phase{name, now.Sub(t.last)})
	t.last = now
}

// moves takes part of the last phase into one of its own.
func (t *timeline) moves(took time.Duration, name string) {
	p := &t.Phases[len(t.Phases)-1]
	took = min(took, p.Took)
	p.Took -= took
	t.Phases = append(t.Phases, Phase{name, took})
}

// String is one line.
func (p *Preparation) String() string {
	var total time.Duration
	var phases []string
	for _, f := range p.Phases {
		total += f.Took
		phases = append(phases, fmt.Sprintf("%s %v", f.Name, f.Took.Round(time.Millisecond)))
	}
	from := "afresh"
	if p.From != "" {
		from = fmt.Sprintf("from %s (%d parts, %.1f MB, %.1f MB of them from other agents)", p.From, p.Parts, float64(p.Bytes)/1e6, float64(p.Fetched)/1e6)
	}
	if p.Early {
		from += ", restored early"
	}
	return fmt.Sprintf("runs %s after %v: %s", from, total.Round(time.Millisecond), strings.Join(phases, ", "))
}
