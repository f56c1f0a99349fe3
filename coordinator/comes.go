package coordinator

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Comes is the session that comes with a feed of a job of a site, when the job does; zero:
// none does.
func (s *State) Comes(m *MovingJob, f *MovingFeed, from mesh.Site) Session {
	if f.Stay || f.Of != nil {
		return Session{}
	}
	is := Feed{Name: f.Name, Config: f.Config, Lineage: f.Reigns(from)}
	if !slices.Contains(m.Reads, f.Name) {
		is.Job = m.ID
	}
	return s.SessionOf(&is)
}

// ComesTwice is the feed before one of a job of a site with which the same session would
// come; nil: none.
func (s *State) ComesTwice(m *MovingJob, f *MovingFeed, from mesh.Site) *MovingFeed {
	want := s.Comes(m, f, from)
	for i := range m.Feeds {
		switch o := &m.Feeds[i]; {
		case o.Name == f.Name || want == (Session{}):
			return nil
		case s.Comes(m, o, from) == want:
			return o
		}
	}
	return nil
}
