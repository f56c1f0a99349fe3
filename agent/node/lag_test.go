package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// What other sites said of a job before it moved away is not told of it any more.
func TestNothingIsToldOfAMovedJobsCopies(t *testing.T) {
	for status, want := range map[coordinator.Status]int{coordinator.Running: 1, coordinator.Stopped: 1, coordinator.Moved: 0} {
		st := &coordinator.State{Site: "plant", Moves: coordinator.NewMoves(), Jobs: map[coordinator.JobID]*coordinator.Job{"j7-plant": {ID: "j7-plant", Status: status, Owner: "depot"}}}
		wants := map[mesh.Site]heardWant{"depot": {jobs: map[coordinator.JobID]coordinator.WantedJob{"j7-plant": {Job: "j7-plant", Has: "c7"}, "j8-plant": {Job: "j8-plant"}}}}
		if all := replicasOf(st, &said{wants: wants}); len(all) != want || want > 0 && (all[0].To != "depot" || all[0].Snapshot != "c7") {
			t.Errorf("%s: %+v", status, all)
		}
	}
}

// A job that another site is to keep, and that it does not name, is told of.
func TestAJobThatIsNotKeptIsToldOf(t *testing.T) {
	const text = `name: door
replicate_to: [depot, plant]
sources:
  x: {feed: line3, format: json, fields: {id: bigint}, event_time: ingestion}
sinks:
  - {id: a, from: x, file: {path: a.jsonl}}
`
	plain := strings.Replace(text, "replicate_to: [depot, plant]\n", "", 1)
	heard := func(jobs ...coordinator.JobID) map[mesh.Site]heardWant {
		h := heardWant{at: 7, jobs: make(map[coordinator.JobID]coordinator.WantedJob)}
		for _, id := range jobs {
			h.jobs[id] = coordinator.WantedJob{Job: id, Has: "c7"}
		}
		return map[mesh.Site]heardWant{"depot": h}
	}
	for name, c := range map[string]struct {
		job   coordinator.Job
		wants map[mesh.Site]heardWant
		rows  int
		why   string // of the first; empty: it is kept
	}{
		"the site keeps others":     {coordinator.Job{Spec: []byte(text), Status: coordinator.Running}, heard("j8-plant"), 1, "site depot says nothing of it"},
		"it keeps it":               {coordinator.Job{Spec: []byte(text), Status: coordinator.Running}, heard("j7-plant"), 1, ""},
		"it was not heard":          {coordinator.Job{Spec: []byte(text), Status: coordinator.Running}, nil, 1, "site depot has not said yet what it keeps"},
		"it is set":                 {coordinator.Job{Spec: []byte(plain), Sets: []string{"replicate_to=[depot]"}, Status: coordinator.Running}, heard(), 1, "site depot says nothing of it"},
		"it is set to none":         {coordinator.Job{Spec: []byte(text), Sets: []string{"replicate_to=[]"}, Status: coordinator.Running}, heard(), 0, ""},
		"it is not to be kept":      {coordinator.Job{Spec: []byte(plain), Status: coordinator.Running}, heard(), 0, ""},
		"it has ended":              {coordinator.Job{Spec: []byte(text), Status: coordinator.Stopped}, heard(), 0, ""},
		"its text cannot be read":   {coordinator.Job{Spec: []byte("replicate_to"), Status: coordinator.Running}, heard(), 0, ""},
		"it waits for another site": {coordinator.Job{Spec: []byte(text), Status: coordinator.Restarting, Isolated: true}, heard(), 1, "site depot says nothing of it"},
	} {
		o := newOffice(1)
		c.job.ID, c.job.Name = "j7-plant", "door"
		st := &coordinator.State{Site: "plant", Moves: coordinator.NewMoves(), Jobs: map[coordinator.JobID]*coordinator.Job{"j7-plant": &c.job}}
		for range 2 { // what was read, and what is remembered
			all := replicasOf(st, &said{wants: c.wants, keepers: o.keepers(keepable(st), st.Site)})
			if len(all) != c.rows || c.rows > 0 && (all[0].To != "depot" || all[0].Restorable != (c.why == "") || all[0].Why != c.why || all[0].Unknown != (c.why != "")) {
				t.Errorf("%s: %+v", name, all)
			}
		}
		c.job.Spec, c.job.Sets, c.job.Status = []byte(text), nil, coordinator.Running // it came back with another one
		if all := replicasOf(st, &said{keepers: o.keepers(keepable(st), st.Site)}); len(all) != 1 {
			t.Errorf("%s: %+v", name, all)
		}
	}
}

// What is kept here can be restored where the job stands within each lane of the log:
// entries are numbered over all lanes, offsets in one.
func TestWhereALaneBeginsSaysWhetherAJobCanBeRestored(t *testing.T) {
	data, err := manifest.Encode(manifest.Manifest{Kind: manifest.Checkpoint, Name: "c1", Job: "x", MaxParallelism: 128, Mode: "exactly-once",
		Operators: []manifest.Operator{{ID: "in", Parallelism: 1, Positions: []manifest.Position{{Split: "lane-0", Offset: 40}, {Split: "lane-1", Offset: 60}}}}})
	if err != nil {
		t.Fatal(err)
	}
	one, err := manifest.Encode(manifest.Manifest{Kind: manifest.Checkpoint, Name: "c1", Job: "x", MaxParallelism: 128, Mode: "exactly-once",
		Operators: []manifest.Operator{{ID: "in", Parallelism: 1, Positions: []manifest.Position{{Split: "lane-0", Offset: 40}}}}})
	if err != nil {
		t.Fatal(err)
	}
	config := func(lanes string) []byte {
		return []byte(`{"version":1,"broker":"mqtt://localhost:1883","topics":["a"],"qos":1,"retained":"first","lanes":` + lanes + `}`)
	}
	lanes := func(all ...int64) (at []coordinator.LaneAt) {
		for i := 0; i < len(all); i += 2 {
			at = append(at, coordinator.LaneAt{First: all[i], Next: all[i+1]})
		}
		return at
	}
	for name, c := range map[string]struct {
		lanes  string
		data   []byte
		log    coordinator.LogStatus
		origin mesh.Site // of the feed
		why    string    // empty: it can be restored
	}{
		"older segments are gone":          {"2", data, coordinator.LogStatus{First: 90, Shown: 110, Lanes: lanes(30, 45, 50, 65)}, "", ""},
		"just so":                          {"2", data, coordinator.LogStatus{First: 90, Shown: 110, Lanes: lanes(40, 40, 60, 60)}, "", ""},
		"a lane begins behind":             {"2", data, coordinator.LogStatus{Shown: 110, Lanes: lanes(0, 45, 61, 65)}, "", "begins at 61 in lane 1 here, and the job would go on from 60"},
		"a lane does not reach it":         {"2", data, coordinator.LogStatus{Shown: 200, Lanes: lanes(0, 39, 0, 161)}, "", "ends at 39 in lane 0 here, and the job would go on from 40"},
		"the lanes are not known":          {"2", data, coordinator.LogStatus{Shown: 200}, "", "nothing is known of lane 0"},
		"one lane, and its agent is older": {"1", one, coordinator.LogStatus{First: 40, Shown: 40}, "", ""},
		"it begins behind, and is older":   {"1", one, coordinator.LogStatus{First: 41, Shown: 50}, "", "begins at 41"},
		"the session stayed here":          {"2", data, coordinator.LogStatus{First: 90, Shown: 110, Lanes: lanes(30, 39, 50, 59)}, "depot", ""},
		"the same, and nothing is known":   {"2", data, coordinator.LogStatus{First: 90, Shown: 110}, "depot", ""},
		"the same, and it is gone":         {"2", data, coordinator.LogStatus{Lanes: lanes(41, 45, 50, 65)}, "depot", "begins at 41"},
	} {
		m := coordinator.MovingFeed{Name: "j7-plant.in", Config: config(c.lanes)}
		if c.origin != "" {
			m.Of = &coordinator.Mirror{Site: c.origin, Feed: m.Name}
		} else {
			c.log.Of = &coordinator.MirrorOf{}
		}
		r := &coordinator.Replica{From: "plant", Job: coordinator.MovingJob{ID: "j7-plant", Name: "door", Feeds: []coordinator.MovingFeed{m}}, Snapshot: &coordinator.Snapshot{Name: "c1", Job: "j7-plant", Manifest: c.data}}
		st := &coordinator.State{Site: "depot", Moves: coordinator.NewMoves(), Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-plant": r},
			Feeds: map[string]*coordinator.Feed{m.Name: {Name: m.Name, Job: "j7-plant", Config: m.Config}}}
		got := keptHere(st, "j7-plant", r, &said{logs: map[string]coordinator.LogStatus{m.Name: c.log}})
		if got.Restorable != (c.why == "") || !strings.Contains(got.Why, c.why) || c.why == "" && got.Why != "" {
			t.Errorf("%s: %q", name, got.Why)
		}
	}
}

// How far a copy is behind is by what the other site said last: where that is old it is
// further behind by that time, and of several logs the one that was heard first counts.
func TestWhatWasNotHeardForLongIsBehind(t *testing.T) {
	const now = dataflow.Time(100_000_000_000)
	r := &coordinator.Replica{From: "plant", Snapshot: standing(t, "c1", map[dataflow.OperatorID][]int64{"x": {10}, "y": {10}}),
		Job: coordinator.MovingJob{ID: "j7-plant", Name: "door", Feeds: []coordinator.MovingFeed{{Name: "j7-plant.x"}, {Name: "j7-plant.y"}}}}
	st := &coordinator.State{Site: "depot", Moves: coordinator.NewMoves(), Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-plant": r}}
	log := func(entries int64, ago dataflow.Duration) coordinator.LogStatus {
		of := &coordinator.MirrorOf{End: 50 + entries, Payload: 7 * entries, Clock: now.Add(-dataflow.Hour), Heard: now.Add(-ago)}
		if ago == 0 {
			of = &coordinator.MirrorOf{}
		}
		return coordinator.LogStatus{End: 50, Shown: 50, Clock: now.Add(-dataflow.Hour - 3*dataflow.Second), Lanes: []coordinator.LaneAt{{Next: 50}}, Of: of}
	}
	for name, c := range map[string]struct {
		x, y           coordinator.LogStatus
		entries, bytes int64
		ms             int64
		heard          dataflow.Time
		unknown        bool
	}{
		"all is here":        {log(0, dataflow.Second), log(0, 2*dataflow.Second), 0, 0, 0, now.Add(-2 * dataflow.Second), false},
		"entries are not":    {log(2, dataflow.Second), log(0, 2*dataflow.Second), 2, 14, 3000, now.Add(-2 * dataflow.Second), false},
		"the line is cut":    {log(0, dataflow.Hour), log(0, 2*dataflow.Hour), 0, 0, 7_200_000, now.Add(-2 * dataflow.Hour), false},
		"one is":             {log(0, dataflow.Hour), log(0, dataflow.Second), 0, 0, 3_600_000, now.Add(-dataflow.Hour), false},
		"it was, and so far": {log(2, dataflow.Hour), log(1, dataflow.Hour), 3, 21, 3_603_000, now.Add(-dataflow.Hour), false},
		"a clock is ahead":   {log(0, -dataflow.Hour), log(0, dataflow.Second), 0, 0, 0, now.Add(-dataflow.Second), false},
		"one was not heard":  {log(0, 0), log(2, dataflow.Second), 2, 14, 3000, 0, true},
		"none was":           {log(0, 0), log(0, 0), 0, 0, 0, 0, true},
	} {
		got := keptHere(st, "j7-plant", r, &said{now: now, logs: map[string]coordinator.LogStatus{"j7-plant.x": c.x, "j7-plant.y": c.y}})
		if got.Entries != c.entries || got.Bytes != c.bytes || got.Time != c.ms || got.Heard != int64(c.heard) || got.Unknown != c.unknown || !got.Restorable {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What was said of a copy does not count when who said it has left the site, nor of an
// epoch that is over.
func TestACopyThatLeftIsNotRestorable(t *testing.T) {
	r := &coordinator.Replica{From: "plant", Job: coordinator.MovingJob{ID: "j7-plant", Name: "door", Feeds: []coordinator.MovingFeed{{Name: "j7-plant.in"}}},
		Snapshot: standing(t, "c1", map[dataflow.OperatorID][]int64{"in": {40}})}
	log := coordinator.LogStatus{Feed: "j7-plant.in", Epoch: 2, Shown: 40, Lanes: []coordinator.LaneAt{{Next: 40}}, Of: &coordinator.MirrorOf{End: 90}}
	for name, c := range map[string]struct {
		agents []mesh.NodeID
		epoch  coordinator.LogEpoch
		why    string // empty: it can be restored
	}{
		"it is there":           {[]mesh.NodeID{"a", "b"}, coordinator.LogEpoch{Epoch: 2, Owner: "a", Members: []mesh.NodeID{"a"}}, ""},
		"it has left":           {[]mesh.NodeID{"b"}, coordinator.LogEpoch{Epoch: 2, Owner: "a", Members: []mesh.NodeID{"a"}}, "no agent that has the log of feed j7-plant.in is here"},
		"another one has it":    {[]mesh.NodeID{"b"}, coordinator.LogEpoch{Epoch: 2, Owner: "a", Members: []mesh.NodeID{"a", "b"}}, "nothing is known of the log of feed j7-plant.in yet"},
		"an heir has it":        {[]mesh.NodeID{"b"}, coordinator.LogEpoch{Epoch: 2, Owner: "a", Members: []mesh.NodeID{"a"}, Heirs: []coordinator.Heir{{Node: "b"}}}, "nothing is known of the log of feed j7-plant.in yet"},
		"another epoch counts":  {[]mesh.NodeID{"b"}, coordinator.LogEpoch{Epoch: 3, Owner: "b", Members: []mesh.NodeID{"b"}}, "nothing is known of the log of feed j7-plant.in yet"},
		"the next one is known": {[]mesh.NodeID{"a"}, coordinator.LogEpoch{Epoch: 1, Owner: "a", Members: []mesh.NodeID{"a"}}, ""},
	} {
		st := &coordinator.State{Site: "depot", Moves: coordinator.NewMoves(), Agents: make(map[mesh.NodeID]*coordinator.Agent), Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-plant": r},
			Feeds: map[string]*coordinator.Feed{log.Feed: {Name: log.Feed, Job: "j7-plant", Log: c.epoch}}}
		for _, node := range c.agents {
			st.Agents[node] = &coordinator.Agent{Node: node}
		}
		got := keptHere(st, "j7-plant", r, &said{logs: map[string]coordinator.LogStatus{log.Feed: log}})
		if got.Restorable != (c.why == "") || got.Why != c.why || c.why != "" && (got.Entries != 0 || !got.Unknown) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Nor does what was said of a feed that had the name before.
func TestACopyOfTheFeedBeforeIsNotRestorable(t *testing.T) {
	r := &coordinator.Replica{From: "plant", Job: coordinator.MovingJob{ID: "j7-plant", Name: "door", Reads: []string{"line3"}, Feeds: []coordinator.MovingFeed{{Name: "line3", Stay: true}}},
		Snapshot: standing(t, "c1", map[dataflow.OperatorID][]int64{"in": {40}})}
	st := &coordinator.State{Site: "depot", Moves: coordinator.NewMoves(), Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-plant": r},
		Feeds: map[string]*coordinator.Feed{"line3.at.plant": {Name: "line3.at.plant", Made: 70}}}
	for epoch, why := range map[uint64]string{8: "nothing is known of the log of feed line3.at.plant yet", 70: ""} {
		log := coordinator.LogStatus{Feed: "line3.at.plant", Epoch: epoch, Shown: 90, Lanes: []coordinator.LaneAt{{Next: 90}}, Of: &coordinator.MirrorOf{}}
		if got := keptHere(st, "j7-plant", r, &said{logs: map[string]coordinator.LogStatus{log.Feed: log}}); got.Why != why || got.Restorable != (why == "") {
			t.Errorf("epoch %d: %+v", epoch, got)
		}
	}
}

// A job that reads several shared feeds stands somewhere else in each.
func TestAReplicaStandsInEachSharedFeed(t *testing.T) {
	const text = `name: both
sources:
  x: {feed: line3, format: json, fields: {id: bigint}, event_time: ingestion}
  y: {feed: line4, format: json, fields: {id: bigint}, event_time: ingestion}
  z: {feed: line4, format: json, fields: {id: bigint}, event_time: ingestion}
sinks:
  - {id: a, from: x, file: {path: a.jsonl}}
  - {id: b, from: y, file: {path: b.jsonl}}
  - {id: c, from: z, file: {path: c.jsonl}}
`
	r := &coordinator.Replica{From: "plant", Job: coordinator.MovingJob{ID: "j7-plant", Name: "both", Spec: []byte(text), Reads: []string{"line3", "line4"}},
		Snapshot: standing(t, "c1", map[dataflow.OperatorID][]int64{"x": {10}, "y": {5000}, "z": {5500}})}
	for _, name := range r.Job.Reads {
		r.Job.Feeds = append(r.Job.Feeds, coordinator.MovingFeed{Name: name, Stay: true})
	}
	st := &coordinator.State{Site: "depot", Moves: coordinator.NewMoves(), Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-plant": r}}
	for at, why := range map[coordinator.LaneAt]string{
		{First: 4000, Next: 6000}: "",
		{First: 5000, Next: 5500}: "",
		{First: 5001, Next: 6000}: "line4.at.plant begins at 5001",
		{First: 4000, Next: 5499}: "line4.at.plant ends at 5499",
	} {
		got := keptHere(st, "j7-plant", r, &said{logs: map[string]coordinator.LogStatus{
			"line3.at.plant": {Of: &coordinator.MirrorOf{}, Lanes: []coordinator.LaneAt{{First: 0, Next: 20}}},
			"line4.at.plant": {Of: &coordinator.MirrorOf{}, Lanes: []coordinator.LaneAt{at}},
		}})
		if got.Restorable != (why == "") || !strings.Contains(got.Why, why) {
			t.Errorf("%+v: %q", at, got.Why)
		}
	}
}

// Of what another site keeps its site knows what that one says: a log that it does not name
// may lack anything, and who keeps the job says best why it could not go on.
func TestWhatAnotherSiteDoesNotNameIsNotThere(t *testing.T) {
	ends := func(all ...coordinator.FeedEnd) []coordinator.FeedEnd { return all }
	own, shared := coordinator.FeedEnd{Feed: "j7-plant.in", End: 4990}, coordinator.FeedEnd{Feed: "line3", End: 70}
	logs := map[string]coordinator.LogStatus{"j7-plant.in": {End: 5000}, "line3": {End: 77}}
	for name, c := range map[string]struct {
		said    coordinator.WantedJob
		logs    map[string]coordinator.LogStatus
		entries int64
		unknown bool
		why     string // empty: it can be restored
	}{
		"all are named":             {coordinator.WantedJob{Has: "c7", Ends: ends(own, shared)}, logs, 17, false, ""},
		"nothing is complete":       {coordinator.WantedJob{Ends: ends(own, shared)}, logs, 17, false, "nothing is complete yet"},
		"it says why":               {coordinator.WantedJob{Has: "c7", Ends: ends(own, shared), Why: "its log ends at 3"}, logs, 17, false, "its log ends at 3"},
		"it says why it has none":   {coordinator.WantedJob{Ends: ends(own), Why: "site plant went on with less"}, logs, 10, true, "site plant went on with less"},
		"its own is not":            {coordinator.WantedJob{Has: "c7", Ends: ends(shared)}, logs, 7, true, "nothing is known there of the log of feed j7-plant.in"},
		"the shared one is not":     {coordinator.WantedJob{Has: "c7", Ends: ends(own)}, logs, 10, true, "nothing is known there of the log of feed line3"},
		"none is":                   {coordinator.WantedJob{Has: "c7"}, logs, 0, true, "nothing is known there of the log of feed j7-plant.in"},
		"the log is not known here": {coordinator.WantedJob{Has: "c7", Ends: ends(own, shared)}, nil, 0, true, ""},
	} {
		st := &coordinator.State{Site: "plant", Moves: coordinator.NewMoves(), Jobs: map[coordinator.JobID]*coordinator.Job{"j7-plant": {ID: "j7-plant", Status: coordinator.Running, Reads: []string{"line3", "gone"}}},
			Feeds: map[string]*coordinator.Feed{"j7-plant.in": {Name: "j7-plant.in", Job: "j7-plant"}, "line3": {Name: "line3"}, "line4": {Name: "line4"}, "j8-plant.in": {Name: "j8-plant.in", Job: "j8-plant"}}}
		c.said.Job = "j7-plant"
		all := replicasOf(st, &said{logs: c.logs, wants: map[mesh.Site]heardWant{"depot": {jobs: map[coordinator.JobID]coordinator.WantedJob{"j7-plant": c.said}}}})
		if len(all) != 1 || all[0].Entries != c.entries || all[0].Unknown != c.unknown || all[0].Why != c.why || all[0].Restorable != (c.why == "") {
			t.Errorf("%s: %+v", name, all)
		}
	}
}

// What a failover would refuse is not restorable, whatever there is of it: the name is
// taken, a feed has its session, or two of its own have one. It is said as the failover says
// it. What was prepared here goes on with its move.
func TestWhatAFailoverRefusesIsNotRestorable(t *testing.T) {
	config := func(client string) []byte {
		return []byte(`{"version":1,"broker":"mqtt://b:1883","topics":["a"],"qos":1,"retained":"first","lanes":1,"client_id":"` + client + `"}`)
	}
	lineage := []coordinator.Reign{{Epoch: 1, Site: "plant"}}
	begin := func(clients ...string) (*coordinator.State, *coordinator.Replica, *said) {
		r := &coordinator.Replica{From: "plant", Epoch: 1, Job: coordinator.MovingJob{ID: "j7-plant", Name: "door"}}
		st := &coordinator.State{Site: "depot", Level: coordinator.Level, Moves: coordinator.NewMoves(), Replicas: map[coordinator.JobID]*coordinator.Replica{"j7-plant": r},
			Agents: map[mesh.NodeID]*coordinator.Agent{"a": {Node: "a"}}, Feeds: make(map[string]*coordinator.Feed), Jobs: make(map[coordinator.JobID]*coordinator.Job), Names: make(map[string]coordinator.JobID)}
		heard, stands := &said{logs: make(map[string]coordinator.LogStatus)}, make(map[dataflow.OperatorID][]int64)
		for i, client := range clients {
			source := fmt.Sprint("in", i)
			f := coordinator.Feed{Name: "j7-plant." + source, Job: "j7-plant", Config: config(client), Lineage: lineage, Log: coordinator.LogEpoch{Epoch: 1, Owner: "a", Members: []mesh.NodeID{"a"}}}
			f.Mirror = &coordinator.Mirror{Site: "plant", Feed: f.Name}
			f.Log.Mirror = f.Mirror
			st.Feeds[f.Name] = &f
			r.Job.Feeds = append(r.Job.Feeds, coordinator.MovingFeed{Name: f.Name, Config: f.Config, Lineage: lineage})
			heard.logs[f.Name] = coordinator.LogStatus{Epoch: 1, End: 90, Shown: 90, Lanes: []coordinator.LaneAt{{Next: 90}}, Of: &coordinator.MirrorOf{End: 90}}
			stands[dataflow.OperatorID(source)] = []int64{40}
		}
		r.Snapshot = standing(t, "c1", stands)
		r.Snapshot.ID.Token = dataflow.FencingToken{Epoch: 1, Site: "plant", Attempt: 1}
		return st, r, heard
	}
	local := &coordinator.Job{ID: "j3-depot", Name: "gate", Status: coordinator.Running}
	for name, c := range map[string]struct {
		clients []string
		change  func(st *coordinator.State, r *coordinator.Replica)
		why     string // empty: it can be restored
	}{
		"nothing is in its way": {[]string{"mine", "its"}, func(*coordinator.State, *coordinator.Replica) {}, ""},
		"its session is had": {[]string{"mine", "its"}, func(st *coordinator.State, _ *coordinator.Replica) {
			st.Feeds["j3-depot.in"] = &coordinator.Feed{Name: "j3-depot.in", Job: local.ID, Config: config("its")}
		}, `client id "its" at broker b:1883 is that of feed`},
		"one of another id is": {[]string{"mine", "its"}, func(st *coordinator.State, _ *coordinator.Replica) {
			st.Feeds["j3-depot.in"] = &coordinator.Feed{Name: "j3-depot.in", Job: local.ID, Config: config("other")}
		}, ""},
		"two have one": {[]string{"mine", "mine"}, func(*coordinator.State, *coordinator.Replica) {}, `client id "mine" at broker b:1883 is that of its feeds`},
		"its name is": {[]string{"mine"}, func(st *coordinator.State, _ *coordinator.Replica) {
			st.Names[coordinator.NameKey("", "door")] = local.ID
		}, `a job "door" is at site depot already`},
		"it was here before": {[]string{"mine"}, func(st *coordinator.State, _ *coordinator.Replica) {
			st.Jobs["j7-plant"] = &coordinator.Job{ID: "j7-plant", Status: coordinator.Moved, Epoch: 1, Owner: "plant"}
		}, ""},
		"another site has it": {[]string{"mine"}, func(_ *coordinator.State, r *coordinator.Replica) {
			r.Later = &coordinator.Tenure{Epoch: 9, Site: "yard"}
		}, ""}, // who takes it takes it above that
		"it is prepared":       {[]string{"mine"}, func(st *coordinator.State, r *coordinator.Replica) { arriving(st, r, coordinator.ArrivalPrepared) }, ""},
		"it is being received": {[]string{"mine"}, func(st *coordinator.State, r *coordinator.Replica) { arriving(st, r, coordinator.ArrivalReceiving) }, ""},
	} {
		st, r, heard := begin(c.clients...)
		st.Jobs[local.ID] = local
		c.change(st, r)
		o := newOffice(1)
		o.view, o.logs = func(do func(*coordinator.State)) { do(st) }, heard.logs
		for _, all := range [][]api.Replica{replicasOf(st, heard), o.keptHere("plant", dataflow.Time(dataflow.Hour))} {
			if len(all) != 1 || all[0].Snapshot != "c1" || all[0].Restorable != (c.why == "") || !strings.Contains(all[0].Why, c.why) || c.why == "" && all[0].Why != "" {
				t.Errorf("%s: %+v", name, all)
			}
		}
	}
}

func arriving(st *coordinator.State, r *coordinator.Replica, phase coordinator.ArrivalPhase) {
	st.Moves.Arrivals["m1-plant"] = &coordinator.Arrival{ID: "m1-plant", From: "plant", Epoch: 2, Job: r.Job, Phase: phase}
}
