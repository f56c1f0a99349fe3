package leader_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// says has another site say who has the job.
func (k *keeping) says(from mesh.Site, n coordinator.OwnerNews) []leader.Effect {
	n.Job = "j6-a"
	return k.step(leader.Event{FromSite: &leader.FromSite{Site: from, Owner: &n}})
}

// An epoch that nobody has counted to is passed over; one that is a long way off counts,
// and what takes the job is above it.
func TestEpochsThatNobodyCounted(t *testing.T) {
	for _, c := range []struct {
		said coordinator.OwnerNews
		want uint64
	}{
		{coordinator.OwnerNews{Epoch: 300, Owner: "c"}, 301},
		{coordinator.OwnerNews{Epoch: 1 + coordinator.MaxEpochsAhead, Owner: "c"}, 2 + coordinator.MaxEpochsAhead},
		{coordinator.OwnerNews{Epoch: 2 + coordinator.MaxEpochsAhead, Owner: "c"}, 2},
		{coordinator.OwnerNews{Epoch: math.MaxUint64, Owner: "c"}, 2},
		{coordinator.OwnerNews{Epoch: 300}, 2},
		{coordinator.OwnerNews{Epoch: 300, Owner: mesh.Site(make([]byte, jobmanager.MaxName+1))}, 2},
	} {
		k := newKeeping(t, 500)
		r := k.st.Replicas["j6-a"]
		r.Snapshot, r.Next, k.st.Feeds["j6-a.in"].Owner = r.Next, nil, "a"
		k.says("c", c.said)
		var over *leader.FailedOver
		for _, f := range k.step(leader.Event{Wish: &leader.Wish{Ref: 1, Failover: &leader.Failover{Job: "j6-a", Dry: true}}}) {
			if f.Answer != nil {
				over = f.Answer.FailedOver
			}
		}
		if over == nil || over.Epoch != c.want || over.Refused != nil {
			t.Errorf("%d of %q: %+v, want epoch %d", c.said.Epoch, c.said.Owner, over, c.want)
		}
	}
}

// Sites that another one has made up are not asked, and do not stand in the way of one
// that is there.
func TestOwnersThatAreMadeUp(t *testing.T) {
	k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
		Jobs:   map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "files", Spec: []byte(jobs["files"]), Epoch: 1, Status: coordinator.Quarantined}},
	}}
	k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
	k.step(leader.Event{Sites: &[]mesh.Site{"b", "c"}})
	asked := make(map[mesh.Site]bool)
	note := func(effects []leader.Effect) {
		for _, f := range effects {
			if f.ToSite != nil && f.ToSite.Owner != nil && f.ToSite.Owner.Ask {
				asked[f.ToSite.Site] = true
			}
		}
	}
	for i := range 100 {
		note(k.says("c", coordinator.OwnerNews{Epoch: 1, Owner: mesh.Site(fmt.Sprint("made-up-", i))}))
	}
	note(k.says("c", coordinator.OwnerNews{Epoch: 1, Owner: "b"}))
	for range 3 {
		note(k.step(leader.Event{}))
	}
	if len(asked) != 1 || !asked["b"] {
		t.Errorf("asked: %v", asked)
	}
}

// A move of a job that waits for its target is not forgotten before that has said that it
// has not taken the job: what it says of the move does not tell.
func TestAMoveIsNotForgottenBeforeItsTargetHasSaid(t *testing.T) {
	k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
		Jobs: map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "files", Spec: []byte(jobs["files"]), Epoch: 1, Status: coordinator.Restarting, Isolated: true,
			Checkpoints: []*coordinator.Snapshot{{Name: "chk-1-a-1-1", Job: "j6-a"}}}},
	}}
	k.st.Moves.Departures["m7-a"] = &coordinator.Departure{ID: "m7-a", Job: "j6-a", Epoch: 1, To: "b", Phase: coordinator.DepartureAborted}
	k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
	k.step(leader.Event{Sites: &[]mesh.Site{"b"}})
	forgets := func() (does bool) {
		for range 30 { // three seconds
			effects := k.step(leader.Event{FromSite: &leader.FromSite{Site: "b", ToSource: &coordinator.ToSource{Move: "m7-a", Done: &coordinator.MoveDone{Phase: coordinator.ArrivalDropped}}}})
			for _, f := range append(effects[:len(effects):len(effects)], k.step(leader.Event{})...) {
				does = does || f.Propose != nil && f.Propose.Command.Move != nil && f.Propose.Command.Move.Forgotten != nil
			}
		}
		return does
	}
	if forgets() {
		t.Error("it is forgotten, and b may have taken the job")
	}
	k.says("b", coordinator.OwnerNews{Term: 1, At: k.now})
	if !forgets() {
		t.Error("b has not taken the job, and the move stays")
	}
}

// A move whose target was forced is forgotten when this site does not have the job any more,
// and then it says that the target has taken it, where all agents can read that.
func TestADisputedMoveIsNotForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		level         uint32
		epoch         uint64
		status        coordinator.Status
		forgot, taken bool
	}{
		"it is here, at the same epoch": {coordinator.SettledLevel, 2, coordinator.Restarting, false, false},
		"quarantined":                   {coordinator.SettledLevel, 2, coordinator.Quarantined, false, false},
		"quarantined, above that":       {coordinator.SettledLevel, 3, coordinator.Quarantined, false, false},
		"it is here, above that":        {coordinator.SettledLevel, 3, coordinator.Restarting, true, true},
		"moved":                         {coordinator.SettledLevel, 3, coordinator.Moved, true, true},
		"quarantined, an earlier level": {coordinator.GoesOnLevel, 2, coordinator.Quarantined, true, false},
		"moved, an earlier level":       {coordinator.GoesOnLevel, 3, coordinator.Moved, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: c.level, Moves: coordinator.NewMoves(),
				Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
				Jobs:   map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "files", Spec: []byte(jobs["files"]), Epoch: c.epoch, Status: c.status}},
			}}
			k.st.Moves.Departures["m7-a"] = &coordinator.Departure{ID: "m7-a", Job: "j6-a", Epoch: 1, To: "b", Phase: coordinator.DepartureFenced, Savepoint: "sp"}
			k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
			k.step(leader.Event{Sites: &[]mesh.Site{"b"}})
			forgot, taken := false, false
			done := &coordinator.MoveDone{Phase: coordinator.ArrivalActive, Forced: true, Job: "j6-a", Epoch: 2}
			for range 30 {
				effects := k.step(leader.Event{FromSite: &leader.FromSite{Site: "b", ToSource: &coordinator.ToSource{Move: "m7-a", Done: done}}})
				for _, f := range append(effects[:len(effects):len(effects)], k.step(leader.Event{})...) {
					if f.Propose != nil && f.Propose.Command.Move != nil && f.Propose.Command.Move.Forgotten != nil {
						forgot, taken = true, f.Propose.Command.Move.Forgotten.Taken
					}
				}
			}
			if forgot != c.forgot || taken != c.taken {
				t.Errorf("forgotten %t, taken %t", forgot, taken)
			}
		})
	}
}

// standing is a leader that stands still, of a site of one agent with a job that
// another site keeps.
type standing struct {
	*keeping
	t   *testing.T
	job *coordinator.Job
	seq uint64
}

// newStanding makes one; with leads it leads, and its agent is there.
func newStanding(t *testing.T, leads bool) *standing {
	t.Helper()
	s := &standing{t: t, job: &coordinator.Job{ID: "j6-a", Name: "kept", Spec: []byte(jobs["kept"]), Epoch: 1, Attempt: 1, Status: coordinator.Restarting,
		Checkpoints: []*coordinator.Snapshot{{Name: "chk-1-a-1-1", Job: "j6-a"}}}}
	s.keeping = &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
		Jobs:   map[coordinator.JobID]*coordinator.Job{"j6-a": s.job},
	}}
	term := uint64(1)
	if !leads {
		term = 2
	}
	s.Leader = leader.New(leader.Config{Term: term, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
	if leads {
		s.hello()
		if !s.granted() {
			t.Fatal("it grants no lease when nothing has happened")
		}
	}
	return s
}

func (s *standing) hello() {
	s.step(leader.Event{From: &leader.From{Node: "a1", Message: coordinator.ToLeader{Hello: &coordinator.Hello{Agent: *s.st.Agents["a1"], Boot: 1}}}})
}

// granted tells whether a heartbeat is answered with a lease.
func (s *standing) granted() bool {
	s.step(leader.Event{Confirmed: new(s.now)})
	s.seq++
	for _, f := range s.step(leader.Event{From: &leader.From{Node: "a1", Message: coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: s.seq}}}}) {
		if f.Send != nil && f.Send.Message.Granted != nil {
			return true
		}
	}
	return false
}

// stands has it stand still for more than a minute.
func (s *standing) stands() (ref int, isolated []coordinator.JobID) {
	s.now += 65000 * ms
	return s.begins(leader.Event{Stood: 65 * dataflow.Second})
}

// begins is the LeaderBegan that it proposes; 0: none.
func (s *standing) begins(e leader.Event) (ref int, isolated []coordinator.JobID) {
	for _, f := range s.step(e) {
		if f.Propose != nil && f.Propose.Command.LeaderBegan != nil {
			ref, isolated = f.Propose.Ref, f.Propose.Command.LeaderBegan.Isolated
		}
	}
	return ref, isolated
}

// isolates puts on record that the job is isolated, or not.
func (s *standing) isolates(yes bool) {
	next := *s.job
	next.Isolated = yes
	s.job = &next
	s.st.Jobs["j6-a"] = s.job
	s.st.Index++
}

// applied: what it proposed is in force.
func (s *standing) applied(ref int, isolated []coordinator.JobID) (next int, then []coordinator.JobID) {
	return s.begins(leader.Event{Applied: &leader.Applied{Index: s.st.Index, Ref: ref, Command: &coordinator.Command{LeaderBegan: &coordinator.LeaderBegan{Term: s.st.Term, Node: "a1", Isolated: isolated}}}})
}

// A leader that stood still for long lets nobody act before it is on record which jobs
// another site may have taken meanwhile, however often that is refused.
func TestNoLeaseBeforeWhatLapsedIsOnRecord(t *testing.T) {
	s := newStanding(t, true)
	ref, isolated := s.stands()
	for range 2 {
		if len(isolated) != 1 || isolated[0] != "j6-a" {
			t.Fatalf("isolated: %v", isolated)
		}
		if s.granted() {
			t.Error("a lease is granted, and nobody knows yet that another site may have the job")
		}
		s.step(leader.Event{Refused: &leader.Refused{Ref: ref, Err: errors.New("the disk is full")}})
		s.now = max(s.now, s.Wake())
		ref, isolated = s.begins(leader.Event{})
	}
	s.isolates(true)
	if again, _ := s.applied(ref, isolated); again != 0 || !s.granted() {
		t.Error("it is on record, and no lease is granted")
	}
}

// What was refused may be in force some day, and the job may end: then nothing is left
// to be put on record, and leases are granted again.
func TestLeaseWhenNothingIsLeftToRecord(t *testing.T) {
	s := newStanding(t, true)
	ref, _ := s.stands()
	s.step(leader.Event{Refused: &leader.Refused{Ref: ref, Err: errors.New("it took too long")}})
	s.isolates(true)
	s.now = max(s.now, s.Wake())
	ref, isolated := s.begins(leader.Event{})
	if len(isolated) > 0 || s.granted() {
		t.Errorf("isolated again: %v, or a lease before this is known", isolated)
	}
	if again, _ := s.applied(ref, isolated); again != 0 || !s.granted() {
		t.Error("nothing is left to be put on record, and no lease is granted")
	}
}

// A job that is claimed by what was on its way when the leader stood still is isolated
// again: whoever said that it had not taken it may have done so meanwhile.
func TestClaimThatWasOnItsWay(t *testing.T) {
	s := newStanding(t, true)
	s.isolates(true)
	s.step(leader.Event{})
	ref, isolated := s.stands()
	if s.granted() {
		t.Error("a lease is granted, and nobody knows what was on its way")
	}
	s.isolates(false)
	if ref, isolated = s.applied(ref, isolated); len(isolated) != 1 || s.granted() {
		t.Fatalf("isolated: %v, or a lease", isolated)
	}
	s.isolates(true)
	if again, _ := s.applied(ref, isolated); again != 0 || !s.granted() {
		t.Error("it is on record, and no lease is granted")
	}
}

// So does one that stood still before it had begun to lead.
func TestStoodBeforeItLed(t *testing.T) {
	s := newStanding(t, false)
	ref, _ := s.begins(leader.Event{})
	s.hello()
	s.stands()
	s.st.Term, s.st.Index = 2, s.st.Index+1
	next, isolated := s.applied(ref, nil)
	if len(isolated) != 1 || s.granted() {
		t.Fatalf("isolated: %v, or a lease", isolated)
	}
	s.isolates(true)
	s.applied(next, isolated)
	s.hello() // the first one was so long ago
	if !s.granted() {
		t.Error("it is on record, and no lease is granted")
	}
}
