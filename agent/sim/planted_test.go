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
	const most = 400 // seeds: what is rarest to show needs a hundred
	for _, c := range []struct {
		name string
		bugs sim.Bugs
		by   []int // invariants, one of which shows it
		plan string
	}{
		{"a message that comes again is logged again", sim.Bugs{AppendTwice: true}, []int{1}, sim.PlanPlain},
		{"rows lost on their way", sim.Bugs{DropRows: true}, []int{2}, sim.PlanPlain},
		{"read again after a restore", sim.Bugs{ReplayOne: true}, []int{2}, sim.PlanPlain},
		{"watermarks that overtake rows", sim.Bugs{MarksFirst: true}, []int{2}, sim.PlanWindows},
		{"an adopted feed read anew", sim.Bugs{AdoptAnew: true}, []int{2}, sim.PlanAgain},
		{"a file read anew", sim.Bugs{RereadFile: true}, []int{2}, sim.PlanFile},
		{"state of other key groups", sim.Bugs{KeepForeign: true}, []int{2}, sim.PlanRescale},
		{"a copy that is ahead is not cut", sim.Bugs{NoCut: true}, []int{2, 3}, sim.PlanPlain},
		{"acknowledged before its copies", sim.Bugs{AckEarly: true}, []int{3}, sim.PlanPlain},
		{"sealed without a promise", sim.Bugs{SkipSeal: true}, []int{3, 2}, sim.PlanPlain},
		{"watermarks of inputs forgotten", sim.Bugs{ForgetInputs: true}, []int{4}, sim.PlanPlain},
		{"stored before its copies", sim.Bugs{StoredEarly: true}, []int{5}, sim.PlanPlain},
		{"copied before it is here", sim.Bugs{CopiedEarly: true}, []int{5}, sim.PlanPlain},
		{"restored from an older checkpoint", sim.Bugs{RestoreOlder: true}, []int{6}, sim.PlanPlain},
		{"two leaders in a term", sim.Bugs{TwoLeaders: true}, []int{7}, sim.PlanPlain},
		{"a leader without a majority is told that it leads", sim.Bugs{ConfirmAlways: true}, []int{7}, sim.PlanSplit},
		{"the lease ignored", sim.Bugs{IgnoreLease: true}, []int{7}, sim.PlanPlain},
		{"tokens ignored", sim.Bugs{IgnoreToken: true}, []int{7}, sim.PlanPlain},
		{"committed before it is complete", sim.Bugs{CommitEarly: true}, []int{8}, sim.PlanPlain},
		{"an attempt that never ends", sim.Bugs{NeverClosed: true}, []int{10}, sim.PlanPlain},
		{"a channel without a bound", sim.Bugs{Unbounded: true}, []int{12}, sim.PlanPlain},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for n := range uint64(most) {
				_, v := sim.Run(sim.Config{Seed: 1000 + n, Bugs: c.bugs, Zombies: n%2 == 1, Plan: c.plan, Copies: c.bugs.CopiedEarly})
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
