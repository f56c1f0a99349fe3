package leader_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The session of a shared feed ends that another site may have with a job, when all agents
// know that it is to.
func TestTheLevelEndsASharedSession(t *testing.T) {
	const spec = `
name: reads
checkpoint: {interval: 2s}
sources:
  x: {feed: line, format: json, fields: {id: bigint}, event_time: ingestion}
sinks:
  - {id: out, from: x, file: {path: out.jsonl}}
`
	agent := &coordinator.Agent{Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}
	move := &coordinator.Departure{ID: "m7-a", Job: "j6-a", To: "b", Epoch: 1, Phase: coordinator.DepartureAborted, Savepoint: "sp", Ends: []coordinator.FeedEnd{{Feed: "line"}}}
	st := &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.GoesOnLevel, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"a1": agent}, Names: map[string]coordinator.JobID{"reads": "j6-a"},
		Jobs: map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "reads", Spec: []byte(spec), Epoch: 1, Status: coordinator.Restarting, Isolated: true, Reads: []string{"line"}}},
		Feeds: map[string]*coordinator.Feed{"line": {Name: "line", Replicas: 1, Config: []byte(`{"lanes":1}`),
			Log: coordinator.LogEpoch{Epoch: 2, Owner: "a1", Members: []mesh.NodeID{"a1"}, Starts: []int64{0, 0}}}},
	}
	st.Moves.Departures[move.ID] = move
	l := leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming()})
	now := 1000 * ms
	seals := func(changed jobmanager.Changed, e leader.Event) (sealed bool) {
		now += 100 * ms
		e.Now = now
		for _, f := range l.Step(st, changed, e) {
			sealed = sealed || f.Send != nil && f.Send.Message.Seal != nil && f.Send.Message.Seal.Feed == "line"
		}
		return sealed
	}
	hello := coordinator.ToLeader{Hello: &coordinator.Hello{Agent: *agent, Boot: 1, Applied: 9, Logs: []coordinator.LogNow{{Feed: "line", Epoch: 2, InSync: true}}}}
	early := seals(jobmanager.Changed{}, leader.Event{})
	early = seals(jobmanager.Changed{}, leader.Event{From: &leader.From{Node: "a1", Message: hello}}) || early
	if early = seals(jobmanager.Changed{}, leader.Event{}) || early; early {
		t.Error("it ends at a level at which nobody knows of it")
	}
	st.Level, st.Index = coordinator.SettledLevel, 10
	if !seals(jobmanager.Changed{Names: []jobmanager.Change{{What: jobmanager.Level}}}, leader.Event{}) {
		t.Error("it does not end")
	}
}
