package leader

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/restart"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// jobRun is what this term knows of a live job. What its status is, the state
// says; decide reads that and acts, one command at a time.
type jobRun struct {
	id       coordinator.JobID
	seen     *coordinator.Job // as it was when it was followed last
	parsed   *Parsed
	parseErr error
	parallel int // for which it was parsed
	restart  *restart.Machine
	attempt  *attempt // nil: none is deployed
	own      uint64   // number of the attempt that this leader has deployed and takes no checkpoints of yet; 0: none
	verdict  verdict  // of an attempt that is over
	busy     bool     // a command that decides what the job is at is proposed
	retry    dataflow.Time
	at       dataflow.Time // not before this the next attempt
	stopNow  bool          // it was told to stop while nothing of it was deployed
	placing  []coordinator.Place
	suspect  suspicion              // of the last failure
	slow     map[mesh.NodeID]bool   // agents that did not prepare it in time, since it ran last
	moves    map[string]mesh.NodeID // feeds whose owner has no room for the job, and who would have

	// left is the attempt before; closing are the agents of it that have not said
	// that nothing of it is left, with what it was at there when it was given up, at
	// overAt.
	left    coordinator.AttemptRef
	closing map[mesh.NodeID]coordinator.Phase
	overAt  dataflow.Time

	// What it depends on, as marks know it.
	hosts    map[mesh.NodeID]bool
	feeds    []string
	deployed bool
	used     map[mesh.NodeID]int // slots
	usedFor  *coordinator.Place  // the first of the places for which

	end    ending // what the newest checkpoint says
	endOf  endKey
	stops  []int // wishes that wait for its end
	owning owning
	out    output
}

// output is what is known in this term of rows that came out of a job.
type output struct {
	last    dataflow.Time    // 0: none
	waits   bool             // rows are in a sink that commits them with a checkpoint
	lengths map[string]int64 // of targets, by agent and name
}

// verdict is what becomes of a job whose attempt is over.
type verdict struct {
	status coordinator.Status
	why    string
}

// endKey is what an ending depends on.
type endKey struct {
	newest *coordinator.Snapshot
	then   dataflow.Then
	move   coordinator.MoveID
}

// ending is a job's last checkpoint: what it became with it.
type ending struct {
	status    coordinator.Status // Created: it is none
	savepoint string
}

func (l *Leader) newRun(j *coordinator.Job) *jobRun {
	r := &jobRun{id: j.ID, retry: dataflow.MinTime, at: dataflow.MinTime, overAt: dataflow.MinTime, closing: make(map[mesh.NodeID]coordinator.Phase), slow: make(map[mesh.NodeID]bool), hosts: make(map[mesh.NodeID]bool),
		owning: owning{next: dataflow.MinTime, answers: make(map[mesh.Site]dataflow.Time), named: make(map[mesh.Site]bool)}}
	if j.Status == coordinator.Restarting || j.Status == coordinator.Suspended || j.Status == coordinator.Quarantined { // by a leader of before
		r.left, r.overAt = coordinator.AttemptRef{Job: j.ID, Token: j.Token(l.cfg.Site)}, l.now
		for _, p := range j.Places {
			r.closing[p.Node] = coordinator.PhaseRunning
		}
	}
	return r
}

// follow makes what is known of a job's attempt that which the state has.
func (l *Leader) follow(r *jobRun, j *coordinator.Job) {
	if r.seen == j {
		return
	}
	r.seen = j
	if j.Status.Ended() {
		l.ended(r, j)
		return
	}
	ref := coordinator.AttemptRef{Job: j.ID, Token: j.Token(l.cfg.Site)}
	if a := r.attempt; a != nil && (!j.Deployed() || a.ref != ref) {
		l.unasked(r, errRestarting)
		r.left, r.overAt, r.attempt, r.verdict = a.ref, l.now, nil, verdict{}
		clear(r.closing)
		for _, node := range a.nodes {
			if at := a.parts[node].phase; at != coordinator.PhaseGone {
				r.closing[node] = at
				l.sendOver(node, a.ref)
			}
		}
		l.tell("job %s is %s: %s", j.Name, j.Status, j.Why)
	}
	if j.Deployed() && r.attempt == nil {
		r.attempt = newAttempt(ref, j.Places)
		r.attempt.since = l.now
		for node := range r.closing { // it is done without their word
			if g := l.agents[node]; g != nil && g.there {
				g.debts[r.left] = true
				l.touch(node)
			}
		}
		clear(r.closing)
	}
}

// ended: nothing is left to do for a job.
func (l *Leader) ended(r *jobRun, j *coordinator.Job) {
	delete(l.jobs, r.id)
	l.unmark(r)
	l.unasked(r, errEnded)
	for _, ref := range r.stops {
		a := &Answer{Ref: ref}
		switch {
		case j == nil:
			a.Err = errEnded
		case j.Status == coordinator.Moved:
			a.Err = fmt.Errorf("job %s: %s", j.Name, j.Why)
		case j.Status == coordinator.Failed:
			a.Err = fmt.Errorf("job %s failed: %s", j.Name, j.Why)
		default:
			a.Savepoint = j.Savepoint
		}
		l.put(Effect{Answer: a})
	}
	if j != nil {
		l.tell("job %s is %s", j.Name, j.Status)
	}
}

// decide reads the facts of a job and does the next thing.
func (l *Leader) decide(r *jobRun) {
	j := l.st.Jobs[r.id]
	if r.busy || l.now < r.retry {
		return
	}
	end := l.endOf(r, j)
	switch {
	case j.Status == coordinator.Suspended: // what becomes of it the move decides
		if p, err := l.parse(r, j); j.Isolated && err == nil {
			l.isolated(r, j, p)
		}
	case j.Cancel:
		l.become(r, coordinator.Cancelled, "", "")
	case j.Status == coordinator.Quarantined: // that is for a person
	case end.status != coordinator.Created:
		l.finish(r, end)
	case j.Deployed():
		l.drive(r, j)
	default:
		l.deploy(r, j)
	}
}

// become proposes a transition of the job's status.
func (l *Leader) become(r *jobRun, s coordinator.Status, why, savepoint string) {
	r.busy = true
	c := &coordinator.JobBecame{Job: r.id, Attempt: l.st.Jobs[r.id].Attempt, Status: s, Why: why, Savepoint: savepoint}
	l.propose(coordinator.Command{JobBecame: c}, func(err error) { l.decided(r, err) })
}

func (l *Leader) decided(r *jobRun, err error) {
	if r.busy = false; err != nil {
		r.retry = l.now.Add(l.cfg.Timing.Retry)
	}
}

// endOf tells whether the newest checkpoint of the present attempt is its last: a
// savepoint of the same barrier says that the job was stopped with it.
func (l *Leader) endOf(r *jobRun, j *coordinator.Job) ending {
	n := j.Newest()
	if n == nil || n.ID.Token != j.Token(l.cfg.Site) || j.Status == coordinator.Restoring {
		return ending{}
	}
	key := endKey{n, j.Then, j.Move}
	if r.endOf == key {
		return r.end
	}
	r.endOf, r.end = key, ending{}
	sp := l.st.Savepoints[savepointName(j.ID, n.ID)]
	if sp != nil && sp.ID == n.ID && j.Then != dataflow.GoOn { // else it goes on after a move that was not to be
		r.end = ending{status: coordinator.Stopped, savepoint: sp.Name}
		if j.Move != "" {
			r.end.status = coordinator.Suspended
		}
	}
	m, err := manifest.Decode(n.Manifest)
	switch {
	case err != nil || !m.Finished:
	case !m.Drained:
		r.end.status = coordinator.Finished
	case j.Then == dataflow.GoOn: // who wanted it is not known any more: it was taken from its site since
		r.end = ending{status: coordinator.Stopped}
		if sp != nil && sp.ID == n.ID {
			r.end.savepoint = sp.Name
		}
	}
	return r.end
}

// finish ends a job whose last checkpoint is complete: nothing is left to commit,
// so nothing is lost if its agents do not end by themselves.
func (l *Leader) finish(r *jobRun, end ending) {
	a := r.attempt
	if a != nil && a.phase != over {
		if a.phase != finishing {
			a.phase, a.sealedAt = finishing, l.now
			for _, node := range a.nodes {
				l.send(node, coordinator.ToAgent{Finish: &coordinator.Finish{AttemptRef: a.ref}})
			}
		}
		for _, node := range a.nodes {
			if a.parts[node].phase < coordinator.PhaseEnded && !l.away(node) && l.now < a.sealedAt.Add(l.cfg.Timing.Finish) {
				return
			}
		}
	}
	l.become(r, end.status, "", end.savepoint)
}

// drive looks after a job that is deployed.
func (l *Leader) drive(r *jobRun, j *coordinator.Job) {
	a := r.attempt
	l.check(r, j)
	switch {
	case a.phase == over:
		l.become(r, r.verdict.status, r.verdict.why, "")
		return
	case a.phase == gathering:
		if !a.ready() {
			return
		}
		l.beginAttempt(a)
		clear(r.slow)
	}
	if j.Status == coordinator.Restoring {
		l.become(r, coordinator.Running, "", "")
		return
	}
	if a.coordinator == nil {
		l.coordinate(r, j)
	}
	if j.Then != dataflow.GoOn && j.Status == coordinator.Running {
		l.become(r, coordinator.Stopping, "", "")
		return
	}
	l.tick(r, j)
}

// check finds what ends a deployment from outside.
func (l *Leader) check(r *jobRun, j *coordinator.Job) {
	a := r.attempt
	if a.phase == over {
		return
	}
	for _, node := range a.nodes {
		if g := l.agents[node]; g != nil && g.there && g.leaving {
			l.giveOver(r, fmt.Sprintf("agent %s is about to end", l.name(node)))
			return
		}
		if l.away(node) {
			l.failSince(r, fmt.Sprintf("agent %s is lost", l.name(node)), false, l.silentSince(node))
			return
		}
		if g := l.agents[node]; len(g.debts) > 0 && l.safe(node) {
			l.fail(r, fmt.Sprintf("agent %s has no lease: it does not end an attempt that it was told to end", l.name(node)), false)
			return
		}
		if a.phase == gathering && a.parts[node].phase < coordinator.PhasePrepared && l.now >= a.since.Add(l.cfg.Timing.Prepare) {
			r.slow[node] = true
			l.fail(r, fmt.Sprintf("agent %s has not prepared it in %v", l.name(node), l.cfg.Timing.Prepare), false)
			return
		}
	}
	p, err := l.parse(r, j)
	if err != nil {
		return
	}
	if j.Then == dataflow.GoOn && !p.fits(a) {
		l.giveOver(r, fmt.Sprintf("it is rescaled to parallelism %d", j.Parallelism))
		return
	}
	for _, use := range p.Feeds {
		for _, s := range p.Graph.Subtasks {
			if f := l.st.Feeds[use.Feed]; l.readsLanes(use, s.ID) && f.Log.Owner != a.at[s.ID] {
				l.fail(r, fmt.Sprintf("feed %s is owned by agent %s now", use.Feed, l.name(f.Log.Owner)), false)
				return
			}
		}
	}
}

// fits tells whether a deployment has the subtasks that the job is to have.
func (p *Parsed) fits(a *attempt) bool {
	for _, s := range p.Graph.Subtasks {
		if _, ok := a.at[s.ID]; !ok {
			return false
		}
	}
	return len(p.Graph.Subtasks) == len(a.at)
}

// giveOver ends the present attempt for the next one, which follows at once: it is
// no failure.
func (l *Leader) giveOver(r *jobRun, why string) {
	r.attempt.phase, r.at = over, l.now
	r.verdict = verdict{coordinator.Restarting, why}
}

// fail ends the present attempt, and decides what follows; the first reason is
// the one that counts.
func (l *Leader) fail(r *jobRun, why string, final bool) { l.failSince(r, why, final, l.now) }

// failSince is fail for what happened at a time before it was noticed: the delay
// before the next attempt counts from then.
func (l *Leader) failSince(r *jobRun, why string, final bool, at dataflow.Time) {
	a := r.attempt
	if a == nil || a.phase == over {
		return
	}
	a.phase, l.marks.jobs[r.id] = over, true
	l.unasked(r, errRestarting)
	r.verdict = verdict{coordinator.Failed, why}
	if _, err := l.parse(r, l.st.Jobs[r.id]); final || err != nil {
		return
	}
	d := r.restart.Failed(max(at, a.since))
	if !d.Restart {
		r.verdict.why += "; no restart: " + d.Why
		return
	}
	r.verdict.status, r.at = coordinator.Restarting, d.At
}

// parse reads the job's text, once for each parallelism.
func (l *Leader) parse(r *jobRun, j *coordinator.Job) (*Parsed, error) {
	if r.parsed == nil && r.parseErr == nil || r.parallel != j.Parallelism {
		r.parallel = j.Parallelism
		r.parsed, r.parseErr = l.cfg.Parse(j)
		if r.parseErr == nil && r.restart == nil {
			h := fnv.New64a()
			h.Write([]byte(j.ID))
			r.restart = restart.New(r.parsed.Restart, l.now, h.Sum64())
		}
	}
	return r.parsed, r.parseErr
}

// waiting stands before that for which a job waits.
const waiting = "waiting: "

// waits says for what a job waits, behind why it was restarted.
func (l *Leader) waits(r *jobRun, j *coordinator.Job, why string) {
	cause, _, _ := strings.Cut(j.Why, waiting)
	if text := cause + waiting + why; cause == "" || strings.HasSuffix(cause, "; ") {
		why = text
	} else {
		why = cause + "; " + waiting + why
	}
	if why != j.Why {
		l.become(r, j.Status, why, "")
	}
}

// told: a job that is not deployed and is told to stop has nothing to save.
func (l *Leader) told(t *coordinator.JobTold) {
	if r, j := l.jobs[t.Job], l.st.Jobs[t.Job]; r != nil && j != nil && t.Then != dataflow.GoOn && !j.Deployed() {
		r.stopNow = true
	}
}
