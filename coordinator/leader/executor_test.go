package leader_test

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// executor answers as one would that has nothing to do.
type executor struct {
	n        *node
	attempts map[coordinator.JobID]*running
	prepared map[coordinator.AttemptRef]bool
	warms    map[coordinator.JobID][]coordinator.Place // where jobs are restored early
	roles    map[string]*worker.LogRole                // feeds that are owned or followed
	owns     map[string]bool
	synced   map[string]bool
	short    map[string]dataflow.Time // since when a member of an owned log is not reached
	done     map[coordinator.AttemptRef]uint64
	// What a script holds back.
	noPrepared, noStored, noClosed, noSeal, noRole, noCopied, noProbed bool
	alone                                                              bool // it sees nobody to give copies to
	full, early                                                        bool // its disk takes no copies; it says that it has them before it does
	failPrepare                                                        string
	parts                                                              int // how many parts each of its tables has; 0: one
}

// running is an attempt on a node.
type running struct {
	ref       coordinator.AttemptRef
	job       *coordinator.Job
	parsed    *leader.Parsed
	subtasks  []dataflow.SubtaskID
	drained   bool // it goes on from behind the end of its input
	began     bool
	closing   bool
	barriers  map[uint64]bool
	committed []coordinator.SinkCommit // all, in order
}

func newExecutor(n *node) *executor {
	return &executor{n: n, attempts: make(map[coordinator.JobID]*running), prepared: make(map[coordinator.AttemptRef]bool), warms: make(map[coordinator.JobID][]coordinator.Place), roles: make(map[string]*worker.LogRole),
		owns: make(map[string]bool), synced: make(map[string]bool), short: make(map[string]dataflow.Time), done: make(map[coordinator.AttemptRef]uint64)}
}

func (x *executor) say(e worker.AttemptEvent) { x.n.step(worker.Event{Attempt: &e}) }

// later says something of an attempt, unless it is closed meanwhile.
func (x *executor) later(d dataflow.Time, r *running, f func()) {
	x.n.site.after(d, x.n.life(func() {
		if x.attempts[r.ref.Job] == r && !r.closing {
			f()
		}
	}))
}

func (x *executor) perform(f worker.Effect) {
	x.n.site.dirty = true
	switch {
	case f.Prepare != nil:
		x.prepare(f.Prepare)
	case f.Begin != nil:
		x.begin(f.Begin)
	case f.Trigger != nil:
		x.trigger(f.Trigger)
	case f.Complete != nil:
		x.complete(f.Complete)
	case f.Finish != nil:
		r := x.attempts[f.Finish.Job]
		x.n.site.trace("%s: finish %s", x.n.id, refText(f.Finish.AttemptRef))
		x.later(10*ms, r, func() { x.say(worker.AttemptEvent{Ended: &coordinator.AttemptEnded{AttemptRef: r.ref}}) })
	case f.Close != nil:
		ref := *f.Close
		x.n.site.trace("%s: close %s", x.n.id, refText(ref))
		x.attempts[ref.Job].closing = true
		x.n.site.after(10*ms, x.n.life(func() { x.closed(ref) }))
	case f.Copy != nil:
		x.copy(f.Copy)
	case f.Kept != nil:
		x.keep(f.Kept)
	case f.Warm != nil:
		x.warm(f.Warm)
	case f.Probe != nil:
		if x.noProbed {
			break
		}
		x.n.step(worker.Event{Probed: &coordinator.Probed{Order: f.Probe.Order, Move: f.Probe.Move, Why: x.failPrepare}})
	case f.Cool != nil:
		x.n.site.trace("%s: cool %s", x.n.id, *f.Cool)
		delete(x.warms, *f.Cool)
	default:
		x.performLog(f)
	}
}

// warm: of a job that runs here nothing is restored early.
func (x *executor) warm(m *worker.Warm) {
	id := m.Job.ID
	if r := x.attempts[id]; r != nil && !r.closing || len(m.Job.Places) == 0 {
		x.n.site.fail("%s: %s is restored early while it runs, or nowhere", x.n.id, id)
	}
	x.warms[id] = m.Job.Places
	var mine []string
	for _, p := range m.Job.Places {
		if p.Node == x.n.id {
			mine = append(mine, p.Subtask.String())
		}
	}
	x.n.site.trace("%s: warm %s from %s: %v", x.n.id, id, m.From.Name, mine)
	x.n.step(worker.Event{Warmed: &coordinator.Warmed{Job: id, Name: m.From.Name}})
}

func (x *executor) closed(ref coordinator.AttemptRef) {
	if x.noClosed || x.attempts[ref.Job] == nil || x.attempts[ref.Job].ref != ref {
		return
	}
	delete(x.attempts, ref.Job)
	x.say(worker.AttemptEvent{Closed: &ref})
}

func (x *executor) prepare(p *worker.Prepare) {
	if x.attempts[p.AttemptRef.Job] != nil || x.prepared[p.AttemptRef] {
		x.n.site.fail("%s: attempt %s is prepared while %v is open, or again", x.n.id, refText(p.AttemptRef), x.attempts[p.AttemptRef.Job])
	}
	x.prepared[p.AttemptRef] = true
	parsed, err := leader.Parse(p.Job)
	if err != nil {
		x.n.site.fail("%v", err)
		return
	}
	r := &running{ref: p.AttemptRef, job: p.Job, parsed: parsed, barriers: make(map[uint64]bool)}
	said := &coordinator.Prepared{AttemptRef: p.AttemptRef}
	for _, place := range p.Job.Places {
		if place.Node == x.n.id {
			r.subtasks = append(r.subtasks, place.Subtask)
			s := coordinator.PreparedSubtask{Subtask: place.Subtask, Source: r.source(place.Subtask), Commits: r.commits(place.Subtask)}
			said.Subtasks = append(said.Subtasks, s)
		}
	}
	x.attempts[p.AttemptRef.Job] = r
	from := "afresh"
	if p.From != nil {
		from = "from " + p.From.Name
		m, err := manifest.Decode(p.From.Manifest)
		if err != nil {
			x.n.site.fail("%v", err)
		}
		r.drained = m.Drained
	}
	if places := x.warms[p.Job.ID]; slices.Equal(places, p.Job.Places) {
		from += ", warm"
	}
	delete(x.warms, p.Job.ID)
	x.n.site.trace("%s: prepare %s %s: %v", x.n.id, refText(r.ref), from, r.subtasks)
	x.later(20*ms, r, func() {
		switch {
		case x.failPrepare != "":
			x.failed(r, x.failPrepare, false)
		case !x.noPrepared:
			x.say(worker.AttemptEvent{Prepared: said})
		}
	})
}

// failed ends an attempt by itself.
func (x *executor) failed(r *running, why string, final bool) {
	delete(x.attempts, r.ref.Job)
	x.say(worker.AttemptEvent{Failed: &coordinator.AttemptFailed{AttemptRef: r.ref, Subtask: r.subtasks[0], Why: why, Final: final}})
}

func (r *running) task(s dataflow.SubtaskID) *graph.Task {
	for i := range r.parsed.Graph.Subtasks {
		if r.parsed.Graph.Subtasks[i].ID == s {
			return r.parsed.Graph.Subtasks[i].Task
		}
	}
	return nil
}

func (r *running) source(s dataflow.SubtaskID) bool { return r.task(s).Head().Role == graph.SourceNode }

func (r *running) commits(s dataflow.SubtaskID) bool {
	return slices.ContainsFunc(r.task(s).Links, func(l graph.Link) bool { return l.Node.Role == graph.SinkNode && l.Node.ID == "out" })
}

func (x *executor) begin(b *coordinator.Begin) {
	r := x.attempts[b.Job]
	r.began = true
	x.n.site.trace("%s: begin %s", x.n.id, refText(b.AttemptRef))
	x.listen(r)
	if slices.ContainsFunc(r.subtasks, r.commits) {
		x.later(300*ms, r, func() { x.say(worker.AttemptEvent{Flowed: &coordinator.Flowed{AttemptRef: r.ref, Commits: true}}) })
	}
	if slices.Contains(r.job.Sets, "bounded") || r.job.Name == "bounded" || r.drained {
		end := 400 * ms
		if r.drained { // before anything is read
			end = 0
		}
		for _, s := range r.subtasks {
			if r.source(s) {
				x.later(end, r, func() {
					x.say(worker.AttemptEvent{Exhausted: &coordinator.Exhausted{AttemptRef: r.ref, Subtask: s}})
				})
			}
		}
	}
}

// listen fails an attempt when a channel to another agent has broken.
func (x *executor) listen(r *running) {
	x.later(200*ms, r, func() {
		for _, p := range r.job.Places {
			if p.Node != x.n.id && x.n.cut(p.Node) {
				delete(x.attempts, r.ref.Job)
				x.say(worker.AttemptEvent{Failed: &coordinator.AttemptFailed{AttemptRef: r.ref, Why: "the channels to agent " + string(p.Node) + " broke", Peer: p.Node}})
				return
			}
		}
		x.listen(r)
	})
}

// trigger: sources have their share at once; others when all sources have put
// their barrier into the streams.
func (x *executor) trigger(t *coordinator.Trigger) {
	r := x.attempts[t.Job]
	r.barriers[t.Barrier.ID.Counter] = true
	words := ""
	if t.Barrier.Full {
		words += " full"
	}
	if t.Barrier.Then != dataflow.GoOn {
		words += " " + t.Barrier.Then.String()
	}
	x.n.site.trace("%s: trigger %s %d%s", x.n.id, refText(r.ref), t.Barrier.ID.Counter, words)
	all := x.n.site.executorsOf(r.ref)
	for _, o := range all {
		or := o.attempts[r.ref.Job]
		if slices.ContainsFunc(or.subtasks, or.source) && !or.barriers[t.Barrier.ID.Counter] {
			return
		}
	}
	for _, o := range all {
		or := o.attempts[r.ref.Job]
		for _, s := range or.subtasks {
			o.later(20*ms, or, func() { o.store(or, s, t.Barrier) })
		}
	}
}

// executorsOf are those that have an attempt.
func (s *site) executorsOf(ref coordinator.AttemptRef) []*executor {
	var all []*executor
	for _, n := range s.sorted() {
		if n.up && n.exec.attempts[ref.Job] != nil && n.exec.attempts[ref.Job].ref == ref {
			all = append(all, n.exec)
		}
	}
	return all
}

func (x *executor) store(r *running, s dataflow.SubtaskID, b dataflow.Barrier) {
	if x.noStored {
		return
	}
	if rng := x.n.site.rng; rng != nil && rng.IntN(100) == 0 {
		x.say(worker.AttemptEvent{NotStored: &coordinator.NotStored{AttemptRef: r.ref, ID: b.ID, Subtask: s, Kind: 3, Lost: true, Why: "disk full"}})
		return
	}
	x.n.site.before[sharing{r.ref.Job, b.ID, s}] = slices.Clone(r.committed)
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: "share", Job: r.job.Name, ID: b.ID, MaxParallelism: 128, Mode: manifest.ExactlyOnce}
	var parts []manifest.PartUse
	var copies []coordinator.PartCopies
	for i := range max(1, x.parts) {
		said := fmt.Append(nil, r.ref, s, b.ID.Counter)
		if i > 0 {
			said = fmt.Append(said, i)
		}
		digest := store.Digest(sha256.Sum256(said))
		parts = append(parts, manifest.PartUse{Part: store.Part{Digest: digest, Size: 10}, Rows: 1, Delta: i > 0})
		copies = append(copies, coordinator.PartCopies{Part: digest, Nodes: x.push(digest, r.parsed.Replicas)})
	}
	for _, link := range r.task(s).Links {
		t := manifest.Table{Name: "t", Schema: `"x"`, Keyed: true, Identity: 1}
		for i := range r.task(s).Parallelism {
			shard := manifest.Shard{Subtask: i}
			if i == s.Index {
				shard.Parts = parts
			}
			t.Shards = append(t.Shards, shard)
		}
		m.Operators = append(m.Operators, manifest.Operator{ID: link.Node.ID, Parallelism: r.task(s).Parallelism, Tables: []manifest.Table{t}})
	}
	data, err := manifest.Encode(m)
	if err != nil {
		x.n.site.fail("%v", err)
		return
	}
	x.say(worker.AttemptEvent{Stored: &coordinator.Stored{AttemptRef: r.ref, ID: b.ID, Subtask: s, Share: coordinator.Share{Manifest: data, Copies: copies, Bytes: 10}}})
}

// complete: sinks commit, as soon as the lease lets them.
func (x *executor) complete(c *worker.Complete) {
	r := x.attempts[c.Job]
	if x.done[c.AttemptRef] >= c.Snapshot.ID.Counter {
		x.n.site.fail("%s: %s is complete again", x.n.id, c.Snapshot.Name)
	}
	x.done[c.AttemptRef] = c.Snapshot.ID.Counter
	x.n.site.trace("%s: complete %s", x.n.id, c.Snapshot.Name)
	for _, s := range r.subtasks {
		if r.commits(s) {
			x.commit(r, s, c.Snapshot.ID)
		}
	}
}

func (x *executor) commit(r *running, s dataflow.SubtaskID, id dataflow.CheckpointID) {
	x.later(10*ms, r, func() {
		if x.n.site.now >= x.n.lease {
			x.commit(r, s, id)
			return
		}
		done := coordinator.SinkCommit{Operator: "out", Node: x.n.id, Target: fmt.Sprintf("out-%d", s.Index), Through: id, Length: int64(id.Token.Attempt)<<20 + int64(id.Counter)}
		r.committed = append(r.committed, done)
		x.say(worker.AttemptEvent{Committed: &coordinator.Committed{AttemptRef: r.ref, Subtask: s, ID: id, Commits: []coordinator.SinkCommit{done}}})
	})
}

// performLog keeps logs as agent/feed would.
func (x *executor) performLog(f worker.Effect) {
	feed := ""
	switch {
	case f.Own != nil:
		feed = f.Own.Feed.Name
	case f.Follow != nil:
		feed = f.Follow.Feed.Name
	case f.Seal != nil:
		feed = f.Seal.Feed.Name
	case f.Rest != nil:
		feed = *f.Rest
	case f.Drop != nil:
		feed = *f.Drop
	}
	x.keepLog(f)
	x.n.site.after(5*ms, x.n.life(func() { x.n.step(worker.Event{Log: &worker.LogEvent{Done: &feed}}) }))
}

func (x *executor) keepLog(f worker.Effect) {
	s := x.n.site
	switch {
	case f.Own != nil || f.Follow != nil:
		as := f.Own
		if as == nil {
			as = f.Follow
		}
		name := as.Feed.Name
		s.trace("%s: %s %s epoch %d of %v from %d%s", x.n.id, map[bool]string{true: "own", false: "follow"}[f.Own != nil], name, as.Epoch.Epoch, as.Epoch.Members, as.Epoch.Start,
			map[bool]string{true: ", held"}[as.Epoch.Held]+map[bool]string{true: ", a mirror"}[as.Epoch.Mirror != nil])
		if x.noRole {
			delete(x.roles, name)
			x.failLog(name, as.Epoch.Epoch)
			return
		}
		x.roles[name], x.owns[name], x.synced[name] = as, f.Own != nil, false
		clear(x.short)
		d := x.n.disk[name]
		x.n.disk[name] = coordinator.LogNow{Feed: name, Epoch: as.Epoch.Epoch, End: min(d.End, as.Epoch.Cut(d.Epoch))}
		if f.Own != nil {
			x.own(as)
		}
	case f.Seal != nil:
		name, epoch := f.Seal.Feed.Name, f.Seal.Epoch.Epoch+1
		delete(x.roles, name)
		if x.noSeal {
			x.failLog(name, epoch)
			return
		}
		d := x.n.disk[name]
		sealed := &coordinator.Sealed{Feed: name, Epoch: epoch, End: min(d.End, f.Seal.Epoch.Cut(d.Epoch))}
		x.n.disk[name] = coordinator.LogNow{Feed: name, Epoch: epoch, End: sealed.End, Sealed: true}
		s.trace("%s: seal %s below %d at %d", x.n.id, name, epoch, sealed.End)
		s.after(5*ms, x.n.life(func() { x.n.step(worker.Event{Log: &worker.LogEvent{Sealed: sealed}}) }))
	case f.Rest != nil:
		s.trace("%s: rest %s", x.n.id, *f.Rest)
		delete(x.roles, *f.Rest)
	case f.Drop != nil:
		s.trace("%s: drop %s", x.n.id, *f.Drop)
		delete(x.roles, *f.Drop)
		delete(x.n.disk, *f.Drop)
	}
}

// failLog says that what was asked of a log cannot be done.
func (x *executor) failLog(feed string, epoch uint64) {
	failed := &worker.LogFailed{Feed: feed, Epoch: epoch, Why: "no disk"}
	x.n.site.after(5*ms, x.n.life(func() { x.n.step(worker.Event{Log: &worker.LogEvent{Failed: failed}}) }))
}

// own appends to a log now and then, copies, and acknowledges what all members
// have.
func (x *executor) own(as *worker.LogRole) {
	s, name := x.n.site, as.Feed.Name
	s.after(20*ms, x.n.life(func() {
		if x.roles[name] != as {
			return
		}
		all := true
		d := x.n.disk[name]
		if x.n.site.now < x.n.lease && !as.Epoch.Held && as.Epoch.Mirror == nil {
			d.End++ // a message came
		}
		for _, m := range as.Epoch.Members {
			o := s.nodes[m]
			if o == x.n {
				continue
			}
			role := o.exec
			if o.up && !o.frozen && !x.n.cut(o.id) && o.disk[name].Epoch > as.Epoch.Epoch {
				delete(x.roles, name)
				x.failLog(name, as.Epoch.Epoch) // it has promised a later epoch
				return
			}
			if !o.up || o.frozen || x.n.cut(o.id) || role.roles[name] == nil || role.roles[name].Epoch.Epoch != as.Epoch.Epoch {
				all = false
				x.outOfSync(as, m)
				continue
			}
			delete(x.short, name+string(m))
			o.disk[name] = coordinator.LogNow{Feed: name, Epoch: d.Epoch, End: d.End}
		}
		x.n.disk[name] = d
		if all && s.now < x.n.lease {
			s.acked[name] = max(s.acked[name], d.End)
			if !x.synced[name] {
				x.synced[name] = true
				x.n.step(worker.Event{Log: &worker.LogEvent{InSync: &coordinator.InSync{Feed: name, Epoch: as.Epoch.Epoch}}})
			}
		}
		x.own(as)
	}))
}

// outOfSync tells once of a member that is not reached for a second.
func (x *executor) outOfSync(as *worker.LogRole, m mesh.NodeID) {
	key := as.Feed.Name + string(m)
	since, known := x.short[key]
	switch now := x.n.site.now; {
	case !known:
		x.short[key] = now
	case since != dataflow.MaxTime && now >= since+1000*ms:
		x.short[key] = dataflow.MaxTime
		x.synced[as.Feed.Name] = false
		x.n.step(worker.Event{Log: &worker.LogEvent{OutOfSync: &coordinator.OutOfSync{Feed: as.Feed.Name, Epoch: as.Epoch.Epoch, Member: m, Why: "it is not reached"}}})
	}
}

// observe looks at what was decided.
func (s *site) observe(st *coordinator.State, c *coordinator.Command) {
	s.observeOwner(st, c)
	if b := c.LogEpochBegun; b != nil && b.Log.Epoch == 1 {
		delete(s.acked, b.Feed) // of one that came, and was dropped
	}
	if b := c.LogEpochBegun; b != nil && st.Feeds[b.Feed].Log.Mirror != nil {
		s.acked[b.Feed] = b.Log.Start // nothing was acknowledged here; or another site's word counts more, by force
	}
	if b := c.LogEpochBegun; b != nil && b.Log.Start < s.acked[b.Feed] {
		s.fail("epoch %d of feed %s starts at %d, and %d were acknowledged", b.Log.Epoch, b.Feed, b.Log.Start, s.acked[b.Feed])
	}
	if d := c.CopiesChanged; d != nil {
		s.copiesThere(d)
	}
	if d := c.CheckpointDone; d != nil && d.Checkpoint != nil {
		job := d.Checkpoint.Job
		if was, ok := s.newest[job]; ok && !was.Less(d.Checkpoint.ID) && was != d.Checkpoint.ID {
			s.fail("checkpoint %v of job %s came after %v", d.Checkpoint.ID, job, was)
		}
		s.newest[job] = d.Checkpoint.ID
		s.commitsKnown(st.Jobs[job], d.Checkpoint.ID)
	}
}

// check judges the site as it is: where no token helps, no attempt acts while a
// later one is open anywhere.
func (s *site) check() {
	last := make(map[coordinator.JobID]uint64)
	for _, n := range s.nodes {
		if n.up {
			for id, r := range n.exec.attempts {
				last[id] = max(last[id], r.ref.Token.Attempt)
			}
		}
	}
	for _, n := range s.nodes {
		if !n.up || n.frozen || s.now >= n.lease {
			continue
		}
		for id, r := range n.exec.attempts {
			publishes := slices.ContainsFunc(r.subtasks, func(s dataflow.SubtaskID) bool { return r.parsed.Unfenced[s.Task] })
			if r.began && publishes && r.ref.Token.Attempt < last[id] {
				s.fail("%s acts for attempt %s while attempt %d is open", n.id, refText(r.ref), last[id])
			}
		}
	}
}

// commitsKnown: what sinks committed before their shares of a checkpoint is on
// record when that is.
func (s *site) commitsKnown(j *coordinator.Job, id dataflow.CheckpointID) {
	for share, commits := range s.before {
		if share.job != j.ID {
			continue
		}
		for _, c := range commits {
			known := slices.ContainsFunc(j.Sinks, func(k coordinator.SinkCommit) bool {
				return k.Operator == c.Operator && k.Node == c.Node && k.Target == c.Target && !k.Through.Less(c.Through)
			})
			if share.id == id && !known {
				s.fail("checkpoint %v counts, and that %s on %s is committed through %v is not on record", id, c.Target, c.Node, c.Through)
			}
		}
		if share.id.Token == id.Token && share.id.Counter <= id.Counter {
			delete(s.before, share)
		}
	}
}
