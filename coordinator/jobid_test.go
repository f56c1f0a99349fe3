package coordinator

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// A site's jobs are known by their ids, wherever something of them is.
func TestAcceptedAt(t *testing.T) {
	for name, st := range map[string]*State{
		"a job":       {Jobs: map[JobID]*Job{"j7-depot": {}, "j9-depot": {}, "j3": {}, "j2-plant": {}}},
		"one of past": {Forgotten: map[JobID]*Forgotten{"j7-depot": {}}},
		"a replica":   {Replicas: map[JobID]*Replica{"j7-depot": {}}},
		"an arrival":  {Moves: Moves{Arrivals: map[MoveID]*Arrival{"m1": {Job: MovingJob{ID: "j7-depot"}}}}},
		"a savepoint": {Savepoints: map[string]*Snapshot{"sp": {Job: "j7-depot"}}},
	} {
		if at := st.AcceptedAt("depot"); at != "j7-depot" {
			t.Errorf("%s: %q", name, at)
		}
		if at := st.AcceptedAt("yard"); at != "" {
			t.Errorf("%s: %q of a site that nobody knows", name, at)
		}
	}
}

// What is kept of a site's job is told by the site, also of a job that came there.
func TestAcceptedElsewhere(t *testing.T) {
	st := &State{Replicas: map[JobID]*Replica{"j7-depot": {From: "yard"}}}
	for site, want := range map[string]JobID{"depot": "j7-depot", "yard": "j7-depot", "plant": ""} {
		if at := st.AcceptedAt(mesh.Site(site)); at != want {
			t.Errorf("%s: %q", site, at)
		}
	}
}
