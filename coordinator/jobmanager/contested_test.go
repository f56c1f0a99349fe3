package jobmanager_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/mesh"
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
		"another site has it, and the target has not said what became of it": {"", "OFFER; isolated ID term=3; move fenced ID 3 owner=c", true},
		"the target has heard since":                                         {"", "OFFER; move aborted MOVE; isolated ID term=3; move forgotten MOVE", false},
	} {
		t.Run(name, func(t *testing.T) {
			bothLevels(t, func(t *testing.T, s *site1, settled bool) {
				s.contested(t, c.stay, c.lines, c.held && settled)
			})
		})
	}
}

// contested has a job offered to b, and more, and looks whether the shared feed is held then.
func (s *site1) contested(t *testing.T, stay, lines string, want bool) (move string) {
	t.Helper()
	s.do("feed line")
	id := s.submits("door reads=line")
	s.do("epoch line %d term=2 owner=n1 members=n1 start=0", s.feed("line").NextEpoch())
	move, ends := s.halts(id, stay), ""
	if stay == "" {
		s.do("epoch line %d term=2 owner=n1 members=n1 start=0 held=yes", s.feed("line").NextEpoch())
		ends = "line:0"
	}
	offer := fmt.Sprintf("move offered %s savepoint=sp-%s ends=%s", move, id, ends)
	for line := range strings.SplitSeq(strings.NewReplacer("ID", id, "MOVE", move, "OFFER", offer).Replace(lines), "; ") {
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
	if got := s.m.State().Holds(s.feed("line")); got != want {
		t.Fatalf("held: %t, want %t", got, want)
	}
	as := map[bool]string{true: "held=yes"}
	if err := s.try("epoch line %d term=%d owner=n1 members=n1 start=0 %s", s.feed("line").NextEpoch(), s.m.State().Term, as[!want]); !errors.Is(err, jobmanager.ErrStale) {
		t.Errorf("an epoch that is otherwise: %v", err)
	}
	s.do("epoch line %d term=%d owner=n1 members=n1 start=0 %s", s.feed("line").NextEpoch(), s.m.State().Term, as[want])
	return move
}

// Where the job is at a greater epoch elsewhere nobody knows yet whether the target of a move
// was forced, and has the session: that says so at the end. Or a person has the job go on here.
func TestASharedFeedOfAFencedJob(t *testing.T) {
	const both = "OFFER; isolated ID term=3; move aborted MOVE; over ID from=s epoch=1 to=2 @4; "
	for name, c := range map[string]struct {
		stay  string
		lines string
		held  bool
	}{
		"the target has it, by force":                    {"", "OFFER; isolated ID term=3; move fenced ID 2 owner=b", true},
		"the target has it, twice by force":              {"", "OFFER; isolated ID term=3; move fenced ID 3 owner=b", true},
		"a third site has it":                            {"", "OFFER; isolated ID term=3; move fenced ID 3 owner=c", true},
		"a third site has it, at the target's epoch":     {"", "OFFER; isolated ID term=3; move fenced ID 2 owner=c", true},
		"aborted, then a third site has it":              {"", "OFFER; move aborted MOVE; move fenced ID 3 owner=c", true},
		"it was to stay":                                 {"line", "OFFER; isolated ID term=3; move fenced ID 3 owner=c", false},
		"never offered":                                  {"", "move fenced ID 3 owner=c", false},
		"forced at both, and nobody is told here":        {"", both + "move fenced ID 2 owner=b", false}, // who has the job here, has the session
		"forced at both":                                 {"", both + "quarantined ID from=b epoch=2 @4; move fenced ID 2 owner=b", true},
		"forced at both, fenced first":                   {"", both + "move fenced ID 2 owner=b; quarantined ID from=b epoch=2 @4", true},
		"forced at both, then there":                     {"", both + "quarantined ID from=b epoch=2 @4; move fenced ID 2 owner=b; move fenced ID 3 owner=b", true},
		"forced at both, then there, not quarantined":    {"", both + "move fenced ID 2 owner=b; move fenced ID 3 owner=b", true},
		"forced at both, then here":                      {"", both + "quarantined ID from=b epoch=2 @4; move fenced ID 2 owner=b; over ID from=s epoch=2 to=3 @4", false},
		"forced at both, then here, then taken":          {"", both + "quarantined ID from=b epoch=2 @4; move fenced ID 2 owner=b; over ID from=s epoch=2 to=3 @4; move fenced ID 4 owner=c", false},
		"forced at both, cancelled here":                 {"", both + "quarantined ID from=b epoch=2 @4; move fenced ID 2 owner=b; told ID cancel; became ID 1 cancelled", true},
		"the target says that it has dropped it":         {"", "OFFER; isolated ID term=3; move fenced ID 3 owner=c; move forgotten MOVE", false},
		"the target says that it was forced":             {"", "OFFER; isolated ID term=3; move fenced ID 3 owner=c; move forgotten MOVE taken=yes", true},
		"it says so when the job is forgotten here":      {"", "OFFER; move aborted MOVE; told ID cancel; became ID 1 cancelled; forget ID; move fenced ID 3 owner=c; move forgotten MOVE taken=yes", true},
		"the job is forgotten here":                      {"", "OFFER; move aborted MOVE; told ID cancel; became ID 1 cancelled; forget ID; move fenced ID 3 owner=c", true},
		"forced here since, and the target was, as well": {"", both + "quarantined ID from=b epoch=2 @4; move fenced ID 2 owner=b; over ID from=s epoch=2 to=3 @4; move forgotten MOVE taken=yes", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.raise()
			move := s.contested(t, c.stay, c.lines, c.held)
			d, owner := s.m.State().Moves.Departures[coordinator.MoveID(move)], mesh.Site("")
			if taken := strings.HasSuffix(c.lines, "taken=yes") && c.held || d != nil && d.Phase == coordinator.DepartureFenced && strings.HasSuffix(c.lines, "isolated ID term=3; move fenced ID 2 owner=b"); taken {
				owner = "b"
			}
			if f := s.feed("line"); f.Owner != owner {
				t.Errorf("its owner: %q, want %q", f.Owner, owner)
			}
		})
	}
}

// Who has a job that its target was forced to have, too, waits to hear whose it is before it
// forgets the move.
func TestADisputedMoveStays(t *testing.T) {
	s := newSite(t)
	s.raise()
	move := s.contested(t, "", "OFFER; isolated ID term=3; move aborted MOVE; over ID from=s epoch=1 to=2 @4; move fenced ID 2 owner=b", false)
	id := s.m.State().Moves.Departures[coordinator.MoveID(move)].Job
	for _, line := range []string{"quarantined %s from=b epoch=2 @4", "move fenced %s 3 owner=c"} {
		if err := s.try("move forgotten %s taken=yes", move); !errors.Is(err, jobmanager.ErrStale) {
			t.Errorf("forgotten before %q: %v", line, err)
		}
		s.do(line, id)
	}
	s.do("move forgotten %s taken=yes", move)
	if f := s.feed("line"); f.Owner != "b" {
		t.Errorf("its owner: %q", f.Owner)
	}
}

// What its target has taken is not said where an agent may be that cannot read it.
func TestTakenIsSaidFromALevelOn(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		move := s.contested(t, "", "OFFER; move aborted MOVE; move fenced ID 2 owner=b", true) // below the level it is given away at once
		if err := s.try("move forgotten %s taken=yes", move); (err == nil) != settled {
			t.Error(err)
		}
	})
	for taken, want := range map[bool]uint32{false: coordinator.SitesLevel, true: coordinator.SettledLevel} {
		c := coordinator.Command{Move: &coordinator.MoveCommand{Forgotten: &coordinator.MoveForgotten{ID: "m7-s", Taken: taken}}}
		if c.Needs() != want {
			t.Errorf("taken %t: level %d", taken, c.Needs())
		}
	}
}

// A move whose target says nothing any more holds no session that has come back since, or
// whose feed a person has made anew.
func TestASharedFeedIsBack(t *testing.T) {
	const fenced = "OFFER; move aborted MOVE; move fenced ID 2 owner=b"
	t.Run("with the job", func(t *testing.T) {
		s := newSite(t)
		s.raise()
		move := s.contested(t, "", fenced, true)
		id := s.m.State().Moves.Departures[coordinator.MoveID(move)].Job
		reign := coordinator.LineageOf(s.feed("line"), "s")[0].Epoch
		s.arrives(string(id), fmt.Sprintf("feeds=line reads=line reigns=%d:s:0,%d:b:0", reign, reign+1), 3, "line:0")
		if f := s.feed("line"); f.Owner != "" || s.m.State().Holds(f) {
			t.Errorf("held: %+v", f)
		}
		s.do("move fenced %s 5 owner=c", id)
		s.do("move forgotten %s taken=yes", move)
		if f := s.feed("line"); f.Owner != "" || s.m.State().Holds(f) {
			t.Errorf("it is the target's: %+v", f)
		}
	})
	t.Run("deleted, and made anew", func(t *testing.T) {
		s := newSite(t)
		s.raise()
		s.contested(t, "", fenced, true)
		s.do("unfeed line")
		s.do("feed line")
		if s.m.State().Holds(s.feed("line")) {
			t.Error("held")
		}
	})
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
