package jobmanager

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// south is a site that has copies of north's feeds.
func south() *apply {
	return &apply{c: &coordinator.Command{Level: coordinator.SitesLevel}, State: &coordinator.State{Site: "south", Level: coordinator.SitesLevel, Term: 1,
		Agents: map[mesh.NodeID]*coordinator.Agent{"a": {}, "b": {}}, Feeds: map[string]*coordinator.Feed{}}}
}

func begin(t *testing.T, a *apply, feed string, owner mesh.NodeID, start int64) *coordinator.Feed {
	t.Helper()
	err := a.logEpochBegun(&coordinator.LogEpochBegun{Feed: feed, Term: 1,
		Log: coordinator.LogEpoch{Epoch: a.Feeds[feed].NextEpoch(), Owner: owner, Members: []mesh.NodeID{"a", "b"}, Start: start}})
	if err != nil {
		t.Fatal(err)
	}
	return a.Feeds[feed]
}

// A feed comes as a mirror, becomes this site's, goes back, and comes again.
func TestAMirrorsLife(t *testing.T) {
	a, name := south(), "j7-north.in"
	of := coordinator.Mirror{Site: "north", Feed: name}
	lineage := []coordinator.Reign{{Epoch: 1, Site: "north"}}
	like := &coordinator.Feed{Job: "j7-north", Config: []byte("{}"), Replicas: 2}
	for range 2 {
		if err := a.mirror(name, of, lineage, like); err != nil {
			t.Fatal(err)
		}
	}
	f := begin(t, a, name, "a", 0)
	if *f.Log.Mirror != of || *f.Log.Reign != lineage[0] || f.Turned() || f.Job != "j7-north" {
		t.Errorf("%+v", f)
	}
	begin(t, a, name, "b", 400)
	for range 2 {
		if err := a.own(name, 2); err != nil {
			t.Fatal(err)
		}
	}
	if f = a.Feeds[name]; !f.Turned() {
		t.Errorf("%+v", f)
	}
	f = begin(t, a, name, "a", 450)
	if want := append(slices.Clone(lineage), coordinator.Reign{Epoch: 2, Site: "south", Start: 450}); f.Log.Mirror != nil || f.Turned() || !reflect.DeepEqual(f.Lineage, want) || *f.Log.Reign != want[1] {
		t.Errorf("%+v", f)
	}
	if err := a.own(name, 2); err != nil {
		t.Error(err)
	}
	begin(t, a, name, "b", 900)

	// North took it back by force, with less than this site has by now.
	if err := a.mirror(name, of, lineage, nil); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
	if err := a.mirror(name, of, append(lineage, coordinator.Reign{Epoch: 2, Site: "west", Start: 100}), nil); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	back := append(slices.Clone(f.Lineage), coordinator.Reign{Epoch: 3, Site: "north", Start: 700})
	if err := a.mirror(name, of, back, nil); err != nil {
		t.Fatal(err)
	}
	if f = a.Feeds[name]; f.Fork == nil || f.Fork.At != 700 || !f.Turned() {
		t.Fatalf("%+v", f)
	}
	err := a.logEpochBegun(&coordinator.LogEpochBegun{Feed: name, Term: 1, Log: coordinator.LogEpoch{Epoch: f.Log.Epoch + 1, Owner: "b", Members: []mesh.NodeID{"b"}, Start: 900}})
	if !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	f = begin(t, a, name, "b", 700)
	if f.Fork != nil || f.Turned() || *f.Log.Reign != back[2] || !slices.Equal(f.Log.Starts, []int64{0, 400, 450, 700, 700}) {
		t.Errorf("%+v", f)
	}
	a.Replicas = map[coordinator.JobID]*coordinator.Replica{"j7-north": {From: "north", Job: coordinator.MovingJob{ID: "j7-north", Feeds: []coordinator.MovingFeed{{Name: name}, {Name: "plant"}}}}}
	if err := a.feedDeleted(&coordinator.FeedDeleted{Name: name}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if err := a.mirror("plant.at.north", coordinator.Mirror{Site: "north", Feed: "plant"}, lineage, &coordinator.Feed{}); err != nil {
		t.Error(err)
	}
	if err := a.feedDeleted(&coordinator.FeedDeleted{Name: "plant.at.north"}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if a.dropFeeds(); a.Feeds[name] == nil {
		t.Error("a mirror of a job of which something is kept was dropped")
	}
	a.Replicas = nil
	if a.dropFeeds(); a.Feeds[name] != nil {
		t.Error("a mirror for nothing stays")
	}
	if err := a.feedDeleted(&coordinator.FeedDeleted{Name: "plant.at.north"}); err != nil {
		t.Error(err)
	}
}

// A mirror that began anew has less than where its epoch starts, and goes on with that
// where all agents know it; a feed with a session does not.
func TestAMirrorBeginsBeforeItsStart(t *testing.T) {
	for level, goesOn := range map[uint32]bool{coordinator.GoesOnLevel: false, coordinator.SettledLevel: true} {
		a, name := south(), "j7-north.in"
		a.Level = level
		if err := a.mirror(name, coordinator.Mirror{Site: "north", Feed: name}, []coordinator.Reign{{Epoch: 1, Site: "north"}}, &coordinator.Feed{Job: "j7-north"}); err != nil {
			t.Fatal(err)
		}
		begin(t, a, name, "a", 0)
		begin(t, a, name, "a", 500)
		next := func(owner mesh.NodeID, start int64) error {
			return a.logEpochBegun(&coordinator.LogEpochBegun{Feed: name, Term: 1, Log: coordinator.LogEpoch{Epoch: a.Feeds[name].Log.Epoch + 1, Owner: owner, Members: []mesh.NodeID{owner}, Start: start}})
		}
		a.Agents["c"] = &coordinator.Agent{}
		if err := next("c", 20); !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: who was no member: %v", level, err)
		}
		if err := next("a", 20); (err == nil) != goesOn || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: %v", level, err)
		}
		if f := a.Feeds[name]; goesOn && !slices.Equal(f.Log.Starts, []int64{0, 20, 20}) {
			t.Errorf("%+v", f.Log)
		}
		if goesOn {
			if err := a.own(name, 2); err != nil {
				t.Fatal(err)
			}
			if err := next("a", 30); err != nil {
				t.Fatal(err)
			}
			if err := next("a", 29); !errors.Is(err, ErrRefused) {
				t.Errorf("one with a session: %v", err)
			}
		}
	}
}

func TestMirrorsThatAreRefused(t *testing.T) {
	a := south()
	one := []coordinator.Reign{{Epoch: 1, Site: "north"}}
	for name, c := range map[string]struct {
		of      coordinator.Mirror
		lineage []coordinator.Reign
		like    *coordinator.Feed
		want    error
	}{
		"of itself":        {coordinator.Mirror{Site: "south", Feed: "f"}, one, &coordinator.Feed{}, ErrRefused},
		"of nothing":       {coordinator.Mirror{Site: "north"}, one, &coordinator.Feed{}, ErrRefused},
		"without lineage":  {coordinator.Mirror{Site: "north", Feed: "f"}, nil, &coordinator.Feed{}, ErrRefused},
		"lineage backward": {coordinator.Mirror{Site: "north", Feed: "f"}, []coordinator.Reign{{Epoch: 2, Site: "x"}, {Epoch: 1, Site: "y"}}, &coordinator.Feed{}, ErrRefused},
		"not there":        {coordinator.Mirror{Site: "north", Feed: "f"}, one, nil, ErrUnknown},
	} {
		if err := a.mirror("f", c.of, c.lineage, c.like); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.own("f", 1); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	// A feed of this site was its own from the first.
	a.Feeds["f"] = &coordinator.Feed{Name: "f"}
	if err := a.own("f", 1); err != nil || a.Feeds["f"].Reigns != 0 {
		t.Error(err, a.Feeds["f"])
	}
	if err := a.mirror("f", coordinator.Mirror{Site: "north", Feed: "f"}, []coordinator.Reign{{Epoch: 1, Site: "south"}, {Epoch: 2, Site: "north", Start: 5}}, nil); err != nil {
		t.Error(err)
	}
	if err := a.own("f", 2); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
}

// A mirror that nobody of the site has begins anew on any agent, where all know that, and
// its job is not taken before that has been done. A feed with a session does not.
func TestAMirrorThatNobodyHasBeginsAnew(t *testing.T) {
	for level, goesOn := range map[uint32]bool{coordinator.GoesOnLevel: false, coordinator.SettledLevel: true} {
		a, name := south(), "j7-north.in"
		a.Level = level
		if err := a.mirror(name, coordinator.Mirror{Site: "north", Feed: name}, []coordinator.Reign{{Epoch: 1, Site: "north"}}, &coordinator.Feed{Job: "j7-north"}); err != nil {
			t.Fatal(err)
		}
		begin(t, a, name, "a", 0)
		begin(t, a, name, "a", 500)
		a.Agents["c"] = &coordinator.Agent{}
		next := func(owner mesh.NodeID, start int64) error {
			return a.logEpochBegun(&coordinator.LogEpochBegun{Feed: name, Term: 1, Log: coordinator.LogEpoch{Epoch: a.Feeds[name].Log.Epoch + 1, Owner: owner, Members: []mesh.NodeID{owner}, Start: start}})
		}
		r := &coordinator.Replica{From: "north", Job: coordinator.MovingJob{ID: "j7-north", Feeds: []coordinator.MovingFeed{{Name: name}}}}
		if err := next("c", 0); !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: somebody has it: %v", level, err)
		}
		if err := a.checkTakenFeed(r, &r.Job.Feeds[0], &coordinator.JobFailedOver{Epoch: 2}); err != nil {
			t.Error(err)
		}
		for node := range a.Agents {
			if node != "c" {
				delete(a.Agents, node)
			}
		}
		if err := a.checkTakenFeed(r, &r.Job.Feeds[0], &coordinator.JobFailedOver{Epoch: 2}); (err != nil) != goesOn || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: it is taken before its log has begun anew: %v", level, err)
		}
		if err := next("c", 1); !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: not from the beginning: %v", level, err)
		}
		had := *a.Feeds[name]
		session := had
		session.Mirror = nil
		a.Feeds[name] = &session
		if err := next("c", 0); !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: it is to have a session: %v", level, err)
		}
		a.Feeds[name] = &had
		if err := next("c", 0); (err == nil) != goesOn || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: %v", level, err)
		}
		if f := a.Feeds[name]; goesOn && (!slices.Equal(f.Log.Starts, []int64{0, 0, 0}) || len(f.Log.Heirs) > 0 || f.Log.Mirror == nil) {
			t.Errorf("%+v", f.Log)
		}
		if err := a.checkTakenFeed(r, &r.Job.Feeds[0], &coordinator.JobFailedOver{Epoch: 2}); err != nil {
			t.Error(err)
		}
	}
}

// All members of a mirror have left the site, and one is there that was a member before: it
// owns the log with what it has. Not while a member is there, and not below feature level 6
// with less than the log had.
func TestAMirrorOfWhichOnlyAnHeirIsLeft(t *testing.T) {
	for level, goesOn := range map[uint32]bool{coordinator.GoesOnLevel: false, coordinator.SettledLevel: true} {
		a, name := south(), "j7-north.in"
		a.Level = level
		for _, node := range []mesh.NodeID{"a", "b", "c"} {
			a.Agents[node] = &coordinator.Agent{}
		}
		if err := a.mirror(name, coordinator.Mirror{Site: "north", Feed: name}, []coordinator.Reign{{Epoch: 1, Site: "north"}}, &coordinator.Feed{Job: "j7-north"}); err != nil {
			t.Fatal(err)
		}
		next := func(start int64, members ...mesh.NodeID) error {
			return a.logEpochBegun(&coordinator.LogEpochBegun{Feed: name, Term: 1, Log: coordinator.LogEpoch{Epoch: a.Feeds[name].NextEpoch(), Owner: members[0], Members: members, Start: start}})
		}
		for _, err := range []error{next(0, "a", "b"), next(300, "a", "b"), next(500, "a", "c")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		delete(a.Agents, "a")
		if err := next(20, "b"); !errors.Is(err, ErrRefused) {
			t.Errorf("level %d: a member is there: %v", level, err)
		}
		delete(a.Agents, "c")
		before := *a.Feeds[name]
		for start, want := range map[int64]bool{20: goesOn, 400: true, 501: false} {
			had := before
			a.Feeds[name] = &had
			if err := next(start, "b"); (err == nil) != want || err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("level %d, from %d: %v", level, start, err)
			}
			if log := a.Feeds[name].Log; want && slices.ContainsFunc(log.Starts, func(s int64) bool { return s > start }) {
				t.Errorf("%+v", log)
			}
		}
	}
}
