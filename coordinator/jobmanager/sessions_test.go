package jobmanager_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
)

// Of two that come at once and name one client id at a broker the later one is refused.
func TestASessionIsOneFeeds(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		refused := func(line string) {
			t.Helper()
			if err := s.try("%s", line); settled && !errors.Is(err, jobmanager.ErrExists) || !settled && err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		door := s.submits("door feeds=in client=mine@b")
		refused("submit gate feeds=in client=mine@b")
		refused("feed line client=mine@B:1883")
		s.do("submit hall feeds=in client=mine@c")
		yard := s.submits("yard feeds=in client=other@b")
		s.do("told %s cancel", yard)
		s.do("became %s 1 cancelled", yard)
		s.do("submit yard feeds=in client=other@b") // who names it has it
		s.do("feed plant client=ours@b")
		refused("submit barn feeds=in client=ours@b")
		s.do("done %s 1 4 checkpoint=chk-4 savepoint=sp-1", door)
		s.do("told %s halt", door)
		s.do("became %s 1 stopping", door)
		s.do("became %s 1 stopped savepoint=sp-1", door)
		if settled {
			s.do("submit door from=sp-1 feeds=in adopts=in:%s.in client=mine@b", door) // its own
			refused("submit dock feeds=in client=mine@b")
		}
	})
}

// The session of a job that has moved is used where that is, at the broker that it has
// there. One that comes back is not refused.
func TestTheSessionOfAJobThatMoved(t *testing.T) {
	s := newSite(t)
	s.raise()
	door := s.submits("door feeds=in client=mine@b")
	s.do("move handed %s", s.offers(door, "", door+".in"))
	if err := s.try("submit gate feeds=in client=mine@b"); !errors.Is(err, jobmanager.ErrExists) {
		t.Errorf("%v", err)
	}
	s.arrives(door, "feeds="+door+".in reigns=1:s:0,2:b:0", 4, door+".in:0")
}

func TestTheSessionOfAJobThatMovedToAnotherBroker(t *testing.T) {
	s := newSite(t)
	s.raise()
	door := s.submits("door feeds=in client=mine@b")
	feed := door + ".in"
	s.do("move handed %s", s.offers(door, " configs="+feed+":mine@c", feed)) // nothing stays
	if err := s.try("submit gate feeds=in client=mine@c"); !errors.Is(err, jobmanager.ErrExists) {
		t.Errorf("%v", err)
	}
	s.do("submit gate feeds=in client=mine@b")
}

// Nor is it free when the job is kept here again, from where it is: its feed is a mirror
// then. Who forgets the job gives the session up.
func TestTheSessionOfAJobThatMovedAndIsKeptHere(t *testing.T) {
	s := newSite(t)
	s.raise()
	door := s.submits("door feeds=in client=mine@b")
	s.do("move handed %s", s.offers(door, "", door+".in"))
	s.do("offered %s from=b epoch=2 name=door feeds=%s.in reigns=1:s:0,2:b:0 client=mine@b @4", door, door)
	if s.feed(door+".in").Mirror == nil {
		t.Fatal("it is no mirror")
	}
	if err := s.try("submit gate feeds=in client=mine@b"); !errors.Is(err, jobmanager.ErrExists) {
		t.Errorf("%v", err)
	} else if why := err.Error(); !strings.Contains(why, "stop it there, and forget it at site s (tidemark job forget "+door+")") || strings.Contains(why, "stop that job first") {
		t.Errorf("it cannot be stopped here: %s", why)
	}
	s.do("forget %s", door)
	s.do("submit gate feeds=in client=mine@b")
}

// Nor does a job come with a session that a feed has here, be it one that has come back
// with another broker. Its own is none, nor is one that stays where it is.
func TestASessionThatIsTakenDoesNotCome(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		door := s.submits("door feeds=in client=mine@b")
		feed := door + ".in"
		s.do("move handed %s", s.offers(door, " configs="+feed+":mine@c", feed))
		gate := s.submits("gate feeds=in client=mine@d")
		arrives := "move arrives m9-b %s door from=b epoch=4 feeds=%s reigns=1:s:0,2:b:0 client=mine@%s"
		if err := s.try(arrives, door, feed, "d"); errors.Is(err, jobmanager.ErrExists) != settled {
			t.Fatalf("%v", err)
		}
		if !settled {
			return
		}
		s.do("move arrives m8-b j50-b hall from=b epoch=4 stay=j50-b.in client=mine@d")
		s.do("told %s cancel", gate)
		s.do("became %s 1 cancelled", gate)
		s.do(arrives, door, feed, "d")
		if err := s.try("submit yard feeds=in client=mine@d"); !errors.Is(err, jobmanager.ErrExists) {
			t.Errorf("it is on its way: %v", err)
		}
	})
}

// A shared feed that was taken has a session of its own, whatever its config says: it goes
// home beside the one that it is a copy of.
func TestATakenSessionGoesHome(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, _ bool) {
		s.do("feed line client=mine@b")
		door := s.submits("door reads=line")
		s.do("move fenced %s 2 owner=b", door)
		if err := s.try("move arrives m9-b %s door from=b epoch=3 feeds=line.at.s reads=line.at.s reigns=1:s:0,2:b:0 client=mine@b", door); err != nil {
			t.Error(err)
		}
	})
}

// A job of a lost site is not taken with a session that a feed has here.
func TestAFailoverGivesNoSessionTwice(t *testing.T) {
	for client, want := range map[string]error{"mine@localhost": jobmanager.ErrExists, "mine@other": nil} {
		s := newSite(t)
		s.raise()
		s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in client=mine@localhost @4")
		s.submits("gate feeds=in client=" + client)
		s.do("epoch j1-b.in %d term=2 owner=n1 members=n1 start=0", s.feed("j1-b.in").NextEpoch())
		s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
		s.do("copies j1-b chk-5 aa:n1")
		s.do("advanced j1-b chk-5 from=b epoch=1 ends=j1-b.in:0 @4")
		if err := s.try("over j1-b chk-5 from=b epoch=1 to=2 @4"); !errors.Is(err, want) {
			t.Errorf("with %s here: %v, want %v", client, err, want)
		}
	}
}

// Nor do two feeds of one job have one, whether it is submitted, comes, or is taken. What a
// lost site let happen a person can take with force: there is nobody left to mend it.
func TestTwoFeedsOfAJobHaveTwoSessions(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		refused := func(line string) {
			t.Helper()
			if err := s.try("%s", line); settled && (!errors.Is(err, jobmanager.ErrRefused) || !strings.Contains(err.Error(), `client id "mine"`)) || !settled && err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		refused("submit door feeds=in,more client=mine@b")
		s.do("submit hall feeds=in,more") // each has an id that is made
		refused("move arrives m8-b j50-b gate from=b epoch=4 feeds=j50-b.in,j50-b.more client=mine@d")
		s.do("move arrives m9-b j51-b yard from=b epoch=4 feeds=j51-b.in stay=j51-b.more client=mine@e")
		if !settled { // below that two of one session are kept otherwise
			return
		}
		s.do("offered j1-b from=b epoch=1 name=barn feeds=j1-b.in,j1-b.more client=mine@f @4")
		s.do("epoch j1-b.in %d term=2 owner=n1 members=n1 start=0", s.feed("j1-b.in").NextEpoch())
		s.do("epoch j1-b.more %d term=2 owner=n1 members=n1 start=0", s.feed("j1-b.more").NextEpoch())
		s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
		s.do("copies j1-b chk-5 aa:n1")
		s.do("advanced j1-b chk-5 from=b epoch=1 ends=j1-b.in:0,j1-b.more:0 @4")
		refused("over j1-b chk-5 from=b epoch=1 to=2 @4")
		s.do("over j1-b chk-5 from=b epoch=1 to=2 forced=yes @4")
	})
}
