package leader_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The session of a shared feed does not leave while a job that moved reads a mirror of it:
// a leader whose program knows that does not propose it, though the state would take it
// below feature level 6. A move that is there already is answered with.
func TestASessionDoesNotLeaveAReaderAtAnyLevel(t *testing.T) {
	spec := []byte("name: reads\nsources: {x: {feed: line, format: text, event_time: ingestion}}\nsinks: [{id: out, from: x, blackhole: {}}]\n")
	for _, c := range []struct {
		name  string
		away  coordinator.Status
		stay  []string
		there bool
		want  string // why not; empty: it is proposed, or there
	}{
		{"a reader away", coordinator.Moved, nil, false, "job j5-a, which moved, reads a mirror of feed \"line\""},
		{"it stays", coordinator.Moved, []string{"line"}, false, ""},
		{"a reader that has ended", coordinator.Cancelled, nil, false, ""},
		{"it was begun before", coordinator.Moved, nil, true, ""},
	} {
		st := &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.GoesOnLevel, Moves: coordinator.NewMoves(),
			Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}}, Names: map[string]coordinator.JobID{"reads": "j6-a"},
			Jobs: map[coordinator.JobID]*coordinator.Job{
				"j5-a": {ID: "j5-a", Name: "other", Spec: spec, Epoch: 2, Status: c.away, Owner: "b", Reads: []string{"line"}},
				"j6-a": {ID: "j6-a", Name: "reads", Spec: spec, Epoch: 1, Status: coordinator.Running, Reads: []string{"line"}},
			},
			Feeds: map[string]*coordinator.Feed{"line": {Name: "line", Replicas: 1, Config: []byte(`{"lanes":1}`),
				Log: coordinator.LogEpoch{Epoch: 2, Owner: "a1", Members: []mesh.NodeID{"a1"}, Starts: []int64{0, 0}}}},
		}
		if c.there {
			st.Moves.Departures["m7-a"] = &coordinator.Departure{ID: "m7-a", Job: "j6-a", To: "b", Epoch: 1, Request: "r", Phase: coordinator.DepartureCopying}
		}
		l := leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming()})
		l.Step(st, jobmanager.Changed{}, leader.Event{Now: 1000 * ms})
		proposed, refused := false, ""
		for _, f := range l.Step(st, jobmanager.Changed{}, leader.Event{Now: 1001 * ms, Wish: &leader.Wish{Ref: 1, Migrate: &leader.Migrate{
			Begin: &coordinator.MoveBegan{Job: "j6-a", Epoch: 1, To: "b", Request: "r", Stay: c.stay}}}}) {
			proposed = proposed || f.Propose != nil && f.Propose.Command.Move != nil
			if f.Answer != nil && f.Answer.Err != nil {
				refused = f.Answer.Err.Error()
			}
		}
		if proposed != (c.want == "") || !strings.Contains(refused, c.want) || c.want == "" && refused != "" {
			t.Errorf("%s: proposed %t, %q", c.name, proposed, refused)
		}
	}
}
