package replication

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Of jobs that end before the site that was offered them names them nothing stays.
func TestNothingStaysOfJobsThatEnd(t *testing.T) {
	s := NewSource(Config{}, "a", 0)
	st := Site{Find: func(coordinator.JobID) *coordinator.Job { return nil }, Of: func(coordinator.JobID, string) *coordinator.Snapshot { return nil }}
	for i := range 100 {
		id := coordinator.NewJobID(uint64(i), "a")
		job := &coordinator.Job{ID: id, Checkpoints: []*coordinator.Snapshot{{Name: "c1", Job: id}}}
		st.Index, st.Jobs = uint64(i), []Job{{Job: job}}
		for _, site := range []mesh.Site{"b", "c"} {
			if o := s.Answer(0, st, &coordinator.Want{Site: site}); len(o.Jobs) != 1 || !s.Pinned(0, id, "c1", []mesh.Site{site}) {
				t.Fatalf("%+v, or what it offers is not kept", o)
			}
		}
	}
	n := 0
	for _, jobs := range s.asked {
		n += len(jobs)
	}
	if n != 2 {
		t.Errorf("%d entries of two sites that were offered one job", n)
	}
}
