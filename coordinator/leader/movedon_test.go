package leader_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Site a's job is kept at c, and moves to b, where it is kept at a instead. What c keeps of
// it is a's.

// movedOn has the job move, after it is cut as before says.
func movedOn(t *testing.T, seed uint64, before func(s three)) three {
	t.Helper()
	return movedOnTo(t, seed, "a", before)
}

// movedOnTo: at its new site it is kept at these.
func movedOnTo(t *testing.T, seed uint64, keepers string, before func(s three)) three {
	t.Helper()
	s := keptAtC(t, seed)
	before(s)
	s.move(t, seed, s.a, s.b, keepers)
	return s
}

func keptAtC(t *testing.T, seed uint64) three {
	t.Helper()
	return keptAtCWith(t, seed, coordinator.Level)
}

// keptAtCWith: all agents have programs of a level.
func keptAtCWith(t *testing.T, seed uint64, level uint32) three {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	var history strings.Builder
	w := newWorldWith(func(c *clock, name mesh.Site) *site {
		return newSiteOf(c, name, rng, func(format string, args ...any) {
			t.Fatalf("seed %d at %d ms, site %s: %s\n%s", seed, c.now/ms, name, fmt.Sprintf(format, args...), tail(history.String()))
		}, func(format string, args ...any) {
			fmt.Fprintf(&history, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
	}, level, "a", "b", "c")
	s := three{w.sites[0], w.sites[1], w.sites[2]}
	s.a.run(1000 * ms)
	s.a.submit("kept", strings.Replace(logged, "name: logged", "name: kept\nreplicate_to: [c]", 1), "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
	s.a.run(9000 * ms)
	if r := s.kept(); r == nil || r.Snapshot == nil {
		t.Fatalf("seed %d: at c this is kept: %+v", seed, r)
	}
	return s
}

// move has the job move from a site to another one, where it is kept at keepers.
func (s *three) move(t *testing.T, seed uint64, from, to *site, keepers string) {
	t.Helper()
	j := from.job("kept")
	is := func() bool {
		at := to.job("kept")
		return at != nil && at.Status == coordinator.Running && at.Epoch == j.Epoch+1
	}
	for i := range 3 { // a leader may fail
		if !is() {
			from.toLeader(leader.Event{Wish: &leader.Wish{Ref: 1, Migrate: &leader.Migrate{Begin: &coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: to.name, Request: fmt.Sprintf("r%d", i), Sets: []string{"replicate_to=[" + keepers + "]"}}}}})
			s.wait(20)
		}
	}
	if !is() {
		t.Fatalf("seed %d: it has not moved: %+v", seed, to.job("kept"))
	}
}

// kept is what c keeps.
func (s *three) kept() *coordinator.Replica {
	for _, r := range s.c.state().Replicas {
		return r
	}
	return nil
}

// A site that is to keep a job no more lets it go, whoever it reaches of those that had it:
// the one that it was kept of may be lost when it hears of the other one.
func TestAJobThatMovedOnIsLetGo(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		for name, lost := range map[string]bool{"all are there": false, "the site that it left is lost": true} {
			s := movedOn(t, seed, func(s three) { s.a.cutOff(s.a, s.c, lost); s.a.cutOff(s.b, s.c, lost) })
			if lost {
				s.a.lose()
				s.a.cutOff(s.b, s.c, false)
			}
			s.wait(30)
			if r := s.kept(); r != nil {
				t.Errorf("seed %d, %s: it is kept, of %s at epoch %d, later %+v", seed, name, r.From, r.Epoch, r.Later)
			}
		}
	}
}

// One that was cut off while the job was at its new site, and ended there, lets it go, too.
func TestAJobThatEndedElsewhereIsLetGo(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		s := movedOn(t, seed, func(s three) { s.a.cutOff(s.a, s.c, true); s.a.cutOff(s.b, s.c, true) })
		id := s.b.job("kept").ID
		s.b.enter(&coordinator.Command{JobTold: &coordinator.JobTold{Job: id, Cancel: true}})
		s.wait(10)
		s.a.cutOff(s.a, s.c, false)
		s.wait(10)
		if r := s.kept(); r == nil || r.Later == nil || r.Later.Site != "b" {
			t.Fatalf("seed %d: b is not reached, and this is kept: %+v", seed, r)
		}
		s.a.cutOff(s.b, s.c, false)
		s.wait(10)
		if s.kept() == nil {
			t.Fatalf("seed %d: it is let go while it is remembered where it ended", seed)
		}
		s.b.enter(&coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: id}})
		s.wait(10)
		if r := s.kept(); r != nil {
			t.Errorf("seed %d: it is kept, of %s at epoch %d, later %+v", seed, r.From, r.Epoch, r.Later)
		}
	}
}

// One that ended and was forgotten where it always was is let go, at the released level, too.
func TestAJobThatEndedAtHomeIsLetGo(t *testing.T) {
	for _, level := range []uint32{coordinator.SettledLevel - 1, coordinator.SettledLevel} {
		s := keptAtCWith(t, 0, level)
		id := s.a.job("kept").ID
		s.a.enter(&coordinator.Command{JobTold: &coordinator.JobTold{Job: id, Cancel: true}})
		s.wait(10)
		if s.kept() == nil || s.a.state().Level != level {
			t.Fatalf("level %d is in force, and what is kept is %+v", s.a.state().Level, s.kept())
		}
		s.a.enter(&coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: id}})
		s.wait(10)
		if r := s.kept(); r != nil || s.a.job("kept") != nil {
			t.Errorf("level %d: it is kept, of %s at epoch %d", level, r.From, r.Epoch)
		}
	}
}

// The site that a job left has forgotten it since, and its new one is lost: what was kept
// while it moved is all that there is.
func TestTheLastCopyOfAJobThatMovedOnStays(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		for _, keepers := range []string{"b", "a"} { // at a something is kept of it, or at b alone
			s := movedOnTo(t, seed, keepers, func(s three) { s.a.cutOff(s.a, s.c, true); s.a.cutOff(s.b, s.c, true) })
			s.a.enter(&coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: s.b.job("kept").ID}})
			s.wait(10)
			if s.a.job("kept") != nil {
				t.Fatalf("seed %d: a has not forgotten it", seed)
			}
			s.b.lose()
			s.a.cutOff(s.a, s.c, false)
			s.wait(30)
			if r := s.kept(); r == nil || r.Snapshot == nil || r.Later == nil || r.Later.Site != "b" || r.Later.Epoch != 2 {
				t.Fatalf("seed %d, at b it was kept at [%s]: at c this is left: %+v", seed, keepers, r)
			}
			s.takeBySure(t)
			s.wait(20)
			if j := s.c.job("kept"); j.Epoch != 3 || j.Status != coordinator.Running {
				t.Errorf("seed %d: it is %s at epoch %d", seed, j.Status, j.Epoch)
			}
		}
	}
}

// It went back to where it was kept of, its new site has forgotten it, and where it is now is lost.
func TestTheLastCopyOfAJobThatWentHomeStays(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		s := movedOnTo(t, seed, "b", func(s three) { s.a.cutOff(s.b, s.c, true) })
		s.wait(10)
		if r := s.kept(); r == nil || r.Later == nil || r.Later.Site != "b" {
			t.Fatalf("seed %d: at c this is kept: %+v", seed, r)
		}
		s.a.cutOff(s.a, s.c, true)
		s.move(t, seed, s.b, s.a, "a")
		s.b.enter(&coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: s.a.job("kept").ID}})
		s.wait(10)
		if s.b.job("kept") != nil {
			t.Fatalf("seed %d: b has not forgotten it", seed)
		}
		s.a.lose()
		s.a.cutOff(s.b, s.c, false)
		s.wait(30)
		if r := s.kept(); r == nil || r.Snapshot == nil || r.Later == nil || r.Later.Site != "a" || r.Later.Epoch != 3 {
			t.Fatalf("seed %d: at c this is left: %+v", seed, r)
		}
	}
}

// A site comes back when the job that another one has taken has ended there, and was
// forgotten. What it offers until it hears of that is not kept: whenever it is back, and
// whenever it is reached.
func TestAJobThatEndedMeanwhileIsNotRunAgain(t *testing.T) {
	for i := range 20 {
		s := endedAtC(t, uint64(i))
		cut := i%3 == 0
		s.a.run(s.a.now + dataflow.Time(i)*500*ms)
		s.a.cutOff(s.a, s.c, cut)
		s.a.comeBack()
		if cut {
			s.wait(15)
			s.a.run(s.a.now + dataflow.Time(i)*300*ms)
			s.a.cutOff(s.a, s.c, false)
		}
		s.wait(30)
		s.are(t, uint64(i), "moved", "-", "-")
		if r := s.kept(); r != nil || len(s.c.state().Forgotten) != 1 {
			t.Errorf("%d: at c it is kept: %t; on record: %v", i, r != nil, s.c.state().Forgotten)
		}
	}
}

// endedAtC: site a is lost, and its job was taken, has ended and was forgotten at c.
func endedAtC(t *testing.T, seed uint64) three {
	t.Helper()
	s := keptAtC(t, seed)
	s.a.lose()
	s.wait(5)
	s.taken(t)
	s.endAtC()
	return s
}

// endAtC has the job end at c, and be forgotten there.
func (s *three) endAtC() {
	id := s.c.job("kept").ID
	s.c.enter(&coordinator.Command{JobTold: &coordinator.JobTold{Job: id, Cancel: true}})
	s.wait(10)
	s.c.enter(&coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: id}})
	s.wait(5)
}

// A person has said that the job goes on at the site that is back, before it hears that it
// was taken. Where it has ended meanwhile and was forgotten there is nobody to choose from.
func TestAForcedJobGoesOnWhereTheOtherOneIsOver(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		s := endedAtC(t, seed)
		s.a.cutOff(s.a, s.c, true)
		s.a.comeBack()
		s.wait(20)
		s.force(s.a, 20)
		s.a.cutOff(s.a, s.c, false)
		s.wait(30)
		s.are(t, seed, "running", "-", "-")
		s.session(t, seed, s.a)
		if r := s.kept(); s.a.job("kept").Epoch != 2 || r == nil || r.From != "a" || r.Epoch != 2 {
			t.Errorf("seed %d: at epoch %d; at c this is kept: %t", seed, s.a.job("kept").Epoch, r != nil)
		}
	}
}

// It was taken while its site was only out of reach: it ends there, though it has ended where
// it was taken, and was forgotten.
func TestAJobThatWasTakenEndsAtHome(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		s := keptAtC(t, seed)
		s.a.cutOff(s.a, s.c, true)
		s.wait(5)
		s.takeBySure(t)
		s.endAtC()
		s.are(t, seed, "running", "-", "-")
		s.a.cutOff(s.a, s.c, false)
		s.wait(30)
		s.are(t, seed, "moved", "-", "-")
	}
}

// What is said to a site that asks about its job, and that has forgotten it here.
func TestWhoHasAForgottenJobIsSaid(t *testing.T) {
	own := func(epoch uint64, site mesh.Site) coordinator.Tenure {
		return coordinator.Tenure{Epoch: epoch, Site: site}
	}
	for name, c := range map[string]struct {
		has, asks coordinator.Tenure
		here      coordinator.Status // of the job; Created: it was forgotten
		want      coordinator.Tenure
	}{
		"it ended here":                           {has: own(2, "b"), asks: own(1, "a"), want: own(2, "b")},
		"it ended here, and a has it as well":     {has: own(2, "b"), asks: own(2, "a"), want: own(2, "a")},
		"it ended here, a asks of d's":            {has: own(2, "b"), asks: own(2, "d"), want: own(2, "b")},
		"it moved on to d":                        {has: own(2, "d"), asks: own(1, "a"), want: own(2, "d")},
		"it moved on to d, and a has it as well":  {has: own(2, "d"), asks: own(2, "a"), want: own(2, "d")},
		"it has ended here, and is not forgotten": {has: own(2, "b"), asks: own(2, "a"), here: coordinator.Stopped, want: own(2, "b")},
		"it ended here, and a has it later":       {has: own(2, "b"), asks: own(3, "a"), want: own(2, "b")},
	} {
		k := newKeeping(t, 0)
		delete(k.st.Replicas, "j6-a")
		if c.here == coordinator.Created {
			k.st.Forgotten = map[coordinator.JobID]*coordinator.Forgotten{"j6-a": {Job: "j6-a", Has: c.has}}
		} else {
			k.st.Jobs = map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Epoch: c.has.Epoch, Status: c.here}}
		}
		k.step(leader.Event{Confirmed: new(k.now)})
		var got []coordinator.OwnerNews
		for _, f := range k.says("a", coordinator.OwnerNews{Epoch: c.asks.Epoch, Owner: c.asks.Site, Ask: true, Term: 7, At: 8}) {
			if f.ToSite != nil && f.ToSite.Owner != nil {
				got = append(got, *f.ToSite.Owner)
			}
		}
		if len(got) != 1 || got[0].Epoch != c.want.Epoch || got[0].Owner != c.want.Site || got[0].Ask || got[0].Term != 7 || got[0].At != 8 {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// One that does not reach the job's new site knows of it, also behind a new leader while
// the site is lost that said so: without force it does not take the job. With force it has
// the greater epoch, and who has it hears of that.
func TestAJobThatMovedOnIsNotTaken(t *testing.T) {
	for seed := range (*seeds + 9) / 10 {
		s := movedOn(t, seed, func(s three) { s.a.cutOff(s.b, s.c, true) })
		s.wait(20)
		s.a.lose()
		s.c.lead("c2")
		s.wait(20)
		s.c.failover("kept", 5, false, false)
		s.wait(20)
		s.are(t, seed, "moved", "running", "-")
		s.takeBySure(t)
		if j := s.c.job("kept"); j.Epoch != 3 {
			t.Fatalf("seed %d: it is taken at epoch %d", seed, j.Epoch)
		}
		s.a.cutOff(s.b, s.c, false)
		s.wait(30)
		s.are(t, seed, "moved", "moved", "running")
		s.session(t, seed, s.c)
	}
}

// A job that is said to have been here is gone where it is on record that it ended here, and
// nobody can know more. Else what is kept of it stays.
func TestAJobIsForgottenWhereItEnded(t *testing.T) {
	ended := func(epoch uint64, at mesh.Site) func(k *keeping) {
		return func(k *keeping) {
			k.st.Forgotten = map[coordinator.JobID]*coordinator.Forgotten{"j8-a": {Job: "j8-a", Has: coordinator.Tenure{Epoch: epoch, Site: at}}}
		}
	}
	for name, c := range map[string]struct {
		is   func(k *keeping)
		want string
	}{
		"it ended here":          {ended(2, "b"), "gone"},
		"it ended here, at 4":    {ended(4, "b"), "gone"},
		"it was here before":     {ended(1, "b"), ""},
		"it went on to e":        {ended(3, "e"), "e has it at 3"},
		"nothing is known of it": {func(k *keeping) {}, ""},
		"it is here, and has ended": {func(k *keeping) {
			k.st.Jobs = map[coordinator.JobID]*coordinator.Job{"j8-a": {ID: "j8-a", Epoch: 2, Status: coordinator.Stopped}}
		}, ""},
		"nobody says that this leads": {func(k *keeping) { ended(2, "b")(k); k.now += 60_000 * ms }, ""},
	} {
		k := newKeeping(t, 0)
		k.step(leader.Event{Confirmed: new(k.now)})
		c.is(k)
		w := &coordinator.Want{Site: "d", Jobs: []coordinator.WantedJob{{Job: "j8-a", Epoch: 1, Later: &coordinator.Tenure{Epoch: 2, Site: "b"}}}}
		got := "no answer"
		for _, f := range k.step(leader.Event{Wanted: &leader.Wanted{Ref: 3, Want: w}}) {
			switch {
			case f.Offer == nil:
			case len(f.Offer.Offer.Gone) == 1:
				got = "gone"
			case len(f.Offer.Offer.Moved) == 1:
				to := f.Offer.Offer.Moved[0].To
				got = fmt.Sprintf("%s has it at %d", to.Site, to.Epoch)
			default:
				got = ""
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Who has a job that was forgotten here says so: it is put on record, for those that ask.
func TestAForgottenJobIsElsewhere(t *testing.T) {
	for _, c := range []struct {
		said coordinator.OwnerNews
		want uint64
	}{
		{coordinator.OwnerNews{Epoch: 1, Owner: "c"}, 0}, {coordinator.OwnerNews{Epoch: 2, Owner: "c"}, 0}, {coordinator.OwnerNews{Epoch: 3, Owner: "c"}, 3},
		{coordinator.OwnerNews{Epoch: 3, Owner: "b"}, 0}, {coordinator.OwnerNews{Epoch: 3 + coordinator.MaxEpochsAhead, Owner: "c"}, 0},
	} {
		k := newKeeping(t, 0)
		k.st.Forgotten = map[coordinator.JobID]*coordinator.Forgotten{"j6-a": {Job: "j6-a", Has: coordinator.Tenure{Epoch: 2, Site: "b"}}}
		delete(k.st.Replicas, "j6-a")
		var got uint64
		for range 2 { // it is proposed once
			for _, f := range k.says("c", c.said) {
				if f.Propose != nil && f.Propose.Command.Move != nil && f.Propose.Command.Move.Fenced != nil {
					got += f.Propose.Command.Move.Fenced.Epoch
				}
			}
		}
		if got != c.want {
			t.Errorf("c says %+v, and epoch %d is put on record, want %d", c.said, got, c.want)
		}
	}
}

// takeBySure has c take the job with force.
func (s *three) takeBySure(t *testing.T) {
	t.Helper()
	for i := range 3 {
		if s.c.job("kept") == nil {
			s.c.failover("kept", 6+i, true, false)
			s.wait(10)
		}
	}
	if s.c.job("kept") == nil {
		t.Fatal("it is not taken with force")
	}
}

// enter writes a command to a site's log.
func (s *site) enter(c *coordinator.Command) {
	c.Level = c.Needs()
	s.log = append(s.log, entry{command: c})
}
