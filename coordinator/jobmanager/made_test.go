package jobmanager

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A shared feed that is deleted and made again is another one: the epochs of its log
// are above all that the first had, what copies have of those is cut off, and its
// lineage has nothing in common with that of the first.
func TestASharedFeedIsMadeAgain(t *testing.T) {
	a := south()
	a.Level = coordinator.SettledLevel
	create := func(index uint64) *coordinator.Feed {
		t.Helper()
		a.Index = index
		if err := a.feedCreated(&coordinator.Feed{Name: "line3", Config: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		return a.Feeds["line3"]
	}
	create(20)
	if err := a.logEpochBegun(&coordinator.LogEpochBegun{Feed: "line3", Term: 1, Log: coordinator.LogEpoch{Epoch: 1, Owner: "a", Members: []mesh.NodeID{"a"}}}); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
	begin(t, a, "line3", "a", 0)
	first := begin(t, a, "line3", "b", 300)
	if r := first.Log.Reign; first.Log.Epoch != 21 || r == nil || *r != (coordinator.Reign{Epoch: 20, Site: "south"}) || first.Log.Cut(19) != 0 || first.Log.Cut(20) != 300 {
		t.Errorf("%+v", first.Log)
	}
	if err := a.feedDeleted(&coordinator.FeedDeleted{Name: "line3"}); err != nil {
		t.Fatal(err)
	}
	create(90)
	f := begin(t, a, "line3", "a", 0)
	if f.Log.Epoch != 90 || f.Log.Cut(21) != 0 || f.Log.Cut(89) != 0 || *f.Log.Reign == *first.Log.Reign {
		t.Errorf("%+v", f.Log)
	}
	if begin(t, a, "line3", "b", 7); a.Feeds["line3"].Log.Epoch != 91 {
		t.Errorf("%+v", a.Feeds["line3"].Log)
	}
	a.Level = coordinator.GoesOnLevel // agents that do not know of it
	a.Feeds = map[string]*coordinator.Feed{}
	create(120)
	if f = begin(t, a, "line3", "a", 0); f.Made != 0 || f.Log.Epoch != 1 || f.Log.Reign != nil || f.Log.Forgotten != 0 {
		t.Errorf("%+v", f)
	}
}

// What was kept of a job stands in the feeds that it read, as they were: it does not in
// one that has the name since.
func TestWhatStandsInAFeedThatIsMadeAgain(t *testing.T) {
	a := south()
	a.Level, a.Index = coordinator.SettledLevel, 20
	a.Jobs, a.Names, a.Moves = map[coordinator.JobID]*coordinator.Job{}, map[string]coordinator.JobID{}, coordinator.NewMoves()
	a.Savepoints = map[string]*coordinator.Snapshot{}
	create := func() *coordinator.Feed {
		t.Helper()
		if err := a.feedCreated(&coordinator.Feed{Name: "line3", Config: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		return a.Feeds["line3"]
	}
	f := create()
	j := &coordinator.Job{ID: "j30-south", Status: coordinator.Running, Reads: []string{"line3"}, Epoch: 1, Attempt: 1}
	a.put(j)
	taken := func(name string, n uint64) *coordinator.Snapshot {
		return &coordinator.Snapshot{Name: name, Job: j.ID, ID: dataflow.CheckpointID{Token: j.Token("south"), Counter: n}, Stands: []coordinator.Stand{{Feed: "of another site"}}}
	}
	if err := a.checkpointDone(&coordinator.CheckpointDone{Attempt: 1, Checkpoint: taken("chk", 1), Savepoint: taken("sp", 1)}); err != nil {
		t.Fatal(err)
	}
	chk, sp := a.Jobs[j.ID].Newest(), a.Savepoints["sp"]
	if chk.Stands != nil || len(sp.Stands) != 1 || sp.Stands[0] != (coordinator.Stand{Feed: "line3", Made: 20}) {
		t.Errorf("%+v, %+v", chk.Stands, sp.Stands)
	}
	if moved, err := withCopies(sp, &coordinator.CopiesChanged{}); err != nil || len(moved.Stands) != 1 {
		t.Errorf("%v, %+v", err, moved)
	}
	looks := func(of, chks bool) {
		t.Helper()
		if a.StandsIn(sp, f) != of || a.StandsIn(chk, f) != chks {
			t.Errorf("the savepoint %t, the checkpoint %t", a.StandsIn(sp, f), a.StandsIn(chk, f))
		}
	}
	looks(true, true)
	ended := *a.Jobs[j.ID]
	ended.Status = coordinator.Stopped
	a.put(&ended)
	looks(true, true)
	if err := a.feedDeleted(&coordinator.FeedDeleted{Name: "line3"}); err != nil {
		t.Fatal(err)
	}
	a.Index = 90
	f = create()
	looks(false, false)
	again := *a.Jobs[j.ID]
	a.put(&again) // it has ended already: what it read was the feed of before
	looks(false, false)
	delete(a.Jobs, j.ID)
	looks(false, false)
	a.Level, a.Feeds = coordinator.GoesOnLevel, map[string]*coordinator.Feed{}
	f = create()
	looks(false, true) // nobody knows
}

// The feed of which another site has a mirror is made again: the mirror is made anew,
// and what is kept and stands in the log of before can be restored no more.
func TestTheSourceOfAMirrorIsMadeAgain(t *testing.T) {
	a, name := south(), "line3.at.north"
	a.Level, a.Index = coordinator.SettledLevel, 40
	a.Jobs, a.Moves = map[coordinator.JobID]*coordinator.Job{}, coordinator.NewMoves()
	of := coordinator.Mirror{Site: "north", Feed: "line3"}
	lineage := func(made uint64) []coordinator.Reign { return []coordinator.Reign{{Epoch: made, Site: "north"}} }
	like := func(config string) *coordinator.Feed { return &coordinator.Feed{Config: []byte(config)} }
	job := func(id coordinator.JobID, made uint64) coordinator.MovingJob {
		return coordinator.MovingJob{ID: id, Reads: []string{"line3"}, Feeds: []coordinator.MovingFeed{{Name: "line3", Lineage: lineage(made)}}}
	}
	snapshot := func(id coordinator.JobID, name string) *coordinator.Snapshot {
		return &coordinator.Snapshot{Name: name, Job: id}
	}
	if err := a.mirror(name, of, lineage(9), like("{}")); err != nil {
		t.Fatal(err)
	}
	begin(t, a, name, "a", 0)
	begin(t, a, name, "a", 300)
	old := &coordinator.Replica{Job: job("j12-north", 9), From: "north", Epoch: 1, Snapshot: snapshot("j12-north", "one"), Next: snapshot("j12-north", "two")}
	a.Replicas = map[coordinator.JobID]*coordinator.Replica{"j12-north": old, "j70-north": {Job: job("j70-north", 60), From: "north", Epoch: 1, Next: snapshot("j70-north", "two")}}

	reader := &coordinator.Job{ID: "j30-south", Status: coordinator.Running, Reads: []string{name}}
	a.Jobs[reader.ID] = reader
	a.Index = 80
	if err := a.mirror(name, of, lineage(60), like("[]")); !errors.Is(err, ErrRefused) {
		t.Errorf("a job of this site reads the log of before: %v", err)
	}
	a.Jobs[reader.ID] = &coordinator.Job{ID: reader.ID, Status: coordinator.Stopped, Reads: reader.Reads}
	coming := &coordinator.Arrival{ID: "m50-north", Job: job("j13-north", 9), From: "north", Phase: coordinator.ArrivalPrepared}
	coming.Job.Feeds[0].Stay = true
	a.Moves.Arrivals[coming.ID] = coming
	if err := a.mirror(name, of, lineage(60), like("[]")); !errors.Is(err, ErrRefused) {
		t.Errorf("a job that reads the log of before is on its way here: %v", err)
	}
	delete(a.Moves.Arrivals, coming.ID)

	for range 2 {
		if err := a.mirror(name, of, lineage(60), like("[]")); err != nil {
			t.Fatal(err)
		}
	}
	f := a.Feeds[name]
	if f.Made != 80 || f.Log.Epoch != 0 || *f.Mirror != of || f.Fork != nil || string(f.Config) != "[]" {
		t.Errorf("%+v", f)
	}
	if f = begin(t, a, name, "a", 0); f.Log.Epoch != 80 || *f.Log.Reign != lineage(60)[0] || f.Log.Cut(41) != 0 {
		t.Errorf("%+v", f.Log)
	}
	if r := a.Replicas["j12-north"]; r.Restorable() != nil || !r.Cut || r.Next != nil {
		t.Errorf("%+v", r)
	}
	if r := a.Replicas["j70-north"]; r.Cut || r.Next == nil {
		t.Errorf("%+v", r)
	}
	a.Replicas["j12-north"] = old // what was said of it is late
	ends := []coordinator.FeedEnd{{Feed: "line3", End: 300}}
	if err := a.replicaAdvanced(&coordinator.ReplicaAdvanced{Job: "j12-north", From: "north", Epoch: 1, Name: "two", Ends: ends}); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
	if err := a.replicaAdvanced(&coordinator.ReplicaAdvanced{Job: "j70-north", From: "north", Epoch: 1, Name: "two", Ends: ends}); err != nil {
		t.Error(err)
	}
	if err := a.mirror(name, of, lineage(9), like("{}")); !errors.Is(err, ErrStale) || a.Feeds[name].Made != 80 {
		t.Errorf("the feed of before: %v", err)
	}
}
