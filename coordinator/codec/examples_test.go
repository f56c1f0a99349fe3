package codec_test

import (
	"bytes"
	"crypto/sha256"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

const at = dataflow.Time(1_700_000_000_000_000)

func token() dataflow.FencingToken { return dataflow.FencingToken{Epoch: 1, Site: "s", Attempt: 3} }
func id(n uint64) dataflow.CheckpointID {
	return dataflow.CheckpointID{Token: token(), Counter: n}
}
func subtask(task dataflow.TaskID, i int) dataflow.SubtaskID {
	return dataflow.SubtaskID{Task: task, Index: i}
}

func digest(c byte) (d store.Digest) {
	copy(d[:], bytes.Repeat([]byte{c}, len(d)))
	return d
}

func copies() []coordinator.PartCopies {
	return []coordinator.PartCopies{{Part: digest(0xaa), Nodes: []mesh.NodeID{"n1", "n2"}}}
}

func snapshot(name string, n uint64) *coordinator.Snapshot {
	return &coordinator.Snapshot{Name: name, Job: "j7", ID: id(n), Manifest: []byte("TMMF"), Copies: copies(), Bytes: 4096}
}

func agent() coordinator.Agent {
	return coordinator.Agent{Node: "n1", Name: "gw-1", Host: "h1", Labels: map[string]string{"rack": "a", "role": "edge"}, Slots: 4, Memory: 1 << 26, Level: 1,
		Link: "10.0.0.1:7000", HTTP: "10.0.0.1:7001", Version: "0.4"}
}

func commit() coordinator.SinkCommit {
	return coordinator.SinkCommit{Operator: "out", Node: "n1", Target: "out.csv", Through: id(17), Length: 1000}
}

func places() []coordinator.Place {
	return []coordinator.Place{{Subtask: subtask("in", 0), Node: "n1"}, {Subtask: subtask("win", 0), Node: "n2"}}
}

func joinToken() *coordinator.Token {
	return &coordinator.Token{ID: "t1", Hash: bytes.Repeat([]byte{0xee}, 32), Created: at, Expires: at + 1, Uses: 2}
}

func feed(name string) coordinator.Feed {
	return coordinator.Feed{Name: name, Namespace: "default", Config: []byte("{}"), Replicas: 2, Log: coordinator.LogEpoch{Members: []mesh.NodeID{}, Starts: []int64{}}}
}

func logEpoch() coordinator.LogEpoch {
	return coordinator.LogEpoch{Epoch: 2, Owner: "n2", Members: []mesh.NodeID{"n2", "n3"}, Start: 500, Starts: []int64{}}
}

func movingJob() coordinator.MovingJob {
	return coordinator.MovingJob{ID: "j7", Namespace: "default", Name: "door", Spec: []byte("name: door"), Sets: []string{"parallelism=2"}, Parallelism: 2, Created: at,
		Feeds: []coordinator.MovingFeed{{Name: "j7.in", Config: []byte("{}"), Stay: true, Lineage: []coordinator.Reign{{Epoch: 1, Site: "b", Start: 5}}}}}
}

// want and offer are those of docs/REPLICATION.md.
func want() coordinator.Want {
	return coordinator.Want{Site: "s", Settled: true, Jobs: []coordinator.WantedJob{{Job: "j7", Epoch: 2, Text: digest(0xbb), Has: "chk-3-17", Next: "chk-3-18", Where: true,
		Ends: []coordinator.FeedEnd{{Feed: "j7.in", End: 600}}, Why: "its log ends at 600", Later: &coordinator.Tenure{Epoch: 3, Site: "c", At: at}}}}
}

func offer() coordinator.Offer {
	return coordinator.Offer{Site: "b", Index: 99, Jobs: []coordinator.OfferedJob{{Job: "j7", Epoch: 2, Moving: "m12-b", Text: new(movingJob()),
		Newest: []*coordinator.Snapshot{snapshot("chk-3-18", 18)}, Copies: copies(), Lost: true}}, Gone: []coordinator.GoneJob{{Job: "j8", Epoch: 1, Why: "it was forgotten at its site"}},
		Moved: []coordinator.MovedJob{{Job: "j9", Epoch: 1, To: coordinator.Tenure{Epoch: 2, Site: "c", At: at}}}}
}

// commands are those of docs/COMMANDS.md.
func commands() []any {
	var all []any
	for _, c := range []coordinator.Command{
		{LeaderBegan: &coordinator.LeaderBegan{Term: 2, Node: "n1", Isolated: []coordinator.JobID{"j7-s"}}},
		{SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: "s"}},
		{AgentJoined: new(agent())},
		{AgentLeft: &coordinator.AgentLeft{Node: "n1"}},
		{LevelRaised: &coordinator.LevelRaised{Level: 2}},
		{TokenCreated: joinToken()},
		{TokenUsed: &coordinator.TokenUsed{ID: "t1", Hash: bytes.Repeat([]byte{0xee}, 32), Node: "n2"}},
		{TokenRevoked: &coordinator.TokenRevoked{ID: "t1"}},
		{JobSubmitted: &coordinator.JobSubmitted{Namespace: "default", Name: "door", Spec: []byte("name: door"), Sets: []string{"parallelism=2"}, From: "sp-1",
			AllowNonRestored: true, Feeds: []coordinator.Feed{feed("in")}, Request: "r1", Reads: []string{"plant"}}},
		{JobDeployed: &coordinator.JobDeployed{Job: "j7", Attempt: 3, Term: 2, Places: places(), From: "chk-2-9"}},
		{JobBecame: &coordinator.JobBecame{Job: "j7", Attempt: 3, Status: coordinator.Stopped, Why: "told so", Savepoint: "sp-2"}},
		{JobTold: &coordinator.JobTold{Job: "j7", Then: dataflow.Drain}},
		{JobRescaled: &coordinator.JobRescaled{Job: "j7", Parallelism: 4}},
		{JobFailedOver: &coordinator.JobFailedOver{Job: "j7-b", From: "b", Was: 1, Epoch: 2, Snapshot: "chk-1-b-3-17", Forced: true, Why: "b has burnt down"}},
		{JobClaimed: &coordinator.JobClaimed{Job: "j7-b", Epoch: 2, Term: 2}},
		{JobQuarantined: &coordinator.JobQuarantined{Job: "j7-b", Epoch: 2, Other: "c"}},
		{JobForgotten: &coordinator.JobForgotten{Job: "j7"}},
		{CheckpointDone: &coordinator.CheckpointDone{Attempt: 3, Checkpoint: snapshot("chk-3-17", 17), Savepoint: snapshot("sp-2", 17), Release: []string{"chk-2-9"}}},
		{SinkCommitted: &coordinator.SinkCommitted{Job: "j7", Attempt: 3, Commits: []coordinator.SinkCommit{commit()}}},
		{SavepointAdded: snapshot("sp-3", 1)},
		{SavepointDeleted: &coordinator.SavepointDeleted{Name: "sp-3"}},
		{CopiesChanged: &coordinator.CopiesChanged{Name: "chk-3-17", Job: "j7", Copies: copies()}},
		{FeedCreated: new(feed("plant"))},
		{FeedDeleted: &coordinator.FeedDeleted{Name: "plant"}},
		{LogEpochBegun: &coordinator.LogEpochBegun{Feed: "plant", Term: 2, Log: logEpoch()}},
		{ReplicaOffered: &coordinator.ReplicaOffered{Job: movingJob(), From: "b", Epoch: 2, Moving: "m12-b"}},
		{ReplicaNext: &coordinator.ReplicaNext{Job: "j7", From: "b", Epoch: 2, Snapshot: snapshot("chk-3-18", 18), Replace: true}},
		{ReplicaAdvanced: &coordinator.ReplicaAdvanced{Job: "j7", From: "b", Epoch: 2, Name: "chk-3-18", Ends: []coordinator.FeedEnd{{Feed: "j7.in", End: 600}}}},
		{ReplicaDropped: &coordinator.ReplicaDropped{Job: "j7", From: "b", Epoch: 2, Why: "it has ended"}},
		{ReplicaMoved: &coordinator.ReplicaMoved{Job: "j7", From: "b", Epoch: 2, To: coordinator.Tenure{Epoch: 3, Site: "c", At: at}}},
	} {
		c.Level, c.At = 1, at
		all = append(all, &c)
	}
	for _, m := range moves() {
		c := &coordinator.Command{At: at, Move: &m}
		c.Level = c.Needs()
		all = append(all, c)
	}
	return all
}

// toTarget and toSource are those of docs/MIGRATION.md.
func toTarget() []any {
	return []any{
		&coordinator.ToTarget{Move: "m40-s", Propose: &coordinator.MovePropose{Job: movingJob(), From: "s", Epoch: 2, Newest: snapshot("chk-3-17", 17), Dry: true}},
		&coordinator.ToTarget{Move: "m40-s", Newest: &coordinator.MoveNewest{Snapshot: snapshot("chk-3-18", 18), Ends: ends()}},
		&coordinator.ToTarget{Move: "m40-s", Offer: &coordinator.MoveOffer{Savepoint: snapshot("sp-j7-s-3-19", 19), Ends: ends()}},
		&coordinator.ToTarget{Move: "m40-s", Verdict: coordinator.DecisionHandedOver},
	}
}

func toSource() []any {
	return []any{
		&coordinator.ToSource{Move: "m40-s", Accepted: &coordinator.MoveAccepted{Fetching: "chk-3-17", Bytes: 4096, Offered: true}},
		&coordinator.ToSource{Move: "m40-s", Refused: &coordinator.MoveRefused{Why: "no slots"}},
		&coordinator.ToSource{Move: "m40-s", Got: &coordinator.MoveGot{Snapshot: "chk-3-17", Bytes: 4096, Took: 2_000_000, Lag: 512}},
		&coordinator.ToSource{Move: "m40-s", Prepared: &coordinator.MovePrepared{Savepoint: "sp-j7-s-3-19"}},
		&coordinator.ToSource{Move: "m40-s", Done: &coordinator.MoveDone{Phase: coordinator.ArrivalActive, Job: "j7-s", Epoch: 2, First: 90_000, Held: 1000}},
	}
}

func moves() []coordinator.MoveCommand {
	return []coordinator.MoveCommand{
		{Began: &coordinator.MoveBegan{Job: "j7-s", Epoch: 1, To: "b", Stay: []string{"plant"}, Sets: []string{"parallelism=2"}, Request: "r2",
			Configs: []coordinator.FeedConfig{{Feed: "j7-s.in", Config: []byte("{}")}}}},
		{Halting: &coordinator.MoveHalting{ID: "m40-s"}},
		{Offered: &coordinator.MoveOffered{ID: "m40-s", Savepoint: "sp-j7-s-3-17", Ends: ends()}},
		{Decided: &coordinator.MoveDecided{ID: "m40-s", HandedOver: true}},
		{Forgotten: &coordinator.MoveForgotten{ID: "m40-s", Taken: true}},
		{Fenced: &coordinator.JobFenced{Job: "j7-s", Epoch: 2, Owner: "b"}},
		{ArrivalBegan: &coordinator.Arrival{ID: "m9-b", From: "b", Epoch: 2, Phase: coordinator.ArrivalReceiving, Job: arrivingJob()}},
		{ArrivalPrepared: &coordinator.ArrivalIsReady{ID: "m9-b", Savepoint: snapshot("sp-j7-s-3-17", 17), Ends: ends()}},
		{ArrivalDecided: &coordinator.ArrivalDecided{ID: "m9-b", Verdict: coordinator.DecisionHandedOver}},
		{ArrivalForgotten: &coordinator.ArrivalForgotten{ID: "m9-b"}},
	}
}

func ends() []coordinator.FeedEnd { return []coordinator.FeedEnd{{Feed: "j7-s.in", End: 600}} }

func arrivingJob() coordinator.MovingJob {
	return coordinator.MovingJob{ID: "j5-b", Namespace: "default", Name: "gate", Spec: []byte("name: gate"), Created: at, Reads: []string{"plant"}, Completed: 9,
		Feeds:   []coordinator.MovingFeed{{Name: "j5-b.in", Config: []byte("{}"), Replicas: 2, Created: at}, {Name: "plant", Config: []byte("{}"), Stay: true, Created: at}},
		History: []coordinator.Tenure{{Epoch: 1, Site: "b", At: at}}}
}

func ref() coordinator.AttemptRef { return coordinator.AttemptRef{Job: "j7", Token: token()} }

func prepared() *coordinator.Prepared {
	return &coordinator.Prepared{AttemptRef: ref(), Moved: true, Subtasks: []coordinator.PreparedSubtask{
		{Subtask: subtask("in", 0), Source: true, Splits: 2}, {Subtask: subtask("out", 0), Commits: true}}}
}

func committed() coordinator.Committed {
	return coordinator.Committed{AttemptRef: ref(), Subtask: subtask("out", 0), ID: id(17), Commits: []coordinator.SinkCommit{commit()}}
}

// toLeader and toAgent are those of docs/CONTROL.md.
func toLeader() []any {
	var all []any
	for _, m := range []coordinator.ToLeader{
		{Hello: &coordinator.Hello{Agent: agent(), Boot: 5, Applied: 99,
			Attempts: []coordinator.AttemptNow{{AttemptRef: ref(), Phase: coordinator.PhaseRunning, Prepared: prepared(), Barrier: 17,
				Exhausted: []dataflow.SubtaskID{subtask("in", 0)}, Committed: []coordinator.Committed{committed()}}},
			Logs: []coordinator.LogNow{{Feed: "j7.in", Epoch: 2, End: 600, Sealed: true, InSync: true}}}},
		{Heartbeat: &coordinator.Heartbeat{Seq: 12, Applied: 99, Disk: 1 << 30,
			Status: []coordinator.SubtaskStatus{{AttemptRef: ref(), Subtask: subtask("in", 0), Watermark: at, Arrival: at, Busy: 5, Blocked: 6,
				Operators: []coordinator.OperatorCounters{{Operator: "in", In: 10, Out: 9, Late: 1, First: "no time"}}}},
			Logs: []coordinator.LogStatus{{Feed: "j7.in", Epoch: 2, End: 600, Bytes: 5000, Broker: "connected", Messages: 600},
				{Feed: "j7-north.in", Epoch: 2, End: 600, Bytes: 5000, Messages: 600, Payload: 4000, Clock: at, First: 20, Shown: 590,
					Of:      &coordinator.MirrorOf{Node: "n7", End: 700, Payload: 4700, Clock: at + 5, Heard: at + 9, Lost: 3, Why: "not reached"},
					Mirrors: []coordinator.MirrorAt{{Site: "west", Feed: "j7-north.in", Node: "n8", End: 500, Heard: at, Let: true}},
					Lanes:   []coordinator.LaneAt{{Next: 290}, {First: 20, Next: 300}}}}}},
		{Prepared: prepared()},
		{Failed: &coordinator.AttemptFailed{AttemptRef: ref(), Subtask: subtask("win", 0), Why: "stream broke", Final: true, Peer: "n2"}},
		{Stored: &coordinator.Stored{AttemptRef: ref(), ID: id(17), Subtask: subtask("win", 0),
			Share: coordinator.Share{Manifest: []byte("TMMF"), Copies: copies(), Bytes: 4096, Pause: 300, Align: 400}}},
		{NotStored: &coordinator.NotStored{AttemptRef: ref(), ID: id(17), Subtask: subtask("win", 0), Kind: 1, Lost: true, Why: "disk full"}},
		{Exhausted: &coordinator.Exhausted{AttemptRef: ref(), Subtask: subtask("in", 0)}},
		{Committed: new(committed())},
		{Ended: &coordinator.AttemptEnded{AttemptRef: ref()}},
		{Sealed: &coordinator.Sealed{Feed: "j7.in", Epoch: 3, End: 600, Why: "behind"}},
		{InSync: &coordinator.InSync{Feed: "j7.in", Epoch: 3}},
		{OutOfSync: &coordinator.OutOfSync{Feed: "j7.in", Epoch: 3, Member: "n3", Why: "not reached"}},
		{Copied: &coordinator.Copied{Order: 4, Name: "chk-3-17", Job: "j7", Parts: []store.Digest{digest(0xaa)}, Lacks: copies(), Why: "disk full"}},
		{Flowed: &coordinator.Flowed{AttemptRef: ref(), Commits: true, Ago: 1500}},
		{Warmed: &coordinator.Warmed{Job: "j7-b", Name: "chk-1-b-3-17"}},
		{Probed: &coordinator.Probed{Order: 3, Move: "m40-b", Why: "no broker"}},
	} {
		all = append(all, &m)
	}
	return all
}

func toAgent() []any {
	var all []any
	for _, m := range []coordinator.ToAgent{
		{Granted: &coordinator.Granted{Seq: 12, Lease: 3_000_000}},
		{Begin: &coordinator.Begin{AttemptRef: ref(), Subtasks: prepared().Subtasks, Moved: true}},
		{Trigger: &coordinator.Trigger{AttemptRef: ref(), Barrier: dataflow.Barrier{ID: id(18), Full: true, Then: dataflow.Halt}}},
		{Finish: &coordinator.Finish{AttemptRef: ref()}},
		{Seal: &coordinator.Seal{Feed: "j7.in", Epoch: 3}},
		{Refused: &coordinator.Refused{Why: "another mesh"}},
		{Copy: &coordinator.Copy{Order: 4, Index: 99, Name: "chk-3-17", Job: "j7", Parts: copies()}},
		{Over: &coordinator.Over{AttemptRef: ref()}},
		{Warm: &coordinator.Warm{Index: 99, Move: "m40-b", Job: "j7-b", Name: "chk-1-b-3-17", Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "out"}, Node: "n1"}}}},
		{Probe: &coordinator.Probe{Order: 3, Move: "m40-b", Job: coordinator.MovingJob{ID: "j7-b", Namespace: "default", Name: "gate", Spec: []byte("name: gate"), Created: at}, Epoch: 2,
			Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "out"}, Node: "n1"}}, Sessions: []dataflow.OperatorID{"in"}, From: &coordinator.Snapshot{Name: "chk-1-b-3-17", Job: "j7-b", Manifest: []byte("m")}}},
	} {
		m.Term = 2
		all = append(all, &m)
	}
	return all
}

// state1 is the state of docs/COMMANDS.md.
func state1() *coordinator.State {
	job := &coordinator.Job{ID: "j7", Namespace: "default", Name: "door", Spec: []byte("name: door"), Created: at, Status: coordinator.Running, Epoch: 1, Attempt: 3,
		Places: places(), From: "chk-2-9", Checkpoints: []*coordinator.Snapshot{snapshot("chk-3-16", 16), snapshot("chk-3-17", 17)}, Sinks: []coordinator.SinkCommit{commit()}, Request: "r1", Since: at}
	old := &coordinator.Job{ID: "j5", Namespace: "default", Name: "door", Spec: []byte{}, Created: at, Status: coordinator.Stopped, Epoch: 1, Attempt: 1, Savepoint: "sp-2", Since: at, End: 6,
		Checkpoints: []*coordinator.Snapshot{snapshot("chk-1-1", 1)}}
	old.Checkpoints[0].Job, old.Stands = "j5", []coordinator.Stand{{Feed: "plant"}, {Feed: "hall", Made: 44}}
	sp := snapshot("sp-2", 17)
	sp.Stands = old.Stands
	f := feed("plant")
	f.Log = coordinator.LogEpoch{Epoch: 2, Owner: "n2", Members: []mesh.NodeID{"n2"}, Start: 500, Starts: []int64{0, 500}, Heirs: []coordinator.Heir{{Node: "n1", From: 0}}}
	m := feed("j7-north.in")
	m.Mirror, m.Lineage, m.Reigns, m.Fork = &coordinator.Mirror{Site: "north", Feed: "j7-north.in"}, []coordinator.Reign{{Epoch: 1, Site: "north"}, {Epoch: 2, Site: "s", Start: 40}}, 3, &coordinator.Fork{At: 50}
	m.Made = 12
	m.Log.Mirror, m.Log.Reign = &coordinator.Mirror{Site: "north", Feed: "j7-north.in"}, &coordinator.Reign{Epoch: 2, Site: "s", Start: 40}
	return &coordinator.State{Index: 99, Term: 2, Leader: "n1", Mesh: "m", Site: "s", Level: 1,
		Agents: map[mesh.NodeID]*coordinator.Agent{"n1": new(agent())}, Jobs: map[coordinator.JobID]*coordinator.Job{"j5": old, "j7": job}, Names: map[string]coordinator.JobID{"door": "j7"},
		Feeds: map[string]*coordinator.Feed{"plant": &f, "j7-north.in": &m}, Savepoints: map[string]*coordinator.Snapshot{"sp-2": sp}, Tokens: map[string]*coordinator.Token{"t1": joinToken()},
		Removed: map[mesh.NodeID]*coordinator.Removed{"n9": {Node: "n9", Name: "gw-9", At: at}}, Replicas: replicas(), Forgotten: map[coordinator.JobID]*coordinator.Forgotten{}, Moves: coordinator.NewMoves()}
}

func replicas() map[coordinator.JobID]*coordinator.Replica {
	full := &coordinator.Replica{Job: movingJob(), From: "b", Epoch: 2, Snapshot: snapshot("chk-3-17", 17), Ends: []coordinator.FeedEnd{{Feed: "j7.in", End: 600}},
		Next: snapshot("chk-3-18", 18), Moving: "m12-b", Since: at, Later: &coordinator.Tenure{Epoch: 3, Site: "c", At: at}}
	empty := &coordinator.Replica{Job: coordinator.MovingJob{ID: "j8", Spec: []byte{}}, From: "b", Epoch: 1}
	return map[coordinator.JobID]*coordinator.Replica{"j7": full, "j8": empty}
}

// state2 is that of a site with jobs on their way.
func state2() *coordinator.State {
	s := state1()
	s.Level = coordinator.SitesLevel
	s.Jobs["j8-s"] = &coordinator.Job{ID: "j8-s", Namespace: "default", Name: "gone", Spec: []byte{}, Created: at, Status: coordinator.Moved, Epoch: 2, Attempt: 3, Since: at, End: 98,
		Owner: "b", History: []coordinator.Tenure{{Epoch: 1, Site: "s", At: at}, {Epoch: 2, Site: "b", At: at}}}
	s.Jobs["j9-s"] = &coordinator.Job{ID: "j9-s", Namespace: "default", Name: "going", Spec: []byte{}, Created: at, Status: coordinator.Suspended, Epoch: 1, Attempt: 3, Since: at, Move: "m40-s",
		Savepoint: "sp-j9-s-3-17", Then: dataflow.Halt}
	s.Names["going"] = "j9-s"
	f := feed("j8-s.in")
	f.Job, f.Owner = "j8-s", "b"
	f.Log = coordinator.LogEpoch{Epoch: 1, Owner: "n1", Members: []mesh.NodeID{"n1"}, Starts: []int64{0}, Held: true}
	s.Feeds[f.Name] = &f
	s.Moves.Departures["m40-s"] = &coordinator.Departure{ID: "m40-s", Job: "j9-s", To: "b", Epoch: 1, Phase: coordinator.DepartureOffered, Savepoint: "sp-j9-s-3-17", Ends: ends(), Begun: at, Since: at}
	s.Moves.Departures["m30-s"] = &coordinator.Departure{ID: "m30-s", Job: "j8-s", To: "b", Epoch: 1, Phase: coordinator.DepartureHandedOver, Savepoint: "sp-j8-s-3-17", Begun: at, Since: at}
	s.Moves.Arrivals["m9-b"] = &coordinator.Arrival{ID: "m9-b", From: "b", Epoch: 2, Phase: coordinator.ArrivalPrepared, Job: arrivingJob(), Savepoint: snapshot("sp-j5-b-3-17", 17), Ends: ends(), Begun: at, Since: at}
	s.Moves.Forgotten["b"], s.Moves.Forgotten["c"] = 7, 3
	s.Forgotten = map[coordinator.JobID]*coordinator.Forgotten{"j3-s": {Job: "j3-s", Index: 80, Has: coordinator.Tenure{Epoch: 2, Site: "b", At: at}},
		"j4-b": {Job: "j4-b", Index: 81, Has: coordinator.Tenure{Epoch: 3, Site: "s"}}}
	return s
}

// seal gives bytes the checksum that they need.
func seal(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(bytes.Clone(data), sum[:]...)
}
