package leader_test

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// keeping is a site of one agent that keeps a job of another one: all parts of Next are
// here, and its source stands somewhere in the lanes of the log.
type keeping struct {
	*leader.Leader
	st  *coordinator.State
	now dataflow.Time
}

func newKeeping(t *testing.T, at ...int64) *keeping {
	t.Helper()
	var positions []manifest.Position
	for i, offset := range at {
		positions = append(positions, manifest.Position{Split: fmt.Sprintf("lane-%d", i), Offset: offset})
	}
	id := dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "a", Attempt: 1}, Counter: 7}
	data, err := manifest.Encode(manifest.Manifest{Kind: manifest.Checkpoint, Name: "c7", Job: "kept", ID: id, MaxParallelism: 8, Mode: "exactly-once",
		Operators: []manifest.Operator{{ID: "in", Parallelism: 1, Positions: positions}}})
	if err != nil {
		t.Fatal(err)
	}
	agent := &coordinator.Agent{Node: "b1", Name: "b1", Slots: 1, Level: coordinator.Level}
	of := &coordinator.Mirror{Site: "a", Feed: "j6-a.in"}
	k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "b1", Mesh: "m", Site: "b", Level: coordinator.Level, Moves: coordinator.NewMoves(),
		Agents: map[mesh.NodeID]*coordinator.Agent{"b1": agent},
		Feeds: map[string]*coordinator.Feed{"j6-a.in": {Name: "j6-a.in", Job: "j6-a", Replicas: 1, Mirror: of,
			Log: coordinator.LogEpoch{Epoch: 2, Owner: "b1", Members: []mesh.NodeID{"b1"}, Starts: []int64{0, 0}, Mirror: of}, Config: fmt.Appendf(nil, `{"lanes":%d}`, len(at))}},
		Replicas: map[coordinator.JobID]*coordinator.Replica{"j6-a": {From: "a", Epoch: 1,
			Job:  coordinator.MovingJob{ID: "j6-a", Name: "kept", Spec: []byte(jobs["kept"]), Feeds: []coordinator.MovingFeed{{Name: "j6-a.in"}}},
			Next: &coordinator.Snapshot{Name: "c7", Job: "j6-a", ID: id, Manifest: data, Copies: []coordinator.PartCopies{{Part: store.Digest{1}, Nodes: []mesh.NodeID{"b1"}}}}}},
	}}
	k.Leader = leader.New(leader.Config{Term: 1, Self: "b1", Site: "b", Level: coordinator.Level, Timing: leader.DefaultTiming()})
	k.step(leader.Event{Sites: &[]mesh.Site{"a"}})
	k.hears(coordinator.ToLeader{Hello: &coordinator.Hello{Agent: *agent, Boot: 1, Applied: 9, Logs: []coordinator.LogNow{{Feed: "j6-a.in", Epoch: 2, InSync: true}}}})
	return k
}

func (k *keeping) step(e leader.Event) []leader.Effect {
	k.now += 100 * ms
	e.Now = k.now
	return k.Step(k.st, jobmanager.Changed{}, e)
}

func (k *keeping) hears(m coordinator.ToLeader) []leader.Effect {
	effects := k.step(leader.Event{From: &leader.From{Node: "b1", Message: m}})
	return append(effects[:len(effects):len(effects)], k.step(leader.Event{})...)
}

// What is fetched counts when the log is here to where the job stands in it, lane by
// lane, in all copies of this epoch of the mirror, and from there on.
func TestReplicaNeedsItsLogs(t *testing.T) {
	at := func(all ...int64) (lanes []coordinator.LaneAt) { // first and next of each
		for i := 0; i < len(all); i += 2 {
			lanes = append(lanes, coordinator.LaneAt{First: all[i], Next: all[i+1]})
		}
		return lanes
	}
	for name, c := range map[string]struct {
		log  coordinator.LogStatus
		want bool
	}{
		"all":                       {coordinator.LogStatus{Epoch: 2, First: 900, Shown: 800, Lanes: at(500, 500, 300, 300)}, true},
		"an entry is missing":       {coordinator.LogStatus{Epoch: 2, Shown: 799, Lanes: at(0, 499, 0, 300)}, false},
		"of another lane":           {coordinator.LogStatus{Epoch: 2, Shown: 799, Lanes: at(0, 500, 0, 299)}, false},
		"only over all lanes":       {coordinator.LogStatus{Epoch: 2, Shown: 700, Lanes: at(0, 400, 0, 300)}, false},
		"on the owner's disk only":  {coordinator.LogStatus{Epoch: 2, End: 900, Shown: 700, Lanes: at(0, 400, 0, 300)}, false},
		"of an epoch before":        {coordinator.LogStatus{Epoch: 1, Shown: 900, Lanes: at(0, 600, 0, 300)}, false},
		"it begins behind that":     {coordinator.LogStatus{Epoch: 2, First: 501, Shown: 900, Lanes: at(501, 600, 0, 300)}, false},
		"a lane begins behind that": {coordinator.LogStatus{Epoch: 2, First: 301, Shown: 900, Lanes: at(0, 600, 301, 301)}, false},
		"it has begun anew":         {coordinator.LogStatus{Epoch: 2, Lanes: at(0, 0, 0, 0)}, false},
		"lanes are not known":       {coordinator.LogStatus{Epoch: 2, Shown: 900}, false},
		"of another feed":           {coordinator.LogStatus{Epoch: 2, Shown: 900, Feed: "other", Lanes: at(0, 500, 0, 300)}, false},
	} {
		k := newKeeping(t, 500, 300)
		if c.log.Feed == "" {
			c.log.Feed = "j6-a.in"
		}
		c.log.Of = &coordinator.MirrorOf{End: 700}
		advanced := false
		for _, f := range k.hears(coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: 1, Logs: []coordinator.LogStatus{c.log}}}) {
			if f.Propose != nil && f.Propose.Command.ReplicaAdvanced != nil {
				adv := f.Propose.Command.ReplicaAdvanced
				advanced = adv.Name == "c7" && len(adv.Ends) == 1 && adv.Ends[0] == coordinator.FeedEnd{Feed: "j6-a.in", End: c.log.Shown}
			}
		}
		if advanced != c.want {
			t.Errorf("%s: advanced: %t", name, advanced)
		}
	}
}

// A log may begin anew when what is kept of its job was complete: a failover says so
// before it is done.
func TestFailoverSaysWhatLogsLack(t *testing.T) {
	at := func(all ...int64) []coordinator.LaneAt {
		return []coordinator.LaneAt{{First: all[0], Next: all[1]}, {First: all[2], Next: all[3]}}
	}
	for name, c := range map[string]struct {
		lanes []coordinator.LaneAt
		want  string
	}{
		"all":               {at(500, 500, 0, 300), ""},
		"not known":         {nil, ""},
		"it is empty":       {at(0, 0, 0, 0), "the log of feed j6-a.in ends at 0 in lane 0 here, and the job would go on from 500"},
		"it has not come":   {at(0, 500, 0, 299), "the log of feed j6-a.in ends at 299 in lane 1 here, and the job would go on from 300"},
		"it begins later":   {at(501, 900, 0, 300), "the log of feed j6-a.in begins at 501 in lane 0 here, and the job would go on from 500"},
		"in the other lane": {at(0, 900, 301, 400), "the log of feed j6-a.in begins at 301 in lane 1 here, and the job would go on from 300"},
	} {
		k := newKeeping(t, 500, 300)
		r := *k.st.Replicas["j6-a"]
		r.Snapshot, r.Next = r.Next, nil
		k.st.Replicas["j6-a"] = &r
		k.hears(coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: 1, Logs: []coordinator.LogStatus{{Feed: "j6-a.in", Epoch: 2, Lanes: c.lanes, Of: &coordinator.MirrorOf{End: 900}}}}})
		k.step(leader.Event{Sites: &[]mesh.Site{}})
		said := "nothing"
		for _, f := range k.step(leader.Event{Wish: &leader.Wish{Failover: &leader.Failover{Job: "j6-a", Dry: true}}}) {
			if f.Answer != nil && f.Answer.FailedOver != nil {
				said = f.Answer.FailedOver.Gap
				if needs := f.Answer.FailedOver.Needs; (needs != nil) != (c.want != "") {
					t.Errorf("%s: it needs force: %v", name, needs)
				}
			}
		}
		if said != c.want {
			t.Errorf("%s: %s", name, said)
		}
	}
}

// What an agent said of its copy of a log does not count any more when it has left the
// site: nobody has that copy.
func TestACopyThatLeftDoesNotCount(t *testing.T) {
	k := newKeeping(t, 500)
	r, f := *k.st.Replicas["j6-a"], *k.st.Feeds["j6-a.in"]
	r.Snapshot, r.Next = r.Next, nil
	f.Log.Owner, f.Log.Members = "b2", []mesh.NodeID{"b2"}
	b2 := *k.st.Agents["b1"]
	b2.Node, b2.Name = "b2", "b2"
	k.st.Replicas["j6-a"], k.st.Feeds["j6-a.in"], k.st.Agents["b2"] = &r, &f, &b2
	said := func(c jobmanager.Changed) (gap string, lag int64, began *coordinator.LogEpoch) {
		k.now += 100 * ms
		for _, e := range k.Step(k.st, c, leader.Event{Now: k.now, Wish: &leader.Wish{Failover: &leader.Failover{Job: "j6-a", Dry: true}}}) {
			if e.Answer != nil && e.Answer.FailedOver != nil {
				gap, lag = e.Answer.FailedOver.Gap, e.Answer.FailedOver.Lag.Rows
			}
			if e.Propose != nil && e.Propose.Command.LogEpochBegun != nil {
				began = &e.Propose.Command.LogEpochBegun.Log
			}
		}
		return gap, lag, began
	}
	hears := func(m coordinator.ToLeader) {
		k.step(leader.Event{From: &leader.From{Node: "b2", Message: m}})
		k.step(leader.Event{})
	}
	said(jobmanager.Changed{All: true})
	hears(coordinator.ToLeader{Hello: &coordinator.Hello{Agent: b2, Boot: 1, Applied: 9, Logs: []coordinator.LogNow{{Feed: "j6-a.in", Epoch: 2, End: 500, InSync: true}}}})
	hears(coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: 1, Logs: []coordinator.LogStatus{{Feed: "j6-a.in", Epoch: 2, Shown: 500, Lanes: []coordinator.LaneAt{{Next: 500}}, Of: &coordinator.MirrorOf{End: 900}}}}})
	k.step(leader.Event{Sites: &[]mesh.Site{}})
	if gap, lag, began := said(jobmanager.Changed{}); gap != "" || lag != 400 || began != nil {
		t.Fatalf("while it is there: %q, %d, %+v", gap, lag, began)
	}
	delete(k.st.Agents, "b2")
	gap, lag, began := said(jobmanager.Changed{Names: []jobmanager.Change{{What: jobmanager.Agent, Name: "b2"}}})
	if gap != "no agent that has the log of feed j6-a.in is here" || lag != 0 {
		t.Errorf("%q, %d", gap, lag)
	}
	if began == nil {
		_, _, began = said(jobmanager.Changed{})
	}
	if began == nil || began.Epoch != 3 || began.Owner != "b1" || began.Start != 0 || len(began.Members) != 1 {
		t.Errorf("begun: %+v", began)
	}
}

// A leader that hears which sites are reached before it leads, as it does, asks them
// what is to be kept when it leads, though nothing of theirs is kept yet.
func TestAsksSitesSeenBefore(t *testing.T) {
	st := &coordinator.State{Index: 9, Mesh: "m", Site: "b", Level: coordinator.Level, Moves: coordinator.NewMoves()}
	l := leader.New(leader.Config{Term: 1, Self: "b1", Site: "b", Level: coordinator.Level, Timing: leader.DefaultTiming()})
	l.Step(st, jobmanager.Changed{}, leader.Event{Now: 1000 * ms, Sites: &[]mesh.Site{"a"}})
	st.Term, st.Leader, st.Index = 1, "b1", 10
	for _, f := range l.Step(st, jobmanager.Changed{}, leader.Event{Now: 1100 * ms}) {
		if f.Ask != nil && f.Ask.Site == "a" {
			return
		}
	}
	t.Error("it asks nobody")
}

// Only the site that a job goes to says that it is prepared.
func TestAThirdSiteIsNotTheTarget(t *testing.T) {
	id := dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "a", Attempt: 1}, Counter: 7}
	sp := &coordinator.Snapshot{Name: "sp", Job: "j6-a", ID: id}
	moves := coordinator.NewMoves()
	moves.Departures["m8-a"] = &coordinator.Departure{ID: "m8-a", Job: "j6-a", To: "b", Epoch: 1, Phase: coordinator.DepartureOffered, Savepoint: "sp"}
	k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: moves,
		Agents:     map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
		Jobs:       map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "kept", Spec: []byte(jobs["kept"]), Epoch: 1, Status: coordinator.Suspended, Move: "m8-a", Savepoint: "sp"}},
		Savepoints: map[string]*coordinator.Snapshot{"sp": sp},
	}}
	k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
	k.step(leader.Event{Sites: &[]mesh.Site{"b", "c"}})
	if k.prepared("c") {
		t.Error("site c says so, and the job is handed over to b")
	}
	if !k.prepared("b") {
		t.Error("site b says so, and the job is not handed over")
	}
}

// prepared tells whether a job is handed over because a site says that it has all.
func (k *keeping) prepared(site mesh.Site) (over bool) {
	m := &coordinator.ToSource{Move: "m8-a", Prepared: &coordinator.MovePrepared{Savepoint: "sp"}}
	for _, f := range k.step(leader.Event{FromSite: &leader.FromSite{Site: site, ToSource: m}}) {
		if f.Propose != nil && f.Propose.Command.Move != nil && f.Propose.Command.Move.Decided != nil {
			over = f.Propose.Command.Move.Decided.HandedOver
		}
	}
	return over
}

// A move that was begun before this leader led is told to be in other hands; one that it
// sees begin is not.
func TestAMoveInOtherHands(t *testing.T) {
	for id, want := range map[coordinator.MoveID]bool{"m8-a": true, "m10-a": false} {
		k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "a1", Mesh: "m", Site: "a", Level: coordinator.Level, Moves: coordinator.NewMoves(),
			Agents: map[mesh.NodeID]*coordinator.Agent{"a1": {Node: "a1", Name: "a1", Slots: 1, Level: coordinator.Level}},
			Jobs:   map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "files", Spec: []byte(jobs["files"]), Epoch: 1, Status: coordinator.Created}},
		}}
		k.Leader = leader.New(leader.Config{Term: 1, Self: "a1", Site: "a", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
		k.step(leader.Event{})
		k.st.Moves.Departures[id] = &coordinator.Departure{ID: id, Job: "j6-a", To: "b", Epoch: 1, Phase: coordinator.DepartureCopying}
		k.now += 100 * ms
		told := false
		for _, f := range k.Step(k.st, jobmanager.Changed{Names: []jobmanager.Change{{What: jobmanager.Move, Name: string(id)}}}, leader.Event{Now: k.now}) {
			told = told || f.Moving != nil && f.Moving.Anew
		}
		if told != want {
			t.Errorf("%s: told: %t", id, told)
		}
	}
}

// An agent that knows no better says where the log is over all lanes: of one lane that
// is the same.
func TestReplicaOfOneLane(t *testing.T) {
	for shown, want := range map[int64]bool{499: false, 500: true} {
		k := newKeeping(t, 500)
		log := coordinator.LogStatus{Feed: "j6-a.in", Epoch: 2, First: 500, Shown: shown, Of: &coordinator.MirrorOf{End: 700}}
		advanced := false
		for _, f := range k.hears(coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: 1, Logs: []coordinator.LogStatus{log}}}) {
			advanced = advanced || f.Propose != nil && f.Propose.Command.ReplicaAdvanced != nil
		}
		if advanced != want {
			t.Errorf("%d: advanced: %t", shown, advanced)
		}
	}
}

// Of two sources of a job that read one feed the log must reach the one that is ahead,
// and must not begin behind the other, in whatever order they stand in the manifest.
func TestReplicaOfTwoSources(t *testing.T) {
	const spec = `
name: kept
replicate_to: [b]
checkpoint: {interval: 2s}
sources:
  x: {feed: line3, format: json, fields: {id: bigint}, event_time: ingestion}
  y: {feed: line3, format: json, fields: {id: bigint}, event_time: ingestion}
sinks:
  - {id: out, from: x, file: {path: out.jsonl}}
  - {id: more, from: y, file: {path: more.jsonl}}
`
	id := dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "a", Attempt: 1}, Counter: 8}
	of := &coordinator.Mirror{Site: "a", Feed: "line3"}
	for _, order := range [][]int64{{900, 300}, {300, 900}} {
		for _, c := range []struct {
			lane coordinator.LaneAt
			want bool
		}{{coordinator.LaneAt{Next: 899}, false}, {coordinator.LaneAt{First: 301, Next: 900}, false}, {coordinator.LaneAt{First: 300, Next: 900}, true}} {
			k := newKeeping(t, 0)
			m := manifest.Manifest{Kind: manifest.Checkpoint, Name: "c8", Job: "kept", ID: id, MaxParallelism: 8, Mode: "exactly-once"}
			for i, offset := range order {
				m.Operators = append(m.Operators, manifest.Operator{ID: dataflow.OperatorID("xy"[i : i+1]), Parallelism: 1, Positions: []manifest.Position{{Split: "lane-0", Offset: offset}}})
			}
			data, err := manifest.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			k.st.Feeds["line3.at.a"] = &coordinator.Feed{Name: "line3.at.a", Replicas: 1, Mirror: of, Config: []byte(`{"lanes":1}`),
				Log: coordinator.LogEpoch{Epoch: 1, Owner: "b1", Members: []mesh.NodeID{"b1"}, Starts: []int64{0}, Mirror: of}}
			k.st.Replicas["j6-a"] = &coordinator.Replica{From: "a", Epoch: 1,
				Job:  coordinator.MovingJob{ID: "j6-a", Name: "kept", Spec: []byte(spec), Reads: []string{"line3"}, Feeds: []coordinator.MovingFeed{{Name: "line3"}}},
				Next: &coordinator.Snapshot{Name: "c8", Job: "j6-a", ID: id, Manifest: data, Copies: []coordinator.PartCopies{{Part: store.Digest{1}, Nodes: []mesh.NodeID{"b1"}}}}}
			k.Step(k.st, jobmanager.Changed{All: true}, leader.Event{Now: k.now})
			log := coordinator.LogStatus{Feed: "line3.at.a", Epoch: 1, Shown: 900, Lanes: []coordinator.LaneAt{c.lane}, Of: &coordinator.MirrorOf{End: 900}}
			advanced := false
			for _, f := range k.hears(coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: 1, Logs: []coordinator.LogStatus{log}}}) {
				advanced = advanced || f.Propose != nil && f.Propose.Command.ReplicaAdvanced != nil
			}
			if advanced != c.want {
				t.Errorf("x and y at %d, the log %+v: advanced: %t", order, c.lane, advanced)
			}
		}
	}
}

// An agent that was asked for parts before a replica was dropped, and says that it has
// them when the same checkpoint is kept once more, may have let them go meanwhile.
func TestFetchedBeforeItWasDropped(t *testing.T) {
	for _, c := range []*coordinator.Command{
		nil,
		{ReplicaDropped: &coordinator.ReplicaDropped{Job: "j6-a", From: "a", Epoch: 1}},
		{ReplicaOffered: &coordinator.ReplicaOffered{Job: coordinator.MovingJob{ID: "j6-a"}, From: "a", Epoch: 2}},
	} {
		dropped := c != nil
		k := newKeeping(t, 0)
		next := *k.st.Replicas["j6-a"].Next
		next.Copies = []coordinator.PartCopies{{Part: store.Digest{1}, Nodes: []mesh.NodeID{}}}
		again := *k.st.Replicas["j6-a"]
		again.Next = &next
		k.st.Replicas["j6-a"] = &again
		k.Step(k.st, jobmanager.Changed{All: true}, leader.Event{Now: k.now})
		where := coordinator.OfferedJob{Job: "j6-a", Epoch: 1, Copies: []coordinator.PartCopies{{Part: store.Digest{1}, Nodes: []mesh.NodeID{"a1"}}}}
		effects := k.step(leader.Event{Offered: &leader.Offered{Site: "a", Offer: &coordinator.Offer{Site: "a", Index: 5, Jobs: []coordinator.OfferedJob{where}}}})
		var order *coordinator.Copy
		for _, f := range append(effects[:len(effects):len(effects)], k.step(leader.Event{})...) {
			if f.Send != nil && f.Send.Message.Copy != nil {
				order = f.Send.Message.Copy
			}
		}
		if order == nil {
			t.Fatal("nobody is asked for the part")
		}
		if dropped {
			k.step(leader.Event{Applied: &leader.Applied{Index: 10, Command: c}})
		}
		counts, asked := false, false
		for _, f := range k.hears(coordinator.ToLeader{Copied: &coordinator.Copied{Order: order.Order, Name: "c7", Job: "j6-a", Parts: []store.Digest{{1}}}}) {
			counts = counts || f.Propose != nil && f.Propose.Command.CopiesChanged != nil
			asked = asked || f.Send != nil && f.Send.Message.Copy != nil
		}
		if counts == dropped || asked != dropped {
			t.Errorf("behind %+v: it counts %t, asked again %t", c, counts, asked)
		}
	}
}

// Where a shared feed was taken along with another job, what is kept of a job that reads it
// goes when its site says again that it has the job: not by what it said before.
func TestAJobOutlivesATakenFeed(t *testing.T) {
	taken := &coordinator.Feed{Name: "line.at.a", Replicas: 1, Config: []byte(`{"lanes":1}`), Lineage: []coordinator.Reign{{Epoch: 1, Site: "a"}, {Epoch: 2, Site: "b", Start: 200}},
		Log: coordinator.LogEpoch{Epoch: 2, Owner: "b1", Members: []mesh.NodeID{"b1"}, Starts: []int64{0, 200}, Reign: &coordinator.Reign{Epoch: 2, Site: "b", Start: 200}}}
	mirror := *taken
	mirror.Mirror, mirror.Lineage = &coordinator.Mirror{Site: "a", Feed: "line"}, taken.Lineage[:1]
	mirror.Log.Mirror, mirror.Log.Reign = mirror.Mirror, &mirror.Lineage[0]
	for name, c := range map[string]struct {
		feed  *coordinator.Feed
		reads coordinator.MovingFeed
		want  bool
	}{
		"taken":                      {taken, coordinator.MovingFeed{Name: "line"}, true},
		"not taken":                  {&mirror, coordinator.MovingFeed{Name: "line"}, false},
		"it reads the one here":      {taken, coordinator.MovingFeed{Name: "line.at.a.at.b", Of: &coordinator.Mirror{Site: "b", Feed: "line.at.a"}}, false},
		"it reads another one there": {taken, coordinator.MovingFeed{Name: "line2"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeping(t, 0)
			r := *k.st.Replicas["j6-a"]
			r.Job.Reads, r.Job.Feeds = []string{c.reads.Name}, []coordinator.MovingFeed{c.reads}
			k.st.Replicas["j6-a"], k.st.Feeds = &r, map[string]*coordinator.Feed{"line.at.a": &mirror}
			k.Step(k.st, jobmanager.Changed{All: true}, leader.Event{Now: k.now})
			asks := func() (no int64) {
				for range 200 {
					for _, f := range k.step(leader.Event{}) {
						if f.Ask != nil {
							return f.Ask.No
						}
					}
				}
				t.Fatal("it does not ask")
				return 0
			}
			answered := func(no int64) (dropped bool) { // a says that it has the job
				for _, f := range k.step(leader.Event{Offered: &leader.Offered{Site: "a", No: no, Offer: &coordinator.Offer{Site: "a", Index: 5, Jobs: []coordinator.OfferedJob{{Job: "j6-a", Epoch: 1}}}}}) {
					dropped = dropped || f.Propose != nil && f.Propose.Command.ReplicaDropped != nil
				}
				return dropped
			}
			if answered(asks()) {
				t.Error("dropped before anything was taken")
			}
			before := asks()
			k.st.Feeds["line.at.a"] = c.feed
			for _, f := range k.Step(k.st, jobmanager.Changed{All: true}, leader.Event{Now: k.now}) {
				if f.Propose != nil && f.Propose.Command.ReplicaDropped != nil {
					t.Error("dropped by what its site said before")
				}
			}
			after := asks() // as there is no answer; which is under way only
			if answered(before) {
				t.Error("dropped by the late answer to a question of before")
			}
			if got := answered(after); got != c.want {
				t.Errorf("dropped: %t, want %t", got, c.want)
			}
		})
	}
}
