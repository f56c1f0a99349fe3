package twosites_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
)

var (
	full  = flag.Bool("full", false, "all pairs of faults, not a sample")
	pairs = flag.Int("pairs", 60, "so many pairs of faults of each kind")
	at    = flag.String("fault", "", "only single faults whose text has this")
)

// tally counts what runs showed.
type tally struct {
	mu                                 sync.Mutex
	runs, fired, at_a, at_b, none, bad int
	longest                            map[string]int
}

func (c *tally) add(t *testing.T, cfg twosites.Config, res *twosites.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	c.fired += res.Fired
	switch res.Owner {
	case "a":
		c.at_a++
	case "b":
		c.at_b++
	default:
		c.none++
	}
	if res.Violation != nil {
		if c.bad++; c.bad <= 30 {
			t.Errorf("%v\n   seed %d, %s, faults %v", res.Violation, cfg.Seed, cfg.Kind, cfg.Faults)
		}
	}
}

func (c *tally) String() string {
	return fmt.Sprintf("%d runs, %d faults; in the end the job is at a in %d, at b in %d; %d violations", c.runs, c.fired, c.at_a, c.at_b, c.bad)
}

// Every fault right before and right behind every step of a move, and of a failover.
func TestSingleFaults(t *testing.T) {
	for _, kind := range []twosites.Kind{twosites.Migrate, twosites.Failover} {
		t.Run(string(kind), func(t *testing.T) {
			all, _ := twosites.Singles(1, kind)
			var sum tally
			for i, f := range all {
				if !strings.Contains(f.String(), *at) || testing.Short() && i%40 != 0 {
					continue
				}
				cfg := twosites.Config{Seed: 1, Kind: kind, Faults: []twosites.Fault{f}}
				if *at != "" && testing.Verbose() {
					cfg.Trace = func(line string) { fmt.Println(line) }
				}
				sum.add(t, cfg, twosites.Run(cfg))
			}
			t.Log(sum.String())
		})
	}
}

// Two faults: the second at a step behind that of the first, in the run as it is
// with the first.
func TestPairs(t *testing.T) {
	for _, kind := range []twosites.Kind{twosites.Migrate, twosites.Failover} {
		t.Run(string(kind), func(t *testing.T) {
			var sum tally
			rnd := rand.New(rand.NewPCG(1, 1))
			all, _ := twosites.Singles(1, kind)
			for n := 0; n < *pairs; n++ {
				first := all[rnd.IntN(len(all))]
				with := twosites.Run(twosites.Config{Seed: 1, Kind: kind, Faults: []twosites.Fault{first}})
				seconds := twosites.Seconds(kind, first, with)
				if len(seconds) == 0 {
					continue
				}
				cfg := twosites.Config{Seed: 1, Kind: kind, Faults: []twosites.Fault{first, seconds[rnd.IntN(len(seconds))]}}
				sum.add(t, cfg, twosites.Run(cfg))
			}
			t.Log(sum.String())
		})
	}
}
