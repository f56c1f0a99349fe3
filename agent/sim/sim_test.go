package sim_test

import (
	"flag"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim"
)

// How many runs, and which: go test ./agent/sim -run TestSite -v -seed N shows
// what happened in one.
var (
	seeds   = flag.Uint64("seeds", 40, "how many seeds are tried; 5 with -short")
	planted = flag.Bool("planted", false, "plant the bugs, one after the other")
	first   = flag.Uint64("first", 1, "the first of them")
	seed    = flag.Uint64("seed", 0, "only this one, told line by line with -v")
	zombies = flag.Bool("zombies", false, "more processes that stand still, and leaders that are alone")
	plan    = flag.String("plan", "", "which jobs run: plain, windows, rescale, again, file, split; by the seed if there is none")
	heirs   = flag.Bool("heirs", false, "the owner of a log loses its disk when others are to copy it")
	copies  = flag.Bool("copies", false, "disks are lost for good, and copies made anew")
	bug     = flag.String("bug", "", "a field of sim.Bugs that is planted")
)

// Whatever fails, in whatever order, every invariant holds at every step, and
// after the last fault everything goes on.
func TestSite(t *testing.T) {
	if *seed != 0 {
		site(t, *seed, *heirs)
		return
	}
	if testing.Short() {
		*seeds = min(*seeds, 5)
	}
	sites(t, *first, *seeds, *heirs)
}

// The owner of a log loses its disk just when others are to copy it: who left may
// be the only one that has everything.
func TestHeirs(t *testing.T) {
	n := uint64(16)
	if testing.Short() {
		n = 4
	}
	sites(t, 2001, n, true)
}

// Disks are lost for good: copies are made anew.
func TestCopies(t *testing.T) {
	n := uint64(12)
	if testing.Short() {
		n = 3
	}
	copied := int64(0)
	t.Run("seeds", func(t *testing.T) {
		for seed := 3001 + *first - 1; seed < 3001+*first-1+n; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				stats, v := sim.Run(sim.Config{Seed: seed, Copies: true, Plan: sim.PlanPlain})
				if v != nil {
					t.Errorf("%v\nreplay: go test ./agent/sim -run TestSite -v -seed %d -copies", v, seed)
				}
				atomic.AddInt64(&copied, int64(stats.Copied))
			})
		}
	})
	if copied == 0 {
		t.Error("no copy was made")
	}
}

// Seeds that found what is mended.
func TestFound(t *testing.T) {
	for _, c := range []struct {
		seed uint64
		what string
	}{
		{223, "what an agent had alone counted, though others were there: then its disk was lost"},
		{606, "the same, with the leader on that agent"},
		{886, "an agent that had just been started never heard of an attempt before it was over, and was waited for"},
	} {
		t.Run(fmt.Sprint(c.seed), func(t *testing.T) {
			t.Parallel()
			if site(t, c.seed, false); t.Failed() {
				t.Log(c.what)
			}
		})
	}
}

func sites(t *testing.T, first, seeds uint64, heirs bool) {
	for n := first; n < first+seeds; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			site(t, n, heirs)
		})
	}
}

func site(t *testing.T, n uint64, heirs bool) {
	cfg := sim.Config{Seed: n, Zombies: *zombies || n%8 == 7, Heirs: heirs, Plan: *plan, Copies: *copies}
	if *copies {
		cfg.Zombies, cfg.Plan = *zombies, sim.PlanPlain
	}
	if *bug != "" {
		reflect.ValueOf(&cfg.Bugs).Elem().FieldByName(*bug).SetBool(true)
	}
	if *seed != 0 && testing.Verbose() {
		cfg.Trace = func(line string) { fmt.Println(line) }
	}
	stats, v := sim.Run(cfg)
	if v != nil {
		how := ""
		if heirs {
			how += " -heirs"
		}
		if *zombies {
			how += " -zombies"
		}
		t.Errorf("%v\nreplay: go test ./agent/sim -run TestSite -v -seed %d%s", v, n, how)
	}
	if *seed != 0 {
		t.Logf("%+v", *stats)
	}
}
