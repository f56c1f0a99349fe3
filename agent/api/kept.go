package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// What this site keeps of a job of another one is dropped here, and nowhere else: the
// other site may be the one that is lost.

func (s *server) registerKept() {
	register(s, op(http.MethodDelete, "/v1/replicas/{job}", "drop-replica", "Drop what this site keeps of a job of another one", status(http.StatusNoContent),
		describe("With its checkpoints, and the mirrors of its feeds that nothing else needs. The job itself stays what it is. Where its site has it, and replicates it here, it is kept anew as soon as that is reached.")), s.dropKept)
}

func (s *server) dropKept(ctx context.Context, in *JobPath) (*struct{}, error) {
	var c coordinator.ReplicaDropped
	err := s.read(ctx, Stale{}, func(st *coordinator.State) error {
		r, err := findKept(st, in.Job)
		if err == nil {
			c = coordinator.ReplicaDropped{Job: r.Job.ID, From: r.From, Epoch: r.Epoch, Why: "a user had it dropped"}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, coordinator.Command{ReplicaDropped: &c})
	return nil, err
}

// findKept finds what is kept of a job of another site by that one's id or name.
func findKept(st *coordinator.State, ref string) (found *coordinator.Replica, err error) {
	if r := st.Replicas[coordinator.JobID(ref)]; r != nil {
		return r, nil
	}
	var names, ids []string
	for id, r := range st.Replicas {
		if names = append(names, r.Job.Name); r.Job.Name == ref {
			found, ids = r, append(ids, string(id))
		}
	}
	slices.Sort(names)
	switch slices.Sort(ids); {
	case len(ids) > 1:
		return nil, refusal(http.StatusConflict, "%q is the name of several jobs: which one of %s?", ref, strings.Join(ids, ", "))
	case found == nil:
		return nil, missing("job of another site that is kept here", ref, names)
	}
	return found, nil
}
