package twosites_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Each rule is broken once, with what makes it matter, and the checker of its
// invariant says which it is. Without the bug the same faults do no harm.
func TestPlantedBugs(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: nothing for the race detector")
	}
	step := func(site mesh.Site, what string, after bool) twosites.Step {
		return twosites.Step{Site: site, What: what, After: after}
	}
	for _, c := range []struct {
		name   string
		bugs   world.Bugs
		kind   twosites.Kind
		faults []twosites.Fault
		by     int
		says   string
	}{
		{"the target decides by itself", world.Bugs{DecideAlone: true}, twosites.Migrate, nil, 9, "has not handed it over"},
		{"the decision is said before it is in the log", world.Bugs{VerdictEarly: true}, twosites.Migrate,
			[]twosites.Fault{{At: step("a", "enters MoveDecided", false), What: twosites.CrashAll, Site: "a", Long: 5 * world.Sec}}, 9, "has not handed it over"},
		{"prepared without all of the logs", world.Bugs{MirrorAhead: true}, twosites.Migrate,
			[]twosites.Fault{{At: step("a", "enters MoveOffered", false), What: twosites.CrashAgent, Site: "b", Long: 5 * world.Sec}}, 9, "the log of feed"},
		{"a session in an epoch that is held", world.Bugs{OpenHeld: true}, twosites.Migrate, nil, 9, "which has none"},
		{"a session that stays is opened at the other site", world.Bugs{ForgetMirror: true}, twosites.Stay, nil, 9, "and it is site a's"},
		{"a mirror of a shared feed opens a session of its own", world.Bugs{ForgetMirror: true}, twosites.Shared, nil, 9, "and it is site a's"},
		{"an attempt begins with what was restored before, and not with what has changed", world.Bugs{WarmOld: true}, twosites.Migrate, nil, 6, "had restored before"},
		{"what was restored before a job came stays", world.Bugs{KeepWarm: true}, twosites.Migrate,
			[]twosites.Fault{{At: step("b", "says Got", true), What: twosites.CutWAN, Long: 70 * world.Sec}}, 12, "it is not on its way there"},
		{"a site does not hear who has its job", world.Bugs{DeafToOwners: true}, twosites.Err, nil, 9, "two sites have the job"},
		{"a site that was down does not ask", world.Bugs{NeverIsolated: true}, twosites.Failover,
			[]twosites.Fault{{At: step("b", "enters JobDeployed", true), What: twosites.CutWAN, Long: 20 * world.Sec}}, 9, ""},
		{"parts are said to be there before they are", world.Bugs{CopiedEarly: true}, twosites.Migrate, nil, 5, "has not part"},
		{"the lease is ignored", world.Bugs{IgnoreLease: true}, twosites.Migrate,
			[]twosites.Fault{{At: step("a", "enters MoveHalting", true), What: twosites.PauseAll, Site: "a", Long: 5 * world.Sec}}, 7, "without a lease"},
		{"an attempt goes on from an older checkpoint", world.Bugs{RestoreOlder: true}, twosites.Migrate,
			[]twosites.Fault{{At: step("a", "enters MoveHalting", true), What: twosites.CrashAll, Site: "a", Long: 5 * world.Sec}}, 6, "is complete"},
		{"a source begins one message too early", world.Bugs{ReplayOne: true}, twosites.Migrate, nil, 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := twosites.Config{Seed: 1, Kind: c.kind, Faults: c.faults}
			if res := twosites.Run(cfg); res.Violation != nil {
				t.Fatalf("without the bug: %v", res.Violation)
			}
			for cfg.Bugs = c.bugs; cfg.Seed <= 20; cfg.Seed++ {
				v := twosites.Run(cfg).Violation
				if v != nil && v.Invariant == c.by && strings.Contains(v.Text, c.says) {
					t.Logf("seed %d: %v", cfg.Seed, v)
					return
				}
				t.Logf("seed %d: %v", cfg.Seed, v)
			}
			t.Error("20 seeds do not show it")
		})
	}
}
