package sim

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Violation is an invariant of the design that does not hold.
type Violation struct {
	Invariant int // its number in the design; 0: something that should never happen
	At        dataflow.Time
	Text      string
}

// Error says it for people.
func (v *Violation) Error() string {
	return fmt.Sprintf("invariant %d at %.3f s: %s", v.Invariant, float64(v.At)/float64(sec), v.Text)
}

// checker judges what happens, at every step. It sees everything, also what no
// agent can know.
type checker struct {
	w         *World
	failed    *Violation
	judged    uint64 // up to this index commands were looked at
	leaders   map[uint64]mesh.NodeID
	barriers  map[barrierKey]uint64 // the term of the leader that triggered it
	complete  map[barrierKey]bool
	newest    map[coordinator.JobID]dataflow.CheckpointID
	begun     map[coordinator.JobID]uint64 // the last attempt that began to act
	acked     map[string]int64             // of each feed's log
	epochs    map[string]uint64            // of who connected to the broker last
	snapshots map[snapshotKey]dataflow.Time
	Stats     Stats
}

// Stats say how much happened in a run.
type Stats struct {
	Checkpoints, Attempts, Epochs, Terms, Messages, Steps, Disks int // Disks are those that were lost
}

type barrierKey struct {
	job coordinator.JobID
	id  dataflow.CheckpointID
}

type snapshotKey struct {
	barrierKey
	sub dataflow.SubtaskID
}

func newChecker(w *World) *checker {
	return &checker{w: w, leaders: make(map[uint64]mesh.NodeID), barriers: make(map[barrierKey]uint64), complete: make(map[barrierKey]bool),
		newest: make(map[coordinator.JobID]dataflow.CheckpointID), begun: make(map[coordinator.JobID]uint64), acked: make(map[string]int64),
		epochs: make(map[string]uint64), snapshots: make(map[snapshotKey]dataflow.Time)}
}

// fail notes the first thing that is wrong.
func (c *checker) fail(invariant int, format string, args ...any) {
	if c.failed == nil {
		c.failed = &Violation{invariant, c.w.now, fmt.Sprintf(format, args...)}
		c.w.trace("VIOLATION %v", c.failed)
	}
}

// step looks at the whole after each event.
func (c *checker) step() {}

// elected: 7, one leader a term.
func (c *checker) elected(term uint64, node mesh.NodeID) {
	c.Stats.Terms++
	if was, ok := c.leaders[term]; ok {
		c.fail(7, "term %d was led by %s, and %s leads it too", term, was, node)
	}
	c.leaders[term] = node
}

// triggered: the id of a barrier that anybody has seen is never used again (5).
func (c *checker) triggered(a *attempt, b dataflow.Barrier) {
	k, term := barrierKey{a.ref.Job, b.ID}, a.x.p.heard
	if was, ok := c.barriers[k]; ok && was != term {
		c.fail(5, "barrier %d of %s was triggered in term %d, and again in term %d", b.ID.Counter, refText(a.ref), was, term)
	}
	c.barriers[k] = term
}

// applied: a command has been applied, by the first agent of all.
func (c *checker) applied(index uint64, cmd *coordinator.Command, r jobmanager.Result, p *proc) {
	if index <= c.judged {
		return
	}
	c.judged = index
	if r.Err != nil {
		return
	}
	st := p.machine.State()
	switch {
	case cmd.CheckpointDone != nil && cmd.CheckpointDone.Checkpoint != nil:
		c.completed(cmd.CheckpointDone.Checkpoint)
	case cmd.JobDeployed != nil:
		c.deployed(cmd.JobDeployed, st)
	case cmd.LogEpochBegun != nil:
		c.Stats.Epochs++
		b := cmd.LogEpochBegun
		c.w.trace("feed %s: epoch %d: owner %s, members %s, start %d", b.Feed, b.Log.Epoch, b.Log.Owner, nodesText(b.Log.Members), b.Log.Start)
		c.w.faultHeirs(&st.Feeds[b.Feed].Log)
		if b.Log.Start < c.acked[b.Feed] {
			c.fail(3, "epoch %d of feed %s starts at %d, and %d records were acknowledged", b.Log.Epoch, b.Feed, b.Log.Start, c.acked[b.Feed])
		}
	case cmd.JobBecame != nil:
		b := cmd.JobBecame
		c.w.trace("job %s is %s %s", b.Job, b.Status, b.Why)
	}
}

func (c *checker) deployed(d *coordinator.JobDeployed, st *coordinator.State) {
	c.Stats.Attempts++
	j := st.Jobs[d.Job]
	if n := j.Newest(); n != nil && n.Name != d.From {
		c.fail(6, "attempt %d of job %s goes on from %q, and %s is newer", d.Attempt, d.Job, d.From, n.Name)
	}
	var text string
	for _, p := range d.Places {
		text += fmt.Sprintf(" %s@%s", p.Subtask, p.Node)
	}
	c.w.trace("job %s is deployed, attempt %d from %q:%s", d.Job, d.Attempt, d.From, text)
}

// completed: 5, all shares of a checkpoint are there, with their copies, and what
// is on the disks is what was written; 6, checkpoints come in their order.
func (c *checker) completed(s *coordinator.Snapshot) {
	c.Stats.Checkpoints++
	c.w.trace("checkpoint %s of %s is complete", s.Name, s.Job)
	if was, ok := c.newest[s.Job]; ok && !manifest.Less(was, s.ID) {
		c.fail(6, "checkpoint %s of job %s came after %v", s.Name, s.Job, was)
	}
	c.newest[s.Job] = s.ID
	c.complete[barrierKey{s.Job, s.ID}] = true
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		c.fail(5, "the manifest of %s cannot be read: %v", s.Name, err)
		return
	}
	copies := make(map[store.Digest][]mesh.NodeID)
	for _, k := range s.Copies {
		copies[k.Part] = k.Nodes
	}
	for _, p := range manifest.Needed(m) {
		c.hasCopies(s, p, copies[p.Digest])
	}
}

func (c *checker) hasCopies(s *coordinator.Snapshot, p store.Part, nodes []mesh.NodeID) {
	if len(nodes) == 0 {
		c.fail(5, "checkpoint %s of job %s: nobody is said to have part %s", s.Name, s.Job, p.Digest)
	}
	for _, id := range nodes {
		n := c.w.node(id)
		if n == nil || n.gone {
			continue
		}
		data, ok := n.disk.parts[p.Digest]
		if !ok {
			c.fail(5, "checkpoint %s of job %s is complete, and agent %s has not part %s on disk", s.Name, s.Job, id, p.Digest)
		} else if store.Digest(sha256.Sum256(data)) != p.Digest {
			c.fail(5, "part %s on agent %s is damaged", p.Digest, id)
		}
	}
}

// deletes: 5, what the newest checkpoint of a job needs stays.
func (c *checker) deletes(p *proc, d store.Digest) {
	st := c.w.state()
	for _, id := range sortedKeys(st.Jobs) {
		n := st.Jobs[id].Newest()
		if n == nil || st.Jobs[id].Status.Ended() {
			continue
		}
		for _, k := range n.Copies {
			if k.Part == d && slices.Contains(k.Nodes, p.n.id) {
				c.fail(5, "agent %s deletes part %s, which checkpoint %s of job %s needs", p.n.id, d, n.Name, id)
			}
		}
	}
}

// restores: 6, never from an older checkpoint after a newer one was visible.
func (c *checker) restores(p *proc, a *attempt) {
	newest, ok := c.newest[a.ref.Job]
	if !ok || !newest.Token.Less(a.ref.Token) {
		return
	}
	if a.asked.From == nil || manifest.Less(a.asked.From.ID, newest) {
		c.fail(6, "agent %s prepares %s from %s, and barrier %d of attempt %d is complete", p.n.id, refText(a.ref), fromText(a.asked.From), newest.Counter, newest.Token.Attempt)
	}
}

// mayPublish tells whether a sink is here that nothing but the lease keeps from
// acting.
func (a *attempt) mayPublish() bool {
	return slices.ContainsFunc(a.subs, func(s *subtask) bool {
		return slices.ContainsFunc(s.writers, func(w sensors.Writer) bool { _, is := w.(*publisher); return is })
	})
}

// begins: from now on the attempt acts. 7, where no token is looked at nobody may
// act for an older one any more, even if it stands still and goes on later.
func (c *checker) begins(a *attempt) {
	for _, p := range c.w.procs() {
		o := p.exec.attempts[a.ref.Job]
		if o != nil && !o.over && o.begin != nil && o.ref.Token.Less(a.ref.Token) && o.mayPublish() && p.lease.Err() == nil {
			c.fail(7, "agent %s begins %s, and agent %s has a lease and may publish for %s", a.x.p.n.id, refText(a.ref), p.n.id, refText(o.ref))
		}
	}
	c.begun[a.ref.Job] = max(c.begun[a.ref.Job], a.ref.Token.Attempt)
}

// taken: 7, rows of another attempt are refused.
func (c *checker) taken(a *attempt, from coordinator.AttemptRef) {
	if from != a.ref {
		c.fail(7, "agent %s takes rows of attempt %s for %s", a.x.p.n.id, refText(from), refText(a.ref))
	}
}

// takesPart: 7, parts of an attempt that was followed by another are refused.
func (c *checker) takesPart(p *proc, ref coordinator.AttemptRef, greatest dataflow.FencingToken) {
	if ref.Token.Less(greatest) {
		c.fail(7, "agent %s takes parts of attempt %s, and attempt %d has begun", p.n.id, refText(ref), greatest.Attempt)
	}
}

// publishes: 7, nobody publishes for an attempt when a later one has begun.
func (c *checker) publishes(a *attempt) {
	c.acts(a.x.p, "publishes")
	if last := c.begun[a.ref.Job]; last > a.ref.Token.Attempt {
		c.fail(7, "agent %s publishes for attempt %s, and attempt %d has begun", a.x.p.n.id, refText(a.ref), last)
	}
}

// acts: whoever acts on the world has a lease.
func (c *checker) acts(p *proc, what string) {
	if p.lease.Err() != nil {
		c.fail(7, "agent %s %s without a lease", p.n.id, what)
	}
}

// commits: 8, rows are committed if and only if their checkpoint is complete.
func (c *checker) commits(a *attempt, id dataflow.CheckpointID) {
	if !c.complete[barrierKey{a.ref.Job, id}] {
		c.fail(8, "agent %s commits checkpoint %d of attempt %s, which is not complete", a.x.p.n.id, id.Counter, refText(a.ref))
	}
}

// acks: 3, nothing is acknowledged that is not on all members' disks.
func (c *checker) acks(o *owner, r record) {
	at := o.known[r.message]
	if o.session == nil || o.session.conn != o {
		return // nobody hears it
	}
	c.acts(o.s.p, "acknowledges a message")
	for _, id := range o.epoch.Members {
		n := c.w.node(id)
		if n == nil || n.gone {
			continue
		}
		l := n.disk.logs[o.name]
		if l == nil || l.end() <= at || l.entries[at].message != r.message {
			c.fail(3, "agent %s acknowledges message %d of feed %s, and member %s has not got it on disk", o.s.p.n.id, r.message, o.name, id)
			return
		}
	}
	c.acked[o.name] = max(c.acked[o.name], at+1)
	c.Stats.Messages++
}

// sends: 4, a watermark never goes back on a channel.
func (c *checker) sends(s *subtask, to runtime.Target, b *batch.Batch) {
	for _, m := range b.Marks {
		was, ok := s.marks[to]
		if ok && m.Watermark < was {
			c.fail(4, "subtask %s of attempt %s sends watermark %d behind %d", s.id(), refText(s.a.ref), m.Watermark, was)
		}
		s.marks[to] = m.Watermark
	}
}

// snapshot notes where the clock of a subtask stood at a barrier, and restored
// looks that it has not gone back: 4, across recovery.
func (c *checker) snapshot(a *attempt, sub dataflow.SubtaskID, id dataflow.CheckpointID, event dataflow.Time) {
	c.snapshots[snapshotKey{barrierKey{a.ref.Job, id}, sub}] = event
}

func (c *checker) restored(a *attempt, sub dataflow.SubtaskID, event dataflow.Time) {
	was, ok := c.snapshots[snapshotKey{barrierKey{a.ref.Job, a.asked.From.ID}, sub}]
	if ok && event < was {
		c.fail(4, "the watermark of subtask %s of attempt %s is %d after the restore, and was %d", sub, refText(a.ref), event, was)
	}
}

// bounded: 12, nothing grows without end.
func (c *checker) bounded(s *subtask) {
	for i := range s.in {
		if n := len(s.in[i].queue); n > depth {
			c.fail(12, "channel %d of subtask %s holds %d messages", i, s.id(), n)
		}
	}
	if len(s.ops) > 256 {
		c.fail(12, "subtask %s has %d effects to do", s.id(), len(s.ops))
	}
}

// wakes: 12, nobody asks to be woken at once, again and again: that would be a
// loop that never rests.
func (c *checker) wakes(p *proc, at dataflow.Time) {
	if at <= p.now() {
		c.fail(12, "the worker of %s wants to be woken at %d, and it is %d: it would never rest", p.n.id, at, p.now())
	}
}

func fromText(s *coordinator.Snapshot) string {
	if s == nil {
		return "nothing"
	}
	return s.Name
}
