package executor

import (
	"context"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
)

// probeLimit is how long a probe may take: its leader waits a little longer.
const probeLimit = 6 * time.Second

// probe looks, in a goroutine of its own, whether a job that may come could run here.
func (x *Executor) probe(m *coordinator.Probe) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return
	}
	x.running.Go(func() {
		ctx, cancel := context.WithTimeout(x.probes, probeLimit)
		defer cancel()
		said := coordinator.Probed{Order: m.Order, Move: m.Move}
		if err := x.reaches(ctx, m); err != nil {
			said.Why = err.Error()
		}
		if x.o.Probed != nil && x.probes.Err() == nil {
			x.o.Probed(said)
		}
	})
}

// reaches says what is in the way of the subtasks that would be here. It reads the
// job, and what it would go on from, as an attempt does.
func (x *Executor) reaches(ctx context.Context, m *coordinator.Probe) error {
	j := m.Job.As(m.Epoch)
	j.Places = m.Places
	if x.o.Present != nil {
		if was := x.o.Present(j.ID); was != nil { // its files of then
			j.Sinks = was.Sinks
		}
	}
	ref := coordinator.AttemptRef{Job: j.ID}
	a := &attempt{x: x, ref: ref, asked: &worker.Prepare{AttemptRef: ref, Job: j, From: m.From}, ctx: ctx, phases: newTimeline(ref)}
	p, err := a.build()
	if err != nil {
		return err
	}
	for i := range p.graph.Subtasks {
		st := &p.graph.Subtasks[i]
		for _, link := range st.Task.Links {
			if err := p.ends.Probe(ctx, link.Node, st.ID.Index, slices.Contains(m.Sessions, link.Node.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}
