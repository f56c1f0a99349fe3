package jobmanager_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// The scripts in testdata: a line is a command, applied at the next index. Its
// result follows: the kind and sentence of a refusal, and what changed. `show`
// prints what the state has. A word is KEY=VALUE; lists have commas.
//
//	leader 2 n1 · found m s · agent n1 name=a level=1 slots=2 · left n1 · level 2
//	token t1 uses=2 expires=100 · use t1 n3 [hash=x] · revoke t1
//	submit door from=sp-1 feeds=in,out adopts=in:j5.in reads=plant request=r1 [client=mine@b] · deploy j5 1 term=2 on=n1,n2 from=chk-1-1
//	became j5 1 running why=x savepoint=sp-1 · told j5 halt|drain|cancel · rescale j5 4 · forget j5
//	done j5 1 7 checkpoint=chk-1-7 savepoint=sp-1 request=r1 release=chk-1-6 [era=2] · committed j5 1 n1:out.csv:7:1000
//	import sp-9 · delete sp-9 · copies j5 chk-1-7 aa:n1,n2
//	feed plant replicas=2 · unfeed plant · epoch plant 1 term=2 owner=n1 members=n1,n2 start=0
//	offered j1-b from=b epoch=2 feeds=j1-b.in moving=m1-b · next j1-b chk-2-b-1-5 5 [replace] from=b epoch=2 era=2 parts=aa,bb
//	advanced j1-b chk-2-b-1-5 from=b epoch=2 ends=j1-b.in:600 · dropped j1-b from=b epoch=2
//	move began j5-a 1 to=b stay=f request=r · move halting m9-a · move offered m9-a savepoint=s ends=f:7 · move handed|aborted|forgotten m9-a
//	move fenced j5-a 2 owner=c · move arrives m9-a j5-a door from=a epoch=2 feeds=f stay=g reads=g · move unarrived m9-a
//	move prepared m9-a savepoint=s job=j5-a attempt=4 [era=1 site=a] ends=f:7 · move active m9-a verdict=1 force=yes
//	nothing · both · (any) @3: at feature level 3 · (any) !500: at time 500
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var m *jobmanager.Machine
		index := uint64(0)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				m, index = jobmanager.New(), 0
				return ""
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				if line = strings.TrimSpace(line); line == "show" {
					out.WriteString(show(m.State()))
					continue
				}
				index++
				fmt.Fprintf(&out, "%d %s\n", index, line)
				r, changes := m.Apply(index, parse(t, d, line))
				out.WriteString(result(r, changes))
				comesBack(t, m)
			}
			return out.String()
		})
	})
}

func result(r jobmanager.Result, changes []jobmanager.Change) string {
	var b strings.Builder
	if r.Err != nil {
		kind := "?"
		for _, k := range []error{jobmanager.ErrStale, jobmanager.ErrExists, jobmanager.ErrUnknown, jobmanager.ErrRefused} {
			if errors.Is(r.Err, k) {
				kind = k.Error()
			}
		}
		fmt.Fprintf(&b, "    %s: %v\n", kind, r.Err)
	}
	if r.Job != "" {
		fmt.Fprintf(&b, "    job %s\n", r.Job)
	}
	for _, c := range changes {
		fmt.Fprintf(&b, "    changed %s %s\n", c.What, c.Name)
	}
	return b.String()
}

// comesBack: a snapshot of the state restores to the same state.
func comesBack(t *testing.T, m *jobmanager.Machine) {
	t.Helper()
	var one, two bytes.Buffer
	if err := m.Snapshot()(&one); err != nil {
		t.Fatal(err)
	}
	other := jobmanager.New()
	if err := other.Restore(bytes.NewReader(one.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := other.Snapshot()(&two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) || show(m.State()) != show(other.State()) {
		t.Fatalf("restored it is another state: %v", err)
	}
}

func show(s *coordinator.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "    index %d, term %d of %s, site %s/%s, level %d\n", s.Index, s.Term, s.Leader, s.Mesh, s.Site, s.Level)
	for _, k := range slices.Sorted(maps.Keys(s.Agents)) {
		a := s.Agents[k]
		fmt.Fprintf(&b, "    agent %s %q level %d, %d slots\n", a.Node, a.Name, a.Level, a.Slots)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Tokens)) {
		t := s.Tokens[k]
		fmt.Fprintf(&b, "    token %s uses %d revoked %v nodes %v\n", t.ID, t.Uses, t.Revoked, t.Nodes)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Jobs)) {
		j := s.Jobs[k]
		fmt.Fprintf(&b, "    job %s %q %s: attempt %d, places %v, from %q, begin %q, restarts %d, parallelism %d, then %s, cancel %v, why %q, savepoint %q, reads %v\n",
			j.ID, j.Name, j.Status, j.Attempt, placesOf(j), j.From, j.Begin, j.Restarts, j.Parallelism, j.Then, j.Cancel, j.Why, j.Savepoint, j.Reads)
		if j.Epoch > 1 || len(j.Adopted) > 0 || j.Successor != "" || j.Completed > 0 {
			fmt.Fprintf(&b, "        epoch %d, adopted %v, successor %q, %d checkpoints completed\n", j.Epoch, j.Adopted, j.Successor, j.Completed)
		}
		if j.Move != "" || j.Owner != "" || len(j.History) > 0 {
			fmt.Fprintf(&b, "        move %q, owner %q, history %v\n", j.Move, j.Owner, j.History)
		}
		for _, c := range j.Checkpoints {
			fmt.Fprintf(&b, "        checkpoint %s%s\n", c.Name, copiesOf(c))
		}
		for _, c := range j.Sinks {
			fmt.Fprintf(&b, "        sink %s on %s: %d bytes through %d-%d\n", c.Target, c.Node, c.Length, c.Through.Token.Attempt, c.Through.Counter)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Forgotten)) {
		f := s.Forgotten[k]
		fmt.Fprintf(&b, "    forgotten %s at %d: %s has it at epoch %d\n", f.Job, f.Index, f.Has.Site, f.Has.Epoch)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Names)) {
		fmt.Fprintf(&b, "    name %s: %s\n", k, s.Names[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Feeds)) {
		f := s.Feeds[k]
		fmt.Fprintf(&b, "    feed %s of %q: epoch %d, owner %s, members %v, starts %v\n", f.Name, f.Job, f.Log.Epoch, f.Log.Owner, f.Log.Members, f.Log.Starts)
		if len(f.Past) > 0 {
			fmt.Fprintf(&b, "        past %v\n", f.Past)
		}
		if f.Owner != "" || f.Move != "" || f.Log.Held {
			fmt.Fprintf(&b, "        owner %q, move %q, held %v\n", f.Owner, f.Move, f.Log.Held)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Savepoints)) {
		fmt.Fprintf(&b, "    savepoint %s of %s%s\n", k, s.Savepoints[k].Job, copiesOf(s.Savepoints[k]))
	}
	showMoves(&b, &s.Moves)
	return b.String() + showReplicas(s)
}

func showMoves(b *strings.Builder, m *coordinator.Moves) {
	for _, k := range slices.Sorted(maps.Keys(m.Departures)) {
		d := m.Departures[k]
		fmt.Fprintf(b, "    departure %s of %s at %d to %s: %s, savepoint %q, ends %v, stay %v, why %q\n", k, d.Job, d.Epoch, d.To, d.Phase, d.Savepoint, d.Ends, d.Stay, d.Why)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Arrivals)) {
		a := m.Arrivals[k]
		name := ""
		if a.Savepoint != nil {
			name = a.Savepoint.Name
		}
		fmt.Fprintf(b, "    arrival %s of %s %q at %d from %s: %s, savepoint %q, ends %v, forced %v, why %q\n", k, a.Job.ID, a.Job.Name, a.Epoch, a.From, a.Phase, name, a.Ends, a.Forced, a.Why)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Forgotten)) {
		fmt.Fprintf(b, "    no arrival from %s up to %d\n", k, m.Forgotten[k])
	}
}

func placesOf(j *coordinator.Job) (out []string) {
	for _, p := range j.Places {
		out = append(out, fmt.Sprintf("%s@%s", p.Subtask, p.Node))
	}
	return out
}

func copiesOf(s *coordinator.Snapshot) string {
	var b strings.Builder
	for _, c := range s.Copies {
		fmt.Fprintf(&b, " %x:%v", c.Part[:1], c.Nodes)
	}
	return b.String()
}

// words are a script's line: those without and those with a key.
type words struct {
	plain []string
	named map[string]string
}

func (w words) at(i int) string {
	if i < len(w.plain) {
		return w.plain[i]
	}
	return ""
}

func (w words) job(i int) coordinator.JobID { return coordinator.JobID(w.at(i)) }

func (w words) number(i int) uint64 { return number(w.at(i)) }

func (w words) list(key string) []string {
	if w.named[key] == "" {
		return nil
	}
	return strings.Split(w.named[key], ",")
}

func (w words) nodes(key string) []mesh.NodeID { return nodes(w.list(key)) }

func nodes(list []string) (out []mesh.NodeID) {
	for _, n := range list {
		out = append(out, mesh.NodeID(n))
	}
	return out
}

func number(s string) uint64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return uint64(n)
}

func digest(s string) (d store.Digest) {
	n, _ := strconv.ParseUint(s, 16, 8)
	for i := range d {
		d[i] = byte(n)
	}
	return d
}

func hash(s string) []byte { d := digest(s); return d[:] }

func idOf(attempt, counter uint64) dataflow.CheckpointID {
	return dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "s", Attempt: attempt}, Counter: counter}
}

func parse(t *testing.T, d *datadriven.TestData, line string) *coordinator.Command {
	c := &coordinator.Command{Level: 1, At: 100}
	w := words{named: map[string]string{}}
	for _, f := range strings.Fields(line) {
		switch k, v, ok := strings.Cut(f, "="); {
		case strings.HasPrefix(f, "@"):
			c.Level = uint32(number(f[1:]))
		case strings.HasPrefix(f, "!"):
			c.At = dataflow.Time(number(f[1:]))
		case ok:
			w.named[k] = v
		default:
			w.plain = append(w.plain, f)
		}
	}
	if !site(c, w) && !job(c, w) && !snapshots(c, w) && !replicas(c, w) && !move(c, w) && w.at(0) != "nothing" {
		d.Fatalf(t, "unknown line %q", line)
	}
	return c
}

func site(c *coordinator.Command, w words) bool {
	switch w.at(0) {
	case "leader":
		c.LeaderBegan = &coordinator.LeaderBegan{Term: w.number(1), Node: mesh.NodeID(w.at(2))}
	case "found":
		c.SiteFounded = &coordinator.SiteFounded{Mesh: w.at(1), Site: mesh.Site(w.at(2))}
	case "agent":
		c.AgentJoined = &coordinator.Agent{Node: mesh.NodeID(w.at(1)), Name: w.named["name"], Level: uint32(number(w.named["level"])), Slots: int(number(w.named["slots"]))}
	case "left":
		c.AgentLeft = &coordinator.AgentLeft{Node: mesh.NodeID(w.at(1))}
	case "level":
		c.LevelRaised = &coordinator.LevelRaised{Level: uint32(w.number(1))}
	case "token":
		c.TokenCreated = &coordinator.Token{ID: w.at(1), Hash: hash(w.named["hash"]), Uses: int(int64(number(w.named["uses"]))), Expires: dataflow.Time(number(w.named["expires"])), Created: c.At,
			Founds: mesh.Site(w.named["founds"]), Sealed: make([]byte, number(w.named["sealed"]))}
	case "use":
		c.TokenUsed = &coordinator.TokenUsed{ID: w.at(1), Node: mesh.NodeID(w.at(2)), Hash: hash(w.named["hash"])}
	case "revoke":
		c.TokenRevoked = &coordinator.TokenRevoked{ID: w.at(1)}
	case "both":
		c.TokenRevoked, c.LevelRaised = &coordinator.TokenRevoked{}, &coordinator.LevelRaised{}
	case "feed":
		c.FeedCreated = &coordinator.Feed{Name: w.at(1), Replicas: int(int64(number(w.named["replicas"]))), Job: coordinator.JobID(w.named["job"]), Config: session(w.named["client"])}
	case "unfeed":
		c.FeedDeleted = &coordinator.FeedDeleted{Name: w.at(1)}
	case "epoch":
		c.LogEpochBegun = &coordinator.LogEpochBegun{Feed: w.at(1), Term: number(w.named["term"]), Log: coordinator.LogEpoch{
			Epoch: w.number(2), Owner: mesh.NodeID(w.named["owner"]), Members: w.nodes("members"), Start: int64(number(w.named["start"])), Held: w.named["held"] != ""}}
	default:
		return false
	}
	return true
}

func job(c *coordinator.Command, w words) bool {
	switch w.at(0) {
	case "submit":
		s := &coordinator.JobSubmitted{Namespace: w.named["namespace"], Name: w.at(1), From: w.named["from"], Request: w.named["request"], Reads: w.list("reads")}
		for _, f := range w.list("feeds") {
			s.Feeds = append(s.Feeds, coordinator.Feed{Name: f, Config: session(w.named["client"])})
		}
		for _, ad := range w.list("adopts") {
			source, feed, _ := strings.Cut(ad, ":")
			s.Adopts = append(s.Adopts, coordinator.Adoption{Source: dataflow.OperatorID(source), Feed: feed})
		}
		c.JobSubmitted = s
	case "deploy":
		dep := &coordinator.JobDeployed{Job: w.job(1), Attempt: w.number(2), Term: number(w.named["term"]), From: w.named["from"]}
		for i, n := range w.nodes("on") {
			dep.Places = append(dep.Places, coordinator.Place{Subtask: dataflow.SubtaskID{Task: "in", Index: len(w.list("on")) - 1 - i}, Node: n})
		}
		if w.named["twice"] != "" {
			dep.Places = append(dep.Places, dep.Places[0])
		}
		c.JobDeployed = dep
	case "became":
		b := &coordinator.JobBecame{Job: w.job(1), Attempt: w.number(2), Status: 77, Why: w.named["why"], Savepoint: w.named["savepoint"]}
		for s := coordinator.Created; s.Known(); s++ {
			if s.String() == w.at(3) {
				b.Status = s
			}
		}
		c.JobBecame = b
	case "told":
		then := map[string]dataflow.Then{"halt": dataflow.Halt, "drain": dataflow.Drain, "fly": 9}
		c.JobTold = &coordinator.JobTold{Job: w.job(1), Then: then[w.at(2)], Cancel: w.at(2) == "cancel"}
	case "rescale":
		c.JobRescaled = &coordinator.JobRescaled{Job: w.job(1), Parallelism: int(w.number(2))}
	case "forget":
		c.JobForgotten = &coordinator.JobForgotten{Job: w.job(1)}
	default:
		return false
	}
	return true
}

func snapshots(c *coordinator.Command, w words) bool {
	snapshot := func(name string, attempt, counter uint64) *coordinator.Snapshot {
		if name == "" {
			return nil
		}
		id := idOf(attempt, counter)
		id.Token.Epoch = max(1, number(w.named["era"]))
		if _, site, _ := w.job(1).Parts(); site != "" {
			id.Token.Site = cmp.Or(w.named["site"], string(site))
		}
		return &coordinator.Snapshot{Name: name, Job: w.job(1), ID: id, Copies: []coordinator.PartCopies{{Part: digest("aa"), Nodes: []mesh.NodeID{"n1"}}}}
	}
	switch w.at(0) {
	case "done":
		c.CheckpointDone = &coordinator.CheckpointDone{Attempt: w.number(2), Checkpoint: snapshot(w.named["checkpoint"], w.number(2), w.number(3)),
			Savepoint: snapshot(w.named["savepoint"], w.number(2), w.number(3)), Release: w.list("release")}
		if s := c.CheckpointDone.Savepoint; s != nil {
			s.Request = w.named["request"]
		}
		if w.named["other"] != "" {
			c.CheckpointDone.Savepoint.ID.Counter++
		}
	case "committed":
		s := &coordinator.SinkCommitted{Job: w.job(1), Attempt: w.number(2)}
		for _, text := range w.plain[3:] {
			f := strings.Split(text, ":") // node, target, counter, length, attempt
			attempt := s.Attempt
			if len(f) > 4 {
				attempt = number(f[4])
			}
			s.Commits = append(s.Commits, coordinator.SinkCommit{Operator: "out", Node: mesh.NodeID(f[0]), Target: f[1], Through: throughOf(w, attempt, number(f[2])), Length: int64(number(f[3]))})
		}
		c.SinkCommitted = s
	case "import":
		c.SavepointAdded = snapshot(w.at(1), 1, 1)
		c.SavepointAdded.Job = "j999"
	case "delete":
		c.SavepointDeleted = &coordinator.SavepointDeleted{Name: w.at(1)}
	case "copies":
		s := &coordinator.CopiesChanged{Job: w.job(1), Name: w.at(2)}
		if s.Job == "-" {
			s.Job = ""
		}
		part, on, _ := strings.Cut(w.at(3), ":")
		s.Copies = []coordinator.PartCopies{{Part: digest(part), Nodes: nodes(strings.Split(on, ","))}}
		c.CopiesChanged = s
	default:
		return false
	}
	return true
}

// throughOf is of the first epoch, at the site that the job's id names.
func throughOf(w words, attempt, counter uint64) dataflow.CheckpointID {
	id := idOf(attempt, counter)
	if _, site, _ := w.job(1).Parts(); site != "" {
		id.Token.Site = string(site)
	}
	return id
}

func ends(list []string) (out []coordinator.FeedEnd) {
	for _, e := range list {
		feed, end, _ := strings.Cut(e, ":")
		out = append(out, coordinator.FeedEnd{Feed: feed, End: int64(number(end))})
	}
	return out
}

// elsewhere are mirrors of other sites' feeds: NAME:FEED:SITE, or NAME:FEED:SITE:EPOCH.
func elsewhere(list []string) (all []coordinator.MovingFeed) {
	for _, e := range list {
		name, of, _ := strings.Cut(e, ":")
		feed, site, _ := strings.Cut(of, ":")
		site, epoch, said := strings.Cut(site, ":") // of its only reign
		m := coordinator.MovingFeed{Name: name, Stay: true, Of: &coordinator.Mirror{Feed: feed, Site: mesh.Site(site)}}
		if said {
			m.Lineage = reigns([]string{epoch + ":" + site + ":0"})
		}
		all = append(all, m)
	}
	return all
}

func move(c *coordinator.Command, w words) bool {
	id, m := coordinator.MoveID(w.at(2)), &coordinator.MoveCommand{}
	switch w.at(1) {
	case "began":
		m.Began = &coordinator.MoveBegan{Job: w.job(2), Epoch: w.number(3), To: mesh.Site(w.named["to"]), Stay: w.list("stay"), Request: w.named["request"]}
		for _, f := range w.list("configs") {
			name, client, _ := strings.Cut(f, ":")
			m.Began.Configs = append(m.Began.Configs, coordinator.FeedConfig{Feed: name, Config: session(client)})
		}
	case "halting":
		m.Halting = &coordinator.MoveHalting{ID: id}
	case "offered":
		m.Offered = &coordinator.MoveOffered{ID: id, Savepoint: w.named["savepoint"], Ends: ends(w.list("ends"))}
	case "handed", "aborted":
		m.Decided = &coordinator.MoveDecided{ID: id, HandedOver: w.at(1) == "handed", Why: w.named["why"]}
	case "forgotten":
		m.Forgotten = &coordinator.MoveForgotten{ID: id, Taken: w.named["taken"] != ""}
	case "fenced":
		m.Fenced = &coordinator.JobFenced{Job: w.job(2), Epoch: w.number(3), Owner: mesh.Site(w.named["owner"])}
	case "arrives":
		a := &coordinator.Arrival{ID: id, From: mesh.Site(w.named["from"]), Epoch: number(w.named["epoch"]), Job: coordinator.MovingJob{ID: w.job(3), Name: w.at(4), Reads: w.list("reads")}}
		for _, f := range w.list("feeds") {
			a.Job.Feeds = append(a.Job.Feeds, coordinator.MovingFeed{Name: f, Lineage: reigns(w.list("reigns")), Config: session(w.named["client"])})
		}
		for _, f := range w.list("stay") {
			a.Job.Feeds = append(a.Job.Feeds, coordinator.MovingFeed{Name: f, Stay: true, Lineage: reigns(w.list("reigns")), Config: session(w.named["client"])})
		}
		a.Job.Feeds = append(a.Job.Feeds, elsewhere(w.list("of"))...)
		m.ArrivalBegan = a
	case "prepared":
		s := &coordinator.Snapshot{Name: w.named["savepoint"], Job: coordinator.JobID(w.named["job"]), ID: idOf(number(w.named["attempt"]), 9), Copies: []coordinator.PartCopies{{Part: digest("aa"), Nodes: []mesh.NodeID{"n1"}}}}
		s.ID.Token.Epoch, s.ID.Token.Site = max(1, number(w.named["era"])), cmp.Or(w.named["site"], "a")
		m.ArrivalPrepared = &coordinator.ArrivalIsReady{ID: id, Savepoint: s, Ends: ends(w.list("ends"))}
	case "active":
		m.ArrivalDecided = &coordinator.ArrivalDecided{ID: id, Verdict: coordinator.MoveDecision(number(w.named["verdict"])), Forced: w.named["force"] != ""}
	case "unarrived":
		m.ArrivalForgotten = &coordinator.ArrivalForgotten{ID: id}
	default:
		return false
	}
	c.Move, c.Level = m, coordinator.SitesLevel
	return w.at(0) == "move"
}

// Whatever bytes are a command: Apply does not panic, a refusal changes nothing,
// and the state comes back from its snapshot.
func FuzzApply(f *testing.F) {
	var all [][]byte
	for _, line := range strings.Split(fuzzSeed, "\n") {
		data, err := codec.EncodeCommand(parse(nil, nil, line))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, data)
		f.Add(data, uint8(len(all)))
	}
	f.Fuzz(func(t *testing.T, data []byte, before uint8) {
		c, err := codec.DecodeCommand(data)
		if err != nil {
			return
		}
		m := jobmanager.New()
		index := uint64(0)
		for i := range min(int(before), len(all)) {
			seed, err := codec.DecodeCommand(all[i])
			if err != nil {
				t.Fatal(err)
			}
			index++
			if r, _ := m.Apply(index, seed); r.Err != nil {
				t.Fatalf("%d: %v", index, r.Err)
			}
		}
		was := show(m.State())
		r, changes := m.Apply(index+1, c)
		m.State().Index--
		if now := show(m.State()); r.Err != nil && (now != was || len(changes) > 0) {
			t.Fatalf("refused (%v), and changed\n%s\nto\n%s", r.Err, was, now)
		}
		m.State().Index++
		comesBack(t, m)
	})
}

const fuzzSeed = `leader 2 n1
found m s
agent n1 name=a level=1 slots=2
agent n2 name=b level=1 slots=2
token t1 uses=2 expires=100
use t1 n3
feed plant
submit door feeds=in reads=plant request=r1
deploy j8 1 term=2 on=n1,n2
became j8 1 running
done j8 1 7 checkpoint=chk-1-7 savepoint=sp-1
committed j8 1 n1:out.csv:7:1000
copies j8 chk-1-7 aa:n1,n2
epoch plant 1 term=2 owner=n1 members=n1,n2 start=0
epoch j8.in 1 term=2 owner=n1 members=n1,n2 start=5
import sp-9
rescale j8 4
told j8 halt
became j8 1 stopped savepoint=sp-1
forget j8
delete sp-1
revoke t1
level 1
left n1
unfeed plant`

// reigns reads 1:a:0, an epoch, a site and a start each, or 1:a:0:1, with a life.
func reigns(words []string) (all []coordinator.Reign) {
	for _, w := range words {
		var r coordinator.Reign
		f := strings.Split(w, ":")
		r.Site = mesh.Site(f[1])
		_, _ = fmt.Sscan(f[0], &r.Epoch)
		_, _ = fmt.Sscan(f[2], &r.Start)
		if len(f) > 3 {
			_, _ = fmt.Sscan(f[3], &r.Life)
		}
		all = append(all, r)
	}
	return all
}

// session is the config of a feed: CLIENT@BROKER.
func session(client string) []byte {
	id, broker, ok := strings.Cut(client, "@")
	if !ok {
		return nil
	}
	return fmt.Appendf(nil, `{"broker":"mqtt://%s","client_id":%q}`, broker, id)
}
