package worker

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// role is what this agent does with a feed's log.
//
//	resting    nothing: it is kept as it is
//	following  it takes what the owner sends, if it is a member; an heir only cuts its copy to the epochs
//	owning     session or the source of a mirror, log, copies to the members
//
// The state decides: what the present epoch says this agent is, it is, but for
// three: after a promise (Seal) nothing of an older epoch goes on. A feed of a
// job that has ended rests, and so does one that another site has, and one that
// another site may have and whose epoch would have a session. And an owner
// that was started again does not go on with the epoch in which it ended, because
// members may have got from it what it has lost: it seals the epoch by itself, and
// the leader begins the next one.
type role uint8

const (
	resting role = iota
	following
	owning
)

// feedLog is a feed's log on this agent.
type feedLog struct {
	now    coordinator.LogNow // for Hello
	onDisk bool
	old    bool   // it was found at the start, and had no role in this process yet
	asked  uint64 // Seal was said with this epoch
	wanted uint64 // the leader has asked for this promise, and the state here does not know the epoch before; 0: none
	sealed *coordinator.Sealed
	away   *coordinator.OutOfSync
	role   role
	epoch  uint64            // in which it has its role
	job    coordinator.JobID // whose feed it was when it got it
	again  dataflow.Time     // it failed, and is given its role again then
}

// patience is how long a log that failed is left alone.
const patience = 5 * dataflow.Second

func (w *Worker) log(feed string) *feedLog {
	l := w.logs[feed]
	if l == nil {
		l = &feedLog{now: coordinator.LogNow{Feed: feed}, again: dataflow.MaxTime}
		w.logs[feed] = l
	}
	return l
}

func epochOf(st *coordinator.State, feed string) uint64 {
	if f := st.Feeds[feed]; f != nil {
		return f.Log.Epoch
	}
	return 0
}

// reconcileLogs compares what the state says of some feeds with what is done here.
func (w *Worker) reconcileLogs(st *coordinator.State, feeds []string) {
	for _, name := range feeds {
		if st.Feeds[name] == nil {
			continue
		}
		w.dropOther(st.Feeds[name])
		w.reconcileLog(st, st.Feeds[name])
		if l := w.logs[name]; l != nil && l.wanted > 0 && l.wanted <= epochOf(st, name)+1 {
			if l.wanted > epochOf(st, name) {
				w.ask(st.Feeds[name], l)
			}
			l.wanted = 0
		}
	}
	for _, name := range feeds {
		if w.logs[name] != nil && st.Feeds[name] == nil && st.Index > 0 {
			delete(w.logs, name)
			feed := name
			w.askLog(name, Effect{Drop: &feed})
		}
	}
}

// dropOther drops the log of a feed that had the name before: it was deleted, and this
// one made, and this agent stood still or was off meanwhile.
func (w *Worker) dropOther(f *coordinator.Feed) {
	l := w.logs[f.Name]
	if l == nil || l.now.Epoch == 0 || l.now.Epoch >= f.Made {
		return
	}
	delete(w.logs, f.Name)
	if l.wanted > 0 {
		w.log(f.Name).wanted = l.wanted
	}
	w.askLog(f.Name, Effect{Drop: &f.Name})
}

func (w *Worker) reconcileLog(st *coordinator.State, f *coordinator.Feed) {
	want := w.roleOf(st, f)
	l := w.logs[f.Name]
	if l == nil {
		if want == resting {
			return
		}
		l = w.log(f.Name)
	}
	if l.now.Epoch > f.Log.Epoch {
		return // promised: what comes is the next epoch
	}
	if want == owning && l.old && l.now.Epoch == f.Log.Epoch && !l.now.Sealed {
		if w.now >= l.again {
			l.again = dataflow.MaxTime
		}
		if l.again == dataflow.MaxTime {
			w.ask(f, l)
		}
		return
	}
	if l.again != dataflow.MaxTime && w.now >= l.again {
		l.again, l.role = dataflow.MaxTime, resting
	}
	if l.role != resting && l.job != f.Whose() { // another job took it over, with a config of its own
		name := f.Name
		w.askLog(name, Effect{Rest: &name})
		l.role, l.again = resting, dataflow.MaxTime
	}
	if want == l.role && (want == resting || l.epoch == f.Log.Epoch) || l.again != dataflow.MaxTime && want == l.role {
		return
	}
	l.role, l.epoch, l.job, l.away, l.again, l.now.InSync = want, f.Log.Epoch, f.Whose(), nil, dataflow.MaxTime, false
	if want == resting {
		name := f.Name
		w.askLog(name, Effect{Rest: &name})
		return
	}
	l.onDisk, l.old = true, false
	l.now.Epoch, l.now.Sealed = f.Log.Epoch, false
	as := &LogRole{Feed: f, Epoch: f.Log}
	if want == owning {
		w.askLog(f.Name, Effect{Own: as})
	} else {
		w.askLog(f.Name, Effect{Follow: as})
	}
}

// roleOf is what the state says that this agent is.
func (w *Worker) roleOf(st *coordinator.State, f *coordinator.Feed) role {
	switch {
	case st.Rests(f) || f.Log.Epoch == 0 || f.Log.Owner == w.self && st.Barred(f):
		return resting
	case f.Log.Owner == w.self:
		return owning
	case slices.Contains(f.Log.Members, w.self), slices.ContainsFunc(f.Log.Heirs, func(h coordinator.Heir) bool { return h.Node == w.self }):
		return following
	}
	return resting
}

// seal: the leader asks for a promise. One that was made is said again. It is not
// made before this agent was told of the epoch before: the copy is cut to that,
// else where it ends would say nothing. Whatever its role is at there, or if it
// failed: it may have failed because others go on to the next epoch, which then
// needs this one.
func (w *Worker) seal(st *coordinator.State, s *coordinator.Seal) {
	l := w.log(s.Feed)
	switch {
	case l.sealed != nil && l.sealed.Epoch >= s.Epoch:
		w.say(coordinator.ToLeader{Sealed: l.sealed})
	case w.behind || s.Epoch > epochOf(st, s.Feed)+1:
		l.wanted = s.Epoch
	case s.Epoch > epochOf(st, s.Feed) && st.Feeds[s.Feed] != nil:
		w.ask(st.Feeds[s.Feed], l)
	}
}

// ask asks the executor to end the present epoch here.
func (w *Worker) ask(f *coordinator.Feed, l *feedLog) {
	if l.asked > f.Log.Epoch {
		return
	}
	l.asked = f.Log.Epoch + 1
	w.askLog(f.Name, Effect{Seal: &LogRole{Feed: f, Epoch: f.Log}})
}

// doing is what the executor was asked to do with a feed's log.
type doing struct {
	asked, done int
	session     bool // the last of it opens one
	ends        int  // when so much is done no session is open that is to be closed
}

// askLog has the executor do something with a log. Whatever it is ends the session
// that there was.
func (w *Worker) askLog(feed string, e Effect) {
	d := w.doing[feed]
	if d == nil {
		d = &doing{}
		w.doing[feed] = d
	}
	if d.asked++; d.session {
		d.ends = d.asked
	}
	d.session = e.Own != nil && e.Own.Epoch.Mirror == nil && !e.Own.Epoch.Held
	w.put(e)
}

// logDone: the executor has done one more of what it was asked.
func (w *Worker) logDone(feed string) {
	d := w.doing[feed]
	if d == nil {
		return
	}
	if d.done++; d.done == d.asked && !d.session {
		delete(w.doing, feed)
	}
}

// logSays notes and passes on what the executor says of a log.
func (w *Worker) logSays(e *LogEvent) {
	switch {
	case e.Done != nil:
		w.logDone(*e.Done)
	case e.Opened != nil:
		l := w.log(e.Opened.Feed)
		l.now, l.onDisk, l.old = *e.Opened, true, true
		l.now.InSync = false
		if e.Opened.Sealed {
			l.asked = e.Opened.Epoch
			l.sealed = &coordinator.Sealed{Feed: e.Opened.Feed, Epoch: e.Opened.Epoch, End: e.Opened.End}
		}
	case e.Sealed != nil:
		l := w.log(e.Sealed.Feed)
		if e.Sealed.Epoch <= l.epoch {
			return // it has a role in that epoch by now
		}
		l.sealed, l.onDisk, l.role, l.away, l.again = e.Sealed, true, resting, nil, dataflow.MaxTime
		l.now = coordinator.LogNow{Feed: e.Sealed.Feed, Epoch: e.Sealed.Epoch, End: e.Sealed.End, Sealed: e.Sealed.Why == ""}
		w.say(coordinator.ToLeader{Sealed: e.Sealed})
	case e.InSync != nil:
		if l := w.log(e.InSync.Feed); l.role == owning && l.epoch == e.InSync.Epoch {
			l.now.InSync, l.away = true, nil
			w.say(coordinator.ToLeader{InSync: e.InSync})
		}
	case e.OutOfSync != nil:
		if l := w.log(e.OutOfSync.Feed); l.role != resting && l.epoch == e.OutOfSync.Epoch {
			l.now.InSync, l.away = false, e.OutOfSync
			w.say(coordinator.ToLeader{OutOfSync: e.OutOfSync})
		}
	case e.Failed != nil:
		l := w.log(e.Failed.Feed)
		if l.asked == e.Failed.Epoch && (l.sealed == nil || l.sealed.Epoch < l.asked) { // the promise
			l.asked, l.again = 0, min(l.again, w.now.Add(patience))
			w.say(coordinator.ToLeader{Sealed: &coordinator.Sealed{Feed: e.Failed.Feed, Epoch: e.Failed.Epoch, Why: e.Failed.Why}})
			return
		}
		if l.role != resting && l.epoch == e.Failed.Epoch {
			l.now.InSync, l.again = false, w.now.Add(patience)
			l.away = &coordinator.OutOfSync{Feed: e.Failed.Feed, Epoch: e.Failed.Epoch, Member: w.self, Why: e.Failed.Why}
			w.say(coordinator.ToLeader{OutOfSync: l.away})
		}
	}
}

func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

func compareSubtasks(a, b dataflow.SubtaskID) int {
	return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Index, b.Index))
}
