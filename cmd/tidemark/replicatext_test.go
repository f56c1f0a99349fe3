package main

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// Where nothing is kept no number of entries stands for it.
func TestReplicaText(t *testing.T) {
	for _, c := range []struct {
		r    api.Replica
		want string
	}{
		{api.Replica{Snapshot: "c1", Entries: 7, Restorable: true}, "c1, 7 entries of its logs behind"},
		{api.Replica{Snapshot: "c1", Entries: 7, Unknown: true, Restorable: true, Fetching: "c2"}, "c1, 7 entries of its logs behind, or more, fetching c2"},
		{api.Replica{Unknown: true, Why: "site mars has not said yet what it keeps"}, "nothing is complete there; it cannot be restored there: site mars has not said yet what it keeps"},
	} {
		if got := replicaText(&c.r); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
