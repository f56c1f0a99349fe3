package jobmanager_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// recovered has the site's log go on in its next life, as Recover does, and a leader begin.
func (s *site1) recovered() {
	s.t.Helper()
	s.index = coordinator.NextLife(s.index)
	s.do("leader %d n1", s.m.State().Term+1)
}

func (s *site1) begins(feed string, start int) {
	s.t.Helper()
	s.do("epoch %s %d term=%d owner=n1 members=n1 start=%d", feed, s.feed(feed).NextEpoch(), s.m.State().Term, start)
}

// lineage is a feed's, as the site's own.
func (s *site1) lineage(feed string) (text string) {
	for _, r := range coordinator.LineageOf(s.feed(feed), s.m.State().Site) {
		text += fmt.Sprintf(" %d:%s:%d:%d", r.Epoch, r.Site, r.Start, r.Life)
	}
	return text
}

// Each log with a session begins a reign when its site was recovered, once, whoever else has
// what the lost ones took: a mirror, or a log whose session is elsewhere, does not.
func TestARecoveredSiteBeginsReigns(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		in := s.submits("door feeds=in") + ".in"
		s.begins(in, 0)
		s.do("offered j1-b from=b epoch=1 name=gate feeds=j1-b.in @4")
		s.begins("j1-b.in", 0)
		s.recovered()
		if got := s.feed(in).Turned(); got != settled {
			t.Fatalf("it begins a reign: %t", got)
		}
		if s.feed("j1-b.in").Turned() {
			t.Error("the mirror turns")
		}
		s.begins(in, 91)
		want := " 1:s:0:0"
		if settled {
			want += " 1:s:91:1"
		}
		if got := s.lineage(in); got != want || s.feed(in).Turned() {
			t.Errorf("%s, want%s", got, want)
		}
		if r := s.feed(in).Log.Reign; settled && (r == nil || r.Life != 1 || r.Start != 91) {
			t.Errorf("the epoch is of reign %+v", r)
		}
		s.begins(in, 95) // only once
		s.recovered()
		s.recovered() // before the epoch has begun
		s.begins(in, 95)
		if settled {
			want += " 1:s:95:3"
		}
		if got := s.lineage(in); got != want {
			t.Errorf("%s, want%s", got, want)
		}
	})
}

// A site that was recovered below the level begins them as it is raised.
func TestASiteRecoveredBelowTheLevelBeginsReigns(t *testing.T) {
	for _, recovered := range []bool{false, true} {
		s := newSite(t)
		s.raiseTo(coordinator.GoesOnLevel)
		in := s.submits("door feeds=in") + ".in"
		s.begins(in, 0)
		if recovered {
			s.recovered()
		}
		s.raise()
		if got := s.feed(in).Turned(); got != recovered {
			t.Errorf("recovered %t, begins a reign %t", recovered, got)
		}
		s.begins(in, 91)
		s.raise() // it is as it is
		if s.feed(in).Turned() {
			t.Error("a reign begins once more")
		}
	}
}

// A log that was never begun, as far as is known here, may have been, and one that is to
// begin a reign of another epoch may have begun it.
func TestARecoveredSiteBeginsWhatMayHaveBegun(t *testing.T) {
	s := newSite(t)
	s.raise()
	in := s.submits("door feeds=in") + ".in"
	s.recovered()
	s.begins(in, 0)
	if got := s.lineage(in); got != " 1:s:0:0 1:s:0:1" {
		t.Errorf("it began anew:%s", got)
	}
	s.do("offered j1-b from=b epoch=1 name=gate feeds=j1-b.in @4")
	s.begins("j1-b.in", 0)
	s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
	s.do("copies j1-b chk-5 aa:n1")
	s.do("advanced j1-b chk-5 from=b epoch=1 ends=j1-b.in:0 @4")
	s.do("over j1-b chk-5 from=b epoch=1 to=2 @4")
	s.recovered()
	s.begins("j1-b.in", 7)
	if got := s.lineage("j1-b.in"); got != " 1:b:0:0 2:s:7:2" {
		t.Errorf("it was taken:%s", got)
	}
}

// What begins in a life is told from what began in one that is lost: a job that is taken
// twice, or that goes on here twice as a person says so, has not the same reign twice.
func TestAReignThatBeginsTwice(t *testing.T) {
	for name, reigns := range map[string]func(s *site1, lives func()) []coordinator.Reign{
		"taken": func(s *site1, lives func()) []coordinator.Reign {
			s.do("offered j1-b from=b epoch=1 name=gate feeds=j1-b.in @4")
			s.begins("j1-b.in", 0)
			s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
			s.do("copies j1-b chk-5 aa:n1")
			s.do("advanced j1-b chk-5 from=b epoch=1 ends=j1-b.in:0 @4")
			lives()
			s.do("over j1-b chk-5 from=b epoch=1 to=2 @4")
			s.begins("j1-b.in", 7)
			return coordinator.LineageOf(s.feed("j1-b.in"), "s")
		},
		"kept": func(s *site1, lives func()) []coordinator.Reign {
			id := s.submits("door feeds=in")
			in := id + ".in"
			s.begins(in, 0)
			s.do("quarantined %s from=b epoch=1 @4", id)
			lives()
			s.do("epoch %s %d term=%d owner=n1 members=n1 start=7 held=yes", in, s.feed(in).NextEpoch(), s.m.State().Term)
			s.do("over %s from=s epoch=1 to=2 @4", id)
			s.begins(in, 7)
			return coordinator.LineageOf(s.feed(in), "s")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.raise()
			again := newSite(t)
			again.raise()
			lost, got := reigns(s, func() {}), reigns(again, again.recovered)
			if lost[len(lost)-1].Life != 0 || got[len(got)-1].Life != 1 || logepoch.Common(lost, got) != 7 {
				t.Errorf("%+v is lost, and %+v has begun", lost, got)
			}
		})
	}
}

// A job goes on at its epoch, and its attempts have numbers that the lost ones gave nobody.
func TestAttemptsOfARecoveredSite(t *testing.T) {
	const life = 1 << 40
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		old := s.submits("door")
		next := func(id string) uint64 {
			st := s.m.State()
			j := st.Jobs[coordinator.JobID(id)]
			n := st.NextAttempt(j)
			if j.Deployed() {
				s.do("became %s %d restarting", id, j.Attempt)
			}
			if err := s.try("deploy %s %d term=%d on=n1", id, n+1, st.Term); !errors.Is(err, jobmanager.ErrStale) {
				t.Errorf("attempt %d is begun: %v", n+1, err)
			}
			s.do("deploy %s %d term=%d on=n1", id, n, st.Term)
			return n
		}
		got := []uint64{next(old)}
		s.recovered()
		got = append(got, next(old), next(old))
		fresh := fmt.Sprintf("j%d-s", s.do("submit gate"))
		got = append(got, next(fresh), next(fresh))
		s.recovered()
		got = append(got, next(old), next(fresh))
		want := []uint64{2, life + 3, life + 4, 1, 2, 2*life + 5, life + 3}
		if !settled {
			want = []uint64{2, 3, 4, 1, 2, 5, 3}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d, want %d", got, want)
		}
		if e := s.m.State().Jobs[coordinator.JobID(old)].Epoch; e != 1 {
			t.Errorf("epoch %d", e)
		}
	})
}

// A job came from a recovered site to one of a level that knows nothing of lives, and that is
// raised then. Its attempts count on, and its checkpoints stay newer than those of before.
func TestAttemptsOfAJobFromARecoveredSite(t *testing.T) {
	s := newSite(t)
	s.raiseTo(coordinator.GoesOnLevel)
	s.do("move arrives m9-a j5-a door from=a epoch=2 @4")
	s.do("move prepared m9-a savepoint=s job=j5-a attempt=%d", uint64(1)<<40|5)
	s.do("move active m9-a verdict=1")
	from := "s"
	for i := range 3 {
		if i == 2 {
			s.raise()
		}
		j := s.m.State().Jobs["j5-a"]
		before := j.Token("s")
		s.do("deploy j5-a %d term=%d on=n1 from=%s", s.m.State().NextAttempt(j), s.m.State().Term, from)
		j = s.m.State().Jobs["j5-a"]
		if !before.Less(j.Token("s")) {
			t.Errorf("token %v comes after %v", j.Token("s"), before)
		}
		s.do("became j5-a %d running", j.Attempt)
		from = fmt.Sprintf("c%d", i)
		s.do("done j5-a %d %d checkpoint=%s era=2 site=s", j.Attempt, i+1, from)
		s.do("became j5-a %d restarting", j.Attempt)
	}
}

// What is kept of a job of a recovered site stays restorable if its logs there have all in
// which it may stand; what is being fetched is given up, as it may stand in what is lost. The
// mirror is cut back to what both have.
func TestWhatIsKeptOfARecoveredSite(t *testing.T) {
	for ends, cut := range map[int]bool{91: false, 101: true} {
		t.Run(fmt.Sprint(ends), func(t *testing.T) {
			s := newSite(t)
			s.raise()
			offer := func(reigns string) error {
				return s.try("offered j1-b from=b epoch=1 name=door feeds=j1-b.in reigns=%s", reigns)
			}
			if err := offer("1:b:0"); err != nil {
				t.Fatal(err)
			}
			s.begins("j1-b.in", 0)
			s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
			s.do("copies j1-b chk-5 aa:n1")
			s.do("advanced j1-b chk-5 from=b epoch=1 ends=j1-b.in:%d @4", ends)
			s.do("next j1-b chk-6 6 from=b epoch=1 parts=aa @4")
			if err := offer("1:b:0,1:b:91:1"); err != nil {
				t.Fatal(err)
			}
			r, f := s.m.State().Replicas["j1-b"], s.feed("j1-b.in")
			if r.Cut != cut || r.Next != nil || f.Fork == nil || f.Fork.At != 91 {
				t.Errorf("cut %t, next %v, fork %v", r.Cut, r.Next, f.Fork)
			}
			if err := offer("1:b:0"); !errors.Is(err, jobmanager.ErrStale) {
				t.Errorf("what it said before: %v", err)
			}
			if err := s.try("over j1-b chk-5 from=b epoch=1 to=2 @4"); errors.Is(err, jobmanager.ErrRefused) != cut {
				t.Errorf("it is taken: %v", err)
			}
		})
	}
}

// The session of what a job reads went to a site that was recovered before: nothing is lost by
// that, and what is being fetched of the job stays.
func TestWhatIsKeptAsASessionGoesToARecoveredSite(t *testing.T) {
	s := newSite(t)
	s.raise()
	s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in reigns=1:b:0")
	s.begins("j1-b.in", 0)
	s.do("next j1-b chk-6 6 from=b epoch=1 parts=aa @4")
	s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in reigns=1:b:0,2:c:91:1")
	if r := s.m.State().Replicas["j1-b"]; r.Next == nil {
		t.Errorf("%+v", r)
	}
}

// While the majority of its site was lost a job was taken at another one. The recovered one
// has begun reigns since, and gives way all the same: its log becomes a mirror of that.
func TestAJobThatWasTakenBeforeItsSiteWasRecovered(t *testing.T) {
	s := newSite(t)
	s.raise()
	id := s.submits("door feeds=in")
	in := id + ".in"
	s.begins(in, 0)
	s.recovered()
	s.begins(in, 91)
	s.do("move fenced %s 2 owner=b", id)
	s.do("offered %s from=b epoch=2 name=door feeds=%s reigns=1:s:0,2:b:101", id, in)
	if f := s.feed(in); f.Mirror == nil || f.Fork == nil || f.Fork.At != 91 || s.lineage(in) != " 1:s:0:0 2:b:101:0" {
		t.Errorf("%+v", f)
	}
}

// A job reads at another site what has its session here, or may by now: its mirror hears of no
// reign, and goes on.
func TestARecoveredSiteAndAFeedThatIsReadElsewhere(t *testing.T) {
	const reads = "of=line.at.s:line:s:%d reads=line.at.s"
	for name, leaves := range map[string]func(s *site1, id string) (later func()){
		"moved": func(s *site1, id string) func() { s.do("move handed %s", s.offers(id, "line")); return func() {} },
		"offered": func(s *site1, id string) func() {
			move := s.offers(id, "line")
			return func() { s.do("move handed %s", move) }
		},
		"by force": func(s *site1, id string) func() {
			s.offers(id, "line")
			return func() { s.do("move fenced %s 2 owner=b", id) }
		},
		"halting": func(s *site1, id string) func() { s.halts(id, "line"); return func() {} },
		"comes": func(s *site1, _ string) func() {
			s.do("move arrives m99-b j5-b hall from=b epoch=3 "+reads, s.feed("line").Made)
			return func() {}
		},
		"kept": func(s *site1, _ string) func() {
			s.do("offered j5-b from=b epoch=2 name=hall "+reads+" @4", s.feed("line").Made)
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.raise()
			s.do("feed line")
			s.do("feed other")
			id := s.submits("door reads=line")
			s.begins("line", 0)
			s.begins("other", 0)
			was := s.lineage("line")
			later := leaves(s, id)
			s.recovered()
			later()
			if s.feed("line").Turned() || !s.feed("other").Turned() {
				t.Errorf("line: %d, other: %d", s.feed("line").Life, s.feed("other").Life)
			}
			if s.begins("line", 91); s.lineage("line") != was {
				t.Errorf("the mirror is of%s, the log of%s", was, s.lineage("line"))
			}
		})
	}
}

// The whole move is among what is lost. What the job reads begins a reign of which its site
// does not hear; but the job can be kept here, and come back. One whose mirror is of a feed
// that had that name before cannot.
func TestAJobThatLeftInALostTime(t *testing.T) {
	for _, text := range []string{
		"offered %s from=b epoch=2 name=door of=line.at.s:line:s:%d reads=line.at.s @4",
		"move arrives m99-b %s door from=b epoch=3 of=line.at.s:line:s:%d reads=line.at.s",
	} {
		s := newSite(t)
		s.raise()
		s.do("feed line")
		id := s.submits("door reads=line")
		s.begins("line", 0)
		s.recovered()
		s.begins("line", 91)
		s.do("move fenced %s 2 owner=b", id)
		made := s.feed("line").Made
		if err := s.try(text, id, made-1); !errors.Is(err, jobmanager.ErrRefused) {
			t.Errorf("of another feed: %v", err)
		}
		if err := s.try(text, id, made); err != nil {
			t.Error(err)
		}
	}
}

// A lineage with a life is told to who knows what that is.
func TestTheLevelOfALife(t *testing.T) {
	job := coordinator.MovingJob{Feeds: []coordinator.MovingFeed{{Lineage: []coordinator.Reign{{Epoch: 1, Site: "b"}, {Epoch: 1, Site: "b", Start: 91, Life: 1}}}}}
	for _, c := range []coordinator.Command{
		{ReplicaOffered: &coordinator.ReplicaOffered{Job: job}},
		{Move: &coordinator.MoveCommand{ArrivalBegan: &coordinator.Arrival{Job: job}}},
	} {
		if got := c.Needs(); got != coordinator.SettledLevel {
			t.Errorf("level %d", got)
		}
	}
}
