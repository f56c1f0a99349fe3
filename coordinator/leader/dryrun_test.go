package leader_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A site is asked again when it has not answered soon, and answers twice. What it says the
// second time is no answer to the next question.
func TestALateAnswerOfADryRun(t *testing.T) {
	id := dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "a", Attempt: 1}, Counter: 7}
	k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
		Jobs: map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "kept", Spec: []byte(jobs["kept"]), Epoch: 1, Status: coordinator.Running,
			Checkpoints: []*coordinator.Snapshot{{Name: "c7", Job: "j6-a", ID: id}}}},
	}}
	k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
	k.step(leader.Event{Sites: &[]mesh.Site{"b"}})
	asks := func(ref int, set ...string) (asked coordinator.MoveID) {
		t.Helper()
		effects := k.step(leader.Event{Wish: &leader.Wish{Ref: ref, Migrate: &leader.Migrate{Dry: &coordinator.MoveBegan{Job: "j6-a", Epoch: 1, To: "b", Sets: set}}}})
		for range 3 {
			effects = append(effects[:len(effects):len(effects)], k.step(leader.Event{})...)
		}
		for _, f := range effects {
			if f.Answer != nil {
				t.Fatalf("%+v", f.Answer)
			}
			if f.ToSite != nil && f.ToSite.ToTarget != nil && f.ToSite.ToTarget.Propose != nil {
				asked = f.ToSite.ToTarget.Move
			}
		}
		if !asked.DryRun() {
			t.Fatalf("it was asked as %q", asked)
		}
		return asked
	}
	hears := func(m coordinator.ToSource) (a *leader.Answer) {
		for _, f := range k.step(leader.Event{FromSite: &leader.FromSite{Site: "b", ToSource: &m}}) {
			if f.Answer != nil {
				a = f.Answer
			}
		}
		return a
	}
	accepted, refused := &coordinator.MoveAccepted{}, &coordinator.MoveRefused{Why: "too few slots"}
	first := asks(1)
	if a := hears(coordinator.ToSource{Move: first, Accepted: accepted}); a == nil || a.Ref != 1 || a.Err != nil {
		t.Fatalf("%+v", a)
	}
	second := asks(2, "parallelism=64")
	if a := hears(coordinator.ToSource{Move: first, Accepted: accepted}); a != nil {
		t.Errorf("what was said of the first one is the answer to the second: %+v", a)
	}
	if a := hears(coordinator.ToSource{Move: second, Refused: refused}); a == nil || a.Ref != 2 || a.Err == nil || !strings.Contains(a.Err.Error(), "too few slots") {
		t.Errorf("%+v", a)
	}
}
