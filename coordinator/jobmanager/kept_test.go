package jobmanager_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A mirror of a shared feed goes when the job that it was kept for is at another site with
// the session, unless something else wants it.
func TestMirrorsGoWithTheOwner(t *testing.T) {
	for name, c := range map[string]struct {
		again string // how c has the job
		feed  string // how its feed is called here
	}{
		"moved": {"feeds=line reads=line", "line.at.c"},
		"taken": {"feeds=line.at.b reads=line.at.b", "line.at.b.at.c"},
	} {
		t.Run(name, func(t *testing.T) {
			bothLevels(t, func(t *testing.T, s *site1, settled bool) {
				s.do("offered j1-b from=b epoch=1 name=door feeds=line reads=line @4")
				s.do("offered j2-b from=b epoch=1 name=gate feeds=line reads=line @4")
				s.do("offered j1-b from=c epoch=2 name=door %s reigns=1:b:0,2:c:700 @4", c.again)
				if got := sortedFeeds(s); !slices.Contains(got, "line.at.b") || !slices.Contains(got, c.feed) {
					t.Errorf("%v: another job reads line.at.b", got)
				}
				s.do("offered j2-b from=c epoch=2 name=gate %s reigns=1:b:0,2:c:700 @4", c.again)
				want := []string{c.feed}
				if !settled {
					want = []string{"line.at.b", c.feed}
					slices.Sort(want)
				}
				if got := sortedFeeds(s); !slices.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
			})
		})
	}
}

// A mirror that comes with a move stays until that is decided, whoever is said to have the
// job meanwhile, and goes if the job does not come.
func TestMirrorsOfAnArrival(t *testing.T) {
	s := newSite(t)
	s.raise()
	s.do("move arrives m99-b j1-b door from=b epoch=2 stay=line reads=line")
	s.do("offered j1-b from=b epoch=1 name=door stay=line reads=line moving=m99-b @4")
	s.do("offered j1-b from=c epoch=2 name=door feeds=line reads=line reigns=1:b:0,2:c:700 @4")
	if got := sortedFeeds(s); !slices.Equal(got, []string{"line.at.b", "line.at.c"}) {
		t.Errorf("%v: the move may be prepared", got)
	}
	s.do("move active m99-b verdict=2") // the other verdict
	if got := sortedFeeds(s); !slices.Equal(got, []string{"line.at.c"}) {
		t.Errorf("%v: the job did not come", got)
	}
}

// Of two jobs on one shared feed of a lost site one is taken: the other one can be, too,
// and what is kept of it holds the log, until it is dropped.
func TestKeptBesideATakenFeed(t *testing.T) {
	kept := func() *site1 {
		s := newSite(t)
		s.raise()
		for _, j := range []string{"j1-b", "j2-b"} {
			s.do("offered %s from=b epoch=1 name=%s feeds=line reads=line @4", j, j)
			if j == "j1-b" {
				s.do("epoch line.at.b %d term=2 owner=n1 members=n1 start=0", s.feed("line.at.b").NextEpoch())
			}
			s.do("next %s chk-5 5 from=b epoch=1 parts=aa @4", j)
			s.do("copies %s chk-5 aa:n1", j)
			s.do("advanced %s chk-5 from=b epoch=1 ends=line:0 @4", j)
		}
		s.do("over j1-b chk-5 from=b epoch=1 to=2 @4")
		s.do("epoch line.at.b %d term=2 owner=n1 members=n1 start=0", s.feed("line.at.b").NextEpoch())
		return s
	}
	kept().do("over j2-b chk-5 from=b epoch=1 to=2 @4")

	s := kept()
	s.do("told j1-b cancel")
	s.do("became j1-b %d cancelled", s.m.State().Jobs["j1-b"].Attempt)
	if err := s.try("unfeed line.at.b"); !errors.Is(err, jobmanager.ErrRefused) {
		t.Errorf("what is kept stands in its log: %v", err)
	}
	s.do("dropped j2-b from=b epoch=1 @4")
	s.do("unfeed line.at.b")
}

// A job is taken with its shared feed, goes home with the session, and comes back with it:
// nothing is in its way where the session went from. While it is here it is.
func TestATakenFeedComesBack(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) { takenComesBack(t, s, settled, false) })
	t.Run("recovered", func(t *testing.T) { // as it went home: nobody knows the reign that began with that
		s := newSite(t)
		s.raise()
		takenComesBack(t, s, true, true)
	})
}

func takenComesBack(t *testing.T, s *site1, settled, recovered bool) {
	s.do("offered j1-b from=b epoch=1 name=door feeds=line reads=line @4")
	epoch := func() {
		s.do("epoch line.at.b %d term=2 owner=n1 members=n1 start=0", s.feed("line.at.b").NextEpoch())
	}
	epoch()
	s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
	s.do("copies j1-b chk-5 aa:n1")
	s.do("advanced j1-b chk-5 from=b epoch=1 ends=line:0 @4")
	s.do("over j1-b chk-5 from=b epoch=1 to=2 @4")
	epoch()
	others := func(reigns string) error {
		return s.try("offered j2-b from=b epoch=1 name=gate feeds=line reads=line reigns=%s @4", reigns)
	}
	const home = "1:b:0,2:s:0,3:b:50"
	if err := others(home); !errors.Is(err, jobmanager.ErrRefused) {
		t.Errorf("the session is here: %v", err)
	}
	attempt := s.m.State().Jobs["j1-b"].Attempt + 1
	s.do("deploy j1-b %d term=2 on=n1 from=chk-5", attempt)
	s.do("became j1-b %d running", attempt)
	move := fmt.Sprintf("m%d-s", s.do("move began j1-b 2 to=b"))
	s.do("move halting %s", move)
	s.do("became j1-b %d stopping", attempt)
	s.do("done j1-b %d 9 checkpoint=chk-9 savepoint=sp-9 era=2 site=s", attempt)
	s.do("became j1-b %d suspended savepoint=sp-9", attempt)
	if recovered {
		s.recovered()
	}
	s.do("epoch line.at.b %d term=%d owner=n1 members=n1 start=0 held=yes", s.feed("line.at.b").NextEpoch(), s.m.State().Term)
	s.do("move offered %s savepoint=sp-9 ends=line.at.b:0", move)
	s.do("move handed %s", move)
	if f := s.feed("line.at.b"); f.Owner != "b" {
		t.Fatalf("%+v: it did not go home", f)
	}
	if err := others("1:b:0"); !errors.Is(err, jobmanager.ErrRefused) {
		t.Errorf("the log of line, which never was here: %v", err)
	}
	if !settled {
		if err := s.try("move arrives m99-b j1-b door from=b epoch=4 feeds=line.at.b reads=line.at.b reigns=%s", home); !errors.Is(err, jobmanager.ErrRefused) {
			t.Errorf("%v, want it refused", err)
		}
		return
	}
	s.arrives("j1-b", "feeds=line.at.b reads=line.at.b reigns="+home, 4, "line.at.b:0")
	if f := s.feed("line.at.b"); f.Mirror != nil || f.Owner != "" || f.Reigns != 4 {
		t.Errorf("%+v", f)
	}
	if err := others("1:b:0"); !errors.Is(err, jobmanager.ErrRefused) {
		t.Errorf("the session is here again: %v", err)
	}
}

// Who is said to have a job by now is on record with what is kept of it, until that site or a
// later one offers it. Who takes it has a greater epoch, and the other one in its history.
func TestWhoHasAJobByNow(t *testing.T) {
	if got := (&coordinator.Command{ReplicaMoved: &coordinator.ReplicaMoved{}}).Needs(); got != coordinator.SettledLevel {
		t.Errorf("level %d", got)
	}
	s := newSite(t)
	s.raise()
	s.do("offered j1-b from=b epoch=1 name=door @4")
	for line, want := range map[string]error{
		"j2-b from=b epoch=1 at=c to=2": jobmanager.ErrUnknown, "j1-b from=c epoch=1 at=c to=2": jobmanager.ErrStale, "j1-b from=b epoch=2 at=c to=3": jobmanager.ErrStale,
		"j1-b from=b epoch=1 at=c to=1": jobmanager.ErrStale, "j1-b from=b epoch=1 to=2": jobmanager.ErrRefused, "j1-b from=b epoch=1 at=c to=1048578": jobmanager.ErrRefused,
		"j1-b from=b epoch=1 at=" + string(s.m.State().Site) + " to=2": jobmanager.ErrRefused,
	} {
		if err := s.try("later %s @6", line); !errors.Is(err, want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	is := func(from mesh.Site, epoch uint64, at mesh.Site, later uint64) {
		t.Helper()
		r := s.m.State().Replicas["j1-b"]
		if has := r.Has(); r.From != from || r.Epoch != epoch || has.Site != at || has.Epoch != later {
			t.Errorf("kept is %s's at epoch %d, and %s is said to have it at %d", r.From, r.Epoch, has.Site, has.Epoch)
		}
	}
	s.do("later j1-b from=b epoch=1 at=c to=3 @6")
	is("b", 1, "c", 3)
	s.do("offered j1-b from=b epoch=1 name=gate @4") // late
	is("b", 1, "c", 3)
	s.do("offered j1-b from=d epoch=2 name=gate @4")
	is("d", 2, "c", 3)
	s.do("offered j1-b from=d epoch=3 name=gate @4") // so there are two
	is("d", 3, "c", 3)
	s.do("offered j1-b from=d epoch=4 name=gate @4")
	is("d", 4, "d", 4)
	s.do("later j1-b from=d epoch=4 at=c to=5 @6")
	s.do("offered j1-b from=c epoch=5 name=gate @4")
	is("c", 5, "c", 5)
}

func TestATakenJobKnowsWhoHadIt(t *testing.T) {
	s := newSite(t)
	s.raise()
	s.do("offered j1-b from=b epoch=1 name=door @4")
	s.do("next j1-b chk-5 5 from=b epoch=1 @4")
	s.do("advanced j1-b chk-5 from=b epoch=1 @4")
	s.do("later j1-b from=b epoch=1 at=c to=2 @6")
	if err := s.try("over j1-b chk-5 from=b epoch=1 to=2 @4"); !errors.Is(err, jobmanager.ErrStale) {
		t.Errorf("taken at the epoch at which it is said to be elsewhere: %v", err)
	}
	s.do("over j1-b chk-5 from=b epoch=1 to=3 @4")
	h := s.m.State().Jobs["j1-b"].History
	if len(h) < 2 || h[len(h)-2].Site != "c" || h[len(h)-2].Epoch != 2 || h[len(h)-1].Epoch != 3 {
		t.Errorf("%+v", h)
	}
}

// A job with two new feeds, where there is room for one, leaves none behind.
func TestFeedsBeyondTheMost(t *testing.T) {
	s := newSite(t)
	s.raise()
	for i := len(s.m.State().Feeds); i < jobmanager.MaxFeeds-1; i++ {
		s.do("feed f%d", i)
	}
	for name, feeds := range map[string]string{"two": "line,other", "one": "line"} {
		was := len(s.m.State().Feeds)
		err := s.try("offered j1-b from=b epoch=1 name=door feeds=%s reads=%[1]s @4", feeds)
		if refused := errors.Is(err, jobmanager.ErrRefused); refused != (name == "two") || refused && len(s.m.State().Feeds) != was {
			t.Errorf("%s: %v, and there are %d feeds, %d before", name, err, len(s.m.State().Feeds), was)
		}
		if err == nil {
			s.do("dropped j1-b from=b epoch=1 @4")
		}
	}
}
