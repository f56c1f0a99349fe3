package twosites_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
)

var (
	seeds = flag.Uint64("seeds", 10, "how many seeds of random schedules")
	first = flag.Uint64("first", 1, "the first of them")
)

// Faults come at any time, by the seed.
func TestRandom(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 2)
	}
	var sum tally
	t.Run("seeds", func(t *testing.T) {
		for seed := *first; seed < *first+n; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				kind := twosites.Migrate
				if seed%3 == 0 {
					kind = twosites.Failover
				}
				cfg := twosites.Config{Seed: seed, Kind: kind, Random: 15 * world.Sec}
				sum.add(t, cfg, twosites.Run(cfg))
			})
		}
	})
	t.Log(sum.String())
}
