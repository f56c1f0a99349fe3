package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A tick that can do nothing asks for no other one at once: a driver that waits
// until Wake would never rest while nobody leads.
func TestWakeIsLater(t *testing.T) {
	w := New(Config{Agent: coordinator.Agent{Node: "n1"}, Site: "s", Boot: 1, Timing: DefaultTiming()})
	st := &coordinator.State{}
	sec := dataflow.Time(dataflow.Second)
	w.Step(st, jobmanager.Changed{All: true}, Event{Now: sec, Leader: new(mesh.NodeID("n2"))})
	w.Step(st, jobmanager.Changed{All: true}, Event{Now: 2 * sec, Connected: new(false)})
	w.Step(st, jobmanager.Changed{All: true}, Event{Now: 2 * sec, Leader: new(mesh.NodeID(""))})
	w.Step(st, jobmanager.Changed{All: true}, Event{Now: 3 * sec})
	if at := w.Wake(); at <= 3*sec {
		t.Errorf("nobody leads, and at %d a tick is wanted at %d", 3*sec, at)
	}
}
