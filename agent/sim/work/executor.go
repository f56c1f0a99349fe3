package work

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors/file"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// executor performs a worker's effects for attempts, as agent/executor does.
type executor struct {
	p        *Agent
	attempts map[coordinator.JobID]*attempt
	tokens   map[coordinator.JobID]dataflow.FencingToken // the greatest that was prepared here
	kept     map[coordinator.JobID]*worker.Kept
	holds    map[store.Digest][]hold
	old      map[store.Digest]bool // parts that were here at the start
	lost     map[coordinator.JobID]*coordinator.Job
	copying  *worker.Copy                   // the last that was asked for
	warms    map[coordinator.JobID]*warming // what is restored early, of which no attempt has begun
}

// hold keeps a part that a checkpoint under way may name.
type hold struct {
	job coordinator.JobID
	id  dataflow.CheckpointID
}

func newExecutor(p *Agent) *executor {
	x := &executor{p: p, attempts: make(map[coordinator.JobID]*attempt), tokens: make(map[coordinator.JobID]dataflow.FencingToken),
		kept: make(map[coordinator.JobID]*worker.Kept), holds: make(map[store.Digest][]hold), old: make(map[store.Digest]bool),
		lost: make(map[coordinator.JobID]*coordinator.Job), warms: make(map[coordinator.JobID]*warming)}
	for d := range p.Disk.Parts {
		x.old[d] = true
	}
	return x
}

// forget: the process is dead.
func (x *executor) forget() {
	for _, id := range slices.Sorted(maps.Keys(x.attempts)) {
		x.attempts[id].over = true
		x.attempts[id].cool()
	}
	for _, id := range slices.Sorted(maps.Keys(x.warms)) {
		x.coolDown(id)
	}
}

func (x *executor) say(e worker.AttemptEvent) { x.p.Tell(worker.Event{Attempt: &e}) }

func (x *executor) find(ref coordinator.AttemptRef) *attempt {
	if a := x.attempts[ref.Job]; a != nil && a.ref == ref && !a.over {
		return a
	}
	return nil
}

func (x *executor) do(f worker.Effect) {
	switch {
	case f.Prepare != nil:
		x.prepare(f.Prepare)
	case f.Begin != nil:
		if a := x.find(f.Begin.AttemptRef); a != nil {
			a.start(f.Begin)
		}
	case f.Trigger != nil:
		if a := x.find(f.Trigger.AttemptRef); a != nil && a.begin != nil {
			a.trigger(f.Trigger.Barrier)
		}
	case f.Complete != nil:
		if a := x.find(f.Complete.AttemptRef); a != nil && a.begin != nil {
			a.completed(f.Complete.Snapshot.ID)
		}
	case f.Finish != nil:
		if a := x.find(f.Finish.AttemptRef); a != nil && a.begin != nil {
			a.finish()
		}
	case f.Close != nil:
		x.close(*f.Close)
	case f.Kept != nil:
		x.keep(f.Kept)
	case f.Copy != nil:
		x.copy(f.Copy)
	case f.Probe != nil: // all is within reach
		x.p.Tell(worker.Event{Probed: &coordinator.Probed{Order: f.Probe.Order, Move: f.Probe.Move}})
	case f.Warm != nil:
		x.warmUp(f.Warm)
	case f.Cool != nil:
		if !x.p.W.Bugs.KeepWarm {
			x.coolDown(*f.Cool)
		}
	case f.Lost != nil:
		x.lost[f.Lost.ID] = f.Lost
		x.p.Post(x.cutLost)
	}
}

// attempt is one attempt's part on this agent.
type attempt struct {
	x       *executor
	ref     coordinator.AttemptRef
	asked   *worker.Prepare
	spec    *spec
	plan    runtime.Plan
	rows    *restore.Plan
	pool    *batch.Pool
	subs    []*subtask // that run here, in the order of the plan
	at      map[int]*subtask
	shares  *shares
	begin   *coordinator.Begin
	ready   bool // Prepared was said
	over    bool
	ended   bool
	tries   int
	early   *warming                          // what is restored early, until it is taken or dropped; nil: nothing
	warm    map[dataflow.SubtaskID]*task.Task // what was; nil: nothing
	written map[string]bool                   // targets of its sinks here, when all others are cut back; nil: they are not
	given   map[place][]store.Digest          // and of what
	peers   []*world.Stream
	inlets  map[runtime.Target]*inlet
}

func (x *executor) prepare(p *worker.Prepare) {
	w := x.p.W
	a := &attempt{x: x, ref: p.AttemptRef, asked: p, pool: batch.NewPool(0, nil), at: make(map[int]*subtask), inlets: make(map[runtime.Target]*inlet)}
	if b := x.attempts[p.Job.ID]; b != nil && !b.over {
		w.Fail(7, "agent %s prepares attempt %s while %s is there", x.p.ID, judge.Text(a.ref), judge.Text(b.ref))
	}
	x.attempts[p.Job.ID] = a
	a.early = x.warms[p.Job.ID]
	delete(x.warms, p.Job.ID)
	if x.tokens[p.Job.ID].Less(p.Token) {
		x.tokens[p.Job.ID] = p.Token
	}
	if w.Bugs.RestoreOlder && p.From != nil && len(p.Job.Checkpoints) > 1 {
		older := *p
		older.From = p.Job.Checkpoints[0]
		a.asked = &older
	}
	x.p.Judge.Restores(x.p.ID, a.ref, a.asked.From)
	from := "afresh"
	if a.asked.From != nil {
		from = "from " + a.asked.From.Name
	}
	w.Tell("%s prepares %s %s", x.p.ID, judge.Text(a.ref), from)
	a.after(5*ms, a.build)
}

// after does something for the attempt later, unless it is over.
func (a *attempt) after(least dataflow.Time, f func()) {
	a.x.p.After(least, func() {
		if !a.over {
			f()
		}
	})
}

// fail ends it by itself.
func (a *attempt) fail(why string, peer mesh.NodeID) {
	if a.over {
		return
	}
	a.x.p.W.Tell("%s: attempt %s fails: %s", a.x.p.ID, judge.Text(a.ref), why)
	a.tearDown()
	f := &coordinator.AttemptFailed{AttemptRef: a.ref, Why: why, Peer: peer}
	a.x.say(worker.AttemptEvent{Failed: f})
}

func (x *executor) close(ref coordinator.AttemptRef) {
	a := x.find(ref)
	if a == nil {
		x.say(worker.AttemptEvent{Closed: &ref})
		return
	}
	if x.p.W.Bugs.NeverClosed && x.p.W.Calm {
		return
	}
	x.p.W.Tell("%s closes %s", x.p.ID, judge.Text(ref))
	// Closing takes a moment: what is under way goes on until then.
	x.p.After(10*ms, func() {
		if a.over {
			return
		}
		a.tearDown()
		x.say(worker.AttemptEvent{Closed: &ref})
	})
}

// tearDown leaves nothing of it.
func (a *attempt) tearDown() {
	a.over = true
	a.cool()
	for _, s := range a.subs {
		s.close()
	}
	a.x.p.Close(a.peers)
	if a.x.attempts[a.ref.Job] == a {
		delete(a.x.attempts, a.ref.Job)
	}
}

// cool drops what is restored early for the attempt, if it did not come to take it.
func (a *attempt) cool() {
	if a.early != nil {
		a.early.drop()
	}
}

// place is where a subtask runs.
func (a *attempt) place(id dataflow.SubtaskID) mesh.NodeID {
	for _, p := range a.asked.Job.Places {
		if p.Subtask == id {
			return p.Node
		}
	}
	return ""
}

func (a *attempt) here(id dataflow.SubtaskID) bool { return a.place(id) == a.x.p.ID }

func (a *attempt) local() (all []dataflow.SubtaskID) {
	for _, p := range a.asked.Job.Places {
		if p.Node == a.x.p.ID {
			all = append(all, p.Subtask)
		}
	}
	return all
}

// read reads the job and what it goes on from.
func (a *attempt) read() error {
	var err error
	if a.spec, err = a.x.p.specOf(a.asked.Job); err == nil {
		a.plan, err = runtime.NewPlan(a.spec.graph, connectors{a})
	}
	if err == nil && a.asked.From != nil {
		var m manifest.Manifest
		if m, err = manifest.Decode(a.asked.From.Manifest); err == nil {
			report := restore.Check(&m, restore.JobOf(a.spec.job.Graph, a.spec.tablesOf), restore.Options{})
			if err = report.Err(); err == nil {
				a.rows = report.Plan()
			}
		}
	}
	if err == nil {
		a.plan.Keep(a.here)
	}
	return err
}

func (a *attempt) build() {
	if err := a.read(); err != nil {
		a.x.p.W.Fail(0, "attempt %s cannot be built: %v", judge.Text(a.ref), err)
		return
	}
	a.shares = newShares(a)
	a.fetch(a.needed(), func() { a.takeWarm(a.cutBack) }, func(why string) { a.fail(why, "") })
}

// needed are the parts that it is restored from.
func (a *attempt) needed() (all []store.Part) {
	if a.rows == nil {
		return nil
	}
	seen := make(map[store.Digest]bool)
	for _, id := range a.local() {
		for _, t := range a.spec.at[id] {
			o := a.rows.Operator(t.Operator)
			if o == nil {
				continue
			}
			for _, sh := range o.Shares(t.Name, id.Index, func(string, int) int64 { return 1 << 40 }) {
				for _, u := range sh.Parts {
					if !seen[u.Digest] {
						seen[u.Digest] = true
						all = append(all, u.Part)
					}
				}
			}
		}
	}
	return all
}

// fetch gets the parts that are not here from who has them.
func (a *attempt) fetch(parts []store.Part, then func(), fail func(why string)) {
	for _, p := range parts {
		if a.ref.Token.Epoch == 0 {
			break // before the job comes: what is kept of it names them, or they may go
		}
		a.x.holds[p.Digest] = append(a.x.holds[p.Digest], hold{a.ref.Job, dataflow.CheckpointID{Token: a.ref.Token}})
	}
	var next func()
	next = func() {
		for len(parts) > 0 && a.x.p.Disk.Parts[parts[0].Digest] != nil {
			parts = parts[1:]
		}
		if len(parts) == 0 {
			then()
			return
		}
		var holders []mesh.NodeID
		for _, c := range a.asked.From.Copies {
			if c.Part == parts[0].Digest {
				holders = append(holders, c.Nodes...)
			}
		}
		a.fetchOne(parts[0], holders, next, fail)
	}
	next()
}

func (a *attempt) fetchOne(p store.Part, from []mesh.NodeID, then func(), fail func(why string)) {
	if len(from) == 0 {
		fail("part " + p.Digest.String()[:8] + " is nowhere that can be reached")
		return
	}
	if from[0] == a.x.p.ID {
		a.fetchOne(p, from[1:], then, fail)
		return
	}
	again := func(string) {
		if !a.over {
			a.fetchOne(p, from[1:], then, fail)
		}
	}
	a.x.p.Call(from[0], "part", p.Digest, func(answer any) {
		data := answer.([]byte)
		switch {
		case a.over:
		case data == nil:
			again("")
		default:
			a.x.p.Write(func() { a.x.p.Disk.Parts[p.Digest] = data }, func(err error) {
				switch {
				case a.over:
				case err != nil:
					fail("a part cannot be written: " + err.Error())
				default:
					then()
				}
			})
		}
	}, again)
}

// cutBack makes the files of sinks that this agent has lost what is on record of
// them.
func (a *attempt) cutBack() {
	written := make(map[string]bool)
	for _, id := range a.local() {
		if t := a.sinkTarget(id); t != "" {
			written[t] = true
		}
	}
	if err := a.x.cutBack(a.asked.Job, func(t string) bool { return written[t] }); err != nil {
		a.fail("a file cannot be cut back: "+err.Error(), "")
		return
	}
	a.written = written
	a.open()
}

// sinkTarget is the file that a subtask's sink writes; empty: none.
func (a *attempt) sinkTarget(id dataflow.SubtaskID) string {
	for _, s := range a.spec.job.Sinks {
		if s.File != nil && a.spec.task[s.ID] == id.Task {
			return file.SiteTarget(string(a.place(id)), file.Target(s.File.Path, id.Index, a.spec.par[s.ID]))
		}
	}
	return ""
}

func (x *executor) cutBack(j *coordinator.Job, written func(string) bool) error {
	for _, c := range j.Sinks {
		if c.Node != x.p.ID || written(c.Target) {
			continue
		}
		if err := file.CutBack(x.p.Disk.FS, string(x.p.ID), c.Target, c.Length); err != nil {
			return err
		}
	}
	return nil
}

// cutLost cuts back files of jobs that nobody writes here.
func (x *executor) cutLost() {
	for _, id := range slices.Sorted(maps.Keys(x.lost)) {
		asked, j, a := x.lost[id], x.p.State().Jobs[id], x.attempts[id]
		if j == nil || j.Token(x.p.Site) != asked.Token(x.p.Site) || j.Status.Ended() != asked.Status.Ended() {
			delete(x.lost, id)
			continue
		}
		var written map[string]bool
		if slices.ContainsFunc(j.Places, func(p coordinator.Place) bool { return p.Node == x.p.ID }) {
			if a == nil || a.ref.Token != j.Token(x.p.Site) || a.written == nil {
				continue // it does so itself, or is not so far
			}
			written = a.written
		} else if a != nil {
			continue // it still ends
		}
		if x.cutBack(j, func(t string) bool { return written[t] }) == nil {
			delete(x.lost, id)
		}
	}
	if len(x.lost) > 0 {
		x.p.After(500*ms, x.cutLost)
	}
}

// waitOwned is how long a reader waits until its feed is owned here.
const waitOwned = 10 * sec

// open opens connectors and tasks, and gives them their state back.
func (a *attempt) open() {
	for i := range a.plan.Subtasks {
		if st := &a.plan.Subtasks[i]; !st.Remote && st.Config.Source != nil && a.feedOf(st) != "" && a.x.p.feeds.owned[a.feedOf(st)] == nil {
			if a.tries++; dataflow.Time(a.tries)*50*ms > waitOwned {
				a.fail("feed "+a.feedOf(st)+" is not owned here", "")
				return
			}
			a.after(50*ms, a.open)
			return
		}
	}
	for i := range a.plan.Subtasks {
		if a.plan.Subtasks[i].Remote {
			continue
		}
		s := newSubtask(a, i)
		a.subs = append(a.subs, s)
		a.at[i] = s
		if err := s.open(); err != nil {
			a.fail(fmt.Sprintf("subtask %s cannot be opened: %v", s.id(), err), "")
			return
		}
	}
	a.after(10*ms, a.prepared)
}

// feedOf is the feed that a subtask reads; empty: it reads nothing, or a file.
func (a *attempt) feedOf(st *runtime.Subtask) string {
	switch s := a.sourceOf(st); {
	case s.MQTT != nil && st.Config.ID.Index < s.MQTT.Lanes:
		return a.asked.Job.OwnFeed(s.ID)
	case s.Feed != nil && st.Config.ID.Index < world.Counts.Lanes():
		return a.asked.Job.SharedFeed(s.Feed.Name)
	}
	return ""
}

func (a *attempt) sourceOf(st *runtime.Subtask) *job.Source {
	id := st.Config.Links[0].ID
	return a.spec.job.Sources[slices.IndexFunc(a.spec.job.Sources, func(s *job.Source) bool { return s.ID == id })]
}

func (a *attempt) prepared() {
	a.ready = true
	said := &coordinator.Prepared{AttemptRef: a.ref}
	for _, s := range a.subs {
		said.Subtasks = append(said.Subtasks, coordinator.PreparedSubtask{Subtask: s.id(), Source: s.sub.Config.Source != nil, Splits: s.splits(), Commits: s.transactional()})
		said.Moved = said.Moved || s.task.Moved()
	}
	a.x.say(worker.AttemptEvent{Prepared: said})
}
