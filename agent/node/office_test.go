package node

import (
	"context"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// TestStandstillIsNoSilence: a leader whose process stood still for longer than a
// lease takes nobody for lost who may have spoken meanwhile; and who says nothing
// afterwards is lost.
func TestStandstillIsNoSilence(t *testing.T) {
	site := jobmanager.New()
	journal := jobmanager.NewJournal()
	_, changes := site.Apply(1, &coordinator.Command{Level: coordinator.BaseLevel, LeaderBegan: &coordinator.LeaderBegan{Term: 1, Node: "a"}})
	journal.Add(changes)
	var now dataflow.Time
	var said []string
	o := newOffice(1)
	o.ctx = t.Context()
	o.leader = leader.New(leader.Config{Term: 1, Self: "a", Level: coordinator.BaseLevel, Timing: leader.DefaultTiming()})
	o.now = func() dataflow.Time { return now }
	o.wall = o.now
	o.look = func(f func(*coordinator.State, jobmanager.Changed)) { f(site.State(), journal.Take()) }
	o.events = func(s string) { said = append(said, s) }
	o.propose = func(context.Context, coordinator.Command) proposal {
		return func() (uint64, error, error) { return 0, nil, context.Canceled }
	}
	o.step(leader.Event{})
	hello := coordinator.Hello{Agent: coordinator.Agent{Node: "b", Name: "b", Slots: 1, Level: coordinator.BaseLevel}, Boot: 1}
	o.step(leader.Event{From: &leader.From{Node: "b", Message: coordinator.ToLeader{Hello: &hello}}})
	for range 5 {
		now = now.Add(5 * dataflow.Second)
		o.turn()
		o.step(leader.Event{}) // it is due before anything is heard
		o.step(leader.Event{From: &leader.From{Node: "b", Message: coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{}}}})
	}
	if len(said) > 0 {
		t.Errorf("it spoke after each standstill, and the leader says %q", said)
	}
	for end := now.Add(4 * dataflow.Second); now < end; {
		now = now.Add(dataflow.Duration(confirmEvery.Microseconds()))
		o.turn()
		o.step(leader.Event{})
	}
	if len(said) != 1 || !strings.Contains(said[0], "agent b is lost") {
		t.Errorf("an agent is silent for 4 s, and the leader says %q", said)
	}
	o.done.Wait()
}
