package node

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// The pins of a feed are looked at when a job that reads it has changed, or its
// savepoint, or nobody knows any more whose it was.
func TestPinsThatMayMove(t *testing.T) {
	st := &coordinator.State{
		Jobs:       map[coordinator.JobID]*coordinator.Job{"j1": {ID: "j1"}, "j2": {ID: "j2", Reads: []string{"shared"}}, "j3": {ID: "j3"}},
		Feeds:      map[string]*coordinator.Feed{"j1.in": {Name: "j1.in", Job: "j1", Past: []coordinator.JobID{"j0"}}, "shared": {Name: "shared"}},
		Replicas:   map[coordinator.JobID]*coordinator.Replica{"j0": {}},
		Savepoints: map[string]*coordinator.Snapshot{"s0": {Name: "s0", Job: "j0"}, "s2": {Name: "s2", Job: "j2"}},
	}
	k := newKeptFeeds(func(f func(*coordinator.State)) { f(st) }, func(string) {})
	k.owns("j1.in", "j1")
	k.owns("shared", "")
	for _, c := range []struct {
		changed jobmanager.Changed
		want    string
	}{
		{jobmanager.Changed{All: true}, "[j1.in shared]"},
		{jobmanager.Changed{}, "[]"},
		{of(jobmanager.Job, "j1"), "[j1.in]"},
		{of(jobmanager.Job, "j2"), "[shared]"},
		{of(jobmanager.Job, "j3"), "[]"},
		{of(jobmanager.Job, "j4"), "[j1.in shared]"},
		{of(jobmanager.Savepoint, "s0"), "[j1.in]"},
		{of(jobmanager.Savepoint, "s2"), "[shared]"},
		{of(jobmanager.Savepoint, "s9"), "[j1.in shared]"},
		{of(jobmanager.Replica, "j0"), "[j1.in]"},
		{of(jobmanager.Replica, "j9"), "[j1.in shared]"},
		{of(jobmanager.Feed, "shared"), "[shared]"},
		{of(jobmanager.Feed, "another"), "[]"},
		{of(jobmanager.Agent, "n1"), "[]"},
	} {
		if k.mark(st, c.changed); fmt.Sprint(k.take()) != c.want {
			t.Errorf("%+v: not %s", c.changed, c.want)
		}
	}
	k.again("shared")
	k.again("j1.in")
	k.rests("j1.in")
	if got := fmt.Sprint(k.take()); got != "[shared]" {
		t.Errorf("%s are tried again", got)
	}
}

// What is kept of another site's job pins its feed: all of it, while there is
// nothing that it could be restored from.
func TestPinsOfReplicas(t *testing.T) {
	at := func(name string, offset int64) *coordinator.Snapshot {
		data, err := manifest.Encode(manifest.Manifest{Kind: manifest.Checkpoint, Name: name, Job: "x", MaxParallelism: 128, Mode: "exactly-once",
			Operators: []manifest.Operator{{ID: "in", Parallelism: 1, Positions: []manifest.Position{{Split: "lane-0", Offset: offset}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return &coordinator.Snapshot{Name: name, Job: "j1-b", Manifest: data}
	}
	st := &coordinator.State{Feeds: map[string]*coordinator.Feed{"j1-b.in": {Name: "j1-b.in", Job: "j1-b"}}}
	for want, r := range map[int64]*coordinator.Replica{0: {}, 500: {Snapshot: at("c1", 500), Next: at("c2", 600)}, 600: {Next: at("c2", 600)}} {
		st.Replicas = map[coordinator.JobID]*coordinator.Replica{"j1-b": r}
		if pins := pinsOf(st, "j1-b.in", 1); len(pins) != 1 || pins["replica j1-b"][0] != want {
			t.Errorf("%v, want %d", pins, want)
		}
	}
}

func of(what jobmanager.What, name string) jobmanager.Changed {
	return jobmanager.Changed{Names: []jobmanager.Change{{What: what, Name: name}}}
}
