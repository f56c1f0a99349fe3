package jobmanager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// Of a job that is forgotten it is on record who has it, until something of it is here again.
func TestWhoHasAForgottenJob(t *testing.T) {
	for name, c := range map[string]struct{ lines, want string }{
		"it ended here":                       {"became ID 1 failed; forget ID", "1 s"},
		"it moved to b":                       {"MOVE; forget ID", "2 b"},
		"c has taken it":                      {"move fenced ID 3 owner=c; forget ID", "3 c"},
		"c has taken it, as is heard later":   {"became ID 1 failed; forget ID; move fenced ID 3 owner=c", "3 c"},
		"it moved on to c, as is heard later": {"MOVE; forget ID; move fenced ID 3 owner=c", "3 c"},
		"it has not ended":                    {"", ""},
		"what is kept of it says who has it":  {"MOVE; offered ID from=b epoch=2 name=door @4; forget ID; dropped ID from=b epoch=2 @4", ""},
		"it is kept here again":               {"MOVE; forget ID; offered ID from=b epoch=2 name=door @4; dropped ID from=b epoch=2 @4", ""},
		"it is on its way here":               {"became ID 1 failed; forget ID; move arrives m99-b ID door from=b epoch=3", ""},
		"it is here again":                    {"MOVE; forget ID; HERE", ""},
		"it is here again, and has ended":     {"MOVE; forget ID; HERE; dropped ID from=b epoch=2 @4; told ID cancel; became ID 4 cancelled; forget ID", "3 s"},
	} {
		bothLevels(t, func(t *testing.T, s *site1, settled bool) {
			id := s.submits("door")
			for line := range strings.SplitSeq(strings.ReplaceAll(c.lines, "ID", id), "; ") {
				switch line {
				case "":
				case "MOVE":
					s.do("move handed %s", s.offers(id, ""))
				case "HERE":
					s.arrives(id, "", 3, "")
				default:
					if err := s.try("%s", line); err != nil && (settled || !errors.Is(err, jobmanager.ErrStale)) { // below it nothing is known of the job
						t.Fatalf("%s: %s: %v", name, line, err)
					}
				}
			}
			got, want := "", map[bool]string{true: c.want}[settled]
			if f := s.m.State().Forgotten[coordinator.JobID(id)]; f != nil {
				got = fmt.Sprintf("%d %s", f.Has.Epoch, f.Has.Site)
			}
			if got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
			comesBack(t, s.m)
		})
	}
}

// What is said of a forgotten job is not older than what is on record.
func TestAForgottenJobOfBefore(t *testing.T) {
	s := newSite(t)
	s.raise()
	id := s.submits("door")
	s.do("move fenced %s 5 owner=c", id)
	s.do("forget %s", id)
	for _, line := range []string{"move fenced ID 4 owner=d", "move fenced ID 5 owner=d", "move arrives m99-b ID door from=b epoch=5", "offered ID from=b epoch=4 name=door @4"} {
		if err := s.try("%s", strings.ReplaceAll(line, "ID", id)); !errors.Is(err, jobmanager.ErrStale) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if f := s.m.State().Forgotten[coordinator.JobID(id)]; f == nil || f.Has.Site != "c" || f.Has.Epoch != 5 {
		t.Errorf("%+v", f)
	}
}

// Of more jobs than are on record nothing is said of those that were forgotten first.
func TestForgottenJobsAreBounded(t *testing.T) {
	s := newSite(t)
	s.raise()
	const more = 3
	var ids []coordinator.JobID
	for range jobmanager.MaxEndedJobs + jobmanager.MaxForgotten + more {
		id := fmt.Sprintf("j%d-s", s.do("submit x"))
		s.do("became %s 0 failed", id)
		ids = append(ids, coordinator.JobID(id))
	}
	all := s.m.State().Forgotten
	if len(all) != jobmanager.MaxForgotten {
		t.Errorf("%d are on record", len(all))
	}
	for i, id := range ids {
		if has, want := all[id] != nil, i >= more && i < more+jobmanager.MaxForgotten; has != want {
			t.Fatalf("job %d of %d is on record: %t", i, len(ids), has)
		}
	}
	comesBack(t, s.m)
}

// judgeForgotten: of a job that is on record as forgotten nothing else is at the site, and the
// one that is said to have it is not behind one that does.
func (p *pair) judgeForgotten(st, other *coordinator.State) error {
	for id, f := range st.Forgotten {
		if st.Jobs[id] != nil || st.Replicas[id] != nil || st.Arriving(id) != nil || f.Job != id {
			return fmt.Errorf("%s is on record as forgotten, and there: %+v", id, f)
		}
		if j := other.Jobs[id]; j != nil && !j.Status.Ended() && f.Has.Site == st.Site && f.Has.Epoch >= j.Epoch && !p.forced[id] {
			return fmt.Errorf("%s ended at %s at epoch %d, and is %s at the other site at %d", id, st.Site, f.Has.Epoch, j.Status, j.Epoch)
		}
		p.seen["forgotten, of "+map[bool]string{true: "here", false: "elsewhere"}[f.Has.Site == st.Site]]++
	}
	return nil
}
