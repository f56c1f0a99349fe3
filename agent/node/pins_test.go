package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
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
	k.owns("j1.in", owned{job: "j1"})
	k.owns("shared", owned{})
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

// standing is a checkpoint of a job whose sources stand there, by lane.
func standing(t *testing.T, name string, sources map[dataflow.OperatorID][]int64) *coordinator.Snapshot {
	t.Helper()
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: name, Job: "x", MaxParallelism: 128, Mode: "exactly-once"}
	for _, id := range slices.Sorted(maps.Keys(sources)) {
		o := manifest.Operator{ID: id, Parallelism: 1}
		for lane, offset := range sources[id] {
			o.Positions = append(o.Positions, manifest.Position{Split: fmt.Sprint("lane-", lane), Offset: offset})
		}
		m.Operators = append(m.Operators, o)
	}
	data, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return &coordinator.Snapshot{Name: name, Job: "j1-b", Manifest: data}
}

// What is kept of another site's job pins its feed: all of it, while there is
// nothing that it could be restored from.
func TestPinsOfReplicas(t *testing.T) {
	at := func(name string, offset int64) *coordinator.Snapshot {
		return standing(t, name, map[dataflow.OperatorID][]int64{"in": {offset}})
	}
	st := &coordinator.State{Feeds: map[string]*coordinator.Feed{"j1-b.in": {Name: "j1-b.in", Job: "j1-b"}}}
	for want, r := range map[string]*coordinator.Replica{
		"{[] true}": {}, "{[map[0:500] map[0:600]] true}": {Snapshot: at("c1", 500), Next: at("c2", 600)}, "{[map[0:600]] true}": {Next: at("c2", 600)},
	} {
		st.Replicas = map[coordinator.JobID]*coordinator.Replica{"j1-b": r}
		if pins := pinsOf(st, "j1-b.in", 1); len(pins) != 1 || fmt.Sprint(pins["replica j1-b"]) != want {
			t.Errorf("%v, want %s", pins, want)
		}
	}
}

// All of a log is kept for a job that lives and has no checkpoint, and for nobody else
// who could read on from somewhere.
func TestPinsOfJobsAndSavepoints(t *testing.T) {
	at := func(name string, offset int64) *coordinator.Snapshot {
		return standing(t, name, map[dataflow.OperatorID][]int64{"in": {offset}})
	}
	for name, c := range map[string]struct {
		job  coordinator.Job
		want string
	}{
		"it has no checkpoint":         {coordinator.Job{Status: coordinator.Running}, "{[] true}"},
		"it begins with a savepoint":   {coordinator.Job{Status: coordinator.Running, Begin: "s"}, "{[map[0:7]] false}"},
		"it has checkpoints":           {coordinator.Job{Status: coordinator.Running, Checkpoints: []*coordinator.Snapshot{at("c1", 40), at("c2", 50)}}, "{[map[0:40] map[0:50]] false}"},
		"it has ended":                 {coordinator.Job{Status: coordinator.Stopped}, "{[] false}"},
		"it has ended, and begins":     {coordinator.Job{Status: coordinator.Stopped, Checkpoints: []*coordinator.Snapshot{at("c1", 40)}}, "{[map[0:40]] false}"},
		"a checkpoint is not read":     {coordinator.Job{Status: coordinator.Running, Checkpoints: []*coordinator.Snapshot{{Name: "c1"}}}, "{[map[]] false}"},
		"it is at another site by now": {coordinator.Job{Status: coordinator.Moved, Checkpoints: []*coordinator.Snapshot{at("c1", 40)}}, "{[] false}"},
	} {
		c.job.ID = "j1-b"
		st := &coordinator.State{Feeds: map[string]*coordinator.Feed{"j1-b.in": {Name: "j1-b.in", Job: "j1-b"}},
			Jobs: map[coordinator.JobID]*coordinator.Job{"j1-b": &c.job}, Savepoints: map[string]*coordinator.Snapshot{"s": at("s", 7)}}
		pins := pinsOf(st, "j1-b.in", 1)
		if got := fmt.Sprint(pins["job j1-b"]); got != c.want || fmt.Sprint(pins["savepoint s"]) != "{[map[0:7]] false}" {
			t.Errorf("%s: %v", name, pins)
		}
	}
}

// A job's log is kept from the oldest checkpoint on that it can go back to, or another
// job begins with: not from one that stays only because another site is fetching it.
func TestPinsOfCheckpointsThatOthersFetch(t *testing.T) {
	st := &coordinator.State{Feeds: map[string]*coordinator.Feed{"j1-b.in": {Name: "j1-b.in", Job: "j1-b"}}}
	j := &coordinator.Job{ID: "j1-b", Status: coordinator.Running}
	for i := range int64(6) {
		j.Checkpoints = append(j.Checkpoints, standing(t, fmt.Sprint("c", i), map[dataflow.OperatorID][]int64{"in": {10 * i}}))
	}
	for name, c := range map[string]struct {
		other coordinator.Job
		want  string
	}{
		"nobody begins with it":  {coordinator.Job{Status: coordinator.Running, Begin: "j2-b/c1"}, "{[map[0:30] map[0:40] map[0:50]] false}"},
		"a job begins with it":   {coordinator.Job{Status: coordinator.Restoring, Begin: "j1-b/c1"}, "{[map[0:10] map[0:30] map[0:40] map[0:50]] false}"},
		"one began, and is over": {coordinator.Job{Status: coordinator.Failed, Begin: "j1-b/c1"}, "{[map[0:30] map[0:40] map[0:50]] false}"},
	} {
		c.other.ID = "j3-b"
		st.Jobs = map[coordinator.JobID]*coordinator.Job{"j1-b": j, "j3-b": &c.other}
		if pins := pinsOf(st, "j1-b.in", 1); len(pins) != 1 || fmt.Sprint(pins["job j1-b"]) != c.want {
			t.Errorf("%s: %v", name, pins)
		}
	}
}

// Which of its sources reads a shared feed a job's record does not say: one that
// stands where the feed's log has nothing any more says nothing about the others.
func TestPinsOfASharedFeed(t *testing.T) {
	st := &coordinator.State{Feeds: map[string]*coordinator.Feed{"line3": {Name: "line3"}}}
	for want, sources := range map[string]map[dataflow.OperatorID][]int64{
		"{[map[0:900 1:950]] false}":              {"a": {5}, "b": {900, 950}, "c": {1, 2, 3}},
		"{[map[0:3 1:4] map[0:900 1:950]] false}": {"a": {3, 4}, "b": {900, 950}},
		"{[map[0:5]] false}":                      {"a": {5}, "b": {9}},
	} {
		st.Jobs = map[coordinator.JobID]*coordinator.Job{"j1-b": {ID: "j1-b", Status: coordinator.Running, Reads: []string{"line3"}, Checkpoints: []*coordinator.Snapshot{standing(t, "c1", sources)}}}
		if got := pinsOf(st, "line3", 2)["job j1-b"]; fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

// A savepoint keeps the log of a shared feed when its job is forgotten, too. What stands
// in one that was deleted, and made again, keeps nothing of the next of its name.
func TestPinsOfWhatIsLeftOfJobs(t *testing.T) {
	sp := standing(t, "s", map[dataflow.OperatorID][]int64{"in": {100}})
	sp.Stands = []coordinator.Stand{{Feed: "line3", Made: 8}}
	old := standing(t, "c1", map[dataflow.OperatorID][]int64{"in": {90}})
	j := &coordinator.Job{ID: "j1-b", Reads: []string{"line3"}, Status: coordinator.Stopped, Checkpoints: []*coordinator.Snapshot{old}, Stands: sp.Stands}
	f := &coordinator.Feed{Name: "line3", Made: 8}
	st := &coordinator.State{Site: "b", Feeds: map[string]*coordinator.Feed{"line3": f, "line4": {Name: "line4", Made: 8}},
		Jobs: map[coordinator.JobID]*coordinator.Job{"j1-b": j}, Savepoints: map[string]*coordinator.Snapshot{"s": sp}}
	pins := func(feed, want string) {
		t.Helper()
		if got := fmt.Sprint(pinsOf(st, feed, 1)); got != want {
			t.Errorf("%s: %s, want %s", feed, got, want)
		}
	}
	pins("line3", "map[job j1-b:{[map[0:90]] false} savepoint s:{[map[0:100]] false}]")
	pins("line4", "map[]")
	f.Made = 70
	pins("line3", "map[]")
	// A job that begins with it, and reads the feed with a source that begins anew.
	st.Jobs["j9-b"] = &coordinator.Job{ID: "j9-b", Reads: []string{"line3"}, Status: coordinator.Running, Begin: "s"}
	pins("line3", "map[job j9-b:{[] true}]")
	delete(st.Jobs, "j9-b")
	f.Made = 8
	delete(st.Jobs, "j1-b")
	pins("line3", "map[savepoint s:{[map[0:100]] false}]")
}

// Nobody reads the log of a feed as that of the one that has its name since.
func TestNoReaderOfTheFeedBefore(t *testing.T) {
	f := &coordinator.Feed{Name: "line3", Made: 70}
	st := &coordinator.State{Feeds: map[string]*coordinator.Feed{"line3": f}}
	k := newKeptFeeds(func(look func(*coordinator.State)) { look(st) }, nil)
	k.owns("line3", owned{made: 8})
	if r, err := k.Reader("line3", "door", nil, 0, 1); !errors.Is(err, feed.ErrNotOwner) {
		t.Errorf("%v, %v", r, err)
	}
}

func of(what jobmanager.What, name string) jobmanager.Changed {
	return jobmanager.Changed{Names: []jobmanager.Change{{What: what, Name: name}}}
}
