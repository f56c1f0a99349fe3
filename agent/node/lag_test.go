package node

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// What other sites said of a job before it moved away is not told of it any more.
func TestNothingIsToldOfAMovedJobsCopies(t *testing.T) {
	for status, want := range map[coordinator.Status]int{coordinator.Running: 1, coordinator.Stopped: 1, coordinator.Moved: 0} {
		st := &coordinator.State{Site: "plant", Moves: coordinator.NewMoves(), Jobs: map[coordinator.JobID]*coordinator.Job{"j7-plant": {ID: "j7-plant", Status: status, Owner: "depot"}}}
		wants := map[mesh.Site]heardWant{"depot": {jobs: map[coordinator.JobID]coordinator.WantedJob{"j7-plant": {Job: "j7-plant", Has: "c7"}, "j8-plant": {Job: "j8-plant"}}}}
		if all := replicasOf(st, nil, wants); len(all) != want || want > 0 && (all[0].To != "depot" || all[0].Snapshot != "c7") {
			t.Errorf("%s: %+v", status, all)
		}
	}
}
