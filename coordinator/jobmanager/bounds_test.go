package jobmanager_test

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// Epochs that nobody can have counted to are refused from feature level 5 on, and
// not below it: there agents apply the same commands that do not know the bounds.
// How far a job's epoch goes when a site is lost is bounded otherwise below it.
func TestBoundsOfEpochsAreOfLevel5(t *testing.T) {
	const ahead = coordinator.MaxEpochsAhead
	kept := func(s *site1) {
		s.do("offered j1-b from=b epoch=1 name=door @4")
		s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
		s.do("copies j1-b chk-5 aa:n1")
		s.do("advanced j1-b chk-5 from=b epoch=1 @4")
	}
	here := func(s *site1) { s.do("submit door") }
	type want struct{ at4, at5 bool } // whether it is applied
	for _, c := range []struct {
		name    string
		before  func(s *site1)
		command string
		epoch   uint64
		want    want
	}{
		{"a replica", nil, "offered j1-b from=b epoch=%d @4", coordinator.MaxEpoch, want{true, true}},
		{"a replica, beyond", nil, "offered j1-b from=b epoch=%d @4", coordinator.MaxEpoch + 1, want{true, false}},
		{"an arrival", nil, "move arrives m9-b j1-b door from=b epoch=%d @4", coordinator.MaxEpoch, want{true, true}},
		{"an arrival, beyond", nil, "move arrives m9-b j1-b door from=b epoch=%d @4", coordinator.MaxEpoch + 1, want{true, false}},
		{"a site is lost", kept, "over j1-b chk-5 from=b epoch=1 to=%d @4", 1 + jobmanager.MaxHistory, want{true, true}},
		{"a site is lost, beyond at level 4", kept, "over j1-b chk-5 from=b epoch=1 to=%d @4", 2 + jobmanager.MaxHistory, want{false, true}},
		{"a site is lost, beyond", kept, "over j1-b chk-5 from=b epoch=1 to=%d @4", 3 + ahead, want{false, false}},
		{"fenced", here, "move fenced j8-s %d owner=c @4", 1 + ahead, want{true, true}},
		{"fenced, beyond", here, "move fenced j8-s %d owner=c @4", 2 + ahead, want{true, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for level, applied := range map[int]bool{coordinator.SitesLevel: c.want.at4, coordinator.GoesOnLevel: c.want.at5} {
				s := newSite(t)
				s.raiseTo(level)
				if c.before != nil {
					c.before(s)
				}
				switch err := s.try(c.command, c.epoch); {
				case applied && err != nil:
					t.Errorf("level %d: %v", level, err)
				case !applied && !errors.Is(err, jobmanager.ErrRefused):
					t.Errorf("level %d: %v, want it refused", level, err)
				}
			}
		})
	}
}
