package leader

import (
	"errors"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// errRefused: a command did not come into the log, as far as is known.
var errRefused = errors.New("the command was not accepted; ask again")

// agent is what is known of a node in this term.
//
//	unheard  it has not said Hello in this term
//	there    it speaks
//	lost     it was silent for too long, or somebody knows that its process ended;
//	         nothing of it is heard until it says Hello again
//
// and these transitions:
//
//	unheard --Hello--> there
//	unheard --one lease since the term began--> lost
//	there   --silence, and somebody said that it is gone; a lease of silence; Gone with Sure--> lost
//	lost    --Hello--> there
//
// One that is there may be leaving: it is given nothing, and what it has goes to
// others as if it were lost, but is no failure of it, and is closed in order.
//
// Lost is not safe: until Safe after the last grant it may act on the world. And
// one that comes back gets no lease while it has attempts that were given up:
// those may be running elsewhere.
type agent struct {
	node    mesh.NodeID
	boot    uint64
	there   bool // it has said Hello, and is not lost
	leaving bool // its process is about to end, as its last Hello said
	lost    bool
	hint    bool          // somebody said that it is gone
	heard   dataflow.Time // when it spoke last
	granted dataflow.Time // when a lease was granted last, by this leader or at most the one before
	joining bool          // its AgentJoined is proposed
	refused dataflow.Time // when it was told that it is refused; MinTime: it has said Hello since
	// debts are attempts that it has and should not have.
	debts   map[coordinator.AttemptRef]bool
	applied uint64
	disk    int64 // free bytes, as it said last; 0: it has not
	// forsaken: it is lost for so long that copies on it do not count any more.
	forsaken bool
}

func (l *Leader) agent(node mesh.NodeID) *agent {
	a := l.agents[node]
	if a == nil {
		// The leader before may have granted a lease until somebody else was elected.
		a = &agent{node: node, heard: l.now, refused: dataflow.MinTime, granted: l.start.Add(l.cfg.Timing.Confirm), debts: make(map[coordinator.AttemptRef]bool)}
		l.agents[node] = a
		l.silence(a)
	}
	return a
}

// usable tells whether something new can be given to a node.
func (l *Leader) usable(node mesh.NodeID) bool {
	a := l.agents[node]
	return a != nil && a.there && !a.leaving && len(a.debts) == 0 && l.st.Agents[node] != nil
}

// away tells whether what a node had is to be taken for lost, or will be.
func (l *Leader) away(node mesh.NodeID) bool {
	a := l.agents[node]
	return a == nil || a.lost || a.leaving || l.st.Agents[node] == nil
}

// safe tells whether a node cannot act on the world by a lease that it had.
func (l *Leader) safe(node mesh.NodeID) bool { return l.now >= l.safeAt(node) }

func (l *Leader) safeAt(node mesh.NodeID) dataflow.Time {
	a := l.agents[node]
	granted := l.start.Add(l.cfg.Timing.Confirm)
	if a != nil {
		granted = a.granted
	}
	return granted.Add(l.cfg.Timing.Safe())
}

// settled tells whether all agents have had time to say that they are there.
func (l *Leader) settled() bool { return l.marks.calm }

// name is what people call a node.
func (l *Leader) name(node mesh.NodeID) string {
	if a := l.st.Agents[node]; a != nil {
		return a.Name
	}
	return string(node)
}

// silentAt is when an agent that is not lost will be, if it says nothing.
func (l *Leader) silentAt(a *agent) dataflow.Time {
	switch {
	case !a.there:
		return max(l.start, a.heard).Add(l.cfg.Timing.Lease)
	case a.hint:
		return a.heard.Add(l.cfg.Timing.Silence)
	}
	return a.heard.Add(l.cfg.Timing.Lease)
}

// forsakenAt is when an agent that is lost is not waited for any more.
func (l *Leader) forsakenAt(a *agent) dataflow.Time {
	return max(l.start, a.heard).Add(l.cfg.Timing.Forsake)
}

// silentSince is when a node spoke last, as far as is known.
func (l *Leader) silentSince(node mesh.NodeID) dataflow.Time {
	if a := l.agents[node]; a != nil {
		return min(l.now, max(l.start, a.heard))
	}
	return l.now
}

// stood: nobody could be heard for so long, though it spoke. An agent has as much of
// its time left as before. What is granted is not touched: that time passed for all.
func (l *Leader) stood(d dataflow.Duration) {
	if l.cfg.Timing.Lapse > 0 && d >= l.cfg.Timing.Lapse {
		l.lapsed, l.lapses = true, l.lapses+1
	}
	for _, node := range sorted(l.agents) {
		if a := l.agents[node]; !a.lost {
			a.heard = min(l.now, max(l.start, a.heard).Add(d))
			l.silence(a)
		}
	}
}

func (l *Leader) lose(a *agent, why string) {
	a.lost, a.there = true, false
	clear(a.debts)
	l.another(a.node)
	l.copierGone(a.node)
	l.touch(a.node)
	l.tell("agent %s is lost: %s", l.name(a.node), why)
	l.drop(a.node)
}

func (l *Leader) gone(g *Gone) {
	a := l.agents[g.Node]
	if a == nil || a.lost || g.Boot < a.boot {
		return
	}
	a.hint = true
	l.silence(a)
	if g.Sure {
		l.lose(a, "its process has ended")
	}
}

// from is a message of an agent. Who is lost must say Hello first.
func (l *Leader) from(f *From) {
	a := l.agent(f.Node)
	if h := f.Message.Hello; h != nil {
		l.hello(a, h)
		return
	}
	if !a.there {
		if l.now >= a.refused.Add(dataflow.Second) { // it hears why before the stream goes
			l.drop(f.Node)
		}
		return
	}
	a.heard, a.hint = l.now, false
	l.listen(a, &f.Message)
}

// listen hears a message of an agent that is there.
func (l *Leader) listen(a *agent, m *coordinator.ToLeader) {
	l.said(m)
	switch {
	case l.isAhead(m):
		l.keep(&From{Node: a.node, Message: *m})
	case m.Heartbeat != nil:
		l.heartbeat(a, m.Heartbeat)
	case m.Failed != nil:
		l.heardFailed(a, m.Failed)
	case m.Sealed != nil:
		l.heardSealed(a.node, m.Sealed)
	case m.InSync != nil:
		l.heardInSync(a.node, m.InSync)
	case m.OutOfSync != nil:
		l.heardOutOfSync(m.OutOfSync)
	case m.Warmed != nil:
		l.heardWarmed(a.node, m.Warmed)
	case m.Probed != nil:
		l.heardProbed(a.node, m.Probed)
	case m.Copied != nil:
		l.heardCopied(a.node, m.Copied)
	default:
		l.heardOfAttempt(a, m)
	}
}

// heartbeat grants the lease, unless this leader may be none any more, the agent
// runs what it should not, or nobody knows yet what it should.
func (l *Leader) heartbeat(a *agent, h *coordinator.Heartbeat) {
	a.applied = h.Applied
	if h.Disk > 0 { // not each one says it
		a.disk = h.Disk
	}
	l.noteMirrors(h.Logs)
	if l.lapsed || l.st.Agents[a.node] == nil || len(a.debts) > 0 || !l.sure() {
		return
	}
	a.granted = l.now
	l.send(a.node, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: h.Seq, Lease: l.cfg.Timing.Lease, Index: l.st.Index}})
}

// hello is an agent's inventory: what it does not name is not there.
func (l *Leader) hello(a *agent, h *coordinator.Hello) {
	if h.Agent.Node != a.node || h.Boot < a.boot {
		l.drop(a.node) // of a process that has ended
		return
	}
	if was := l.st.Agents[a.node]; was == nil || !was.Equal(&h.Agent) {
		// It would come and go with each Hello, and be given things meanwhile.
		if err := jobmanager.Admits(l.st, &h.Agent); err != nil {
			l.refuse(a, err)
			return
		}
	}
	a.refused = dataflow.MinTime
	if h.Boot > a.boot {
		l.another(a.node)
	}
	a.boot, a.there, a.lost, a.forsaken, a.hint, a.heard = h.Boot, true, false, false, false, l.now
	l.copierGone(a.node)
	if h.Leaving && !a.leaving {
		l.tell("agent %s is about to end: what it has goes to others", l.name(a.node))
	}
	a.leaving = h.Leaving
	clear(a.debts)
	l.forget(a.node)
	l.join(a, &h.Agent)
	for i := range h.Attempts {
		if n := &h.Attempts[i]; !l.keepHello(a.node, n) && n.Phase != coordinator.PhaseGone && !l.present(n.AttemptRef) {
			a.debts[n.AttemptRef] = true
		}
	}
	for _, id := range sorted(l.marks.jobsOn[a.node]) {
		l.inventory(l.jobs[id], a, h)
	}
	for i := range h.Logs {
		l.logNow(a.node, &h.Logs[i])
	}
	l.remind(a.node)
	l.chilled(a.node)
	l.probeAgain(a.node)
	l.touch(a.node)
}

// join makes an agent a member of the site, or what is known of it true.
func (l *Leader) join(a *agent, now *coordinator.Agent) {
	was := l.st.Agents[a.node]
	if a.joining || was != nil && was.Equal(now) {
		return
	}
	a.joining = true
	l.propose(coordinator.Command{AgentJoined: now}, func(err error) {
		a.joining = false
		if err != nil { // it says Hello again
			l.refuse(a, err)
		}
	})
}

// refuse has nothing to do with an agent, until it says Hello again.
func (l *Leader) refuse(a *agent, err error) {
	a.there = false
	l.touch(a.node)
	if errors.Is(err, errRefused) {
		l.drop(a.node)
		return
	}
	a.refused = l.now
	l.send(a.node, coordinator.ToAgent{Refused: &coordinator.Refused{Why: err.Error()}})
}

// level raises the feature level to what all agents know.
func (l *Leader) level() {
	most := l.cfg.Level
	for _, a := range l.st.Agents {
		most = min(most, a.Level)
	}
	if l.raising || len(l.st.Agents) == 0 || most <= l.st.Level || l.now < l.retry {
		return
	}
	l.raising = true
	l.propose(coordinator.Command{LevelRaised: &coordinator.LevelRaised{Level: most}}, func(err error) {
		l.raising = false
		if err != nil {
			l.retry = l.now.Add(l.cfg.Timing.Retry)
		}
	})
}
