package twosites_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
)

var seed = flag.Uint64("seed", 0, "only this one, told line by line with -v")

// Nothing goes wrong: the job moves, or is taken, every row is there once, and the
// steps are those that are known.
func TestUndisturbed(t *testing.T) {
	for _, k := range []twosites.Kind{twosites.Migrate, twosites.Failover} {
		t.Run(string(k), func(t *testing.T) {
			cfg := twosites.Config{Seed: max(*seed, 1), Kind: k}
			if testing.Verbose() && *seed > 0 {
				cfg.Trace = func(line string) { fmt.Println(line) }
			}
			res := twosites.Run(cfg)
			if res.Violation != nil {
				t.Fatal(res.Violation)
			}
			t.Logf("%+v", *res)
		})
	}
}
