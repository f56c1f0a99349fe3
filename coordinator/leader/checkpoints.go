package leader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// coordinate begins to take the checkpoints of an attempt that runs. Of one that
// another leader deployed some may have been taken: counters go on above the
// greatest that anybody has seen, and the first barrier is Full, since nobody knows
// which deltas were lost. That of an attempt of one's own is not: its agents know
// what they were restored from.
func (l *Leader) coordinate(r *jobRun, j *coordinator.Job) {
	a := r.attempt
	p, err := l.parse(r, j)
	if err != nil {
		l.fail(r, err.Error(), true)
		return
	}
	if n := j.Newest(); n != nil && n.ID.Token == a.ref.Token {
		a.barrier = max(a.barrier, n.ID.Counter)
	}
	cfg := p.Checkpoint
	cfg.Drained = drained(j)
	cfg.Token, cfg.Counter, cfg.Start = a.ref.Token, a.barrier, l.now
	cfg.Full = r.own != a.ref.Token.Attempt || a.barrier > 0 || l.st.Level < coordinator.GoesOnLevel
	r.own = 0
	facts, _ := a.facts()
	for _, s := range facts {
		if s.Source {
			cfg.Sources = append(cfg.Sources, s.Subtask)
		}
		if s.Commits {
			cfg.Committers = append(cfg.Committers, s.Subtask)
		}
	}
	a.coordinator = checkpoint.New(cfg)
	for _, s := range cfg.Committers {
		if id, ok := a.recorded[s]; ok {
			l.step(r, checkpoint.Event{Kind: checkpoint.Committed, ID: id, Subtask: s})
		}
	}
	if j.Status == coordinator.Stopping && j.Then == dataflow.Drain {
		return // what has ended since it was told did so for that reason
	}
	for _, s := range cfg.Subtasks {
		if a.exhausted[s] {
			l.step(r, checkpoint.Event{Kind: checkpoint.Exhausted, Subtask: s})
		}
	}
}

// drained tells whether the newest checkpoint of a job is behind the end of its
// input, which somebody has ended: only its last commit is to be done.
func drained(j *coordinator.Job) bool {
	n := j.Newest()
	if n == nil {
		return false
	}
	m, err := manifest.Decode(n.Manifest)
	return err == nil && m.Drained
}

// stopRef is the request with which a job stops; others count from 1.
const stopRef = 0

// tick lets time pass for the checkpoints of a job, and stops it if it was told
// to.
func (l *Leader) tick(r *jobRun, j *coordinator.Job) {
	a := r.attempt
	if j.Status == coordinator.Stopping && !a.stopping && a.phase == begun {
		a.stopping = true
		l.step(r, checkpoint.Event{Kind: checkpoint.Requested, Request: checkpoint.Request{Ref: stopRef, Then: j.Then, Delta: j.Move != ""}})
	}
	l.step(r, checkpoint.Event{Kind: checkpoint.Tick})
	l.commit(r)
	l.record(r)
}

// wantCheckpoint has the next checkpoint of a job taken at once, if none is under
// way.
func (l *Leader) wantCheckpoint(r *jobRun) {
	l.step(r, checkpoint.Event{Kind: checkpoint.Wanted})
	l.marks.jobs[r.id] = true
}

// step gives the coordinator of the present attempt an event, and does what it
// says.
func (l *Leader) step(r *jobRun, e checkpoint.Event) {
	a := r.attempt
	if a == nil || a.coordinator == nil || a.phase == over {
		return
	}
	e.Now = l.now
	for _, f := range slices.Clone(a.coordinator.Step(e)) {
		l.perform(r, a, f)
	}
}

func (l *Leader) perform(r *jobRun, a *attempt, f checkpoint.Effect) {
	switch f.Kind {
	case checkpoint.Trigger:
		a.current, a.triggered, a.barrier = f.Barrier, l.now, f.Barrier.ID.Counter
		clear(a.shares)
		for _, node := range a.sources() {
			l.send(node, coordinator.ToAgent{Trigger: &coordinator.Trigger{AttemptRef: a.ref, Barrier: f.Barrier}})
		}
	case checkpoint.Write:
		l.write(r, a, f.ID, f.What)
	case checkpoint.Abort:
		a.current, a.held = dataflow.Barrier{}, nil
		clear(a.shares)
		l.tell("checkpoint %s of job %s failed: %s: %v", checkpoint.Name(f.ID), l.st.Jobs[r.id].Name, f.Failure.Words(), f.Err)
	case checkpoint.Answer:
		for _, ref := range a.asks[f.Ref].refs {
			answer := &Answer{Ref: ref, Err: f.Err}
			if errors.Is(f.Err, checkpoint.ErrEnding) {
				answer.Err = l.askElsewhere(r.id, f.Err)
			}
			if f.Err == nil {
				answer.Savepoint = savepointName(r.id, f.ID)
			}
			l.put(Effect{Answer: answer})
		}
		delete(a.asks, f.Ref)
	case checkpoint.Fail:
		l.fail(r, f.Err.Error(), false)
	case checkpoint.Complete, checkpoint.Release, checkpoint.Stop:
		// Agents see it in the state; what is released went with the command; that it
		// was the last one the state says too.
	}
}

// stored: a share is on disk, with the copies that its agent could make.
func (l *Leader) stored(r *jobRun, s *coordinator.Stored) {
	a := r.attempt
	if s.ID != a.current.ID {
		return // of one that was given up
	}
	a.shares[s.Subtask] = s
	l.step(r, checkpoint.Event{Kind: checkpoint.Stored, ID: s.ID, Subtask: s.Subtask})
}

func (l *Leader) notStored(r *jobRun, n *coordinator.NotStored) {
	l.step(r, checkpoint.Event{Kind: checkpoint.Failed, ID: n.ID, Subtask: n.Subtask, Failure: failure(n.Kind), Lost: n.Lost,
		Err: fmt.Errorf("subtask %s: %s", n.Subtask, n.Why)})
}

// failure takes no number that has no name, and none that only the leader finds.
func failure(kind uint8) checkpoint.Failure {
	if f := checkpoint.Failure(kind); f >= checkpoint.Expired && f <= checkpoint.JobFailed {
		return f
	}
	return checkpoint.Async
}

func (l *Leader) exhausted(r *jobRun, s dataflow.SubtaskID) {
	r.attempt.exhausted[s] = true
	l.step(r, checkpoint.Event{Kind: checkpoint.Exhausted, Subtask: s})
}

// savepointName is one that no other barrier's has, of this job or another.
func savepointName(job coordinator.JobID, id dataflow.CheckpointID) string {
	return fmt.Sprintf("sp-%s-%d-%d", job, id.Token.Attempt, id.Counter)
}

// held is a checkpoint that is complete, and whose command waits.
type held struct {
	id   dataflow.CheckpointID
	done *coordinator.CheckpointDone
}

// write makes the manifest of a checkpoint of all shares. It counts when its
// command is applied.
func (l *Leader) write(r *jobRun, a *attempt, id dataflow.CheckpointID, what checkpoint.What) {
	j := l.st.Jobs[r.id]
	c, err := l.assemble(r, a, j, id, what)
	a.current = dataflow.Barrier{}
	clear(a.shares)
	if err != nil {
		f := checkpoint.IO
		if errors.Is(err, errShort) {
			f = checkpoint.Short
		}
		l.step(r, checkpoint.Event{Kind: checkpoint.Failed, ID: id, Failure: f, Err: err})
		return
	}
	a.held = &held{id, c}
}

// record proposes a checkpoint that is complete, behind everything that sinks
// have said before. A share does not hold what its sink had committed when it
// was taken: if only the checkpoint were known, and then the agent lost, its
// file would be cut back to before that commit, and nobody would have the rest.
func (l *Leader) record(r *jobRun) {
	a := r.attempt
	if a == nil || a.held == nil || a.committing || len(a.commits) > 0 {
		return
	}
	id, c := a.held.id, a.held.done
	a.held = nil
	l.propose(coordinator.Command{CheckpointDone: c}, func(err error) {
		if r.attempt != a {
			return
		}
		e := checkpoint.Event{Kind: checkpoint.Written, ID: id}
		if err != nil {
			e = checkpoint.Event{Kind: checkpoint.Failed, ID: id, Failure: checkpoint.IO, Err: err}
		}
		l.step(r, e)
	})
}

var errNoCopy = errors.New("nobody is said to have it")

// assemble checks that all subtasks have given their share of every table of
// theirs (Encode counts them), and that each part is on as many agents as it can be.
func (l *Leader) assemble(r *jobRun, a *attempt, j *coordinator.Job, id dataflow.CheckpointID, what checkpoint.What) (*coordinator.CheckpointDone, error) {
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: checkpoint.Name(id), Job: j.Name, ID: id, Created: l.wall,
		Took: dataflow.Duration(l.now - a.triggered), Drained: what.Drained, Finished: what.Finished}
	var shares []manifest.Share
	var bytes int64
	copies := newCopies(j)
	for _, sub := range r.parsed.Checkpoint.Subtasks {
		s := a.shares[sub]
		if s == nil {
			return nil, fmt.Errorf("the share of subtask %s is not there", sub)
		}
		share, err := manifest.Decode(s.Share.Manifest)
		if err != nil {
			return nil, fmt.Errorf("the share of subtask %s: %w", sub, err)
		}
		if len(shares) > 0 && (share.MaxParallelism != m.MaxParallelism || share.Mode != m.Mode) {
			return nil, fmt.Errorf("the share of subtask %s has %d key groups and is %s, others have %d and are %s", sub, share.MaxParallelism, share.Mode, m.MaxParallelism, m.Mode)
		}
		m.MaxParallelism, m.Mode = share.MaxParallelism, share.Mode
		shares, bytes = append(shares, manifest.Share{Subtask: sub.Index, Manifest: share}), bytes+s.Share.Bytes
		copies.add(s.Share.Copies)
	}
	m, err := manifest.Assemble(m, shares)
	if err != nil {
		return nil, err
	}
	done := &coordinator.CheckpointDone{Attempt: id.Token.Attempt}
	snapshot := func(m manifest.Manifest) (*coordinator.Snapshot, error) {
		data, err := manifest.Encode(m)
		if err != nil {
			return nil, err
		}
		of, err := copies.of(&m)
		if err == nil {
			err = l.copiedEnough(r, of)
		}
		if len(of) > coordinator.MaxParts {
			err = fmt.Errorf("it has %d parts, and at most %d are possible: with a lower parallelism it has fewer", len(of), coordinator.MaxParts)
		}
		return &coordinator.Snapshot{Name: m.Name, Job: j.ID, ID: id, Manifest: data, Copies: of, Bytes: bytes}, err
	}
	if what.Checkpoint {
		if done.Checkpoint, err = snapshot(m); err != nil {
			return nil, err
		}
		done.Release = l.release(j)
	}
	if what.Savepoint {
		m.Kind, m.Name = manifest.Savepoint, savepointName(j.ID, id)
		if done.Savepoint, err = snapshot(m); err != nil {
			return nil, err
		}
		if l.st.Level >= coordinator.AdoptLevel {
			done.Savepoint.Request = a.asks[what.Ref].request
		}
	}
	return done, nil
}

// copies are who has which part: what shares say, and what the kept checkpoints
// said of parts that go on.
type copies map[store.Digest][]mesh.NodeID

func newCopies(j *coordinator.Job) copies {
	c := make(copies)
	for _, s := range j.Checkpoints {
		for _, p := range s.Copies {
			c[p.Part] = p.Nodes // a newer one knows better
		}
	}
	return c
}

func (c copies) add(more []coordinator.PartCopies) {
	for _, p := range more {
		nodes := append(slices.Clone(c[p.Part]), p.Nodes...)
		slices.Sort(nodes)
		c[p.Part] = slices.Compact(nodes)
	}
}

func (c copies) of(m *manifest.Manifest) ([]coordinator.PartCopies, error) {
	var all []coordinator.PartCopies
	seen := make(map[store.Digest]bool)
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for _, s := range t.Shards {
				for _, p := range s.Parts {
					if len(c[p.Digest]) == 0 {
						return nil, fmt.Errorf("part %s of state %q of operator %q: %w", p.Digest, t.Name, o.ID, errNoCopy)
					}
					if !seen[p.Digest] {
						seen[p.Digest] = true
						all = append(all, coordinator.PartCopies{Part: p.Digest, Nodes: c[p.Digest]})
					}
				}
			}
		}
	}
	return all, nil
}

// committed: sinks have committed. That it counts the coordinator hears when the
// state has how far; what needs no record counts at once.
func (l *Leader) committed(r *jobRun, c *coordinator.Committed) {
	r.attempt.commits = append(r.attempt.commits, c)
	if r.out.grew(c, l.st.Jobs[r.id].Sinks) {
		l.rows(r, l.now)
	}
	l.commit(r)
}

// grew tells whether a commit has brought rows out, as far as lengths of targets
// tell; recorded is what the state has. What a subtask says before it runs, with the
// zero id, is what there was.
func (o *output) grew(c *coordinator.Committed, recorded []coordinator.SinkCommit) bool {
	grew := len(c.Commits) == 0 && o.waits // of a sink that says nothing of lengths
	for _, k := range c.Commits {
		target := string(k.Node) + "/" + k.Target
		was, known := o.lengths[target]
		if i := slices.IndexFunc(recorded, func(s coordinator.SinkCommit) bool { return s.Node == k.Node && s.Target == k.Target }); !known && i >= 0 {
			was = recorded[i].Length
		}
		grew = grew || c.ID != (dataflow.CheckpointID{}) && k.Length > was
		if o.lengths == nil {
			o.lengths = make(map[string]int64)
		}
		o.lengths[target] = k.Length
	}
	return grew
}

// flowed: rows came into sinks. Those of a job that has just arrived come out soon,
// and not only when the next checkpoint is due.
func (l *Leader) flowed(r *jobRun, f *coordinator.Flowed) {
	if !f.Commits {
		l.rows(r, l.now.Add(-f.Ago))
		return
	}
	r.out.waits = true
	for _, m := range l.moving.runs {
		if m.job == r.id && m.arrival != nil && m.arrival.Phase == coordinator.ArrivalActive && !m.rowed {
			l.wantCheckpoint(r)
			return
		}
	}
}

// rows: some have come out of a job.
func (l *Leader) rows(r *jobRun, at dataflow.Time) {
	if r.out.last == 0 {
		l.markMoves(r.id)
	}
	r.out.last = max(r.out.last, at)
}

func (l *Leader) commit(r *jobRun) {
	a := r.attempt
	if a.committing || len(a.commits) == 0 || l.now < r.retry {
		return
	}
	batch := a.commits
	a.commits = nil
	c := &coordinator.SinkCommitted{Job: r.id, Attempt: a.ref.Token.Attempt}
	for _, one := range batch {
		c.Commits = append(c.Commits, one.Commits...)
	}
	count := func() {
		for _, one := range batch {
			a.recorded[one.Subtask] = one.ID
			l.step(r, checkpoint.Event{Kind: checkpoint.Committed, ID: one.ID, Subtask: one.Subtask})
		}
	}
	if len(c.Commits) == 0 {
		count()
		return
	}
	a.committing = true
	l.propose(coordinator.Command{SinkCommitted: c}, func(err error) {
		if a.committing = false; r.attempt != a {
			return
		}
		if err != nil {
			a.commits, r.retry = append(batch, a.commits...), l.now.Add(l.cfg.Timing.Retry)
			return
		}
		count()
	})
}
