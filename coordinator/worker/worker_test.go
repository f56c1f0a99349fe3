package worker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// bench is a worker with its state. The flows with a leader are in
// coordinator/leader; here is what a leader that behaves never does.
type bench struct {
	t   *testing.T
	w   *Worker
	st  *coordinator.State
	now dataflow.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, w: New(Config{Agent: coordinator.Agent{Node: "n1", Name: "n1"}, Site: "s", Boot: 1, Timing: DefaultTiming()}),
		st: &coordinator.State{Index: 10, Term: 5, Site: "s", Jobs: map[coordinator.JobID]*coordinator.Job{}, Feeds: map[string]*coordinator.Feed{}, Savepoints: map[string]*coordinator.Snapshot{}}}
	return b
}

// step gives an event and checks the effects, in short.
func (b *bench) step(e Event, want ...string) {
	b.t.Helper()
	b.now += dataflow.Time(dataflow.Millisecond)
	e.Now = b.now
	var got []string
	for _, f := range b.w.Step(b.st, jobmanager.Changed{All: true}, e) {
		got = append(got, short(f))
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("at %d: %s\nwant %s", b.now/1000, strings.Join(got, " | "), strings.Join(want, " | "))
	}
}

func short(f Effect) string {
	ref := func(what string, r coordinator.AttemptRef) string {
		return fmt.Sprintf("%s %s/%d", what, r.Job, r.Token.Attempt)
	}
	switch {
	case f.Connect != nil:
		return "connect " + string(*f.Connect)
	case f.Lease != nil:
		return fmt.Sprintf("lease %d", *f.Lease/1000)
	case f.Prepare != nil:
		return ref("prepare", f.Prepare.AttemptRef)
	case f.Begin != nil:
		return ref("begin", f.Begin.AttemptRef)
	case f.Trigger != nil:
		return fmt.Sprintf("trigger %d", f.Trigger.Barrier.ID.Counter)
	case f.Complete != nil:
		return "complete " + f.Complete.Snapshot.Name
	case f.Finish != nil:
		return ref("finish", f.Finish.AttemptRef)
	case f.Close != nil:
		return ref("close", *f.Close)
	case f.Own != nil:
		return fmt.Sprintf("own %d", f.Own.Epoch.Epoch)
	case f.Follow != nil:
		return fmt.Sprintf("follow %d", f.Follow.Epoch.Epoch)
	case f.Seal != nil:
		return fmt.Sprintf("seal %d", f.Seal.Epoch.Epoch+1)
	case f.Rest != nil:
		return "rest"
	case f.Drop != nil:
		return "drop"
	case f.Warm != nil:
		return fmt.Sprintf("warm %s of %s at %d", f.Warm.From.Name, f.Warm.Job.ID, len(f.Warm.Job.Places))
	case f.Cool != nil:
		return "cool " + string(*f.Cool)
	case f.Copy != nil:
		return fmt.Sprintf("copy %d of %s", f.Copy.Order.Order, f.Copy.Snapshot.Name)
	case f.Kept != nil:
		return fmt.Sprintf("kept %s%d", f.Kept.Job, len(f.Kept.Snapshots))
	}
	return said(f.Send)
}

func said(m *coordinator.ToLeader) string {
	switch {
	case m.Hello != nil:
		text := "hello"
		for _, a := range m.Hello.Attempts {
			text += fmt.Sprintf(" %d:%d", a.Token.Attempt, a.Phase)
		}
		for _, l := range m.Hello.Logs {
			text += fmt.Sprintf(" log %d-%d", l.Epoch, l.End)
		}
		return text
	case m.Heartbeat != nil:
		return fmt.Sprintf("beat %d", m.Heartbeat.Seq)
	case m.Failed != nil:
		return "failed " + m.Failed.Why
	case m.Prepared != nil:
		return "prepared"
	case m.Stored != nil:
		return fmt.Sprintf("stored %d", m.Stored.ID.Counter)
	case m.NotStored != nil:
		return fmt.Sprintf("not stored %d", m.NotStored.ID.Counter)
	case m.Committed != nil:
		return fmt.Sprintf("committed %d of %d", m.Committed.ID.Counter, len(m.Committed.Commits))
	case m.Copied != nil && m.Copied.Order == 0:
		return fmt.Sprintf("lacks %d of %s", len(m.Copied.Lacks), m.Copied.Name)
	case m.Copied != nil && m.Copied.Why != "":
		return fmt.Sprintf("copied %d of %s: %s", m.Copied.Order, m.Copied.Name, m.Copied.Why)
	case m.Copied != nil:
		return fmt.Sprintf("copied %d of %s", m.Copied.Order, m.Copied.Name)
	case m.Sealed != nil:
		if m.Sealed.Why != "" {
			return fmt.Sprintf("sealed %d: %s", m.Sealed.Epoch, m.Sealed.Why)
		}
		return fmt.Sprintf("sealed %d at %d", m.Sealed.Epoch, m.Sealed.End)
	}
	return "?"
}

func (b *bench) ref(attempt uint64) coordinator.AttemptRef {
	return coordinator.AttemptRef{Job: "j", Token: dataflow.FencingToken{Epoch: 1, Site: "s", Attempt: attempt}}
}

func (b *bench) job(attempt uint64, s coordinator.Status, checkpoints ...uint64) {
	j := &coordinator.Job{ID: "j", Epoch: 1, Attempt: attempt, Status: s, Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "in"}, Node: "n1"}}}
	for _, c := range checkpoints {
		id := dataflow.CheckpointID{Token: b.ref(attempt).Token, Counter: c}
		j.Checkpoints = append(j.Checkpoints, &coordinator.Snapshot{Name: fmt.Sprintf("c%d", c), Job: "j", ID: id})
	}
	b.st.Jobs["j"] = j
	b.st.Index++
}

func (b *bench) tell(term uint64, m coordinator.ToAgent) Event {
	m.Term = term
	return Event{Message: &m}
}

// connect makes a worker that knows the leader and holds a lease.
func (b *bench) connect() {
	b.t.Helper()
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello", "beat 1")
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second, Index: 10}}), "kept 0", "lease 3002")
}

func TestStaleAndRepeated(t *testing.T) {
	b := newBench(t)
	b.connect()
	b.job(1, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/1", "kept j0")
	b.step(Event{State: true})
	begin := coordinator.ToAgent{Begin: &coordinator.Begin{AttemptRef: b.ref(1)}}
	b.step(b.tell(5, begin)) // it is not prepared: a leader that errs
	b.step(Event{Attempt: &AttemptEvent{Prepared: &coordinator.Prepared{AttemptRef: b.ref(1)}}}, "prepared")
	b.step(b.tell(4, begin)) // of the leader before
	b.step(b.tell(5, coordinator.ToAgent{Begin: &coordinator.Begin{AttemptRef: b.ref(2)}}))
	b.step(b.tell(5, begin), "begin j/1")
	b.step(b.tell(5, begin))
	trigger := func(n uint64) coordinator.ToAgent {
		return coordinator.ToAgent{Trigger: &coordinator.Trigger{AttemptRef: b.ref(1), Barrier: dataflow.Barrier{ID: dataflow.CheckpointID{Token: b.ref(1).Token, Counter: n}}}}
	}
	b.step(b.tell(5, trigger(3)), "trigger 3")
	b.step(b.tell(5, trigger(3)))
	b.step(b.tell(5, trigger(2)))
	b.job(1, coordinator.Running, 1, 3)
	b.step(Event{State: true}, "complete c3", "kept j2") // the newest is enough
	b.step(Event{State: true})
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second}})) // repeated
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 9, Lease: 3 * dataflow.Second}})) // never sent
	finish := coordinator.ToAgent{Finish: &coordinator.Finish{AttemptRef: b.ref(1)}}
	b.step(b.tell(6, finish), "finish j/1")
	b.step(b.tell(6, finish))
	b.step(b.tell(5, trigger(4))) // the term is 6 now
}

// What a broken stream swallowed is said again, and a failed attempt is not
// prepared a second time.
func TestAgainAfterHello(t *testing.T) {
	b := newBench(t)
	b.connect()
	b.job(1, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/1", "kept j0")
	b.step(Event{Attempt: &AttemptEvent{Prepared: &coordinator.Prepared{AttemptRef: b.ref(1)}}}, "prepared")
	b.step(b.tell(5, coordinator.ToAgent{Begin: &coordinator.Begin{AttemptRef: b.ref(1)}}), "begin j/1")
	id := func(n uint64) dataflow.CheckpointID {
		return dataflow.CheckpointID{Token: b.ref(1).Token, Counter: n}
	}
	b.step(Event{Connected: new(false)})
	b.step(Event{Attempt: &AttemptEvent{Stored: &coordinator.Stored{AttemptRef: b.ref(1), ID: id(1)}}})
	b.step(Event{Attempt: &AttemptEvent{NotStored: &coordinator.NotStored{AttemptRef: b.ref(1), ID: id(2), Lost: true}}})
	b.step(Event{Attempt: &AttemptEvent{Stored: &coordinator.Stored{AttemptRef: b.ref(1), ID: id(2)}}})
	b.now += dataflow.Time(DefaultTiming().Redial)
	b.step(Event{}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello 1:3", "stored 2", "not stored 2", "beat 2")
	b.step(Event{Attempt: &AttemptEvent{Failed: &coordinator.AttemptFailed{AttemptRef: b.ref(1), Why: "panic"}}}, "failed panic")
	b.step(Event{State: true})
	b.step(Event{Connected: new(false)})
	b.now += dataflow.Time(DefaultTiming().Redial)
	b.step(Event{}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello 1:5", "beat 3")
	// The old one is closed before the new one is prepared.
	b.job(2, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/2")
	b.job(3, coordinator.Restoring)
	b.step(Event{State: true}, "close j/2")
	b.step(Event{Attempt: &AttemptEvent{Prepared: &coordinator.Prepared{AttemptRef: b.ref(2)}}}) // too late
	b.step(Event{Attempt: &AttemptEvent{Closed: new(b.ref(2))}}, "failed ", "prepare j/3")
	// Commits that were not heard of come together.
	commit := func(target string, n uint64) *AttemptEvent {
		return &AttemptEvent{Committed: &coordinator.Committed{AttemptRef: b.ref(3), ID: id(n), Commits: []coordinator.SinkCommit{{Target: target}}}}
	}
	b.step(Event{Attempt: commit("a", 1)}, "committed 1 of 1")
	b.step(Event{Attempt: commit("b", 2)}, "committed 2 of 1")
	if h := b.w.hello(b.st); len(h.Attempts) != 1 || len(h.Attempts[0].Committed[0].Commits) != 2 {
		t.Errorf("%+v, want both targets", h.Attempts)
	}
}

// A process that has just started does nothing on a state that may be old.
func TestBehind(t *testing.T) {
	b := newBench(t)
	b.job(4, coordinator.Restoring)
	b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Log: coordinator.LogEpoch{Epoch: 1, Owner: "n1", Members: []mesh.NodeID{"n1", "n3"}}}
	b.step(Event{State: true})
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello", "beat 1")
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second, Index: 30}}))
	b.st.Index = 29
	b.step(Event{State: true})
	b.st.Index = 30
	b.job(5, coordinator.Running) // it was prepared by the process before
	// No lease before: what it is about to do may be another's.
	b.step(Event{State: true}, "failed the agent was restarted", "own 1", "kept 0", "kept j0", "lease 3003")
	b.step(Event{State: true})
}

// A process that stood still goes on with what it had, but nothing of it acts before
// it knows as much as the leader that lets it, and what is over has ended.
func TestLeaseAfterNone(t *testing.T) {
	b := newBench(t)
	b.connect()
	b.job(1, coordinator.Restoring)
	b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Job: "j", Log: coordinator.LogEpoch{Epoch: 1, Owner: "n1", Members: []mesh.NodeID{"n1"}}}
	b.step(Event{State: true}, "prepare j/1", "own 1", "kept j0")
	b.step(Event{Attempt: &AttemptEvent{Prepared: &coordinator.Prepared{AttemptRef: b.ref(1)}}}, "prepared")
	b.step(b.tell(5, coordinator.ToAgent{Begin: &coordinator.Begin{AttemptRef: b.ref(1)}}), "begin j/1")
	b.now += dataflow.Time(dataflow.Second)
	b.step(Event{}, "beat 2")
	granted := func(seq, index uint64) Event {
		return b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: seq, Lease: 3 * dataflow.Second, Index: index}})
	}
	b.step(granted(2, 50), "lease 4007") // one runs: an old state costs nothing
	b.now += dataflow.Time(dataflow.Minute)
	b.step(Event{}, "beat 3")
	b.step(granted(3, 60))
	b.now += dataflow.Time(dataflow.Second)
	b.step(Event{}, "beat 4")
	b.step(granted(4, 70)) // what the first one knew is enough
	b.st.Index = 60
	b.job(1, coordinator.Restarting)
	b.st.Jobs["j"].Isolated = true
	b.step(Event{State: true}, "close j/1", "rest")
	b.step(Event{Attempt: &AttemptEvent{Closed: new(b.ref(1))}}, "failed ")
	b.step(Event{Log: &LogEvent{Done: new("f")}}) // it is owned
	b.step(Event{Log: &LogEvent{Done: new("f")}}, "lease 65011")
}

// After a time without a lease nobody acts before sessions that are to be closed are,
// whatever is to become of their logs. What else is done with logs is not waited for.
func TestLeaseAfterSessions(t *testing.T) {
	log := func(b *bench, epoch uint64, owner mesh.NodeID, of coordinator.LogEpoch) {
		of.Epoch, of.Owner, of.Members = epoch, owner, []mesh.NodeID{"n1", "n2"}
		b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Log: of}
		b.st.Index++
	}
	for name, c := range map[string]struct {
		was   coordinator.LogEpoch
		owner mesh.NodeID
		then  func(b *bench)
		says  string
		waits bool
	}{
		"another owner": {coordinator.LogEpoch{}, "n1", func(b *bench) { log(b, 2, "n2", coordinator.LogEpoch{}) }, "follow 2", true},
		"held":          {coordinator.LogEpoch{}, "n1", func(b *bench) { log(b, 2, "n1", coordinator.LogEpoch{Held: true}) }, "own 2", true},
		"deleted":       {coordinator.LogEpoch{}, "n1", func(b *bench) { delete(b.st.Feeds, "f") }, "drop", true},
		"was held":      {coordinator.LogEpoch{Held: true}, "n1", func(b *bench) { log(b, 2, "n2", coordinator.LogEpoch{}) }, "follow 2", false},
		"was a mirror":  {coordinator.LogEpoch{Mirror: &coordinator.Mirror{Site: "t"}}, "n1", func(b *bench) { log(b, 2, "n2", coordinator.LogEpoch{}) }, "follow 2", false},
		"was a copy":    {coordinator.LogEpoch{}, "n2", func(b *bench) { log(b, 2, "n1", coordinator.LogEpoch{}) }, "own 2", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.connect()
			log(b, 1, c.owner, c.was)
			b.step(Event{State: true}, map[bool]string{true: "own 1", false: "follow 1"}[c.owner == "n1"])
			b.step(Event{Log: &LogEvent{Done: new("f")}})
			b.now += dataflow.Time(10 * dataflow.Second)
			b.step(Event{}, "beat 2")
			c.then(b)
			b.step(Event{State: true}, c.says)
			lease := fmt.Sprintf("lease %d", (b.now-2*dataflow.Time(dataflow.Millisecond))/1000+3000+1)
			granted := b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 2, Lease: 3 * dataflow.Second, Index: 1}})
			if !c.waits {
				b.step(granted, lease)
				return
			}
			b.step(granted)
			b.step(Event{Log: &LogEvent{Done: new("f")}}, lease)
		})
	}
}

// Nobody opens a session while another site may have the job: an epoch that would
// have one is not owned, by the process that began it or by the next one.
func TestOwnerOfContestedJob(t *testing.T) {
	b := newBench(t)
	b.connect()
	log := func(epoch uint64, held bool) {
		b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Job: "j", Log: coordinator.LogEpoch{Epoch: epoch, Owner: "n1", Members: []mesh.NodeID{"n1"}, Held: held}}
	}
	b.job(1, coordinator.Restarting)
	for _, contested := range []func(*coordinator.Job){
		func(j *coordinator.Job) { j.Isolated = true },
		func(j *coordinator.Job) { j.Status = coordinator.Quarantined },
	} {
		*b.st.Jobs["j"] = coordinator.Job{ID: "j", Status: coordinator.Restarting, Attempt: 1}
		b.w.kept = map[coordinator.JobID][]*coordinator.Snapshot{"": nil, "j": nil}
		b.w.logs = map[string]*feedLog{}
		contested(b.st.Jobs["j"])
		log(1, false)
		b.step(Event{State: true})
		b.st.Jobs["j"].Isolated, b.st.Jobs["j"].Status = false, coordinator.Restarting
		b.step(Event{State: true}, "own 1")
		contested(b.st.Jobs["j"])
		b.step(Event{State: true}, "rest")
		log(2, true)
		b.step(Event{State: true}, "own 2")
	}
}

// An attempt that is over is gone as soon as the leader asks, whether this process
// ever knew of it or not, and whatever the state here says yet.
func TestOver(t *testing.T) {
	b := newBench(t)
	over := func(n uint64) Event {
		return b.tell(5, coordinator.ToAgent{Over: &coordinator.Over{AttemptRef: b.ref(n)}})
	}
	b.job(3, coordinator.Restoring)
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello", "beat 1")
	b.step(over(3), "failed ") // nothing is done before the first lease
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second, Index: 1}}), "kept 0", "kept j0", "lease 3002")
	b.step(over(4), "failed ") // the state has not come to it
	b.job(4, coordinator.Restoring)
	b.step(Event{State: true})
	b.job(5, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/5")
	b.step(over(4), "failed ")
	b.step(over(6), "failed ")
	b.step(over(5), "close j/5")
	b.step(over(5))
	b.step(Event{Attempt: &AttemptEvent{Closed: new(b.ref(5))}}, "failed ")
	b.step(Event{State: true})
	b.job(6, coordinator.Restoring)
	b.step(Event{State: true})
	b.job(7, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/7")
}

// A member promises nothing before it was told of the epoch before: then it ends
// that, whatever its copy was part of, and takes no role before the promised one.
func TestPromiseOfWhoIsBehind(t *testing.T) {
	b := newBench(t)
	epoch := func(n uint64) {
		b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Log: coordinator.LogEpoch{Epoch: n, Owner: "n3", Members: []mesh.NodeID{"n1", "n3"}}}
		b.st.Index++
	}
	epoch(1)
	b.step(Event{Log: &LogEvent{Opened: &coordinator.LogNow{Feed: "f", Epoch: 1, End: 70}}})
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello log 1-70", "beat 1")
	seal := b.tell(5, coordinator.ToAgent{Seal: &coordinator.Seal{Feed: "f", Epoch: 3}})
	b.step(seal) // it may not know what there was before
	epoch(2)
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second, Index: 10}}), "follow 2", "seal 3", "kept 0", "lease 3003")
	b.step(seal)
	b.step(Event{Log: &LogEvent{Sealed: &coordinator.Sealed{Feed: "f", Epoch: 3, End: 60}}}, "sealed 3 at 60")
	b.step(Event{State: true})
	if h := b.w.hello(b.st); len(h.Logs) != 1 || !h.Logs[0].Sealed || h.Logs[0].End != 60 {
		t.Errorf("%+v", h.Logs)
	}
	b.step(seal, "sealed 3 at 60")
	epoch(3)
	b.step(Event{State: true}, "follow 3")

	b = newBench(t) // another process, of a copy that has promised, and says nothing by its end
	epoch(2)
	b.step(Event{Log: &LogEvent{Opened: &coordinator.LogNow{Feed: "f", Epoch: 3, End: 70}}})
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello log 3-70", "beat 1")
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second, Index: 10}}), "kept 0", "lease 3003")
	b.step(seal, "seal 3")
	b.step(Event{Log: &LogEvent{Sealed: &coordinator.Sealed{Feed: "f", Epoch: 3, End: 60}}}, "sealed 3 at 60")
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	members := []mesh.NodeID{"n1", "n3"}
	b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Log: coordinator.LogEpoch{Epoch: 2, Owner: "n1", Members: members}}
	b.step(Event{Log: &LogEvent{Opened: &coordinator.LogNow{Feed: "f", Epoch: 2, End: 70}}})
	b.step(Event{Log: &LogEvent{Opened: &coordinator.LogNow{Feed: "gone", Epoch: 1, End: 7}}})
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello log 2-70 log 1-7", "beat 1")
	// It owned the epoch in another process: it ends it by itself, once.
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: 3 * dataflow.Second, Index: 10}}), "seal 3", "drop", "kept 0", "lease 3004")
	b.step(b.tell(5, coordinator.ToAgent{Seal: &coordinator.Seal{Feed: "f", Epoch: 3}})) // asked as well: it is on its way
	b.step(Event{Log: &LogEvent{Failed: &LogFailed{Feed: "f", Epoch: 3, Why: "disk full"}}}, "sealed 3: disk full")
	if at := b.w.Wake(); at > b.now.Add(patience) {
		t.Errorf("it sleeps until %d, and a promise is to be tried again", at)
	}
	b.step(Event{State: true})
	b.now += dataflow.Time(patience)
	b.step(Event{}, "beat 2", "seal 3")
	b.step(Event{Log: &LogEvent{Sealed: &coordinator.Sealed{Feed: "f", Epoch: 3, End: 71}}}, "sealed 3 at 71")
	b.step(b.tell(5, coordinator.ToAgent{Seal: &coordinator.Seal{Feed: "f", Epoch: 3}}), "sealed 3 at 71")
	b.step(Event{Connected: new(false)})
	b.now += dataflow.Time(DefaultTiming().Redial)
	b.step(Event{}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello log 3-71", "sealed 3 at 71", "beat 3")
	next := func(epoch uint64, owner mesh.NodeID, members ...mesh.NodeID) {
		b.st.Feeds["f"] = &coordinator.Feed{Name: "f", Log: coordinator.LogEpoch{Epoch: epoch, Owner: owner, Members: members}}
		b.st.Index++
	}
	next(3, "n3", members...)
	b.step(Event{State: true}, "follow 3")
	b.step(Event{State: true})
	next(4, "n1", members...)
	b.step(Event{State: true}, "own 4") // begun in this process
	b.step(Event{Log: &LogEvent{Sealed: &coordinator.Sealed{Feed: "f", Epoch: 3, End: 71}}})
	next(5, "n3", "n3", "n4")
	b.step(Event{State: true}, "rest")
	delete(b.st.Feeds, "f")
	b.step(Event{State: true}, "drop")
}
