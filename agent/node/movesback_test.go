package node_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// keyed are the sizes of the parts of a snapshot's keyed tables, and their rows.
func keyed(t *testing.T, s *coordinator.Snapshot) (parts map[store.Digest]int64, rows int64) {
	t.Helper()
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	parts = make(map[store.Digest]int64)
	for _, o := range m.Operators {
		for _, tab := range o.Tables {
			for _, sh := range tab.Shards {
				for _, p := range sh.Parts {
					if tab.Keyed {
						parts[p.Digest] = p.Size
						rows += p.Rows
					}
				}
			}
		}
	}
	return parts, rows
}

func newest(b *box, id coordinator.JobID) (n *coordinator.Snapshot) {
	b.View(func(st *coordinator.State) {
		if j := st.Jobs[id]; j != nil {
			n = j.Newest()
		}
	})
	return n
}

// A job goes on from the parts that came with it: when it moves to a site where it
// was before, only what has changed since crosses.
func TestAMoveBackSendsWhatChanged(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 1)
	home := plant[0]
	raised(t, home, depot)
	const keys = 5000
	spec := strings.NewReplacer("keys: 20,", fmt.Sprintf("keys: %d,", keys), "rows: 30000,", "rows: 1000000000,").Replace(slowJob)
	id := runs(t, home, "slow", fmt.Sprintf(spec, 20000, "slow"))
	c, nothing := home.client(t), func() {}
	await(t, "a checkpoint with all keys", func() bool {
		n := newest(home, id)
		if n == nil {
			return false
		}
		_, rows := keyed(t, n)
		return rows >= keys
	})
	// From here on little changes, and nothing is merged.
	moved(t, c, "slow", api.Migration{To: "depot", Request: "there", Set: []string{"sources.in.generate.rate=2", "checkpoint.interval=1h"}}, nothing)
	await(t, "it to run at the depot", func() bool { return status(depot, id) == coordinator.Running })
	if _, err := depot.client(t).CreateSavepoint(t.Context(), string(id)); err != nil { // all its parts are new
		t.Fatal(err)
	}
	moved(t, c, string(id), api.Migration{To: "plant", Request: "back"}, nothing)
	left, _ := keyed(t, newest(depot, id))
	await(t, "rows to come at the plant again", func() bool {
		j, err := c.Job(t.Context(), string(id))
		return err == nil && j.Site == "plant" && j.Totals.Out > 0
	})
	again := moved(t, c, string(id), api.Migration{To: "depot", Request: "again"}, nothing)
	var bytes, fresh int64
	parts, _ := keyed(t, newest(home, id))
	for d, size := range parts {
		if bytes += size; left[d] == 0 {
			fresh += size
		}
	}
	if fresh == 0 || fresh > bytes/4 {
		t.Errorf("of %d bytes of state %d are new", bytes, fresh)
	}
	if again.Bytes > bytes/2 {
		t.Errorf("of %d bytes of state %d were sent to where the job was before", bytes, again.Bytes)
	}
}
