package leader_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Site a moves a job to b, and is lost when all of it is there. Site c keeps the job, and
// may take it meanwhile. Nothing of the job acts at two sites.

// three are the sites of a world.
type three struct{ a, b, c *site }

// lostWhile has site a lost while its move is at a phase, with all of it at b; false: with
// this seed it does not come to that.
func lostWhile(t *testing.T, seed uint64, phase coordinator.DeparturePhase) (three, bool) {
	rng := rand.New(rand.NewPCG(seed, 3))
	var history strings.Builder
	w := newWorldOf(func(c *clock, name mesh.Site) *site {
		return newSiteOf(c, name, rng, func(format string, args ...any) {
			t.Fatalf("seed %d at %d ms, site %s: %s\n%s", seed, c.now/ms, name, fmt.Sprintf(format, args...), tail(history.String()))
		}, func(format string, args ...any) {
			fmt.Fprintf(&history, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
	}, "a", "b", "c")
	s := three{w.sites[0], w.sites[1], w.sites[2]}
	s.a.after(20*ms, s.a.judgeExact)
	s.a.run(1000 * ms)
	s.a.submit("kept", strings.Replace(logged, "name: logged", "name: kept\nreplicate_to: [a, b, c]", 1), "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
	s.a.run(9000 * ms)
	s.a.wishMove("migrate", "kept", 1, false)
	for range 100_000 {
		s.a.run(s.a.now + ms/5)
		d, arr := s.departure(), s.arrival()
		if d == nil || arr == nil || arr.Phase != coordinator.ArrivalPrepared || d.Phase < phase {
			if arr != nil && arr.Phase.Decided() {
				return s, false
			}
			continue
		}
		s.a.lose()
		s.wait(5)
		d, arr = s.departure(), s.arrival()
		return s, d.Phase == phase && arr.Phase == coordinator.ArrivalPrepared
	}
	return s, false // what a person said was lost
}

func (s *three) departure() (d *coordinator.Departure) {
	for _, d = range s.a.state().Moves.Departures {
	}
	return d
}

func (s *three) arrival() (arr *coordinator.Arrival) {
	for _, arr = range s.b.state().Moves.Arrivals {
	}
	return arr
}

func (s *three) wait(seconds int) {
	for range 1000 * seconds / 20 {
		s.a.run(s.a.now + 20*ms)
	}
}

// taken has site c take the job.
func (s *three) taken(t *testing.T) {
	t.Helper()
	for i := range 3 {
		if s.c.job("kept") == nil {
			s.c.failover("kept", 2+i, false, false)
			s.wait(5)
		}
	}
	if j := s.c.job("kept"); j == nil || j.Status != coordinator.Running {
		t.Fatalf("it is not taken: %+v", j)
	}
}

// force has a person say that the job goes on at a site, again where that is lost.
func (s *three) force(at *site, seconds int) {
	for i := range 3 {
		if j := at.job("kept"); j.Status != coordinator.Running {
			at.failover("kept", 10+i, true, false)
			s.wait(seconds)
		}
	}
}

// are fails if the job is not so at the sites, in their order; "-": it is not there.
func (s *three) are(t *testing.T, seed uint64, want ...string) {
	t.Helper()
	var got []string
	for _, o := range s.a.sites {
		is := "-"
		if j := o.job("kept"); j != nil {
			is = j.Status.String()
		}
		got = append(got, is)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("seed %d: it is %q at the sites, want %q", seed, got, want)
	}
}

// session fails if not this site alone takes into the log of the job.
func (s *three) session(t *testing.T, seed uint64, at *site) {
	t.Helper()
	for _, o := range s.a.sites {
		if has := o.session(); has != (o == at) {
			t.Errorf("seed %d: site %s has a session: %v", seed, o.name, has)
		}
	}
}

func (c *clock) cutOff(a, b *site, off bool) { c.wan.cut[[2]mesh.Site{a.name, b.name}] = off }

// eachSeed tries some, and fails if with none it comes to what is looked at.
func eachSeed(t *testing.T, phase coordinator.DeparturePhase, look func(seed uint64, s three)) {
	t.Helper()
	n := 0
	for seed := range (*seeds + 2) / 3 {
		if s, ok := lostWhile(t, seed, phase); ok {
			n++
			look(seed, s)
		}
	}
	if n == 0 {
		t.Errorf("with no seed it comes to %s", phase)
	}
}

// Who is back does not hand over what another site has taken.
func TestOfferedAndTaken(t *testing.T) {
	eachSeed(t, coordinator.DepartureOffered, func(seed uint64, s three) {
		s.taken(t)
		s.a.comeBack()
		s.wait(20)
		s.are(t, seed, "moved", "-", "running")
		if arr := s.arrival(); arr.Phase != coordinator.ArrivalDropped {
			t.Errorf("seed %d: the move is %s there", seed, arr.Phase)
		}
		s.session(t, seed, s.c)
		if r := s.b.state().Replicas[s.c.job("kept").ID]; r == nil || r.From != "c" {
			t.Errorf("seed %d: of c's job this is kept at b: %+v", seed, r)
		}
	})
}

// Likewise where it does not reach that site, but the target of the move does.
func TestOfferedAndTakenByWhoIsNotReached(t *testing.T) {
	eachSeed(t, coordinator.DepartureOffered, func(seed uint64, s three) {
		s.taken(t)
		s.a.cutOff(s.a, s.c, true)
		s.a.comeBack()
		s.wait(30)
		s.are(t, seed, "moved", "-", "running")
		s.session(t, seed, s.c)
	})
}

// Where nobody has taken it the move goes on, when those that could have are reached.
func TestOfferedAndNotTaken(t *testing.T) {
	eachSeed(t, coordinator.DepartureOffered, func(seed uint64, s three) {
		s.a.cutOff(s.a, s.c, true)
		s.a.comeBack()
		s.wait(90)
		s.are(t, seed, "suspended", "-", "-")
		s.a.cutOff(s.a, s.c, false)
		s.wait(10)
		s.are(t, seed, "moved", "running", "-")
		s.session(t, seed, s.b)
	})
}

// Where one of those is gone a person cancels the move, and has the job go on.
func TestOfferedAndCancelled(t *testing.T) {
	eachSeed(t, coordinator.DepartureOffered, func(seed uint64, s three) {
		s.a.cutOff(s.a, s.c, true)
		s.a.comeBack()
		s.wait(10)
		s.a.wishMove("cancel", "kept", 3, false)
		s.wait(10)
		s.are(t, seed, "restarting", "-", "-")
		s.force(s.a, 10)
		s.are(t, seed, "running", "-", "-")
		s.session(t, seed, s.a)
	})
}

// What was handed over, and is taken by another site before its target hears of that, is
// quarantined at both before it acts at both; whoever is forced has it, and the session.
func TestHandedOverAndTaken(t *testing.T) {
	eachSeed(t, coordinator.DepartureHandedOver, func(seed uint64, s three) {
		s.taken(t)
		s.a.comeBack()
		s.wait(20)
		s.are(t, seed, "moved", "quarantined", "quarantined")
		to, want := s.b, []string{"moved", "running", "moved"}
		if seed%2 == 0 {
			to, want = s.c, []string{"moved", "moved", "running"}
		}
		s.force(to, 30)
		s.are(t, seed, want...)
		s.session(t, seed, to)
	})
}

// A move to here is not forced over the word of a site that has the job, unless a person
// is sure.
func TestForcedOverAnothersWord(t *testing.T) {
	for _, said := range []struct {
		epoch uint64
		needs bool
	}{{0, false}, {1, false}, {2, true}, {3, true}} {
		k := newKeeping(t, 0)
		r := *k.st.Replicas["j6-a"]
		r.Moving = "m7-a"
		k.st.Replicas["j6-a"] = &r
		k.st.Moves.Arrivals["m7-a"] = &coordinator.Arrival{ID: "m7-a", From: "a", Epoch: 2, Job: r.Job, Phase: coordinator.ArrivalPrepared,
			Savepoint: &coordinator.Snapshot{Name: "sp", Job: "j6-a", Manifest: r.Next.Manifest}}
		k.step(leader.Event{Sites: &[]mesh.Site{"c"}})
		if said.epoch > 0 {
			k.says("c", coordinator.OwnerNews{Epoch: said.epoch, Owner: "c", Ask: true})
		}
		over := k.failover(t, &leader.Failover{Job: "j6-a", Dry: true})
		if over.FailedOver == nil || over.FailedOver.Move != "m7-a" || (over.FailedOver.Needs != nil) != said.needs {
			t.Errorf("c has said epoch %d: dry: %+v", said.epoch, over.FailedOver)
		}
		if !said.needs {
			continue
		}
		if over := k.failover(t, &leader.Failover{Job: "j6-a"}); over.Err == nil || !strings.Contains(over.Err.Error(), "site c has it, at epoch") {
			t.Errorf("c has said epoch %d: %v", said.epoch, over.Err)
		}
		k.Step(k.st, jobmanager.Changed{Names: []jobmanager.Change{{What: jobmanager.Move, Name: "m7-a"}}}, leader.Event{Now: k.now})
		for _, sure := range []bool{false, true} {
			forced := false
			for _, f := range k.wish(&leader.Wish{Ref: 7, Migrate: &leader.Migrate{Force: "m7-a", Sure: sure}}) {
				forced = forced || f.Propose != nil && f.Propose.Command.Move != nil && f.Propose.Command.Move.ArrivalDecided != nil
			}
			if forced != sure {
				t.Errorf("c has said epoch %d, sure: %v, and the move is forced: %v", said.epoch, sure, forced)
			}
		}
	}
}

func (k *keeping) wish(w *leader.Wish) []leader.Effect { return k.step(leader.Event{Wish: w}) }

// failover is the answer to a person's wish.
func (k *keeping) failover(t *testing.T, w *leader.Failover) (a leader.Answer) {
	t.Helper()
	for _, f := range k.wish(&leader.Wish{Ref: 7, Failover: w}) {
		if f.Answer != nil && f.Answer.Ref == 7 {
			return *f.Answer
		}
	}
	t.Fatal("no answer")
	return a
}
