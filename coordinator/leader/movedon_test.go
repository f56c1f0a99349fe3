package leader_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Site a's job is kept at c, and moves to b, where it is kept at a instead. What c keeps of
// it is a's.

// movedOn has the job move, after it is cut as before says.
func movedOn(t *testing.T, seed uint64, before func(s three)) three {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	var history strings.Builder
	w := newWorldOf(func(c *clock, name mesh.Site) *site {
		return newSiteOf(c, name, rng, func(format string, args ...any) {
			t.Fatalf("seed %d at %d ms, site %s: %s\n%s", seed, c.now/ms, name, fmt.Sprintf(format, args...), tail(history.String()))
		}, func(format string, args ...any) {
			fmt.Fprintf(&history, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
	}, "a", "b", "c")
	s := three{w.sites[0], w.sites[1], w.sites[2]}
	s.a.run(1000 * ms)
	s.a.submit("kept", strings.Replace(logged, "name: logged", "name: kept\nreplicate_to: [c]", 1), "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
	s.a.run(9000 * ms)
	if r := s.kept(); r == nil || r.Snapshot == nil {
		t.Fatalf("seed %d: at c this is kept: %+v", seed, r)
	}
	before(s)
	j := s.a.job("kept")
	for i := range 3 { // a leader may fail
		if s.b.job("kept") == nil {
			s.a.toLeader(leader.Event{Wish: &leader.Wish{Ref: 1, Migrate: &leader.Migrate{Begin: &coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: "b", Request: fmt.Sprintf("r%d", i), Sets: []string{"replicate_to=[a]"}}}}})
			s.wait(20)
		}
	}
	if j := s.b.job("kept"); j == nil || j.Status != coordinator.Running || j.Epoch != 2 {
		t.Fatalf("seed %d: it has not moved: %+v", seed, j)
	}
	return s
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

// A job that is said to have been here, and is not, was forgotten, where nobody can know more.
func TestAJobIsForgottenWhereNobodyKnowsMore(t *testing.T) {
	for name, c := range map[string]struct {
		is   func(k *keeping)
		want bool
	}{
		"it is nowhere":               {func(k *keeping) {}, true},
		"nobody says that this leads": {func(k *keeping) { k.now += 60_000 * ms }, false},
		"it is on its way here": {func(k *keeping) {
			k.st.Moves.Arrivals["m7-a"] = &coordinator.Arrival{ID: "m7-a", From: "a", Epoch: 2, Job: coordinator.MovingJob{ID: "j8-a"}, Phase: coordinator.ArrivalPrepared}
		}, false},
		"it is kept here, of c": {func(k *keeping) {
			k.st.Replicas["j8-a"] = &coordinator.Replica{From: "c", Epoch: 2, Job: coordinator.MovingJob{ID: "j8-a"}}
		}, false},
		"it is here, and has ended": {func(k *keeping) {
			k.st.Jobs = map[coordinator.JobID]*coordinator.Job{"j8-a": {ID: "j8-a", Epoch: 2, Status: coordinator.Stopped}}
		}, false},
		"it may be lost": {func(k *keeping) { k.st.Index = coordinator.NextLife(k.st.Index) }, false},
	} {
		k := newKeeping(t, 0)
		k.step(leader.Event{Confirmed: new(k.now)})
		c.is(k)
		w := &coordinator.Want{Site: "d", Jobs: []coordinator.WantedJob{{Job: "j8-a", Epoch: 1, Later: &coordinator.Tenure{Epoch: 2, Site: "b"}}}}
		var o *coordinator.Offer
		for _, f := range k.step(leader.Event{Wanted: &leader.Wanted{Ref: 3, Want: w}}) {
			if f.Offer != nil {
				o = f.Offer.Offer
			}
		}
		if o == nil || (len(o.Gone) == 1) != c.want || len(o.Moved) > 0 {
			t.Errorf("%s: %+v", name, o)
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
