package sim_test

import (
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim"
)

// Each rule of the drivers is broken once, and a checker finds it: what it
// finds, it finds by the invariant that the rule keeps.
func TestPlantedBugs(t *testing.T) {
	if !*planted {
		t.Skip("a minute or more; -planted does it")
	}
	const most = 60 // seeds
	for _, c := range []struct {
		name string
		bugs sim.Bugs
		by   []int // invariants, one of which shows it
	}{
		{"rows lost on their way", sim.Bugs{DropRows: true}, []int{1, 2, 10}},
		{"a copy that is ahead is not cut", sim.Bugs{NoCut: true}, []int{2, 3}},
		{"acknowledged before its copies", sim.Bugs{AckEarly: true}, []int{3}},
		{"sealed without a promise", sim.Bugs{SkipSeal: true}, []int{3, 2}},
		{"watermarks of inputs forgotten", sim.Bugs{ForgetInputs: true}, []int{4}},
		{"stored before its copies", sim.Bugs{StoredEarly: true}, []int{5}},
		{"restored from an older checkpoint", sim.Bugs{RestoreOlder: true}, []int{6}},
		{"two leaders in a term", sim.Bugs{TwoLeaders: true}, []int{7}},
		{"the lease ignored", sim.Bugs{IgnoreLease: true}, []int{7}},
		{"tokens ignored", sim.Bugs{IgnoreToken: true}, []int{7}},
		{"committed before it is complete", sim.Bugs{CommitEarly: true}, []int{8}},
		{"an attempt that never ends", sim.Bugs{NeverClosed: true}, []int{10}},
		{"a channel without a bound", sim.Bugs{Unbounded: true}, []int{12}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for n := range uint64(most) {
				_, v := sim.Run(sim.Config{Seed: 1000 + n, Bugs: c.bugs, Zombies: n%2 == 1})
				if v == nil || !slices.Contains(c.by, v.Invariant) {
					continue // what follows from the bug may be seen first
				}
				t.Logf("seed %d, after %d others: %v", 1000+n, n, v)
				return
			}
			t.Errorf("%d seeds do not show it", most)
		})
	}
}
