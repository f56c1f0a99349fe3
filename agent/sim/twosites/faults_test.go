package twosites_test

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// How many runs, and which: go test ./agent/sim/twosites -run TestSingleFaults -v
// -fault "after a enters MoveDecided: the WAN" tells one line by line, and
// -run TestPairs with -then "after b enters ..." a pair.
var (
	every = flag.Int("every", 24, "one single fault in so many; 1: all")
	pairs = flag.Int("pairs", 6, "so many pairs of faults, of each kind of run")
	full  = flag.Bool("full", false, "every single fault, and all pairs: an hour or two; -v tells how far it is")
	parts = flag.Int("parts", 1, "with -full: all pairs in so many parts, each with some of every first fault")
	part  = flag.Int("part", 0, "and the one of them that is run")
	from  = flag.Int("from", 0, "with -full: the first fault with which pairs begin")
	only  = flag.String("fault", "", "only single faults whose text has this")
	then  = flag.String("then", "", "with -fault: only pairs, whose second fault's text has this")
	seed  = flag.Uint64("seed", 1, "of single faults and pairs")
)

// tally counts what runs showed.
type tally struct {
	mu                                          sync.Mutex
	runs, fired, atA, atB, overs, early, broken int
}

func (c *tally) add(t *testing.T, cfg twosites.Config) {
	res := twosites.Run(cfg)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	c.fired += res.Fired
	c.overs += res.Overs
	c.early += res.Early
	switch res.Owner {
	case "a":
		c.atA++
	case "b":
		c.atB++
	}
	if res.Violation != nil {
		if c.broken++; c.broken <= 30 {
			t.Errorf("%v\n   seed %d, %s, faults %v", res.Violation, cfg.Seed, cfg.Kind, cfg.Faults)
		}
	}
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d runs with %d faults; the job went over %d times, with %d tables restored before it came; in the end it is at a in %d, at b in %d; %d violations", c.runs, c.fired, c.overs, c.early, c.atA, c.atB, c.broken)
}

// spread does n things, as many at a time as there are processors.
func spread(n int, do func(i int)) {
	var next atomic.Int64
	var done sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		done.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	done.Wait()
}

func kinds(t *testing.T, do func(t *testing.T, kind twosites.Kind)) {
	for _, k := range []twosites.Kind{twosites.Migrate, twosites.Failover, twosites.Frozen, twosites.Stay, twosites.Return, twosites.Torn, twosites.Shared, twosites.Leave, twosites.Taken, twosites.Home, twosites.Third, twosites.Chain, twosites.Err, twosites.Force} {
		t.Run(string(k), func(t *testing.T) { do(t, k) })
	}
}

// rarer is how much fewer faults of a kind are taken than of the others, where -full
// does not say all: its runs take longer, and share their code with those.
func rarer(kind twosites.Kind) int {
	switch kind {
	case twosites.Shared, twosites.Leave, twosites.Taken, twosites.Home, twosites.Third, twosites.Chain:
		return 10
	}
	return 1
}

// Nothing goes wrong: the job moves, or is taken, or moves there and back, and every
// row is there once.
func TestUndisturbed(t *testing.T) {
	kinds(t, func(t *testing.T, kind twosites.Kind) {
		cfg := twosites.Config{Seed: *seed, Kind: kind}
		if testing.Verbose() {
			cfg.Trace = func(line string) { fmt.Println(line) }
		}
		res := twosites.Run(cfg)
		overs, owner := 1, mesh.Site("b")
		switch kind {
		case twosites.Stay, twosites.Return, twosites.Leave, twosites.Home:
			overs, owner = 2, "a"
		case twosites.Shared:
			overs, owner = 4, "a"
		case twosites.Taken:
			overs, owner = 3, "a"
		case twosites.Third:
			owner = "c"
		case twosites.Chain:
			overs, owner = 2, "c"
		}
		if res.Violation != nil || res.Owner != owner || res.Overs != overs {
			t.Errorf("%v; the job went over %d times, and is at %s", res.Violation, res.Overs, res.Owner)
		}
		if moves := kind == twosites.Migrate || kind == twosites.Stay || kind == twosites.Return; moves && res.Early == 0 {
			t.Error("nothing of it was restored before it came")
		}
		t.Logf("%d steps, %d tables restored early", len(res.Steps), res.Early)
	})
}

// Every fault right before and right behind every step of a move, and of a failover.
func TestSingleFaults(t *testing.T) {
	kinds(t, func(t *testing.T, kind twosites.Kind) {
		all, _ := twosites.Singles(*seed, kind)
		var some []twosites.Fault
		for i, f := range all {
			if *only != "" && strings.Contains(f.String(), *only) || *only == "" && (*full || i%(*every*rarer(kind)) == 0 && (!testing.Short() || i%(8*(*every)) == 0)) {
				some = append(some, f)
			}
		}
		var sum tally
		spread(len(some), func(i int) {
			cfg := twosites.Config{Seed: *seed, Kind: kind, Faults: some[i : i+1]}
			if len(some) == 1 && testing.Verbose() {
				cfg.Trace = func(line string) { fmt.Println(line) }
			}
			sum.add(t, cfg)
		})
		t.Logf("of %d: %s", len(all), sum.String())
	})
}

// Two faults: the second at a step behind that of the first, in the run as it is
// with the first; those that change nothing where they come are left out. Which pairs
// are taken is always the same.
func TestPairs(t *testing.T) {
	kinds(t, func(t *testing.T, kind twosites.Kind) {
		firsts := twosites.Firsts(twosites.Run(twosites.Config{Seed: *seed, Kind: kind}))
		if *then != "" {
			pair(t, kind, firsts)
			return
		}
		some := max(1, *pairs/rarer(kind))
		n := min(some, len(firsts))
		if testing.Short() {
			n = 1
		}
		if *full {
			n = len(firsts)
		}
		var sum tally
		var known atomic.Int64
		spread(n, func(i int) {
			if *full && i < *from {
				return
			}
			first := firsts[i*len(firsts)/n]
			seconds := twosites.Seconds(first, twosites.Run(twosites.Config{Seed: *seed, Kind: kind, Faults: []twosites.Fault{first}}))
			known.Add(int64(len(seconds)))
			each := (some + n - 1) / n
			if *full {
				each = len(seconds)
			}
			for k := range min(each, len(seconds)) {
				if *full && (i+k)%*parts != *part {
					continue
				}
				second := seconds[(i*7919+k*len(seconds)/each)%len(seconds)]
				sum.add(t, twosites.Config{Seed: *seed, Kind: kind, Faults: []twosites.Fault{first, second}})
			}
			if *full {
				t.Logf("first fault %d of %d (%s) with %d others; %s", i, n, first, len(seconds), sum.String())
			}
		})
		t.Logf("of %d pairs with %d of %d first faults: %s", known.Load(), n, len(firsts), sum.String())
	})
}

// pair runs the pairs of -fault and -then, and tells one line by line.
func pair(t *testing.T, kind twosites.Kind, firsts []twosites.Fault) {
	var found []twosites.Config
	for _, first := range firsts {
		if !strings.Contains(first.String(), *only) {
			continue
		}
		faults := []twosites.Fault{first}
		for _, second := range twosites.Seconds(first, twosites.Run(twosites.Config{Seed: *seed, Kind: kind, Faults: faults})) {
			if strings.Contains(second.String(), *then) {
				found = append(found, twosites.Config{Seed: *seed, Kind: kind, Faults: []twosites.Fault{first, second}})
			}
		}
	}
	if len(found) == 1 && testing.Verbose() {
		found[0].Trace = func(line string) { fmt.Println(line) }
	}
	var sum tally
	spread(len(found), func(i int) { sum.add(t, found[i]) })
	t.Log(sum.String())
}
