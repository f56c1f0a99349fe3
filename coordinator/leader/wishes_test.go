package leader_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// TestWishRefused: who wishes for something hears why its command was not accepted,
// as an error that can be told from what the leader refuses itself.
func TestWishRefused(t *testing.T) {
	site := jobmanager.New()
	journal := jobmanager.NewJournal()
	_, changes := site.Apply(1, &coordinator.Command{Level: coordinator.BaseLevel, LeaderBegan: &coordinator.LeaderBegan{Term: 1, Node: "a"}})
	journal.Add(changes)
	l := leader.New(leader.Config{Term: 1, Self: "a", Level: coordinator.BaseLevel, Timing: leader.DefaultTiming()})
	ref := 0
	for _, f := range l.Step(site.State(), journal.Take(), leader.Event{Wish: &leader.Wish{Ref: 7, Stop: &coordinator.JobTold{Job: "j1"}}}) {
		if f.Propose != nil && f.Propose.Command.JobTold != nil {
			ref = f.Propose.Ref
		}
	}
	lost := errors.New("leadership was lost")
	for _, f := range l.Step(site.State(), journal.Take(), leader.Event{Refused: &leader.Refused{Ref: ref, Err: lost}}) {
		if f.Answer != nil && f.Answer.Ref == 7 && errors.Is(f.Answer.Err, lost) {
			return
		}
	}
	t.Error("the wish has no such answer")
}

// Who wants a savepoint of a job that stops for a move, or has moved away, hears where to
// ask.
func TestSavepointOfAMovingJob(t *testing.T) {
	for status, want := range map[coordinator.Status]string{
		coordinator.Running: "ask again", coordinator.Stopping: "is moving to site b, by m8-a", coordinator.Suspended: "is moving to site b, by m8-a", coordinator.Moved: "is at site b: ask there", coordinator.Stopped: "has ended",
	} {
		moves := coordinator.NewMoves()
		job := &coordinator.Job{ID: "j6-a", Name: "files", Spec: []byte(jobs["files"]), Epoch: 1, Status: status, Owner: "b"}
		if status == coordinator.Stopping || status == coordinator.Suspended {
			job.Move, moves.Departures["m8-a"] = "m8-a", &coordinator.Departure{ID: "m8-a", Job: "j6-a", To: "b", Epoch: 1, Phase: coordinator.DepartureHalting}
		}
		k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: moves,
			Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
			Jobs:   map[coordinator.JobID]*coordinator.Job{"j6-a": job},
		}}
		k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
		k.step(leader.Event{})
		var got error
		for _, f := range k.step(leader.Event{Wish: &leader.Wish{Ref: 7, Savepoint: new(coordinator.JobID("j6-a"))}}) {
			if f.Answer != nil && f.Answer.Ref == 7 {
				got = f.Answer.Err
			}
		}
		if got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("%s: %v, want %q", status, got, want)
		}
	}
}
