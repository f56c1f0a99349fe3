package replication_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// The scripts in testdata: site a has jobs, site b keeps them; b's commands are
// applied to a state as its Raft would.
//
//	new
//	checkpoint j1-a 5 aa bb cc<aa+bb     the job's next, with these parts on agent a1; cc was merged of two others
//	release j1-a 5 · status j1-a stopped · forget j1-a · lose j1-a · epoch j1-a 2 · rescale j1-a 3 · index 3
//	copied j1-a [not] · whole j1-a [not] · void j1-a · stuck j1-a     of what is fetched
//	taken j1-a [not]                     a feed of the job was taken along with another one
//	run 3s                               time passes; who asks is answered
//	down · up · refuse · lead a · lead b the sites do not reach each other; b's log takes nothing; there is a new leader
//	pinned j1-a 5 · where j1-a aa · kept j1-a
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := &world{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.d, w.out = d, strings.Builder{}
			if d.Cmd == "new" {
				w.reset()
			}
			for line := range strings.Lines(d.Input) {
				if f := append(strings.Fields(line), "", "", ""); f[0] != "" {
					fmt.Fprint(&w.out, line, map[bool]string{true: "", false: "\n"}[strings.HasSuffix(line, "\n")])
					w.line(f)
				}
			}
			return w.out.String()
		})
	})
}

const noon = dataflow.Time(1_000_000_000)

type world struct {
	t   *testing.T
	d   *datadriven.TestData
	out strings.Builder
	now dataflow.Time

	a   *coordinator.State
	src *replication.Source
	b   *jobmanager.Machine
	f   *replication.Follower

	facts         map[coordinator.JobID]*replication.Record
	down, refuses bool
}

func (w *world) reset() {
	w.now, w.down, w.refuses = noon, false, false
	w.a = &coordinator.State{Index: 100, Site: "a", Jobs: map[coordinator.JobID]*coordinator.Job{}, Forgotten: map[coordinator.JobID]*coordinator.Forgotten{}}
	w.b = jobmanager.New()
	w.facts = make(map[coordinator.JobID]*replication.Record)
	w.lead("a")
	w.lead("b")
	for _, c := range []coordinator.Command{
		{SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: "b"}},
		{AgentJoined: &coordinator.Agent{Node: "b1", Name: "b1", Level: coordinator.Level}},
		{LevelRaised: &coordinator.LevelRaised{Level: coordinator.Level}},
	} {
		w.apply(&c)
	}
}

func (w *world) lead(site string) {
	if site == "a" {
		w.src = replication.NewSource(replication.Config{}, "a", w.now)
	} else {
		w.f = replication.NewFollower(replication.Config{}, "b", "a")
	}
}

func (w *world) apply(c *coordinator.Command) error {
	c.Level = c.Needs()
	r, _ := w.b.Apply(w.b.State().Index+1, c)
	return r.Err
}

func (w *world) line(f []string) {
	id := coordinator.JobID(f[1])
	if j := w.a.Jobs[id]; j != nil { // what is in a state is replaced
		w.a.Jobs[id] = new(*j)
	}
	j := w.a.Jobs[id]
	var n int
	_, _ = fmt.Sscan(f[2], &n)
	if w.facts[id] == nil {
		w.facts[id] = &replication.Record{}
	}
	switch f[0] {
	case "checkpoint":
		w.checkpoint(id, uint64(n), f[3:])
	case "release":
		j.Checkpoints = slices.DeleteFunc(slices.Clone(j.Checkpoints), func(c *coordinator.Snapshot) bool { return c.Name == "c"+f[2] })
	case "status":
		j.Status = coordinator.Stopped
	case "forget":
		w.a.Forgotten[id] = &coordinator.Forgotten{Job: id, Has: j.Tenure("a")}
		delete(w.a.Jobs, id)
	case "lose":
		delete(w.a.Jobs, id)
	case "epoch":
		j.Epoch = uint64(n)
	case "rescale":
		j.Parallelism = n
	case "index":
		_, _ = fmt.Sscan(f[1], &w.a.Index)
	case "copied":
		w.facts[id].Copied = f[2] != "not"
	case "whole":
		w.facts[id].Whole = f[2] != "not"
	case "void":
		w.facts[id].Void = f[2] != "not"
	case "taken":
		w.facts[id].Taken = map[bool]string{true: "line.at.a"}[f[2] != "not"]
	case "stuck":
		w.facts[id].Stuck = true
	case "down", "up":
		w.down = f[0] == "down"
	case "refuse":
		w.refuses = f[1] != "not"
	case "lead":
		w.lead(f[1])
	case "pinned":
		fmt.Fprintf(&w.out, "    %t\n", w.src.Pinned(w.now, id, "c"+f[2], []mesh.Site{"b"}))
	case "where":
		next := ""
		if r := w.b.State().Replicas[id]; r != nil && r.Next != nil {
			next = r.Next.Name
		}
		fmt.Fprintf(&w.out, "    %v\n", w.f.Where(id, next, digest(f[2])))
	case "run":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.d.Fatalf(w.t, "%v", err)
		}
		w.run(w.now.Add(dataflow.Duration(d.Microseconds())))
	default:
		w.d.Fatalf(w.t, "unknown line %q", f[0])
	}
}

func digest(s string) (d store.Digest) {
	_, _ = fmt.Sscanf(s, "%x", &d[0])
	return d
}

func (w *world) checkpoint(id coordinator.JobID, n uint64, parts []string) {
	job := w.a.Jobs[id]
	if job == nil {
		job = &coordinator.Job{ID: id, Name: "job", Spec: []byte("name: job"), Status: coordinator.Running, Epoch: 1}
		w.a.Jobs[id] = job
	}
	shard := manifest.Shard{}
	s := &coordinator.Snapshot{Name: fmt.Sprintf("c%d", n), Job: id, ID: dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: job.Epoch, Site: "a", Attempt: 1}, Counter: n}}
	for _, p := range parts {
		if p == "" {
			continue
		}
		name, from, merged := strings.Cut(p, "<")
		use := manifest.PartUse{Part: store.Part{Digest: digest(name), Size: 10}, Rows: 1, Delta: len(shard.Parts) > 0}
		for _, of := range strings.Split(from, "+") {
			if merged {
				use.From = append(use.From, digest(of))
			}
		}
		shard.Parts = append(shard.Parts, use)
		s.Copies = append(s.Copies, coordinator.PartCopies{Part: use.Digest, Nodes: []mesh.NodeID{"a1"}})
	}
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: s.Name, Job: "job", ID: s.ID, MaxParallelism: 8, Mode: "exactly-once", Operators: []manifest.Operator{{ID: "op", Parallelism: 1,
		Tables: []manifest.Table{{Name: "t", Schema: `{"type":"record","name":"t","fields":[]}`, Identity: 1, Shards: []manifest.Shard{shard}}}}}}
	data, err := manifest.Encode(m)
	if err != nil {
		w.d.Fatalf(w.t, "%v", err)
	}
	s.Manifest = data
	job.Checkpoints = append(slices.Clone(job.Checkpoints), s)
}

// run lets time pass.
func (w *world) run(end dataflow.Time) {
	w.step(replication.Event{})
	for w.f.Wake() <= end {
		w.now = max(w.now, w.f.Wake())
		w.step(replication.Event{})
	}
	w.now = end
}

func (w *world) records() replication.Records {
	replicas := w.b.State().Replicas
	return replication.Records{
		Of: func(id coordinator.JobID) replication.Record {
			rec := replication.Record{Replica: replicas[id], Settled: true}
			if facts := w.facts[id]; facts != nil {
				rec.Copied, rec.Whole, rec.Void, rec.Stuck, rec.Taken = facts.Copied, facts.Whole, facts.Void, facts.Stuck, facts.Taken
			}
			return rec
		},
		Kept: func() []coordinator.JobID { return slices.Sorted(maps.Keys(replicas)) },
	}
}

func (w *world) step(e replication.Event) {
	e.Now = w.now
	e.All = e.Offer == nil && e.Failed == nil && e.Rejected == nil
	for _, f := range slices.Clone(w.f.Step(w.records(), e)) {
		switch {
		case f.Tell != "":
			w.say("tells: %s", f.Tell)
		case f.Ask != nil:
			var jobs []string
			for _, j := range f.Ask.Want.Jobs {
				jobs = append(jobs, fmt.Sprintf("%s/%d has %q, fetches %q%s", j.Job, j.Epoch, j.Has, j.Next, map[bool]string{true: ", where?"}[j.Where]))
			}
			w.say("asks %s: %s", f.Ask.Site, strings.Join(jobs, "; "))
			if w.down {
				w.step(replication.Event{Failed: errors.New("no way there")})
			} else {
				w.answer(f.Ask)
			}
		case f.Propose != nil:
			w.propose(f.Propose)
		}
	}
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(&w.out, "    %d %s\n", (w.now-noon)/1000, fmt.Sprintf(format, args...))
}

func (w *world) answer(a *replication.Ask) {
	st := replication.Site{Index: w.a.Index, Find: func(id coordinator.JobID) *coordinator.Job { return w.a.Jobs[id] }, Of: w.a.Of, Owner: w.a.Tenure, Sure: true, Settled: true}
	for _, id := range slices.Sorted(maps.Keys(w.a.Jobs)) {
		if j := w.a.Jobs[id]; !j.Status.Ended() {
			st.Jobs = append(st.Jobs, replication.Job{Job: j, Text: coordinator.MovingJob{ID: id, Name: j.Name, Spec: j.Spec, Parallelism: j.Parallelism}})
		}
	}
	o := w.src.Answer(w.now, st, &a.Want)
	for _, j := range o.Jobs {
		var newest []string
		for _, s := range j.Newest {
			newest = append(newest, s.Name)
		}
		w.say("a offers %s/%d%s %v%s%s", j.Job, j.Epoch, map[bool]string{true: " text"}[j.Text != nil], newest, map[bool]string{true: " copies"}[len(j.Copies) > 0], map[bool]string{true: " lost"}[j.Lost])
	}
	w.step(replication.Event{Offer: o, Asked: a.No})
}

func (w *world) propose(c *coordinator.Command) {
	var job coordinator.JobID
	var what string
	switch {
	case c.ReplicaOffered != nil:
		job, what = c.ReplicaOffered.Job.ID, fmt.Sprintf("offered at %d", c.ReplicaOffered.Epoch)
	case c.ReplicaNext != nil:
		*w.facts[c.ReplicaNext.Job] = replication.Record{}
		job, what = c.ReplicaNext.Job, "next "+c.ReplicaNext.Snapshot.Name+map[bool]string{true: " instead"}[c.ReplicaNext.Replace]
	case c.ReplicaAdvanced != nil:
		job, what = c.ReplicaAdvanced.Job, "advanced "+c.ReplicaAdvanced.Name
	case c.ReplicaDropped != nil:
		job, what = c.ReplicaDropped.Job, "dropped"
	}
	w.say("%s: %s", job, what)
	if w.refuses || c.ReplicaOffered != nil && w.facts[job].Taken != "" { // its mirror cannot be made
		w.step(replication.Event{Rejected: &replication.Rejected{Job: job, Err: errors.New("refused")}})
		return
	}
	if c.ReplicaAdvanced != nil { // the test's agents have it, and then fetch the next
		r := w.b.State().Replicas[job]
		var copies []coordinator.PartCopies
		for _, p := range r.Next.Copies {
			copies = append(copies, coordinator.PartCopies{Part: p.Part, Nodes: []mesh.NodeID{"b1"}})
		}
		_ = w.apply(&coordinator.Command{CopiesChanged: &coordinator.CopiesChanged{Name: r.Next.Name, Job: job, Copies: copies}})
		*w.facts[job] = replication.Record{}
	}
	if err := w.apply(c); err != nil {
		w.say("%s: %v", job, err)
		w.step(replication.Event{Rejected: &replication.Rejected{Job: job, Err: err}})
		return
	}
	w.step(replication.Event{})
}
