package node

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Who is to found a site is told whether the job that its name is taken for can be looked up.
func TestANameThatStaysTaken(t *testing.T) {
	for name, c := range map[string]struct {
		st   coordinator.State
		want string // empty: the name is free
	}{
		"a job":                      {coordinator.State{Jobs: map[coordinator.JobID]*coordinator.Job{"j7-plant": {}}}, "job j7-plant, which is known here, is of a site plant that was there before"},
		"a forgotten one":            {coordinator.State{Forgotten: map[coordinator.JobID]*coordinator.Forgotten{"j7-plant": {}}}, "job j7-plant, which is forgotten here, and on record still, is of a site plant that was there before"},
		"a forgotten one of another": {coordinator.State{Forgotten: map[coordinator.JobID]*coordinator.Forgotten{"j7-depot": {}}}, ""},
	} {
		err := usedBefore(&c.st, "plant")
		if (err == nil) != (c.want == "") || err != nil && !(strings.HasPrefix(err.Error(), c.want) && strings.Contains(err.Error(), "The name stays taken")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
