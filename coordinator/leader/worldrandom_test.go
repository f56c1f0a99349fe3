package leader_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A job moves between two sites whatever fails: it is never deployed at both, and
// when all is well again it runs at one, and nothing is left undecided.
func TestAnyMoves(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 3)
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			anyMoves(t, seed)
		})
	}
}

func anyMoves(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	var history strings.Builder
	failed := false
	w := newWorld(func(c *clock, name mesh.Site) *site {
		return newSiteOf(c, name, rng, func(format string, args ...any) {
			if !failed {
				failed = true
				t.Errorf("seed %d at %d ms, site %s: %s\n%s", seed, c.now/ms, name, fmt.Sprintf(format, args...), tail(history.String()))
			}
		}, func(format string, args ...any) {
			fmt.Fprintf(&history, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
	})
	a, b := w.sites[0], w.sites[1]
	a.run(1000 * ms)
	a.submit("logged", logged, "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
	a.run(3000 * ms)
	for i := range 16 {
		w.fault(rng, i)
		a.run(a.now + dataflow.Time(rng.Int64N(int64(3000*ms))))
		if failed {
			return
		}
	}
	w.wan.off, w.wan.lossy = false, false
	a.heal([]mesh.NodeID{"a1", "a2"})
	b.heal([]mesh.NodeID{"b1", "b2"})
	a.run(a.now + 90_000*ms)
	runs := 0
	for _, s := range w.sites {
		st := s.state()
		if j := s.job("logged"); j != nil && j.Status == coordinator.Running {
			runs++
		}
		for _, d := range st.Moves.Departures {
			s.fail("move %s is %s still", d.ID, d.Phase)
		}
		for _, arr := range st.Moves.Arrivals {
			if !arr.Phase.Decided() {
				s.fail("move %s is %s still", arr.ID, arr.Phase)
			}
		}
	}
	if runs != 1 {
		a.fail("the job runs at %d sites", runs)
	}
}

// fault does something to a site, to the link, or has the job move.
func (w *clock) fault(rng *rand.Rand, i int) {
	s := w.sites[rng.IntN(2)]
	ids := []mesh.NodeID{mesh.NodeID(s.name + "1"), mesh.NodeID(s.name + "2")}
	switch rng.IntN(8) {
	case 0, 1, 2:
		for _, s := range w.sites {
			if j := s.job("logged"); j != nil && !j.Status.Ended() {
				s.trace("WISH move %d", i)
				s.wishMove("migrate", "logged", i+1, false)
				break
			}
		}
	case 3:
		s.trace("WISH cancel %d", i)
		s.wishMove("unmove", "logged", i+1, false)
	case 4:
		w.wan.off, w.wan.lossy = !w.wan.off, false
		s.trace("FAULT link off: %v", w.wan.off)
	case 5:
		w.wan.off, w.wan.lossy = false, true
		s.trace("FAULT link lossy")
	case 6:
		if n := s.nodes[ids[rng.IntN(2)]]; n.up && !n.frozen {
			s.trace("FAULT lead %s", n.id)
			s.lead(n.id)
		}
	default:
		s.fault(rng, ids)
	}
}

// A new leader at each step, at either site or both, and with messages lost: the
// job gets there all the same.
func TestLeadersAtEachStep(t *testing.T) {
	for step := range 11 {
		for who := range 3 {
			w := newWorld(func(c *clock, name mesh.Site) *site {
				return newSiteOf(c, name, nil, t.Errorf, func(string, ...any) {})
			})
			a, b := w.sites[0], w.sites[1]
			a.run(1000 * ms)
			a.submit("logged", logged, "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
			a.run(3000 * ms)
			a.wishMove("migrate", "logged", 1, false)
			w.wan.lossy = step%2 == 1
			a.run(a.now + dataflow.Time(step+1)*30*ms)
			if who != 1 {
				a.lead("a2")
			}
			if who != 0 {
				b.lead("b2")
			}
			a.run(a.now + 15_000*ms)
			if j, o := a.job("logged"), b.job("logged"); j.Status != coordinator.Moved || o == nil || o.Status != coordinator.Running {
				t.Errorf("step %d, %d: it is %s at a, and at b: %+v", step, who, j.Status, o)
			}
		}
	}
}
