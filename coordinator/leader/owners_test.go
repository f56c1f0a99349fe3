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

// A leader that stood still for long lets nobody act before it is on record which jobs
// another site may have taken meanwhile, however often that is refused.
func TestNoLeaseBeforeWhatLapsedIsOnRecord(t *testing.T) {
	job := &coordinator.Job{ID: "j6-a", Name: "kept", Spec: []byte(jobs["kept"]), Epoch: 1, Attempt: 1, Status: coordinator.Restarting,
		Checkpoints: []*coordinator.Snapshot{{Name: "chk-1-a-1-1", Job: "j6-a"}}}
	k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
		Jobs:   map[coordinator.JobID]*coordinator.Job{"j6-a": job},
	}}
	k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
	k.step(leader.Event{From: &leader.From{Node: "a1", Message: coordinator.ToLeader{Hello: &coordinator.Hello{Agent: *k.st.Agents["a1"], Boot: 1}}}})
	began := func(effects []leader.Effect) (ref int, isolated []coordinator.JobID) {
		for _, f := range effects {
			if f.Propose != nil && f.Propose.Command.LeaderBegan != nil {
				ref, isolated = f.Propose.Ref, f.Propose.Command.LeaderBegan.Isolated
			}
		}
		return ref, isolated
	}
	seq := uint64(0)
	granted := func() bool {
		k.step(leader.Event{Confirmed: new(k.now)})
		seq++
		for _, f := range k.step(leader.Event{From: &leader.From{Node: "a1", Message: coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: seq}}}}) {
			if f.Send != nil && f.Send.Message.Granted != nil {
				return true
			}
		}
		return false
	}
	if !granted() {
		t.Fatal("it grants no lease when nothing has happened")
	}
	k.now += 65000 * ms
	ref, isolated := began(k.step(leader.Event{Stood: 65 * dataflow.Second}))
	for range 2 {
		if len(isolated) != 1 || isolated[0] != "j6-a" {
			t.Fatalf("isolated: %v", isolated)
		}
		if granted() {
			t.Error("a lease is granted, and nobody knows yet that another site may have the job")
		}
		k.step(leader.Event{Refused: &leader.Refused{Ref: ref, Err: errors.New("the disk is full")}})
		k.now = max(k.now, k.Wake())
		ref, isolated = began(k.step(leader.Event{}))
	}
	next := *job
	next.Isolated = true
	k.st.Jobs["j6-a"], k.st.Index = &next, 10
	k.step(leader.Event{Applied: &leader.Applied{Index: 10, Ref: ref, Command: &coordinator.Command{LeaderBegan: &coordinator.LeaderBegan{Term: 1, Node: "a1", Isolated: isolated}}}})
	if !granted() {
		t.Error("it is on record, and no lease is granted")
	}
}
