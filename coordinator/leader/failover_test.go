package leader_test

import (
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// lose ends all agents of a site.
func (s *site) lose() {
	for _, n := range s.sorted() {
		if n.up {
			n.crash()
		}
	}
}

// comeBack starts them all.
func (s *site) comeBack() {
	for _, n := range s.sorted() {
		if !n.up {
			n.start()
		}
	}
	if s.leads == nil {
		s.lead(mesh.NodeID(s.name + "1"))
	}
}

func (s *script) failover(force, dry bool) {
	s.site.failover(s.args[0], s.number(1), force, dry)
}

// failover is a person's wish about a job by its name: one that is here, or is kept
// here.
func (s *site) failover(name string, ref int, force, dry bool) {
	st := s.state()
	w := &leader.Failover{Force: force, Dry: dry, Why: "a test"}
	for id, r := range st.Replicas {
		if r.Job.Name == name {
			w.Job = id
		}
	}
	if j := s.job(name); j != nil && (w.Job == "" || !j.Status.Ended()) {
		w.Job = j.ID
	}
	if w.Job == "" {
		return
	}
	if !dry && s.leads != nil {
		s.wan.forced, s.wan.twice = true, s.wan.forced
	}
	s.toLeader(leader.Event{Wish: &leader.Wish{Ref: ref, Failover: w}})
}
