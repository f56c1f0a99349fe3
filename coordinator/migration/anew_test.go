package migration

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Whoever goes on with a move that another leader had says so once, before it counts; of
// a move that is decided nothing is counted.
func TestAnotherLeaderSaysSo(t *testing.T) {
	for phase, want := range map[string]int{"copying": 1, "halting": 1, "aborted": 0} {
		s := NewSource(Config{}, 0, departureIn(phase), coordinator.MovingJob{ID: "j1", Name: "job"})
		s.Anew()
		var told []*Progress
		for _, e := range []Event{{}, {FromTarget: &coordinator.ToSource{Move: scriptID, Got: &coordinator.MoveGot{Snapshot: "c1", Bytes: 7}}}, {}} {
			for _, f := range s.Step(e) {
				if f.Tell != nil {
					told = append(told, f.Tell)
				}
			}
		}
		n := 0
		for i, p := range told {
			if p.Anew {
				n++
				if i > 0 || p.Phase != phase {
					t.Errorf("%s: %+v is told as number %d", phase, p, i)
				}
			} else if p.Snapshot != "c1" || p.Bytes != 7 {
				t.Errorf("%s: %+v", phase, p)
			}
		}
		if n != want {
			t.Errorf("%s: told %d times", phase, n)
		}
	}
}
