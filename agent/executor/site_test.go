package executor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// wires connects the parts of jobs of one process: what is sent is there.
type wires struct {
	mu    sync.Mutex // guards parts
	parts map[string]*wire
	stuck bool // nobody says that all was taken
}

// wire is one part's end.
type wire struct {
	w      *wires
	name   string
	ref    coordinator.AttemptRef
	job    *runtime.Job
	places []coordinator.Place
	plan   *runtime.Plan
	lost   func(mesh.NodeID, error)
	node   mesh.NodeID
	closed chan struct{}
	once   sync.Once
}

// on is the wires as one agent has them.
type on struct {
	w    *wires
	node mesh.NodeID
}

func nameOf(node mesh.NodeID, ref coordinator.AttemptRef) string { return fmt.Sprint(node, ref) }

// Join is executor.Channels'.
func (o on) Join(ref coordinator.AttemptRef, j *runtime.Job, p *runtime.Plan, places []coordinator.Place, lost func(mesh.NodeID, error)) (executor.Joined, error) {
	part := &wire{w: o.w, name: nameOf(o.node, ref), ref: ref, job: j, places: places, plan: p, lost: lost, node: o.node, closed: make(chan struct{})}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.parts[part.name] = part
	return part, nil
}

// Outlet is executor.Joined's: an Inlet is one, in one process.
func (p *wire) Outlet(c runtime.Channel) (runtime.Outlet, error) {
	to := p.plan.Subtasks[c.To.Subtask].Config.ID
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, pl := range p.places {
		if pl.Subtask == to {
			other := p.w.parts[nameOf(pl.Node, p.ref)]
			if other == nil {
				return nil, fmt.Errorf("%s is not there", pl.Node)
			}
			return other.job.Inlet(c.To)
		}
	}
	return nil, fmt.Errorf("%s has no place", to)
}

// Flush is executor.Joined's.
func (p *wire) Flush() error {
	p.w.mu.Lock()
	delete(p.w.parts, p.name)
	stuck := p.w.stuck
	p.w.mu.Unlock()
	if stuck {
		<-p.closed
		return errors.New("it was closed")
	}
	return nil
}

// Close is executor.Joined's: the others lose their channels.
func (p *wire) Close() error {
	p.once.Do(func() { close(p.closed) })
	p.w.mu.Lock()
	var others []*wire
	if p.w.parts[p.name] == p {
		delete(p.w.parts, p.name)
		for _, o := range p.w.parts {
			if o.ref == p.ref {
				others = append(others, o)
			}
		}
	}
	p.w.mu.Unlock()
	for _, o := range others {
		o.lost(p.node, errors.New("its streams ended"))
	}
	return nil
}

// agent is one node of the test's site.
type agent struct {
	id    mesh.NodeID
	dir   string
	state *durable.State
	tr    *simnet.Transport
	x     *executor.Executor
}

// site is the nodes, and a leader that does what the test tells it.
type site struct {
	t      *testing.T
	net    *simnet.Net
	wires  *wires
	agents map[mesh.NodeID]*agent
	disks  map[mesh.NodeID]store.FS // where parts are; nil: the machine's
	events chan happened
	copied chan copied
	probed chan coordinator.Probed
	job    *coordinator.Job
	ref    coordinator.AttemptRef
	facts  []coordinator.PreparedSubtask
	counts uint64
	lines  []string
	mu     sync.Mutex // guards lines
}

type happened struct {
	node mesh.NodeID
	worker.AttemptEvent
}

// copied is what an agent says of copies.
type copied struct {
	node mesh.NodeID
	coordinator.Copied
}

func newSite(t *testing.T, spec string, nodes ...mesh.NodeID) *site {
	s := &site{t: t, net: simnet.New(), wires: &wires{parts: make(map[string]*wire)}, agents: make(map[mesh.NodeID]*agent), disks: make(map[mesh.NodeID]store.FS), events: make(chan happened, 1000), copied: make(chan copied, 1000), probed: make(chan coordinator.Probed, 1),
		job: &coordinator.Job{ID: "j7", Name: "counts", Spec: []byte(spec), Epoch: 1}}
	for _, id := range nodes {
		s.start(id, t.TempDir())
	}
	t.Cleanup(func() {
		for _, id := range nodes {
			s.stop(id)
		}
	})
	return s
}

func (s *site) start(id mesh.NodeID, dir string) *agent {
	s.t.Helper()
	a := &agent{id: id, dir: dir}
	var err error
	if a.state, err = durable.Open(a.dir, s.disks[id]); err != nil {
		s.t.Fatal(err)
	}
	a.tr = s.net.New(id, "home")
	a.x, err = executor.New(executor.Options{
		Node: id, Site: "home", Dir: a.dir, State: a.state, Transport: a.tr, Channels: on{s.wires, id},
		Peers: func(key string, suits func(*mesh.Member) bool) []mesh.NodeID {
			return executor.Rank(key, id, s.members(), suits)
		},
		Events: func(e worker.AttemptEvent) { s.events <- happened{id, e} },
		Copied: func(c coordinator.Copied) { s.copied <- copied{id, c} },
		Probed: func(p coordinator.Probed) { s.probed <- p },
		Tell: func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lines = append(s.lines, string(id)+": "+line)
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	a.tr.Start()
	s.agents[id] = a
	return a
}

func (s *site) members() (all []mesh.Member) {
	for id := range s.agents {
		all = append(all, mesh.Member{Node: id, Site: "home", Host: string(id), Status: mesh.Alive})
	}
	return all
}

// stop ends an agent as a crash does, as far as others see.
func (s *site) stop(id mesh.NodeID) {
	a := s.agents[id]
	if a == nil {
		return
	}
	delete(s.agents, id)
	if err := errors.Join(a.tr.Close(), a.x.Close(), a.state.Close()); err != nil {
		s.t.Error(err)
	}
}

// deploy prepares the next attempt, and returns what was not prepared.
func (s *site) deploy(places ...coordinator.Place) (failed *coordinator.AttemptFailed) {
	s.t.Helper()
	return s.deployFrom(s.job.Newest(), places...)
}

// deployFrom is deploy, from any snapshot.
func (s *site) deployFrom(from *coordinator.Snapshot, places ...coordinator.Place) (failed *coordinator.AttemptFailed) {
	s.t.Helper()
	s.job.Attempt++
	j := *s.job
	j.Places = places
	s.job, s.counts, s.facts = &j, 0, nil
	s.ref = coordinator.AttemptRef{Job: j.ID, Token: j.Token("home")}
	moved := false
	nodes := s.nodes()
	for _, n := range nodes {
		s.agents[n].x.Do(worker.Effect{Prepare: &worker.Prepare{AttemptRef: s.ref, Job: &j, From: from}})
	}
	for range nodes {
		e := s.await("Prepared", func(e *happened) bool { return e.Prepared != nil || e.Failed != nil })
		if e.Failed != nil {
			return e.Failed
		}
		s.facts = append(s.facts, e.Prepared.Subtasks...)
		moved = moved || e.Prepared.Moved
	}
	for _, n := range nodes {
		s.agents[n].x.Do(worker.Effect{Begin: &coordinator.Begin{AttemptRef: s.ref, Subtasks: s.facts, Moved: moved}})
	}
	return nil
}

// nodes are those that run something of the present attempt, and live.
func (s *site) nodes() (all []mesh.NodeID) {
	for _, p := range s.job.Places {
		if !slices.Contains(all, p.Node) && s.agents[p.Node] != nil {
			all = append(all, p.Node)
		}
	}
	return all
}

// await passes over what is not asked for, but for the records of sinks.
func (s *site) await(what string, want func(*happened) bool) *happened {
	s.t.Helper()
	for {
		e := <-s.events
		if e.Committed != nil {
			s.record(e.Committed)
		}
		if e.Failed != nil && e.Failed.AttemptRef != s.ref {
			continue // it was told that it is closed before it said so: closeAll
		}
		if want(&e) {
			return &e
		}
		if e.Failed != nil || e.NotStored != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("%s while %s is waited for: %+v %+v\n%s", e.node, what, e.Failed, e.NotStored, strings.Join(s.lines, "\n"))
		}
	}
}

// record is SinkCommitted.
func (s *site) record(c *coordinator.Committed) {
	if c.AttemptRef != s.ref {
		return
	}
	j := *s.job
	j.Sinks = slices.Clone(j.Sinks)
	for _, k := range c.Commits {
		i := slices.IndexFunc(j.Sinks, func(o coordinator.SinkCommit) bool { return o.Operator == k.Operator && o.Target == k.Target })
		if i < 0 {
			j.Sinks = append(j.Sinks, k)
		} else {
			j.Sinks[i] = k
		}
	}
	s.job = &j
}

func (s *site) tellAll(e worker.Effect) {
	for _, n := range s.nodes() {
		s.agents[n].x.Do(e)
	}
}

// trigger begins a checkpoint and waits for all shares.
func (s *site) trigger(full bool) *coordinator.Snapshot {
	s.t.Helper()
	s.counts++
	id := dataflow.CheckpointID{Token: s.ref.Token, Counter: s.counts}
	s.tellAll(worker.Effect{Trigger: &coordinator.Trigger{AttemptRef: s.ref, Barrier: dataflow.Barrier{ID: id, Full: full}}})
	snap := &coordinator.Snapshot{Name: checkpoint.Name(id), Job: s.job.ID, ID: id}
	var shares []manifest.Share
	for range s.facts {
		e := s.await("Stored", func(e *happened) bool { return e.Stored != nil && e.Stored.ID == id })
		m, err := manifest.Decode(e.Stored.Share.Manifest)
		if err != nil {
			s.t.Fatal(err)
		}
		shares = append(shares, manifest.Share{Subtask: e.Stored.Subtask.Index, Manifest: m})
		snap.Copies = append(snap.Copies, e.Stored.Share.Copies...)
	}
	m, err := manifest.Assemble(manifest.Manifest{Kind: manifest.Checkpoint, Name: snap.Name, Job: s.job.Name, ID: id, MaxParallelism: shares[0].Manifest.MaxParallelism, Mode: manifest.ExactlyOnce}, shares)
	if err != nil {
		s.t.Fatal(err)
	}
	if snap.Manifest, err = manifest.Encode(m); err != nil {
		s.t.Fatal(err)
	}
	return snap
}

// keep is what all agents hear of a job's snapshots.
func (s *site) keep(all ...*coordinator.Snapshot) {
	j := *s.job
	j.Checkpoints = all
	s.job = &j
	for _, a := range s.agents {
		a.x.Do(worker.Effect{Kept: &worker.Kept{Job: j.ID, Snapshots: all}})
	}
}

// complete is CheckpointDone, as all agents hear of it.
func (s *site) complete(snap *coordinator.Snapshot, retain int) {
	all := append(slices.Clone(s.job.Checkpoints), snap)
	s.keep(all[max(0, len(all)-retain):]...)
	s.tellAll(worker.Effect{Complete: &worker.Complete{AttemptRef: s.ref, Snapshot: snap}})
}

// committed waits until all sinks have committed a checkpoint.
func (s *site) committed(id dataflow.CheckpointID) {
	s.t.Helper()
	for _, f := range s.facts {
		if f.Commits {
			s.await("Committed", func(e *happened) bool { return e.Committed != nil && e.Committed.ID == id })
		}
	}
}

// finish takes the last two checkpoints and ends the job.
func (s *site) finish() {
	s.t.Helper()
	for range 2 {
		snap := s.trigger(false)
		s.complete(snap, 2)
		s.committed(snap.ID)
	}
	s.tellAll(worker.Effect{Finish: &coordinator.Finish{AttemptRef: s.ref}})
	for range s.nodes() {
		s.await("Ended", func(e *happened) bool { return e.Ended != nil })
	}
}

// closeAll ends the attempt everywhere. What loses a channel to one that is closed
// already fails, if it is not told in time: then it is gone, too, and says no more, or
// that it is closed besides.
func (s *site) closeAll() {
	s.t.Helper()
	nodes := s.nodes()
	s.tellAll(worker.Effect{Close: &s.ref})
	gone := make(map[mesh.NodeID]bool)
	for len(gone) < len(nodes) {
		e := s.await("Closed", func(e *happened) bool {
			return e.Closed != nil && *e.Closed == s.ref || e.Failed != nil && e.Failed.AttemptRef == s.ref
		})
		gone[e.node] = true
	}
}

// lines are the rows of all agents' files, sorted.
func linesOf(t *testing.T, dirs ...string) (lines []string) {
	t.Helper()
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "out", "*.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				if l != "" {
					lines = append(lines, l)
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func at(task string, index int, node mesh.NodeID) coordinator.Place {
	return coordinator.Place{Subtask: dataflow.SubtaskID{Task: dataflow.TaskID(task), Index: index}, Node: node}
}

// closeRest closes what is left of an attempt of which a part has failed.
func (s *site) closeRest() {
	s.t.Helper()
	nodes := s.nodes()
	s.tellAll(worker.Effect{Close: &s.ref})
	for range nodes {
		s.await("Closed", func(e *happened) bool { return e.Closed != nil })
	}
}

// drain forgets what was said until now.
func (s *site) drain() {
	synctest.Wait()
	for {
		select {
		case <-s.events:
		default:
			return
		}
	}
}

// What a process that was killed left of jobs that may never run here again goes at the start.
func TestScratchOfTheProcessBefore(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "jobs", "j9", "scratch", "big")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o755), os.WriteFile(left, make([]byte, 1<<10), 0o644)); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "")
	s.start("a", dir)
	defer s.stop("a")
	if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
