package coordinator

import (
	"fmt"
	"strings"
)

// Occupies says for people that a feed has a session that another one is to have, and what
// can be done about that, by how its job is; ways are what else can be done.
func (s *State) Occupies(by *Feed, ways ...string) string {
	whose, free := s.occupier(by)
	if free != "" {
		ways = append([]string{free}, ways...)
	}
	return whose + ", and two sessions of one id throw each other out for ever: " + strings.Join(ways, "; or ")
}

// occupier says whose a feed is, and how a person gets its session free; empty: he does not.
func (s *State) occupier(f *Feed) (whose, free string) {
	whose = "feed " + f.Name
	j := s.Jobs[f.Job]
	if arr := s.ArrivingFeed(f); arr != nil {
		return fmt.Sprintf("%s, which is on its way to site %s, by %s", whose, s.Site, arr.ID), ""
	}
	if moved := s.movedWith(f); moved != nil {
		return fmt.Sprintf("%s of job %s (%s), which is at site %s", whose, moved.ID, moved.Name, moved.Owner),
			fmt.Sprintf("if it is not needed there any more stop it there, and forget it at site %s (tidemark job forget %s)", s.Site, moved.ID)
	}
	if j == nil && f.Whose() != "" {
		return fmt.Sprintf("%s, whose session stayed at site %s when job %s moved", whose, s.Site, f.Whose()), ""
	}
	if j == nil {
		return whose, fmt.Sprintf("delete it first (tidemark feed delete %s)", f.Name)
	}
	whose += fmt.Sprintf(" of job %s (%s), which is ", j.ID, j.Name)
	if d := s.Leaving(j.ID); d != nil {
		return whose + "moving, by " + string(d.ID), ""
	}
	if j.Status == Quarantined {
		return whose + j.Status.String(), fmt.Sprintf("cancel that job first (tidemark job cancel %s)", j.Name)
	}
	return whose + j.Status.String(), fmt.Sprintf("stop that job first (tidemark job stop %s)", j.Name)
}
