package leader_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
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
