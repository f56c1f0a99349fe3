package leader_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The scripts in testdata: what happens to a site, and what its agents then do,
// each line with its time in milliseconds.
//
//	site level=3 n1=2 n2=8:2    the feature level of the programs, 1 if it is not given (forsake=1m: Timing.Forsake); agents with so many slots, and memory for so many, all started; the first leads
//	submit files                a job of script.jobs; its first, second … parallelism: p=2; of its log: copies=3 lanes=2
//	run 5s                      time passes; everything that was done until then
//	crash n2 · start n2 · freeze n2 · thaw n2 · break n2 · cut n1 n2 · heal · lead n2
//	remove n2 · wipe n2         it is taken out of the site; its parts are lost, and it says so when it starts
//	hold n2 prepared, stored, closed, copied, probed, or of a log seal, role or end · let n2      its executor says nothing of that kind · it does again
//	hold n2 pushes · let n2     it sees nobody to give copies to · it does again
//	refuse n2 WHY               its executor cannot prepare anything, nor reach it, because of that; empty: it can
//	fail n2 JOB WHY             a task of the job fails there; final: for good
//	savepoint JOB 1 · stop JOB 2 · drain JOB 2 · cancel JOB 3 · rescale JOB 2
//	move JOB to SITE · move JOB halting, offered, handed or aborted   what the leader's driver of a move would propose
//	commits off · commits on    no SinkCommitted comes into the log · it does again
//	large begin                 this message is too large to be sent; prepared; nothing
//	gone n2 perhaps             somebody knows that its process has ended, or supposes so
//	full n2 · room n2           its disk takes no copies · it does again
//	free n2 300                 its disk has so many MiB, and it says so now and then
//	jobs · feeds · copies       what the state says
//	world · world three         two sites, a and b, of two agents each; or c, too · at b: what follows is there
//	join b3                     one more agent of this site
//	lose a · return a           all its agents crash; they start, and the first leads
//	part b c · meet b c         these two sites do not reach each other · they do
//	failover JOB 1 force dry    a person's wish here
//	link off · link lossy · link on       between the sites
//	migrate JOB 1 · try JOB 1 · unmove JOB 1 · force JOB 1 sure      to the other site · moves: what both states say
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.d, s.args = d, nil
			for _, a := range d.CmdArgs {
				s.args = append(s.args, a.String())
			}
			s.do()
			text := s.out.String()
			s.out.Reset()
			return text
		})
	})
}

type script struct {
	*site
	t    *testing.T
	d    *datadriven.TestData
	args []string
	out  strings.Builder
}

const steps = `
steps: [{id: a, from: in, key_by: [key], window: {tumbling: 1s}, select: {n: count(*)}}]
`

// jobs of scripts.
var jobs = map[string]string{
	"files":   "name: files\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + "sinks: [{id: out, from: a, file: {path: out.jsonl}}]",
	"bounded": "name: bounded\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + "sinks: [{id: out, from: a, file: {path: out.jsonl}}]",
	"acts":    "name: acts\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + `sinks: [{id: pub, from: a, mqtt: {broker: "mqtt://h", topic: t}}]`,
	"far": `name: far
sources: {in: {generate: {rate: 10, keys: 4}, slot_group: front}}
steps: [{id: a, from: in, key_by: [key], window: {tumbling: 1s}, select: {n: count(*)}, slot_group: back}]
sinks: [{id: pub, from: a, slot_group: front, mqtt: {broker: "mqtt://h", topic: t}}]`,
	"one":   "name: one\nreplicas: 1\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + "sinks: [{id: out, from: a, file: {path: out.jsonl}}]",
	"three": "name: three\nreplicas: 3\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + "sinks: [{id: out, from: a, file: {path: out.jsonl}}]",
	"loose": "name: loose\nwhen_short: degrade\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + "sinks: [{id: out, from: a, file: {path: out.jsonl}}]",
	"none":  "name: none\nrestart: {strategy: none}\nsources: {in: {generate: {rate: 10, keys: 4}}}" + steps + "sinks: [{id: out, from: a, file: {path: out.jsonl}}]",
	"logged": `name: logged
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t]}, format: json, fields: {key: string}, event_time: ingestion}}
sinks: [{id: out, from: in, file: {path: out.jsonl}}]`,
	"both": `name: both
replicate_to: [b, c]
checkpoint: {interval: 2s}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t]}, format: json, fields: {key: string}, event_time: ingestion}}
sinks: [{id: out, from: in, file: {path: out.jsonl}}]`,
	"lax": `name: lax
replicate_to: [b]
on_isolation: continue
checkpoint: {interval: 2s}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t]}, format: json, fields: {key: string}, event_time: ingestion}}
sinks: [{id: out, from: in, file: {path: out.jsonl}}]`,
	"kept": `name: kept
replicate_to: [b]
checkpoint: {interval: 2s}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t]}, format: json, fields: {key: string}, event_time: ingestion}}
sinks: [{id: out, from: in, file: {path: out.jsonl}}]`,
}

func (s *script) do() {
	switch s.d.Cmd {
	case "site":
		s.begin()
	case "world":
		s.beginWorld()
	case "at":
		s.site = s.sites[map[string]int{"a": 0, "b": 1, "c": 2}[s.args[0]]]
	case "link":
		s.link()
	case "failover":
		s.failover(slices.Contains(s.args[2:], "force"), slices.Contains(s.args[2:], "dry"))
	case "lose":
		s.clock.site(mesh.Site(s.args[0])).lose()
	case "return":
		s.clock.site(mesh.Site(s.args[0])).comeBack()
	case "part", "meet":
		s.wan.cut[[2]mesh.Site{mesh.Site(s.args[0]), mesh.Site(s.args[1])}] = s.d.Cmd == "part"
	case "migrate", "try", "unmove", "force":
		s.wishMove()
	case "moves":
		s.sayMoves()
	case "replicas":
		s.sayReplicas()
	case "submit":
		s.submitJob()
	case "run":
		d, err := time.ParseDuration(s.args[0])
		if err != nil {
			s.d.Fatalf(s.t, "%v", err)
		}
		s.run(s.now + dataflow.Time(d.Microseconds()))
	case "lead":
		s.lead(s.node().id)
	case "crash":
		s.node().crash()
	case "leave":
		s.node().leave()
	case "left":
		if !s.node().left() {
			s.d.Fatalf(s.t, "it has not left")
		}
	case "start":
		s.node().start()
	case "freeze":
		s.node().freeze()
	case "thaw":
		s.node().thaw()
	case "break":
		s.node().breakStream()
	case "cut":
		s.cuts[[2]mesh.NodeID{mesh.NodeID(s.args[0]), mesh.NodeID(s.args[1])}] = true
	case "heal":
		clear(s.cuts)
	case "gone":
		n := s.node()
		s.leads.step(leader.Event{Gone: &leader.Gone{Node: n.id, Boot: n.boot, Sure: len(s.args) == 1}})
	case "commits":
		s.noCommits = s.args[0] == "off"
	case "large":
		s.large = s.args[0]
	case "hold", "let", "refuse", "fail":
		s.executor()
	case "savepoint", "stop", "drain", "cancel", "rescale":
		s.wish()
	case "move":
		s.move()
	case "remove":
		s.node().remove()
	case "join": // one more agent of this site
		s.add(mesh.NodeID(s.args[0]), 3).start()
	case "wipe":
		clear(s.node().parts)
		s.node().wiped = true
	case "parts":
		s.node().exec.parts, _ = strconv.Atoi(s.args[1])
	case "anew": // a mirror's copy, and nothing has come since
		d := s.node().disk[s.args[1]]
		d.End = 0
		s.node().disk[s.args[1]] = d
	case "full", "room":
		s.node().exec.full = s.d.Cmd == "full"
	case "free":
		mib, _ := strconv.ParseInt(s.args[1], 10, 64)
		s.node().free = mib << 20
	case "copies":
		s.sayCopies()
	case "jobs":
		s.sayJobs()
	case "feeds":
		s.sayFeeds()
	default:
		s.d.Fatalf(s.t, "unknown command")
	}
}

func (s *script) node() *node { return s.nodes[mesh.NodeID(s.args[0])] }

func (s *script) begin() {
	s.site = newSite(nil, s.t.Errorf, func(format string, args ...any) {
		fmt.Fprintf(&s.out, "%d %s\n", s.now/ms, fmt.Sprintf(format, args...))
	})
	first := ""
	for _, a := range s.args {
		name, slots, _ := strings.Cut(a, "=")
		switch name {
		case "level":
			n, _ := strconv.Atoi(slots)
			s.level = uint32(n)
			continue
		case "forsake":
			d, _ := time.ParseDuration(slots)
			s.timing.Forsake = dataflow.Duration(d.Microseconds())
			continue
		}
		slots, memory, _ := strings.Cut(slots, ":")
		n, _ := strconv.Atoi(slots)
		box := s.add(mesh.NodeID(name), n)
		box.agent.Memory, _ = strconv.ParseInt(memory, 10, 64)
		box.agent.Memory <<= 20
		box.start()
		first = min(name, first+strings.Repeat("~", max(0, 1-len(first))))
	}
	s.lead(mesh.NodeID(first))
}

func (s *script) submitJob() {
	name, p, copies, lanes := s.args[0], 1, 0, 1
	for _, a := range s.args[1:] {
		_, _ = fmt.Sscanf(a, "p=%d", &p)
		_, _ = fmt.Sscanf(a, "copies=%d", &copies)
		_, _ = fmt.Sscanf(a, "lanes=%d", &lanes)
	}
	var feeds []coordinator.Feed
	if strings.Contains(jobs[name], "topics: [t]") {
		feeds = append(feeds, coordinator.Feed{Name: "in", Config: fmt.Appendf(nil, `{"lanes":%d}`, lanes), Replicas: copies, Degrade: slices.Contains(s.args, "degrade")})
	}
	s.submit(name, fmt.Sprintf("parallelism: %d\n%s", p, jobs[name]), "", feeds...)
}

func (s *script) executor() {
	x := s.node().exec
	rest := strings.Join(s.args[1:], " ")
	switch s.d.Cmd {
	case "hold":
		x.noPrepared, x.noStored, x.noClosed = rest == "prepared", rest == "stored", rest == "closed"
		x.noSeal, x.noRole, x.noCopied = rest == "seal", rest == "role", rest == "copied"
		x.noProbed, x.alone = rest == "probed", rest == "pushes"
	case "let":
		x.noPrepared, x.noStored, x.noClosed, x.noSeal, x.noRole, x.noCopied, x.noProbed, x.alone = false, false, false, false, false, false, false, false
		for id, r := range x.attempts {
			if r.closing {
				x.closed(r.ref)
			} else if !r.began {
				s.d.Fatalf(s.t, "job %s was held before it was prepared", id)
			}
		}
	case "refuse":
		x.failPrepare = rest
	case "fail":
		j := s.job(s.args[1])
		why := strings.Join(s.args[2:], " ")
		x.failed(x.attempts[j.ID], why, strings.HasPrefix(why, "final"))
	}
}

func (s *script) wish() {
	j := s.job(s.args[0])
	ref := 0
	if len(s.args) > 1 {
		ref, _ = strconv.Atoi(s.args[1])
	}
	w := &leader.Wish{Ref: ref}
	switch s.d.Cmd {
	case "savepoint":
		w.Savepoint = &j.ID
	case "stop":
		w.Stop = &coordinator.JobTold{Job: j.ID, Then: dataflow.Halt}
	case "drain":
		w.Stop = &coordinator.JobTold{Job: j.ID, Then: dataflow.Drain}
	case "cancel":
		w.Stop = &coordinator.JobTold{Job: j.ID, Cancel: true}
	case "rescale":
		s.log = append(s.log, entry{command: &coordinator.Command{Level: coordinator.BaseLevel, JobRescaled: &coordinator.JobRescaled{Job: j.ID, Parallelism: ref}}})
		return
	}
	s.leads.step(leader.Event{Wish: w})
}

// move puts a command about a job's move into the log.
func (s *script) move() {
	j, st, m := s.job(s.args[0]), s.state(), &coordinator.MoveCommand{}
	var id coordinator.MoveID
	if d := st.Leaving(j.ID); d != nil {
		id = d.ID
	}
	switch s.args[1] {
	case "to":
		m.Began = &coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: mesh.Site(s.args[2])}
	case "halting":
		m.Halting = &coordinator.MoveHalting{ID: id}
	case "offered":
		m.Offered = &coordinator.MoveOffered{ID: id, Savepoint: j.Savepoint}
		for name, f := range st.Feeds {
			m.Offered.Ends = append(m.Offered.Ends, coordinator.FeedEnd{Feed: name, End: f.Log.Start})
		}
	case "handed", "aborted":
		m.Decided = &coordinator.MoveDecided{ID: id, HandedOver: s.args[1] == "handed", Why: "a test"}
	}
	s.log = append(s.log, entry{command: &coordinator.Command{Level: coordinator.SitesLevel, Move: m}})
}

func (s *script) sayJobs() {
	st := s.state()
	var ids []string
	for id := range st.Jobs {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	for _, id := range ids {
		j := st.Jobs[coordinator.JobID(id)]
		fmt.Fprintf(&s.out, "%s: %s, attempt %d", j.Name, j.Status, j.Attempt)
		if j.Deployed() {
			fmt.Fprintf(&s.out, " on %v", j.Places)
		}
		for _, c := range j.Checkpoints {
			fmt.Fprintf(&s.out, " %s", c.Name)
		}
		if j.Savepoint != "" {
			fmt.Fprintf(&s.out, ", savepoint %s", j.Savepoint)
		}
		for _, c := range j.Sinks {
			fmt.Fprintf(&s.out, ", %s on %s through %d-%d", c.Target, c.Node, c.Through.Token.Attempt, c.Through.Counter)
		}
		if j.Why != "" {
			fmt.Fprintf(&s.out, ": %s", j.Why)
		}
		fmt.Fprintln(&s.out)
	}
}

func (s *script) sayFeeds() {
	for name, f := range s.state().Feeds {
		fmt.Fprintf(&s.out, "%s: epoch %d of %s, copies on %v, from %d, acknowledged to %d\n", name, f.Log.Epoch, f.Log.Owner, f.Log.Members, f.Log.Start, s.acked[name])
	}
}
