package leader_test

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
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
