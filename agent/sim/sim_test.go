package sim_test

import (
	"flag"
	"fmt"
	"reflect"
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
	heirs   = flag.Bool("heirs", false, "the owner of a log loses its disk when others are to copy it")
	bug     = flag.String("bug", "", "a field of sim.Bugs that is planted")
)

// Whatever fails, in whatever order, every invariant holds at every step, and
// after the last fault everything goes on.
func TestSite(t *testing.T) {
	if *seed != 0 {
		site(t, *seed)
		return
	}
	if testing.Short() {
		*seeds = min(*seeds, 5)
	}
	for n := *first; n < *first+*seeds; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			site(t, n)
		})
	}
}

func site(t *testing.T, n uint64) {
	cfg := sim.Config{Seed: n, Zombies: *zombies || n%8 == 7, Heirs: *heirs}
	if *bug != "" {
		reflect.ValueOf(&cfg.Bugs).Elem().FieldByName(*bug).SetBool(true)
	}
	if *seed != 0 && testing.Verbose() {
		cfg.Trace = func(line string) { fmt.Println(line) }
	}
	stats, v := sim.Run(cfg)
	if v != nil {
		t.Errorf("%v\nreplay: go test ./agent/sim -run TestSite -v -seed %d", v, n)
	}
	if *seed != 0 {
		t.Logf("%+v", *stats)
	}
}
