package bench

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// simTick is how far the virtual time of a simSite goes at once.
const (
	simTick    = 50 * dataflow.Millisecond
	beatTicks  = 10   // a heartbeat each half second
	majorTicks = 4    // a majority is asked each 200 ms
	breakTicks = 2000 // each agent's stream breaks, and is opened again, each 100 s
)

// simJob has a checkpoint each second; %[1]d is its number.
const simJob = `name: job-%[1]d
parallelism: %[2]d
checkpoint: {interval: 1s}
sources:
  in: {generate: {rate: 1000}, event_time: ts, watermark: {bounded: 1s}}
steps:
  - {id: sums, from: in, key_by: [key], window: {tumbling: 1s}, select: {n: count(*)}}
sinks:
  - {id: out, from: sums, parallelism: %[2]d, blackhole: {}}
`

// simSite is a JobManager, the real one, and agents that only answer: all of it
// in one goroutine and in virtual time. What the agents say is made before it is
// measured what the JobManager does with it.
type simSite struct {
	machine *jobmanager.Machine
	leader  *leader.Leader
	journal *jobmanager.Journal
	index   uint64
	serial  int // of the site
	ticks   int
	now     dataflow.Time
	agents  []mesh.NodeID
	jobs    map[coordinator.JobID]*simRun
	beats   []leader.Event // what is to be measured next: what there is of agents that do nothing
	said    []leader.Event // and all else
	sent    []*leader.Send
	seq     uint64

	proposed []*leader.Propose
}

// simRun is an attempt on the agents.
type simRun struct {
	ref     coordinator.AttemptRef
	job     *coordinator.Job
	on      map[mesh.NodeID]*coordinator.Prepared
	tasks   map[dataflow.SubtaskID]*graph.Task
	barrier uint64
}

func newSimSite(serial int, z siteSize) (*simSite, error) {
	s := &simSite{serial: serial, machine: jobmanager.New(), journal: jobmanager.NewJournal(), jobs: make(map[coordinator.JobID]*simRun)}
	s.leader = leader.New(leader.Config{Term: 1, Self: "a0", Site: "s", Level: coordinator.BaseLevel, Timing: leader.DefaultTiming()})
	s.apply(coordinator.Command{Level: coordinator.BaseLevel, SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: "s"}}, 0)
	slots := (z.jobs*z.parallel + z.agents - 1) / z.agents
	for i := range z.agents {
		id := mesh.NodeID(fmt.Sprintf("a%d", i))
		s.agents = append(s.agents, id)
		a := coordinator.Agent{Node: id, Name: string(id), Host: string(id), Slots: slots, Level: coordinator.BaseLevel}
		s.say(id, coordinator.ToLeader{Hello: &coordinator.Hello{Agent: a, Boot: 1}})
	}
	s.workJobs()
	for i := range z.jobs {
		spec := fmt.Appendf(nil, simJob, i, z.parallel)
		s.apply(coordinator.Command{Level: coordinator.BaseLevel, JobSubmitted: &coordinator.JobSubmitted{
			Namespace: coordinator.DefaultNamespace, Name: fmt.Sprintf("job-%d", i), Spec: spec,
		}}, 0)
	}
	running := func() (n int) {
		for _, j := range s.machine.State().Jobs {
			if j.Status == coordinator.Running && len(j.Checkpoints) > 0 {
				n++
			}
		}
		return n
	}
	for range 200 {
		if running() == z.jobs && len(s.machine.State().Agents) == z.agents {
			return s, nil
		}
		if err := s.prepare(); err != nil {
			return nil, err
		}
		s.workAgents()
		s.workJobs()
	}
	return nil, fmt.Errorf("of %d jobs %d run", z.jobs, running())
}

func (s *simSite) say(from mesh.NodeID, m coordinator.ToLeader) {
	s.said = append(s.said, leader.Event{From: &leader.From{Node: from, Message: m}})
}

// prepare lets time pass and makes what the agents say then.
func (s *simSite) prepare() error {
	s.ticks++
	s.now = s.now.Add(simTick)
	if s.ticks%majorTicks == 0 {
		at := s.now
		s.said = append(s.said, leader.Event{Confirmed: &at})
	}
	for i, id := range s.agents {
		if i%beatTicks == s.ticks%beatTicks {
			s.seq++
			s.beat(id, coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: s.seq, Applied: s.index}})
		}
		if (s.serial*len(s.agents)+i)*2%breakTicks == s.ticks%breakTicks {
			s.comeBack(id)
		}
	}
	if err := s.deployed(); err != nil {
		return err
	}
	sent := s.sent
	s.sent = nil
	for _, m := range sent {
		if t := m.Message.Trigger; t != nil {
			if err := s.triggered(t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *simSite) beat(from mesh.NodeID, m coordinator.ToLeader) {
	s.beats = append(s.beats, leader.Event{From: &leader.From{Node: from, Message: m}})
}

// comeBack: an agent's stream broke, and it has opened another one.
func (s *simSite) comeBack(id mesh.NodeID) {
	a := s.machine.State().Agents[id]
	if a == nil {
		return
	}
	h := &coordinator.Hello{Agent: *a, Boot: 1, Applied: s.index}
	for _, j := range slices.Sorted(maps.Keys(s.jobs)) {
		if r := s.jobs[j]; r.on[id] != nil && s.machine.State().Jobs[j].Status == coordinator.Running {
			h.Attempts = append(h.Attempts, coordinator.AttemptNow{AttemptRef: r.ref, Phase: coordinator.PhaseRunning, Prepared: r.on[id], Barrier: r.barrier})
		}
	}
	s.beats = append(s.beats, leader.Event{Gone: &leader.Gone{Node: id}})
	s.beat(id, coordinator.ToLeader{Hello: h})
}

// deployed answers for new attempts.
func (s *simSite) deployed() error {
	for _, j := range s.machine.State().Jobs {
		ref := coordinator.AttemptRef{Job: j.ID, Token: j.Token("s")}
		if old := s.jobs[j.ID]; !j.Deployed() || old != nil && old.ref == ref {
			continue
		}
		parsed, err := leader.Parse(j)
		if err != nil {
			return err
		}
		r := &simRun{ref: ref, job: j, tasks: make(map[dataflow.SubtaskID]*graph.Task)}
		for _, t := range parsed.Graph.Subtasks {
			r.tasks[t.ID] = t.Task
		}
		s.jobs[j.ID] = r
		said := make(map[mesh.NodeID]*coordinator.Prepared)
		r.on = said
		for _, p := range j.Places {
			if said[p.Node] == nil {
				said[p.Node] = &coordinator.Prepared{AttemptRef: ref}
			}
			said[p.Node].Subtasks = append(said[p.Node].Subtasks, coordinator.PreparedSubtask{Subtask: p.Subtask, Source: r.tasks[p.Subtask].Head().Role == graph.SourceNode})
		}
		for _, id := range s.agents {
			if said[id] != nil {
				s.say(id, coordinator.ToLeader{Prepared: said[id]})
			}
		}
	}
	return nil
}

// triggered: every subtask has its share, a part on two agents.
func (s *simSite) triggered(t *coordinator.Trigger) error {
	r := s.jobs[t.Job]
	if r.barrier == t.Barrier.ID.Counter {
		return nil // another source was told before
	}
	r.barrier = t.Barrier.ID.Counter
	for i, p := range r.job.Places {
		share, err := r.share(p.Subtask, t.Barrier.ID, s.holders(p.Node, i))
		if err != nil {
			return err
		}
		s.say(p.Node, coordinator.ToLeader{Stored: &coordinator.Stored{AttemptRef: r.ref, ID: t.Barrier.ID, Subtask: p.Subtask, Share: share}})
	}
	return nil
}

// holders are an agent and another one, if there is one; which, differs by i.
func (s *simSite) holders(node mesh.NodeID, i int) []mesh.NodeID {
	other := s.agents[i%len(s.agents)]
	if other == node {
		other = s.agents[(i+1)%len(s.agents)]
	}
	if other == node {
		return []mesh.NodeID{node}
	}
	return []mesh.NodeID{node, other}
}

func (r *simRun) share(sub dataflow.SubtaskID, id dataflow.CheckpointID, nodes []mesh.NodeID) (coordinator.Share, error) {
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: "share", Job: r.job.Name, ID: id, MaxParallelism: 128, Mode: manifest.ExactlyOnce}
	digest := store.Digest(sha256.Sum256(fmt.Append(nil, r.ref, sub, id.Counter)))
	task := r.tasks[sub]
	for _, l := range task.Links {
		t := manifest.Table{Name: "t", Schema: `"x"`, Keyed: true, Identity: 1}
		for i := range task.Parallelism {
			shard := manifest.Shard{Subtask: i}
			if i == sub.Index {
				shard.Parts = []manifest.PartUse{{Part: store.Part{Digest: digest, Size: 10}, Rows: 1}}
			}
			t.Shards = append(t.Shards, shard)
		}
		m.Operators = append(m.Operators, manifest.Operator{ID: l.Node.ID, Parallelism: task.Parallelism, Tables: []manifest.Table{t}})
	}
	data, err := manifest.Encode(m)
	return coordinator.Share{Manifest: data, Copies: []coordinator.PartCopies{{Part: digest, Nodes: nodes}}, Bytes: 10}, err
}

// workAgents does what is measured of agents: each has its lease, comes and goes.
func (s *simSite) workAgents() {
	s.steps(s.beats)
	s.beats = nil
}

// workJobs does what is measured of jobs: what is said of them, and what is due.
func (s *simSite) workJobs() {
	said := s.said
	s.said = nil
	s.steps(said)
	if s.leader.Wake() <= s.now {
		s.step(leader.Event{})
		s.decide()
	}
}

func (s *simSite) steps(events []leader.Event) {
	for _, e := range events {
		s.step(e)
		s.decide()
	}
}

func (s *simSite) step(e leader.Event) {
	e.Now, e.Wall = s.now, s.now
	for _, f := range s.leader.Step(s.machine.State(), s.journal.Take(), e) {
		switch {
		case f.Propose != nil:
			s.proposed = append(s.proposed, f.Propose)
		case f.Send != nil:
			s.sent = append(s.sent, f.Send)
		}
	}
}

// decide is all that there is of consensus.
func (s *simSite) decide() {
	for i := 0; i < len(s.proposed); i++ { // they become more
		s.apply(s.proposed[i].Command, s.proposed[i].Ref)
	}
	s.proposed = s.proposed[:0]
}

func (s *simSite) apply(c coordinator.Command, ref int) {
	s.index++
	r, changes := s.machine.Apply(s.index, &c)
	s.journal.Add(changes)
	s.step(leader.Event{Applied: &leader.Applied{Index: s.index, Command: &c, Err: r.Err, Ref: ref}})
}

// simSites are of the same size, and go through time together.
type simSites []*simSite

func newSimSites(z siteSize) (all simSites, err error) {
	for i := range z.sites {
		s, err := newSimSite(i, z)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// pass lets so much time pass and says what the JobManagers cost, for the agents
// and for the jobs.
func (all simSites) pass(d dataflow.Duration) (agents, jobs work, err error) {
	for range d / simTick {
		for _, s := range all {
			if err := s.prepare(); err != nil {
				return agents, jobs, err
			}
		}
		agents.add(all.measure((*simSite).workAgents))
		jobs.add(all.measure((*simSite).workJobs))
	}
	return agents, jobs, nil
}

func (all simSites) measure(f func(*simSite)) work {
	w, _ := watch(func() error {
		for _, s := range all {
			f(s)
		}
		return nil
	})
	return w
}

func (w *work) add(o work) {
	w.cpu, w.wall, w.mallocs = w.cpu+o.cpu, w.wall+o.wall, w.mallocs+o.mallocs
}

// beyond is w and by how much other is more than a part of base.
func (w work) beyond(other, base work, part int) work {
	if more := other.cpu - base.cpu/time.Duration(part); more > 0 {
		w.cpu, w.wall = w.cpu+more, w.wall+max(0, other.wall-base.wall/time.Duration(part))
	}
	if more := int64(other.mallocs) - int64(base.mallocs)/int64(part); more > 0 {
		w.mallocs += uint64(more)
	}
	return w
}

// checkpoints is how many are complete, of all jobs.
func (all simSites) checkpoints() (n uint64) {
	for _, s := range all {
		for _, j := range s.machine.State().Jobs {
			n += j.Newest().ID.Counter
		}
	}
	return n
}
