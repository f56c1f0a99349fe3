package worker

import (
	"fmt"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// phase is what an attempt is at here.
//
//	preparing  Prepare was said
//	prepared   the executor has prepared it; Begin is waited for
//	running    Begin was passed on
//	ended      all its subtasks here have finished
//	closing    Close was said; Closed or Failed is waited for
//
// and these transitions:
//
//	none                                 --the state wants it, nothing else of its job is here--> preparing
//	preparing                            --Prepared--> prepared
//	prepared                             --Begin--> running
//	running                              --Ended--> ended
//	preparing, prepared, running, ended  --the state does not want it; the leader says Over--> closing
//	none                                 --Over--> none: gone, and never prepared
//	any                                  --Failed--> none: gone, and never prepared again
//	closing                              --Closed--> none: gone
//
// An attempt does not end because the lease has expired: what acts on the world
// waits for the lease, and the rest harms nobody. If the site was without a
// leader, the next one takes it over as it is; if another attempt has taken its
// place, the state says so as soon as it is heard again.
type phase uint8

const (
	preparing phase = iota + 1
	prepared
	running
	ended
	closing
)

// attempt is a deployment of a job on this agent.
type attempt struct {
	coordinator.AttemptRef
	phase     phase
	prepared  *coordinator.Prepared
	barrier   uint64 // the greatest counter that was seen
	completed uint64 // counter of the checkpoint with which sinks were told to commit
	finishing bool   // Finish was passed on
	exhausted []dataflow.SubtaskID
	committed map[dataflow.SubtaskID]*coordinator.Committed
	// What was said of barrier `barrier`: the leader may not have heard it.
	said []coordinator.ToLeader
	// lost: rows are gone that no later delta holds; until a Full barrier.
	lost *coordinator.NotStored
	why  string // it is closed, though the state wants it
}

func (a *attempt) inventory() coordinator.AttemptNow {
	n := coordinator.AttemptNow{AttemptRef: a.AttemptRef, Prepared: a.prepared, Barrier: a.barrier, Exhausted: a.exhausted}
	switch a.phase {
	case preparing:
		n.Phase = coordinator.PhasePreparing
	case prepared:
		n.Phase = coordinator.PhasePrepared
	case running:
		n.Phase = coordinator.PhaseRunning
	case ended:
		n.Phase = coordinator.PhaseEnded
	case closing: // it is not gone yet, and of no use any more
		n.Phase, n.Prepared = coordinator.PhasePreparing, nil
	}
	subtasks := slices.Collect(keys(a.committed))
	sort.Slice(subtasks, func(i, j int) bool { return compareSubtasks(subtasks[i], subtasks[j]) < 0 })
	for _, s := range subtasks {
		n.Committed = append(n.Committed, *a.committed[s])
	}
	return n
}

// unheard is what is said again on a new stream.
func (a *attempt) unheard() []coordinator.ToLeader {
	if a.phase == closing {
		return nil
	}
	all := slices.Clone(a.said)
	if a.lost != nil {
		all = append(all, coordinator.ToLeader{NotStored: a.lost})
	}
	return all
}

// wanted is the attempt of a job that the state wants here; nil: none.
func (w *Worker) wanted(st *coordinator.State, id coordinator.JobID) *coordinator.AttemptRef {
	j := st.Jobs[id]
	if j == nil || j.Status != coordinator.Restoring && j.Status != coordinator.Running && j.Status != coordinator.Stopping {
		return nil
	}
	for _, p := range j.Places {
		if p.Node == w.self {
			return &coordinator.AttemptRef{Job: id, Token: j.Token(w.cfg.Site)}
		}
	}
	return nil
}

// reconcileAttempts compares what the state wants of some jobs with what is here.
func (w *Worker) reconcileAttempts(st *coordinator.State, jobs []coordinator.JobID) {
	for _, id := range jobs {
		a, want := w.attempts[id], w.wanted(st, id)
		if a != nil && a.phase != closing && (want == nil || *want != a.AttemptRef) {
			w.close(a)
		}
	}
	for _, id := range jobs {
		if st.Jobs[id] == nil {
			delete(w.gone, id)
			delete(w.lost, id)
			continue
		}
		want := w.wanted(st, id)
		if gone := w.gone[id]; gone != nil && (want == nil || gone.AttemptRef != *want) && w.attempts[id] == nil && !st.Jobs[id].Token(w.cfg.Site).Less(gone.Token) {
			delete(w.gone, id)
		}
		switch a := w.attempts[id]; {
		case want == nil || a == nil && w.gone[id] != nil:
		case a == nil && st.Jobs[id].Status == coordinator.Restoring:
			w.prepare(st, *want)
		case a == nil: // it was prepared here once, so this is another process now
			w.over(&coordinator.AttemptFailed{AttemptRef: *want, Why: "the agent was restarted"})
		case a.phase == running:
			w.complete(st.Jobs[id], a)
		}
		w.lose(st.Jobs[id])
	}
}

// files is how a job was seen of which files of sinks are here.
type files struct {
	token dataflow.FencingToken
	ended bool
	away  bool // no subtask of it is here, and it runs elsewhere or has ended
	sinks []coordinator.SinkCommit
}

// lose says that files of a job are here which it does not write, and of which
// something may not count: once an attempt, and once more when it has ended, if
// nothing of it is here (what was committed here and is not on record is committed
// elsewhere); and whenever less of one is on record than was.
func (w *Worker) lose(j *coordinator.Job) {
	now, was := files{token: j.Token(w.cfg.Site), ended: j.Status.Ended()}, w.lost[j.ID]
	for _, c := range j.Sinks {
		if c.Node == w.self {
			now.sinks = append(now.sinks, c)
		}
	}
	if len(now.sinks) == 0 {
		return
	}
	now.away = (j.Deployed() || now.ended) && !slices.ContainsFunc(j.Places, func(p coordinator.Place) bool { return p.Node == w.self })
	w.lost[j.ID] = now
	if now.away && (!was.away || was.token != now.token || was.ended != now.ended) || now.less(was) {
		w.put(Effect{Lost: j})
	}
}

// less tells whether less of a file is on record than was.
func (now files) less(was files) bool {
	return slices.ContainsFunc(was.sinks, func(old coordinator.SinkCommit) bool {
		return slices.ContainsFunc(now.sinks, func(c coordinator.SinkCommit) bool {
			return c.Operator == old.Operator && c.Target == old.Target && c.Length < old.Length
		})
	})
}

func (w *Worker) prepare(st *coordinator.State, ref coordinator.AttemptRef) {
	j := st.Jobs[ref.Job]
	p := &Prepare{AttemptRef: ref, Job: j, From: st.Snapshot(j, j.From)}
	if j.From != "" && p.From == nil {
		w.over(&coordinator.AttemptFailed{AttemptRef: ref, Why: "the checkpoint or savepoint " + j.From + ", which it goes on from, is not there any more"})
		return
	}
	w.attempts[ref.Job] = &attempt{AttemptRef: ref, phase: preparing, committed: make(map[dataflow.SubtaskID]*coordinator.Committed)}
	w.put(Effect{Prepare: p})
}

// complete says that sinks may commit, with the newest checkpoint of the attempt
// if that is news. A newer one commits what an older one would have.
func (w *Worker) complete(j *coordinator.Job, a *attempt) {
	n := j.Newest()
	if n == nil || n.ID.Token != a.Token || n.ID.Counter <= a.completed {
		return
	}
	a.completed = n.ID.Counter
	w.put(Effect{Complete: &Complete{AttemptRef: a.AttemptRef, Snapshot: n}})
}

// ends: the leader says that an attempt is over. The state here may not have come
// so far, and may never show it; what is not here is not prepared any more.
func (w *Worker) ends(ref coordinator.AttemptRef) {
	switch a := w.attempts[ref.Job]; {
	case a == nil:
		w.over(&coordinator.AttemptFailed{AttemptRef: ref})
	case a.AttemptRef != ref:
		w.never(&coordinator.AttemptFailed{AttemptRef: ref})
	case a.phase != closing:
		w.close(a)
	}
}

func (w *Worker) close(a *attempt) {
	a.phase = closing
	ref := a.AttemptRef
	w.put(Effect{Close: &ref})
}

// over: nothing of an attempt is left here.
func (w *Worker) over(f *coordinator.AttemptFailed) {
	delete(w.attempts, f.Job)
	w.never(f)
}

// never: there is nothing of an attempt here, and never will be.
func (w *Worker) never(f *coordinator.AttemptFailed) {
	if was := w.gone[f.Job]; was == nil || !f.Token.Less(was.Token) {
		w.gone[f.Job] = f
	}
	w.marks.jobs[f.Job] = true
	w.say(coordinator.ToLeader{Failed: f})
}

// unsent: the leader would wait for ever for what an attempt has to say, and so
// would the next attempt's. What is of no attempt is small.
func (w *Worker) unsent(u *Unsent) {
	var ref coordinator.AttemptRef
	switch m := &u.Message; {
	case m.Prepared != nil:
		ref = m.Prepared.AttemptRef
	case m.Stored != nil:
		ref = m.Stored.AttemptRef
	case m.NotStored != nil:
		ref = m.NotStored.AttemptRef
	case m.Committed != nil:
		ref = m.Committed.AttemptRef
	}
	if a := w.here(ref); a != nil {
		a.phase, a.why = closing, fmt.Sprintf("the leader cannot be told what it needs to know: %v", u.Err)
		w.put(Effect{Close: &ref})
	}
}

// here is the attempt that a message is about, unless it is closing; nil: of no
// account.
func (w *Worker) here(ref coordinator.AttemptRef) *attempt {
	if a := w.attempts[ref.Job]; a != nil && a.AttemptRef == ref && a.phase != closing {
		return a
	}
	return nil
}

func (w *Worker) begin(b *coordinator.Begin) {
	if a := w.here(b.AttemptRef); a != nil && a.phase == prepared {
		a.phase = running
		w.put(Effect{Begin: b})
	}
}

func (w *Worker) trigger(t *coordinator.Trigger) {
	a := w.here(t.AttemptRef)
	if a == nil || a.phase != running || t.Barrier.ID.Token != a.Token || t.Barrier.ID.Counter <= a.barrier {
		return
	}
	a.saw(t.Barrier.ID.Counter)
	if t.Barrier.Full {
		a.lost = nil
	}
	w.put(Effect{Trigger: t})
}

func (w *Worker) finish(f *coordinator.Finish) {
	if a := w.here(f.AttemptRef); a != nil && a.phase == running && !a.finishing {
		a.finishing = true
		w.put(Effect{Finish: f})
	}
}

// saw: a barrier is under way.
func (a *attempt) saw(counter uint64) {
	if counter > a.barrier {
		a.barrier, a.said = counter, nil
	}
}

// attemptSays passes on what the executor says, and keeps what a new stream or
// another leader must hear again.
func (w *Worker) attemptSays(st *coordinator.State, e *AttemptEvent) {
	switch {
	case e.Failed != nil:
		if a := w.attempts[e.Failed.Job]; a != nil && a.AttemptRef == e.Failed.AttemptRef {
			w.over(e.Failed)
		}
	case e.Closed != nil:
		if a := w.attempts[e.Closed.Job]; a != nil && a.AttemptRef == *e.Closed {
			w.over(&coordinator.AttemptFailed{AttemptRef: *e.Closed, Why: a.why, Final: a.why != ""})
		}
	case e.Prepared != nil:
		if a := w.here(e.Prepared.AttemptRef); a != nil && a.phase == preparing {
			a.phase, a.prepared = prepared, e.Prepared
			w.say(coordinator.ToLeader{Prepared: e.Prepared})
		}
	case e.Ended != nil:
		if a := w.here(e.Ended.AttemptRef); a != nil && a.phase == running {
			a.phase = ended
			w.say(coordinator.ToLeader{Ended: e.Ended})
		}
	case e.Exhausted != nil:
		if a := w.here(e.Exhausted.AttemptRef); a != nil && !slices.Contains(a.exhausted, e.Exhausted.Subtask) {
			a.exhausted = append(a.exhausted, e.Exhausted.Subtask)
			w.say(coordinator.ToLeader{Exhausted: e.Exhausted})
		}
	case e.Stored != nil:
		if a := w.here(e.Stored.AttemptRef); a != nil {
			a.stored(e.Stored.ID, coordinator.ToLeader{Stored: e.Stored})
			w.say(coordinator.ToLeader{Stored: e.Stored})
		}
	case e.NotStored != nil:
		if a := w.here(e.NotStored.AttemptRef); a != nil {
			a.notStored(e.NotStored)
			w.say(coordinator.ToLeader{NotStored: e.NotStored})
		}
	case e.Committed != nil:
		w.commits(e.Committed)
	case e.Flowed != nil:
		if w.here(e.Flowed.AttemptRef) != nil && st.Level >= coordinator.SitesLevel {
			w.say(coordinator.ToLeader{Flowed: e.Flowed})
		}
	}
}

func (a *attempt) stored(id dataflow.CheckpointID, m coordinator.ToLeader) {
	a.saw(id.Counter)
	if id.Counter == a.barrier {
		a.said = append(a.said, m)
	}
}

func (a *attempt) notStored(n *coordinator.NotStored) {
	if n.Lost {
		a.lost = n
		a.saw(n.ID.Counter)
		return
	}
	a.stored(n.ID, coordinator.ToLeader{NotStored: n})
}

// commits: a subtask's sinks have committed. What they did is true even if the
// attempt is being closed.
func (w *Worker) commits(c *coordinator.Committed) {
	a := w.attempts[c.Job]
	if a == nil || a.AttemptRef != c.AttemptRef {
		return
	}
	all := *c
	if was := a.committed[c.Subtask]; was != nil {
		for _, old := range was.Commits {
			same := func(n coordinator.SinkCommit) bool { return n.Operator == old.Operator && n.Target == old.Target }
			if !slices.ContainsFunc(all.Commits, same) {
				all.Commits = append(slices.Clip(all.Commits), old)
			}
		}
	}
	a.committed[c.Subtask] = &all
	w.say(coordinator.ToLeader{Committed: c})
}
