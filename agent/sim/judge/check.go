package judge

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Judge judges what happens in a site, at every step. It sees everything, also
// what no agent can know.
type Judge struct {
	Stats Stats

	w         *world.World
	state     func() *coordinator.State // that of the agent that has applied most
	judged    uint64                    // up to this index commands were looked at
	leaders   map[uint64]mesh.NodeID
	barriers  map[barrierKey]uint64 // the term of the leader that triggered it
	complete  map[barrierKey]bool
	newest    map[coordinator.JobID]dataflow.CheckpointID
	begun     map[coordinator.JobID]dataflow.FencingToken // the last attempt that began to act
	acked     map[string]int64                            // of each feed's log
	snapshots map[snapshotKey]map[int]dataflow.Time       // by subtask
	actors    map[coordinator.JobID][]Actor
	ended     map[coordinator.JobID]int
	published map[coordinator.JobID]map[string]int // rows, by who listens outside
	looked    map[*byte]store.Digest               // parts that are what their names say
	warm      map[mesh.NodeID]map[coordinator.JobID]int
	sites     *Sites // nil: there is one
}

// Stats say how much happened in a run.
type Stats struct {
	Warm, Early                                                  int // what was restored before a job came, and tables that an attempt began with so
	Copied                                                       int // commands that say where parts are
	Checkpoints, Attempts, Epochs, Terms, Messages, Steps, Disks int // Disks are those that were lost
}

type barrierKey struct {
	job coordinator.JobID
	id  dataflow.CheckpointID
}

type snapshotKey struct {
	barrierKey
	task dataflow.TaskID
}

// New makes the judge of a site; state is that of the agent that has applied most.
func New(w *world.World, state func() *coordinator.State) *Judge {
	return &Judge{w: w, state: state, leaders: make(map[uint64]mesh.NodeID), barriers: make(map[barrierKey]uint64), complete: make(map[barrierKey]bool),
		newest: make(map[coordinator.JobID]dataflow.CheckpointID), begun: make(map[coordinator.JobID]dataflow.FencingToken), acked: make(map[string]int64),
		looked: make(map[*byte]store.Digest), warm: make(map[mesh.NodeID]map[coordinator.JobID]int), snapshots: make(map[snapshotKey]map[int]dataflow.Time), actors: make(map[coordinator.JobID][]Actor), published: make(map[coordinator.JobID]map[string]int), ended: make(map[coordinator.JobID]int)}
}

// Elected: 7, one leader a term.
func (j *Judge) Elected(term uint64, node mesh.NodeID) {
	j.Stats.Terms++
	if was, ok := j.leaders[term]; ok {
		j.w.Fail(7, "term %d was led by %s, and %s leads it too", term, was, node)
	}
	j.leaders[term] = node
}

// Triggered: the id of a barrier that anybody has seen is never used again (5);
// heard is the term of the leader that said so.
func (j *Judge) Triggered(ref coordinator.AttemptRef, b dataflow.Barrier, heard uint64) {
	k := barrierKey{ref.Job, b.ID}
	if was, ok := j.barriers[k]; ok && was != heard {
		j.w.Fail(5, "barrier %d of %s was triggered in term %d, and again in term %d", b.ID.Counter, Text(ref), was, heard)
	}
	j.barriers[k] = heard
}

// Applied looks at a command when the first agent of all has applied it; true: it
// is that one.
func (j *Judge) Applied(index uint64, cmd *coordinator.Command, r jobmanager.Result, st *coordinator.State) bool {
	if index <= j.judged {
		return false
	}
	j.judged = index
	if r.Err != nil {
		return true
	}
	if j.sites != nil {
		j.sites.applied(j, cmd, st)
	}
	switch {
	case cmd.CheckpointDone != nil && cmd.CheckpointDone.Checkpoint != nil:
		j.completed(cmd.CheckpointDone.Checkpoint)
	case cmd.CopiesChanged != nil:
		j.copied(cmd.CopiesChanged)
	case cmd.JobDeployed != nil:
		j.deployed(cmd.JobDeployed, st)
	case cmd.LogEpochBegun != nil:
		j.Stats.Epochs++
		b := cmd.LogEpochBegun
		j.w.Tell("feed %s: epoch %d: owner %s, members %s, start %d", b.Feed, b.Log.Epoch, b.Log.Owner, NodesText(b.Log.Members), b.Log.Start)
		log := &st.Feeds[b.Feed].Log
		switch r := log.Reign; {
		case log.Mirror != nil: // another site's log decides
		case r != nil && r.Site == st.Site && r.Start == log.Start && j.sites != nil:
			j.sites.begins(b.Feed, log)
		case b.Log.Start < j.acked[b.Feed]:
			j.w.Fail(3, "epoch %d of feed %s starts at %d, and %d records were acknowledged", b.Log.Epoch, b.Feed, b.Log.Start, j.acked[b.Feed])
		}
	case cmd.JobBecame != nil:
		b := cmd.JobBecame
		j.w.Tell("job %s is %s %s", b.Job, b.Status, b.Why)
		if b.Status.Ended() {
			if j.ended[b.Job]++; j.ended[b.Job] > 1 {
				j.w.Fail(7, "job %s ends again: %s", b.Job, b.Status)
			}
		}
	}
	return true
}

func (j *Judge) deployed(d *coordinator.JobDeployed, st *coordinator.State) {
	j.Stats.Attempts++
	job := st.Jobs[d.Job]
	if n := job.Newest(); n != nil && n.Name != d.From {
		j.w.Fail(6, "attempt %d of job %s goes on from %q, and %s is newer", d.Attempt, d.Job, d.From, n.Name)
	}
	var text string
	for _, p := range d.Places {
		text += fmt.Sprintf(" %s@%s", p.Subtask, p.Node)
	}
	j.w.Tell("job %s is deployed, attempt %d from %q:%s", d.Job, d.Attempt, d.From, text)
}

// completed: 5, all shares of a checkpoint are there, with their copies, and what
// is on the disks is what was written; 6, checkpoints come in their order.
func (j *Judge) completed(s *coordinator.Snapshot) {
	j.Stats.Checkpoints++
	j.w.Tell("checkpoint %s of %s is complete", s.Name, s.Job)
	switch was, ok := j.newest[s.Job]; {
	case !ok || was.Less(s.ID):
		j.newest[s.Job] = s.ID
	case j.sites == nil || !j.sites.Forced || was.Token.Site == s.ID.Token.Site: // else it was under way when its site was lost
		j.w.Fail(6, "checkpoint %s of job %s came after %v", s.Name, s.Job, was)
	}
	j.complete[barrierKey{s.Job, s.ID}] = true
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		j.w.Fail(5, "the manifest of %s cannot be read: %v", s.Name, err)
		return
	}
	copies := make(map[store.Digest][]mesh.NodeID)
	for _, k := range s.Copies {
		copies[k.Part] = k.Nodes
	}
	for _, p := range manifest.Needed(m) {
		j.hasCopies(s, p, copies[p.Digest])
	}
}

// copied: 5, who is said to have a part has it.
func (j *Judge) copied(c *coordinator.CopiesChanged) {
	j.Stats.Copied++
	for _, p := range c.Copies {
		j.w.Tell("part %.12s of %s is on %s", p.Part, c.Name, NodesText(p.Nodes))
		j.hasCopies(&coordinator.Snapshot{Name: c.Name, Job: c.Job}, store.Part{Digest: p.Part}, p.Nodes)
	}
}

func (j *Judge) hasCopies(s *coordinator.Snapshot, p store.Part, nodes []mesh.NodeID) {
	if len(nodes) == 0 {
		j.w.Fail(5, "checkpoint %s of job %s: nobody is said to have part %s", s.Name, s.Job, p.Digest)
	}
	for _, id := range nodes {
		n := j.w.Node(id)
		if n == nil || n.Gone {
			continue
		}
		data, ok := n.Disk.Parts[p.Digest]
		if !ok {
			j.w.Fail(5, "checkpoint %s of job %s is complete, and agent %s has not part %s on disk", s.Name, s.Job, id, p.Digest)
		} else if !j.whole(p.Digest, data) {
			j.w.Fail(5, "part %s on agent %s is damaged", p.Digest, id)
		}
	}
}

// whole tells whether data is what its name says. What is in memory once, on several
// disks, is looked at once: nobody changes it there.
func (j *Judge) whole(d store.Digest, data []byte) bool {
	if len(data) > 0 && j.looked[&data[0]] == d {
		return true
	}
	if store.Digest(sha256.Sum256(data)) != d {
		return false
	}
	j.looked[&data[0]] = d
	return true
}

// Deletes: 5, what the newest checkpoint of a job needs stays.
func (j *Judge) Deletes(node mesh.NodeID, d store.Digest) {
	st := j.state()
	for _, id := range slices.Sorted(maps.Keys(st.Jobs)) {
		n := st.Jobs[id].Newest()
		if n == nil || st.Jobs[id].Status.Ended() {
			continue
		}
		for _, k := range n.Copies {
			if k.Part == d && slices.Contains(k.Nodes, node) {
				j.w.Fail(5, "agent %s deletes part %s, which checkpoint %s of job %s needs", node, d, n.Name, id)
			}
		}
	}
}

// Restores: 6, never from an older checkpoint after a newer one was visible. From
// is what the attempt goes on from; nil: nothing.
func (j *Judge) Restores(node mesh.NodeID, ref coordinator.AttemptRef, from *coordinator.Snapshot) {
	newest, ok := j.newest[ref.Job]
	if j.sites != nil && j.sites.Erred { // the newest may be of another owner
		return
	}
	if !ok || !newest.Token.Less(ref.Token) {
		return
	}
	if from == nil || from.ID.Less(newest) {
		name := "nothing"
		if from != nil {
			name = from.Name
		}
		j.w.Fail(6, "agent %s prepares %s from %s, and barrier %d of attempt %d is complete", node, Text(ref), name, newest.Counter, newest.Token.Attempt)
	}
}

// Warm notes that an agent restores a job before it comes, or has let that go.
func (j *Judge) Warm(node mesh.NodeID, job coordinator.JobID, more int) {
	if j.warm[node] == nil {
		j.warm[node] = make(map[coordinator.JobID]int)
	}
	j.Stats.Warm += max(more, 0)
	if j.warm[node][job] += more; j.warm[node][job] < 0 || j.warm[node][job] > 2 { // one may wait for the attempt before
		j.w.Fail(12, "agent %s restores job %s before it comes %d times", node, job, j.warm[node][job])
	}
}

// Cooled: 12, in the end nobody holds what is restored before a job comes.
func (j *Judge) Cooled() {
	for _, node := range slices.Sorted(maps.Keys(j.warm)) {
		for _, job := range slices.Sorted(maps.Keys(j.warm[node])) {
			if n := j.warm[node][job]; n != 0 {
				j.w.Fail(12, "agent %s holds job %s restored, %d times, and it is not on its way there", node, job, n)
			}
		}
	}
}

// Early: 6, an attempt begins with all that its checkpoint has, of what it was given
// before it came, too.
func (j *Judge) Early(node mesh.NodeID, ref coordinator.AttemptRef, op dataflow.OperatorID, given, parts []store.Digest) {
	j.Stats.Early++
	if !slices.Equal(given, parts) {
		j.w.Fail(6, "agent %s begins %s with %d parts of operator %s that it had restored before, and its checkpoint has %d, or others", node, Text(ref), len(given), op, len(parts))
	}
}

// Actor is an attempt on an agent.
type Actor struct {
	Ref       coordinator.AttemptRef
	Node      mesh.NodeID
	Lease     interface{ Err() error }
	Publishes bool        // it has a sink that nothing but the lease keeps from acting
	Over      func() bool // it acts no more: it was closed, or has ended
}

// Begins: from now on the attempt acts. 7, where no token is looked at nobody may
// act for an older one any more, even if it stands still and goes on later.
func (j *Judge) Begins(a Actor) {
	job := a.Ref.Job
	j.actors[job] = slices.DeleteFunc(j.actors[job], func(o Actor) bool { return o.Over() })
	for _, o := range j.actors[job] {
		two := j.sites != nil && j.sites.Erred && o.Ref.Token.Site != a.Ref.Token.Site
		if !two && o.Publishes && o.Ref.Token.Less(a.Ref.Token) && o.Lease.Err() == nil {
			j.w.Fail(7, "agent %s begins %s, and agent %s has a lease and may publish for %s", a.Node, Text(a.Ref), o.Node, Text(o.Ref))
		}
	}
	if j.sites != nil {
		j.sites.starts(a, j.actors[job])
	}
	j.actors[job] = append(j.actors[job], a)
	if j.begun[job].Less(a.Ref.Token) {
		j.begun[job] = a.Ref.Token
	}
}

// Taken: 7, rows of another attempt are refused.
func (j *Judge) Taken(node mesh.NodeID, ref, from coordinator.AttemptRef) {
	if from != ref {
		j.w.Fail(7, "agent %s takes rows of attempt %s for %s", node, Text(from), Text(ref))
	}
}

// TakesPart: 7, parts of an attempt that was followed by another are refused.
func (j *Judge) TakesPart(node mesh.NodeID, ref coordinator.AttemptRef, greatest dataflow.FencingToken) {
	if ref.Token.Less(greatest) {
		j.w.Fail(7, "agent %s takes parts of attempt %s, and attempt %d has begun", node, Text(ref), greatest.Attempt)
	}
}

// Publishes: 7, nobody publishes for an attempt when a later one has begun.
func (j *Judge) Publishes(node mesh.NodeID, lease interface{ Err() error }, ref coordinator.AttemptRef, row []byte) {
	if j.published[ref.Job] == nil {
		j.published[ref.Job] = make(map[string]int)
	}
	j.published[ref.Job][string(row)]++
	j.Acts(node, lease, "publishes")
	if j.sites != nil {
		j.sites.acts(j, node, "publishes", ref)
		j.sites.published(j.published[ref.Job][string(row)])
	}
	if last := j.begun[ref.Job]; last.Site == ref.Token.Site && ref.Token.Less(last) {
		j.w.Fail(7, "agent %s publishes for attempt %s, and attempt %d has begun", node, Text(ref), last.Attempt)
	}
}

// Acts: whoever acts on the world has a lease.
func (j *Judge) Acts(node mesh.NodeID, lease interface{ Err() error }, what string) {
	if lease.Err() != nil {
		j.w.Fail(7, "agent %s %s without a lease", node, what)
	}
}

// Commits: 8, rows are committed if and only if their checkpoint is complete.
func (j *Judge) Commits(node mesh.NodeID, ref coordinator.AttemptRef, id dataflow.CheckpointID) {
	if j.sites != nil {
		j.sites.acts(j, node, "commits", ref)
	}
	if !j.complete[barrierKey{ref.Job, id}] {
		j.w.Fail(8, "agent %s commits checkpoint %d of attempt %s, which is not complete", node, id.Counter, Text(ref))
	}
}

// Acks: 3, nothing is acknowledged that is not on all members' disks; at is where
// the message is in the log.
func (j *Judge) Acks(node mesh.NodeID, feed string, members []mesh.NodeID, m world.Message, at int64) {
	for _, id := range members {
		n := j.w.Node(id)
		if n == nil || n.Gone {
			continue
		}
		l := n.Disk.Logs[feed]
		if l == nil || l.End() <= at || l.Entries[at].Number != m.Number {
			j.w.Fail(3, "agent %s acknowledges message %d of feed %s, and member %s has not got it on disk", node, m.Number, feed, id)
			return
		}
	}
	j.acked[feed] = max(j.acked[feed], at+1)
	j.Stats.Messages++
}

// Clock is the last watermark that was sent on a channel.
type Clock struct {
	at    dataflow.Time
	known bool
}

// Sends: 4, a watermark never goes back on a channel.
func (j *Judge) Sends(ref coordinator.AttemptRef, sub dataflow.SubtaskID, c *Clock, marks []batch.Mark) {
	for _, m := range marks {
		if c.known && m.Watermark < c.at {
			j.w.Fail(4, "subtask %s of attempt %s sends watermark %d behind %d", sub, Text(ref), m.Watermark, c.at)
		}
		c.at, c.known = m.Watermark, true
	}
}

// Snapshot notes where the clock of a subtask stood at a barrier, and Restored
// looks that it has not gone back: 4, across recovery.
func (j *Judge) Snapshot(job coordinator.JobID, sub dataflow.SubtaskID, id dataflow.CheckpointID, event dataflow.Time) {
	k := snapshotKey{barrierKey{job, id}, sub.Task}
	if j.snapshots[k] == nil {
		j.snapshots[k] = make(map[int]dataflow.Time)
	}
	j.snapshots[k][sub.Index] = event
}

// Restored is Snapshot's other half. With another parallelism a subtask has what
// several had: its clock is not behind the slowest.
func (j *Judge) Restored(ref coordinator.AttemptRef, sub dataflow.SubtaskID, parallelism int, from *coordinator.Snapshot, event dataflow.Time) {
	all := j.snapshots[snapshotKey{barrierKey{from.Job, from.ID}, sub.Task}]
	was, ok := all[sub.Index]
	if len(all) != parallelism {
		ok, was = len(all) > 0, dataflow.MaxTime
		for _, t := range all {
			was = min(was, t)
		}
	}
	if ok && event < was {
		j.w.Fail(4, "the watermark of subtask %s of attempt %s is %d after the restore, and was %d", sub, Text(ref), event, was)
	}
}

// Bounded: 12, nothing of a subtask grows without end.
func (j *Judge) Bounded(sub dataflow.SubtaskID, what string, n, most int) {
	if n > most {
		j.w.Fail(12, "subtask %s has %d %s", sub, n, what)
	}
}

// Wakes: 12, nobody asks to be woken at once, again and again: that would be a
// loop that never rests.
func (j *Judge) Wakes(node mesh.NodeID, at, now dataflow.Time) {
	if at <= now {
		j.w.Fail(12, "the worker of %s wants to be woken at %d, and it is %d: it would never rest", node, at, now)
	}
}

// Text names an attempt for people.
func Text(r coordinator.AttemptRef) string { return fmt.Sprintf("%s/%d", r.Job, r.Token.Attempt) }

// NodesText names nodes for people, in order.
func NodesText(ids []mesh.NodeID) string {
	var all []string
	for _, id := range ids {
		all = append(all, string(id))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
