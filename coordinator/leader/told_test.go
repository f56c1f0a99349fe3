package leader

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// In which feeds a savepoint stands is for its own site: a program of before cannot read
// it.
func TestASavepointIsToldWithoutWhereItStands(t *testing.T) {
	s := &coordinator.Snapshot{Name: "sp", Job: "j1-a", Stands: []coordinator.Stand{{Feed: "line3", Made: 8}}}
	l := &Leader{st: &coordinator.State{Savepoints: map[string]*coordinator.Snapshot{"sp": s}}}
	if got := l.snapshotOf("j1-a", "sp"); got.Name != "sp" || got.Stands != nil {
		t.Errorf("%+v", got)
	}
	if told(nil) != nil || len(s.Stands) != 1 {
		t.Error(s)
	}
}
