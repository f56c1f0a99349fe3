package schedule

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Who is to be avoided, and one of two that do not reach each other, is left out
// as long as there is room.
func TestApart(t *testing.T) {
	request := func(pin mesh.NodeID, agents ...Agent) Request {
		r := Request{Site: "s", Agents: agents}
		for i := range 2 {
			id := dataflow.SubtaskID{Task: "t", Index: i}
			r.Slots = append(r.Slots, Slot{Subtasks: []Subtask{{ID: id, Pin: map[int]mesh.NodeID{0: pin}[i]}}})
			r.Before = append(r.Before, coordinator.Place{Subtask: id, Node: agents[i].Node})
		}
		return r
	}
	agent := func(node mesh.NodeID, slots int) Agent { return Agent{Node: node, Name: string(node), Slots: slots} }
	for _, c := range []struct {
		name  string
		pin   mesh.NodeID
		n3    int
		avoid []mesh.NodeID
		apart []Pair
		want  string
	}{
		{"nobody", "", 1, nil, nil, "[{t/0 n1} {t/1 n2}]"},
		{"avoided", "", 1, []mesh.NodeID{"n1"}, nil, "[{t/0 n3} {t/1 n2}]"},
		{"avoided, and no room", "", 0, []mesh.NodeID{"n1"}, nil, "[{t/0 n1} {t/1 n2}]"},
		{"avoided, and pinned", "n1", 1, []mesh.NodeID{"n1"}, nil, "[{t/0 n1} {t/1 n2}]"},
		{"apart", "", 1, nil, []Pair{PairOf("n2", "n1")}, "[{t/0 n1} {t/1 n3}]"},
		{"apart, one pinned", "n2", 1, nil, []Pair{PairOf("n1", "n2")}, "[{t/0 n2} {t/1 n3}]"},
		{"apart, and no room", "", 0, nil, []Pair{PairOf("n1", "n2")}, "[{t/0 n1} {t/1 n2}]"},
		{"who reaches nobody", "", 1, nil, []Pair{PairOf("n1", "n2"), PairOf("n1", "n3")}, "[{t/0 n3} {t/1 n2}]"},
		{"all apart", "", 1, nil, []Pair{PairOf("n1", "n2"), PairOf("n1", "n3"), PairOf("n2", "n3")}, ""},
	} {
		r := request(c.pin, agent("n1", 1), agent("n2", 1), agent("n3", c.n3))
		if c.pin != "" {
			r.Before = []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "t", Index: 1}, Node: map[mesh.NodeID]mesh.NodeID{"n1": "n2", "n2": "n1"}[c.pin]}}
		}
		r.Avoid, r.Apart = c.avoid, c.apart
		places, why := Place(r)
		if got := fmt.Sprint([]coordinator.Place(places)); c.want != "" && got != c.want || len(why) > 0 || len(places) != 2 {
			t.Errorf("%s: %s %v, want %s", c.name, got, why, c.want)
		}
	}
}

// Who waits for slots on one agent is told its name, not its node's.
func TestWaitingNamesTheAgent(t *testing.T) {
	r := Request{Site: "s", Agents: []Agent{{Node: "nk5zf", Name: "press-1"}}}
	r.Slots = []Slot{{Subtasks: []Subtask{{ID: dataflow.SubtaskID{Task: "t"}, Pin: "nk5zf", PinWhy: "feed f"}}}}
	_, why := Place(r)
	if got, want := fmt.Sprint([]string(why)), "[needs 1 slot on press-1 (feed f); none free]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
