package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part/peers"
)

// collector hands what subtasks say to the attempt's goroutine.
type collector struct{ a *attempt }

var (
	_ runtime.Recorder = collector{}
	_ runtime.Watcher  = collector{}
)

// Taken is runtime.Collector's.
func (c collector) Taken(t runtime.SnapshotTaken) {
	took := func() {
		if t.Barrier.Then == dataflow.Halt && !t.Wrote.IsZero() {
			c.a.flows(false, time.Since(t.Wrote))
		}
		c.a.shares.Take(t)
	}
	if !c.a.post(took) {
		for _, r := range t.State {
			r.Batch.Release()
		}
	}
}

// Flowed is runtime.Watcher's: the first of all subtasks here is worth telling.
func (c collector) Flowed(_ dataflow.SubtaskID, commits bool) {
	c.a.post(func() {
		if told := c.a.flowed[commits]; !told {
			c.a.flowed[commits] = true
			c.a.flows(commits, 0)
		}
	})
}

// flows says that rows have come into sinks.
func (a *attempt) flows(commits bool, ago time.Duration) {
	a.x.o.Events(worker.AttemptEvent{Flowed: &coordinator.Flowed{AttemptRef: a.ref, Commits: commits, Ago: dataflow.Duration(ago.Microseconds())}})
}

// Exhausted is runtime.Collector's.
func (c collector) Exhausted(s dataflow.SubtaskID) {
	c.a.post(func() {
		c.a.x.o.Events(worker.AttemptEvent{Exhausted: &coordinator.Exhausted{AttemptRef: c.a.ref, Subtask: s}})
	})
}

// Committed is runtime.Collector's.
func (c collector) Committed(s dataflow.SubtaskID, id dataflow.CheckpointID) {
	c.SinksCommitted(s, id, nil)
}

// SinksCommitted is runtime.Recorder's.
func (c collector) SinksCommitted(s dataflow.SubtaskID, id dataflow.CheckpointID, commits []runtime.SinkCommit) {
	done := &coordinator.Committed{AttemptRef: c.a.ref, Subtask: s, ID: id}
	for _, k := range commits {
		done.Commits = append(done.Commits, coordinator.SinkCommit{Operator: k.Operator, Node: cmp.Or(mesh.NodeID(k.Node), c.a.x.o.Node), Target: k.Target, Through: k.Through, Length: k.Length})
	}
	c.a.post(func() { c.a.x.o.Events(worker.AttemptEvent{Committed: done}) })
}

// stored: a share is on this disk, or lost. Its copies follow.
func (a *attempt) stored(s durable.Stored) {
	id := s.Barrier.ID
	if s.Err != nil {
		a.notStored(s.Subtask, id, s.Failure, true, s.Err)
		return
	}
	m := a.manifest(id, a.shares.Operators(s.Subtask))
	data, err := manifest.Encode(m)
	if err != nil {
		a.notStored(s.Subtask, id, checkpoint.Async, true, err)
		return
	}
	parts := manifest.Needed(m)
	for i, p := range parts { // beyond their chain, until it is known what became of the checkpoint
		if err := a.x.o.State.Parts().Pin(p); err != nil {
			a.x.o.State.Parts().Unpin(parts[:i]...)
			a.notStored(s.Subtask, id, checkpoint.Async, true, err)
			return
		}
	}
	a.x.holds.Take(string(a.ref.Job), id, parts...)
	a.grows(id)
	a.pushes.Go(func() {
		to, without, err := a.copy(s.Subtask, id, parts)
		a.post(func() {
			if err != nil {
				a.notStored(s.Subtask, id, checkpoint.Async, false, err)
				return
			}
			a.short(id, without)
			said := &coordinator.Stored{AttemptRef: a.ref, ID: id, Subtask: s.Subtask, Share: coordinator.Share{
				Manifest: data, Bytes: s.Bytes, Pause: dataflow.Duration(s.Pause.Microseconds()), Align: dataflow.Duration(s.Align.Microseconds()),
			}}
			for _, p := range parts {
				said.Share.Copies = append(said.Share.Copies, coordinator.PartCopies{Part: p.Digest, Nodes: to})
			}
			a.x.o.Events(worker.AttemptEvent{Stored: said})
		})
	})
}

// manifest is a subtask's share.
func (a *attempt) manifest(id dataflow.CheckpointID, operators []manifest.Operator) manifest.Manifest {
	m := manifest.Manifest{
		Kind: manifest.Checkpoint, Name: checkpoint.Name(id), Job: a.asked.Job.Name, ID: id, Mode: manifest.ExactlyOnce,
		MaxParallelism: a.parsed.graph.Job.Stream.MaxParallelism, Operators: operators,
	}
	if a.parsed.job.Checkpoint.Mode == job.AtLeastOnce {
		m.Mode = manifest.AtLeastOnce
	}
	return m
}

// refusal is why an agent has no copy of a share.
type refusal struct {
	node mesh.NodeID
	why  error
}

// copy pushes the parts of a share to as many peers as there are to be copies,
// and says who has them. Where it sees fewer agents alive there are fewer, and where
// some take none: then it says which. Whether that is enough the leader decides, which
// sees more. An error: the share is not on this disk either.
func (a *attempt) copy(sub dataflow.SubtaskID, id dataflow.CheckpointID, parts []store.Part) (have []mesh.NodeID, without []refusal, err error) {
	have = []mesh.NodeID{a.x.o.Node}
	want := a.replicas - 1
	if a.replicas == 0 {
		want = coordinator.DefaultReplicas - 1
	}
	if len(parts) == 0 || want <= 0 || a.x.o.Peers == nil {
		return have, nil, nil
	}
	candidates := a.x.o.Peers(string(a.ref.Job)+"/"+sub.String(), a.suits(sub))
	want = min(want, len(candidates))
	for _, node := range candidates {
		if len(have) > want {
			break
		}
		switch _, err := a.x.peers.Push(a.ctx, node, string(a.ref.Job), id, parts); {
		case err == nil:
			have = append(have, node)
		case errors.Is(err, peers.ErrHere):
			return nil, nil, fmt.Errorf("subtask %s: %w", sub, err)
		default:
			without = append(without, refusal{node, err})
		}
	}
	if a.ctx.Err() != nil {
		return nil, nil, context.Cause(a.ctx)
	}
	if len(have) > want {
		without = nil
	}
	return have, without, nil
}

// short tells of agents that take no copies: of each again only when it had taken
// some, or was not asked, for a checkpoint.
func (a *attempt) short(id dataflow.CheckpointID, without []refusal) {
	for _, r := range without {
		last, told := a.without[r.node]
		if a.without[r.node] = id.Counter; !told || id.Counter > last+1 {
			a.tell("agent %s takes no copies, from checkpoint %s on; that is told once for as long as it lasts: %v", r.node, checkpoint.Name(id), r.why)
		}
	}
}

// suits tells which agents could run a subtask, with those that share its slot.
func (a *attempt) suits(sub dataflow.SubtaskID) func(*mesh.Member) bool {
	var wants []schedule.Want
	for _, slot := range schedule.Slots(a.parsed.graph, a.parsed.job.Constraints, a.parsed.job.Placement) {
		if slices.ContainsFunc(slot.Subtasks, func(s schedule.Subtask) bool { return s.ID == sub }) {
			for _, s := range slot.Subtasks {
				wants = append(wants, s.Wants...)
			}
		}
	}
	return func(m *mesh.Member) bool {
		return m.Slots > 0 && !slices.ContainsFunc(wants, func(w schedule.Want) bool {
			v, ok := m.Labels[w.Label]
			return w.Site == "" && (!ok || v != w.Value) || w.Site != "" && w.Site != m.Site
		})
	}
}

func (a *attempt) notStored(sub dataflow.SubtaskID, id dataflow.CheckpointID, kind checkpoint.Failure, lost bool, why error) {
	if a.ctx.Err() != nil {
		return // the attempt ends: that is what failed
	}
	a.x.o.Events(worker.AttemptEvent{NotStored: &coordinator.NotStored{AttemptRef: a.ref, ID: id, Subtask: sub, Kind: uint8(kind), Lost: lost, Why: why.Error()}})
}
