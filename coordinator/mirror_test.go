package coordinator_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A shared feed that was taken keeps its session's name wherever it goes, also back at
// the site whose feed goes on beside it.
func TestTaken(t *testing.T) {
	for _, c := range []struct {
		feed     coordinator.Feed
		from, by mesh.Site
	}{
		{coordinator.Feed{Name: "line", Lineage: reigns("plant", "depot")}, "", ""},
		{coordinator.Feed{Name: "line.at.plant", Lineage: reigns("plant")}, "plant", ""},
		{coordinator.Feed{Name: "line.at.plant", Lineage: reigns("plant", "depot")}, "plant", "depot"},
		{coordinator.Feed{Name: "line.at.plant", Lineage: reigns("mill", "plant", "depot", "mill")}, "plant", "depot"},
		{coordinator.Feed{Name: "line.at.plant", Lineage: reigns("plant", "depot", "plant")}, "plant", "depot"},
		{coordinator.Feed{Name: "line.at.plant", Lineage: reigns("plant", "depot", "plant", "depot")}, "plant", "depot"},
		{coordinator.Feed{Name: "line.at.plant", Mirror: &coordinator.Mirror{}, Lineage: reigns("plant", "depot")}, "", ""},
	} {
		if from, by := c.feed.Taken(); from != c.from || by != c.by {
			t.Errorf("%s %v: from %q, by %q; want %q, %q", c.feed.Name, c.feed.Lineage, from, by, c.from, c.by)
		}
	}
}

func reigns(sites ...mesh.Site) (all []coordinator.Reign) {
	for i, s := range sites {
		all = append(all, coordinator.Reign{Epoch: uint64(i + 1), Site: s, Start: int64(10 * i)})
	}
	return all
}
