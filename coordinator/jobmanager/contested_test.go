package jobmanager_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// Where a shared feed was to move with a job that another site may have, it has no session
// either: also when the move was aborted, and its target has not heard of it.
func TestASharedFeedOfAContestedJob(t *testing.T) {
	for name, c := range map[string]struct {
		stay  string
		lines string // ID and MOVE are the job's and its move's, OFFER has it offered
		held  bool
	}{
		"isolated, then aborted":            {"", "OFFER; isolated ID term=3; move aborted MOVE", true},
		"aborted, then isolated":            {"", "OFFER; move aborted MOVE; isolated ID term=3", true},
		"isolated, then quarantined":        {"", "OFFER; isolated ID term=3; quarantined ID from=b epoch=1 @4", true},
		"quarantined":                       {"", "OFFER; quarantined ID from=b epoch=1 @4", true},
		"it was to stay":                    {"line", "OFFER; isolated ID term=3; move aborted MOVE", false},
		"aborted":                           {"", "OFFER; move aborted MOVE", false},
		"nobody has it":                     {"", "OFFER; move aborted MOVE; isolated ID term=3; claimed ID epoch=1 term=3", false},
		"aborted, and the target has heard": {"", "OFFER; move aborted MOVE; move forgotten MOVE; isolated ID term=3", false},
		"aborted before it was offered":     {"", "move aborted MOVE; isolated ID term=3", false},
		"the target has heard since":        {"", "OFFER; move aborted MOVE; isolated ID term=3; move forgotten MOVE", false},
	} {
		t.Run(name, func(t *testing.T) {
			bothLevels(t, func(t *testing.T, s *site1, settled bool) {
				s.do("feed line")
				id := s.submits("door reads=line")
				s.do("epoch line %d term=2 owner=n1 members=n1 start=0", s.feed("line").NextEpoch())
				move, ends := s.halts(id, c.stay), ""
				if c.stay == "" {
					s.do("epoch line %d term=2 owner=n1 members=n1 start=0 held=yes", s.feed("line").NextEpoch())
					ends = "line:0"
				}
				offer := fmt.Sprintf("move offered %s savepoint=sp-%s ends=%s", move, id, ends)
				for line := range strings.SplitSeq(strings.NewReplacer("ID", id, "MOVE", move, "OFFER", offer).Replace(c.lines), "; ") {
					was := s.m.State().Holds(s.feed("line"))
					s.index++
					r, changes := s.m.Apply(s.index, parse(nil, nil, line))
					if r.Err != nil {
						t.Fatalf("%s: %v", line, r.Err)
					}
					if now := s.m.State().Holds(s.feed("line")); now != was && !slices.Contains(changes, jobmanager.Change{What: jobmanager.Feed, Name: "line"}) {
						t.Errorf("%s: held: %t, and nobody is told", line, now)
					}
				}
				want := c.held && settled
				if got := s.m.State().Holds(s.feed("line")); got != want {
					t.Fatalf("held: %t, want %t", got, want)
				}
				as := map[bool]string{true: "held=yes"}
				if err := s.try("epoch line %d term=%d owner=n1 members=n1 start=0 %s", s.feed("line").NextEpoch(), s.m.State().Term, as[!want]); !errors.Is(err, jobmanager.ErrStale) {
					t.Errorf("an epoch that is otherwise: %v", err)
				}
				s.do("epoch line %d term=%d owner=n1 members=n1 start=0 %s", s.feed("line").NextEpoch(), s.m.State().Term, as[want])
			})
		})
	}
}

// A session that was opened before anybody knew that another site may have the job ends.
func TestASharedSessionIsBarred(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.do("feed line")
		id := s.submits("door reads=line")
		s.do("epoch line %d term=2 owner=n1 members=n1 start=0", s.feed("line").NextEpoch())
		move := s.halts(id, "")
		s.do("epoch line %d term=2 owner=n1 members=n1 start=0 held=yes", s.feed("line").NextEpoch())
		s.do("move offered %s savepoint=sp-%s ends=line:0", move, id)
		s.do("move aborted %s", move)
		s.do("epoch line %d term=2 owner=n1 members=n1 start=0", s.feed("line").NextEpoch())
		s.do("isolated %s term=3", id)
		if got := s.m.State().Barred(s.feed("line")); got != settled {
			t.Errorf("barred: %t", got)
		}
		s.do("move fenced %s 2 owner=b", id)
		if f := s.feed("line"); f.Owner != "b" || !s.m.State().Holds(f) {
			t.Errorf("%+v", f)
		}
	})
}
