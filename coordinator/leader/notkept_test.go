package leader_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A job that cannot be kept, as a feed of its is in the way of the mirror, is not written
// to the site's log every two seconds until somebody deletes that: then it is kept.
// People are told why, once.
func TestWhatWouldBeRefusedIsNotProposed(t *testing.T) {
	k := newKeeping(t, 0)
	k.st.Feeds["line.at.a"] = &coordinator.Feed{Name: "line.at.a", Replicas: 1, Config: []byte(`{"lanes":1}`), Lineage: []coordinator.Reign{{Epoch: 1, Site: "a"}, {Epoch: 2, Site: "b", Start: 200}},
		Log: coordinator.LogEpoch{Epoch: 2, Owner: "b1", Members: []mesh.NodeID{"b1"}, Starts: []int64{0, 200}, Reign: &coordinator.Reign{Epoch: 2, Site: "b", Start: 200}}}
	offered := coordinator.OfferedJob{Job: "j7-a", Epoch: 1, Text: &coordinator.MovingJob{ID: "j7-a", Name: "other", Spec: []byte(jobs["kept"]), Reads: []string{"line"}, Feeds: []coordinator.MovingFeed{{Name: "line", Config: []byte(`{"lanes":1}`)}}}}
	index := uint64(5)
	var told []string
	round := func() (proposed int) { // a minute of questions and answers
		for range 600 {
			for _, f := range k.step(leader.Event{}) {
				if f.Propose != nil && f.Propose.Command.ReplicaOffered != nil {
					proposed++
					k.step(leader.Event{Refused: &leader.Refused{Ref: f.Propose.Ref, Err: errors.New("it is in the way")}})
				}
				if strings.Contains(f.Tell, "is in the way of a mirror") {
					told = append(told, f.Tell)
				}
				if f.Ask != nil {
					index++
					k.step(leader.Event{Offered: &leader.Offered{Site: "a", Offer: &coordinator.Offer{Site: "a", Index: index, Jobs: []coordinator.OfferedJob{{Job: "j6-a", Epoch: 1}, offered}}}})
				}
			}
		}
		return proposed
	}
	if n := round(); n != 0 {
		t.Errorf("%d entries that are refused", n)
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "what site a offers of job j7-a is not kept here: feed \"line.at.a\" ") {
		t.Errorf("%q is told", told)
	}
	delete(k.st.Feeds, "line.at.a")
	if round() == 0 {
		t.Error("nothing is in the way any more, and it is not kept")
	}
}

// What a prepared move needs is left alone, also where the state would not see to it yet.
func TestWhatIsPreparedIsNotOffered(t *testing.T) {
	for _, level := range []uint32{coordinator.GoesOnLevel, coordinator.SettledLevel} {
		for _, phase := range []coordinator.ArrivalPhase{coordinator.ArrivalPrepared, coordinator.ArrivalDropped} {
			k := newKeeping(t, 500)
			k.st.Level = level
			job := k.st.Replicas["j6-a"].Job
			k.st.Moves.Arrivals["m7-a"] = &coordinator.Arrival{ID: "m7-a", From: "a", Epoch: 2, Job: job, Phase: phase, Savepoint: k.st.Replicas["j6-a"].Next}
			k.step(leader.Event{Sites: &[]mesh.Site{"a", "c"}})
			proposed := false
			for _, f := range k.step(leader.Event{Offered: &leader.Offered{Site: "c", Offer: &coordinator.Offer{Site: "c", Index: 50, Jobs: []coordinator.OfferedJob{{Job: "j6-a", Epoch: 3, Text: &job}}}}}) {
				proposed = proposed || f.Propose != nil && f.Propose.Command.ReplicaOffered != nil
			}
			if proposed == (phase == coordinator.ArrivalPrepared) {
				t.Errorf("level %d, %s: proposed %t", level, phase, proposed)
			}
		}
	}
}
