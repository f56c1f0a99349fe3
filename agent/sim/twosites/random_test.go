package twosites_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
)

var (
	seeds = flag.Uint64("seeds", 6, "how many random schedules, by seeds")
	first = flag.Uint64("first", 1, "the first of them")
	kind  = flag.String("kind", "", "of this kind only")
)

// Faults come at any time, by the seed.
func TestRandom(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 2)
	}
	var sum tally
	spread(int(n), func(i int) {
		cfg := twosites.Config{Seed: *first + uint64(i), Kind: twosites.Migrate, Random: 15 * world.Sec}
		switch cfg.Seed % 10 {
		case 0:
			cfg.Kind = twosites.Frozen
		case 1, 5:
			cfg.Kind, cfg.Random = twosites.Wander, 30*world.Sec
		case 2, 6:
			cfg.Kind, cfg.Random = twosites.Roam, 30*world.Sec
		case 3:
			switch cfg.Seed / 10 % 4 {
			case 0, 2:
				cfg.Kind, cfg.Random = twosites.Mingle, 30*world.Sec
			case 1:
				cfg.Kind = twosites.Taken
			default:
				cfg.Kind = twosites.Home
			}
		case 4:
			cfg.Kind = twosites.Failover
		case 7:
			cfg.Kind = twosites.Stay
			if cfg.Seed%20 == 17 {
				cfg.Kind = twosites.Return
			}
		case 8:
			cfg.Kind = twosites.Err
			if cfg.Seed%20 == 18 {
				cfg.Kind = twosites.Torn
			}
		case 9:
			cfg.Kind = twosites.Force
		}
		if *kind != "" {
			cfg.Kind = twosites.Kind(*kind)
		}
		if n == 1 && testing.Verbose() {
			cfg.Trace = func(line string) { fmt.Println(line) }
		}
		sum.add(t, cfg)
	})
	t.Log(sum.String())
}
