package worker

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// link is the stream to the leader.
//
//	none     nobody is known to lead
//	dialing  Connect was said; Connected tells what came of it
//	up       the stream stands: Hello was said, heartbeats are
//	resting  it broke, or was not made: the next try is at dial
type link struct {
	leader  mesh.NodeID
	to      mesh.NodeID // to whom a stream stands or is being made
	up      bool
	refused bool                     // the leader has nothing to do with this agent
	term    uint64                   // the greatest that was heard of
	seq     uint64                   // of the last heartbeat
	sent    map[uint64]dataflow.Time // when heartbeats were sent that have no answer yet
	granted uint64                   // what the leader knew when it granted the first lease after none ran; 0: it never has
	until   dataflow.Time            // until when it has granted a lease
	lease   dataflow.Time            // until when one runs
	beat    dataflow.Time            // when the next heartbeat is due; MaxTime: the stream does not stand
	dial    dataflow.Time            // when the stream is tried again; MaxTime: it is not
}

// most is how many heartbeats may be without an answer; older ones are forgotten,
// and their answers are too late to be worth anything.
const most = 16

// slow is how many times as long an agent waits that the leader refused.
const slow = 10

// led: somebody leads, or nobody is known to.
func (w *Worker) led(leader mesh.NodeID) {
	l := &w.link
	l.leader = leader
	if leader != "" && leader != l.to {
		w.dial()
	}
}

func (w *Worker) dial() {
	l := &w.link
	l.to, l.up, l.refused, l.beat, l.dial = l.leader, false, false, dataflow.MaxTime, dataflow.MaxTime
	to := l.to
	w.put(Effect{Connect: &to})
}

// connected: the stream stands, or there is none.
func (w *Worker) connected(st *coordinator.State, up bool) {
	l := &w.link
	if !up {
		wait := w.cfg.Timing.Redial
		if l.refused {
			wait *= slow
		}
		l.up, l.to, l.beat, l.dial = false, "", dataflow.MaxTime, w.now.Add(wait)
		return
	}
	l.up, l.beat = true, w.now
	clear(l.sent) // of another stream: no answer comes
	w.copies.untold = len(w.copies.lacks) > 0
	w.copies.asked = nil
	w.copies.order = 0
	w.put(Effect{Send: &coordinator.ToLeader{Hello: w.hello(st)}})
	w.repeat(st)
}

func (w *Worker) hello(st *coordinator.State) *coordinator.Hello {
	h := &coordinator.Hello{Agent: w.cfg.Agent, Boot: w.cfg.Boot, Applied: st.Index, Leaving: w.leaving}
	for _, id := range sorted(w.attempts) {
		h.Attempts = append(h.Attempts, w.attempts[id].inventory())
	}
	for _, id := range sorted(w.gone) {
		if w.attempts[id] == nil {
			h.Attempts = append(h.Attempts, coordinator.AttemptNow{AttemptRef: w.gone[id].AttemptRef, Phase: coordinator.PhaseGone, Failed: w.gone[id]})
		}
	}
	for _, name := range sorted(w.logs) {
		if l := w.logs[name]; l.onDisk {
			h.Logs = append(h.Logs, l.now)
		}
	}
	return h
}

// leave says in this Hello, and in all that follow, that the process will end.
func (w *Worker) leave(st *coordinator.State) {
	if w.leaving = true; w.link.up {
		w.put(Effect{Send: &coordinator.ToLeader{Hello: w.hello(st)}})
		w.repeat(st)
	}
}

// Left tells whether others have what was here, as far as anybody can take it:
// no attempt, and no log that has a copy elsewhere and is owned here.
func (w *Worker) Left(st *coordinator.State) bool {
	if len(w.attempts) > 0 {
		return false
	}
	for name, l := range w.logs {
		if f := st.Feeds[name]; l.role == owning && f != nil && len(f.Log.Members) > 1 {
			return false
		}
	}
	return true
}

// repeat says again what Hello has no room for and may have been lost with the
// last stream.
func (w *Worker) repeat(st *coordinator.State) {
	for _, id := range sorted(w.attempts) {
		for _, m := range w.attempts[id].unheard() {
			w.say(m)
		}
	}
	for _, name := range sorted(w.logs) {
		l := w.logs[name]
		if l.sealed != nil && l.sealed.Epoch > epochOf(st, name) {
			w.say(coordinator.ToLeader{Sealed: l.sealed})
		}
		if l.away != nil {
			w.say(coordinator.ToLeader{OutOfSync: l.away})
		}
	}
}

// granted: a heartbeat was answered.
func (w *Worker) granted(g *coordinator.Granted) {
	l := &w.link
	at, ours := l.sent[g.Seq]
	if !ours {
		return
	}
	for seq := range l.sent {
		if seq <= g.Seq {
			delete(l.sent, seq)
		}
	}
	if w.now >= max(l.lease, l.until) {
		l.granted = max(g.Index, 1)
	}
	l.until = max(l.until, at.Add(g.Lease))
}

// act begins a lease that was granted, or has it run longer. After a time without
// one, others may have gone on, with other attempts or at another site: then nothing
// acts before the state here is as new as what the leader had when it granted it, and
// what that ends has ended: attempts, and sessions of feeds.
func (w *Worker) act(st *coordinator.State) {
	l := &w.link
	if l.until <= max(l.lease, w.now) || w.now >= l.lease && (st.Index < l.granted || w.ending()) {
		return
	}
	l.lease = l.until
	until := l.lease
	w.put(Effect{Lease: &until})
}

// ending tells whether something is being ended that acts on the world.
func (w *Worker) ending() bool {
	for _, a := range w.attempts {
		if a.phase == closing {
			return true
		}
	}
	for _, d := range w.doing {
		if d.done < d.ends {
			return true
		}
	}
	return false
}

// tick does what is due.
func (w *Worker) tick(st *coordinator.State) {
	l := &w.link
	if l.leader != "" && l.to == "" && w.now >= l.dial {
		w.dial()
	}
	if !l.up || w.now < l.beat {
		return
	}
	l.seq++
	l.sent[l.seq] = w.now
	delete(l.sent, l.seq-most)
	l.beat = w.now.Add(w.cfg.Timing.Heartbeat)
	w.put(Effect{Send: &coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: l.seq, Applied: st.Index}}})
}
