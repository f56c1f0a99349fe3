package jobmanager_test

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// Two sites and a third one, which keeps the job, and may take it while it is on its way.

// prepares has a job come from site b, up to that all of it is here: its log up to 700.
func (s *site1) prepares() {
	s.t.Helper()
	s.receives()
	s.do("move prepared m99-b savepoint=sp-b job=j1-b attempt=4 era=1 site=b ends=j1-b.in:700")
}

func (s *site1) receives() {
	s.t.Helper()
	s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in @4") // it is kept here, too
	s.do("move arrives m99-b j1-b door from=b epoch=2 feeds=j1-b.in")
	s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in moving=m99-b @4")
	s.do("epoch j1-b.in %d term=2 owner=n1 members=n1 start=0", s.feed("j1-b.in").NextEpoch())
}

// takenByC is what site c says that has taken the job, with less of its log.
const takenByC = "offered j1-b from=c epoch=2 name=door feeds=j1-b.in reigns=1:b:0,2:c:500 @4"

// What another site says of the job takes nothing away that a prepared move needs. When the
// move is decided it counts.
func TestWhatIsPreparedStays(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.prepares()
		if err := s.try(takenByC); errors.Is(err, jobmanager.ErrStale) != settled {
			t.Fatalf("%v, refused should be %v", err, settled)
		}
		if cut := s.feed("j1-b.in").Fork != nil; cut == settled {
			t.Errorf("the log that the move needs is cut: %v", cut)
		}
		if !settled {
			return
		}
		s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in moving=m99-b @4") // what its source says goes with the move
		for _, later := range []string{
			"offered j1-b from=b epoch=3 name=door feeds=j1-b.in reigns=1:b:0,2:c:500,3:b:600 @4", // it is back there, from c
			"offered j2-c from=c epoch=3 name=gate feeds=j1-b.in reigns=1:b:0,3:c:500 @4",         // another one adopted its log
		} {
			if err := s.try("%s", later); !errors.Is(err, jobmanager.ErrStale) {
				t.Errorf("%s: %v", later, err)
			}
		}
		s.do("move active m99-b verdict=3") // it is fenced there: dropped here
		s.do(takenByC)
		if f := s.feed("j1-b.in"); f.Mirror == nil || f.Mirror.Site != "c" || f.Fork == nil || f.Fork.At != 500 {
			t.Errorf("%+v, want what site c has of it from 500 on", f)
		}
	})
}

// The job comes with the log that was promised, though yet another site has it as well.
func TestWhatIsPreparedComes(t *testing.T) {
	s := newSite(t)
	s.raise()
	s.prepares()
	_ = s.try(takenByC)
	s.do("move active m99-b verdict=1")
	if f := s.feed("j1-b.in"); f.Mirror != nil || f.Fork != nil || f.Reigns != 2 {
		t.Errorf("%+v, want a session and all of its log", f)
	}
}

// A log that follows yet another site by now is not the one that the offer speaks of.
func TestWhatFollowsAnotherSiteIsNotPrepared(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.receives()
		s.do(takenByC)
		err := s.try("move prepared m99-b savepoint=sp-b job=j1-b attempt=4 era=1 site=b ends=j1-b.in:700")
		if errors.Is(err, jobmanager.ErrStale) != settled {
			t.Errorf("%v, refused should be %v", err, settled)
		}
	})
}

// replaced is a site where feature level 5 was in force when yet another site's log took
// the place of what was prepared.
func replaced(t *testing.T) *site1 {
	s := newSite(t)
	s.raiseTo(coordinator.GoesOnLevel)
	s.prepares()
	s.do(takenByC)
	return s
}

// A job that comes with another site's log has no session, and does not run without one.
func TestAJobWithoutItsLogIsQuarantined(t *testing.T) {
	s := replaced(t)
	s.raise()
	s.do("move active m99-b verdict=1")
	if j := s.m.State().Jobs["j1-b"]; j.Status != coordinator.Quarantined || j.Why != coordinator.Quarantine("c") {
		t.Fatalf("it is %s: %q", j.Status, j.Why)
	}
	s.do("over j1-b from=s epoch=2 to=3 @4")
	if f := s.feed("j1-b.in"); f.Mirror != nil || f.Reigns != 3 {
		t.Errorf("a person has forced it, and its feed is %+v", f)
	}
}

// A person's word gives a job the session of its own feed, which is a mirror of the site
// that loses it; not that of one whose session stayed where it was.
func TestWhoIsForcedHasASession(t *testing.T) {
	forced := func(s *site1) *coordinator.Feed {
		s.do("move active m99-b verdict=1")
		s.do("quarantined j1-b from=c epoch=2 @4")
		s.raise()
		s.do("over j1-b from=s epoch=2 to=3 @4")
		return s.feed("j1-b.in")
	}
	if f := forced(replaced(t)); f.Mirror != nil || f.Reigns != 3 {
		t.Errorf("%+v, want a session", f)
	}
	s := newSite(t)
	s.raiseTo(coordinator.GoesOnLevel)
	s.do("move arrives m99-b j1-b door from=b epoch=2 stay=j1-b.in")
	s.do("offered j1-b from=b epoch=1 name=door stay=j1-b.in moving=m99-b @4")
	s.do("move prepared m99-b savepoint=sp-b job=j1-b attempt=4 era=1 site=b")
	if f := forced(s); f.Mirror == nil || f.Mirror.Site != "b" {
		t.Errorf("%+v, and its session is at site b", f)
	}
}

// A job that another site may have taken is given to nobody. Its move may be aborted.
func TestAnIsolatedJobIsNotGivenAway(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		id := s.submits("door feeds=in")
		move := s.halts(id, "", id+".in")
		s.do("isolated %s term=3", id)
		offer := "move offered " + move + " savepoint=sp-" + id + " ends=" + id + ".in:0"
		refused := func(what, say string) {
			if err := s.try("%s", say); errors.Is(err, jobmanager.ErrStale) != settled {
				t.Errorf("%s: %v, refused should be %v", what, err, settled)
			}
		}
		refused("offered", offer)
		if !settled {
			return
		}
		s.do("claimed %s epoch=1 term=3 @4", id)
		s.do("%s", offer)
		s.do("isolated %s term=4", id)
		refused("handed over", "move handed "+move)
		s.do("claimed %s epoch=1 term=4 @4", id)
		s.do("move handed %s", move)
		if j := s.m.State().Jobs[coordinator.JobID(id)]; j.Status != coordinator.Moved {
			t.Errorf("it is %s", j.Status)
		}
	})
	s := newSite(t)
	s.raise()
	id := s.submits("door feeds=in")
	move := s.offers(id, "", id+".in")
	s.do("isolated %s term=3", id)
	s.do("move aborted %s", move)
	if j := s.m.State().Jobs[coordinator.JobID(id)]; j.Status != coordinator.Restarting || !j.Isolated {
		t.Errorf("aborted: it is %s, isolated: %v", j.Status, j.Isolated)
	}
}
