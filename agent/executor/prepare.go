package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/file"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// final is an error that another attempt would meet again.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// parsed is an attempt's job, built for where it begins.
type parsed struct {
	job    *job.Job
	from   *manifest.Manifest
	graph  *graph.ExecutionGraph
	plan   runtime.Plan
	ends   *connect.Connectors
	layout durable.Layout
	rows   *restore.Plan // nil: it begins afresh
	base   *durable.Base
}

// prepare parses the job, gets the parts of what it goes on from, cuts back files
// of sinks that are elsewhere now, opens the connectors and restores the state.
func (a *attempt) prepare() error {
	defer a.cool()
	p, err := a.build()
	if err != nil {
		return final{err}
	}
	a.parsed, a.replicas = p, p.job.Replicas
	a.phases.ends(phasePlan)
	if err := a.context(); err != nil {
		return err
	}
	if err := a.fetch(); err != nil {
		return err
	}
	a.phases.ends(phaseFetch)
	if err := a.cutBack(); err != nil {
		return err
	}
	if err := a.takeWarm(); err != nil {
		return err
	}
	a.shares = durable.NewShares(durable.SharesOptions{
		State: a.x.o.State, Tables: a.localTables(), Parallelism: p.layout.Parallelism, Base: p.base, Post: a.post, Stored: a.stored,
		Events: func(line string) { a.tell("%s", line) },
	})
	j := runtime.New(p.plan, a.runtimeOptions())
	a.mu.Lock()
	a.job = j
	a.mu.Unlock()
	if a.opened, err = j.Open(a.ctx); err != nil {
		return a.unopened(err)
	}
	a.phases.ends(phaseOpen)
	a.phases.moves(a.opened.Restoring+a.late, phaseRestore)
	a.joined, err = a.x.o.Channels.Join(a.ref, j, &p.plan, a.asked.Job.Places, a.lost)
	return err
}

// context is why the attempt is to end, if it is.
func (a *attempt) context() error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	return nil
}

// unopened judges an error of what was opened. What is not there, or not
// allowed, when a job runs for the first time is told at once; parts that are
// damaged the next attempt fetches anew.
func (a *attempt) unopened(err error) error {
	if errors.Is(err, store.ErrCorrupt) && a.parsed.rows != nil {
		bad := a.x.o.State.Damaged(durable.Needed(a.parsed.rows, a.parsed.layout, a.local()))
		a.x.mu.Lock()
		a.x.damaged[a.ref.Job] = bad
		a.x.mu.Unlock()
		a.tell("%d parts are damaged here, and are to be fetched anew: %v", len(bad), err)
		return err
	}
	passes := errors.Is(err, sensors.ErrNotPermitted) || errors.As(err, new(passing)) || a.ctx.Err() != nil
	if errors.Is(err, file.ErrNotReplayable) || a.ref.Token.Attempt == 1 && !passes {
		return final{err}
	}
	return err
}

// held is under what the parts that it is restored from are held: until it runs,
// their manifest may be let go. Nothing else is ever held under it, as it is let go
// some time after it was said.
func (a *attempt) held() string {
	return fmt.Sprintf("%s restored, %d", a.ref.Job, a.serial)
}

// place is where each subtask runs.
func (a *attempt) place(id dataflow.SubtaskID) mesh.NodeID {
	for _, p := range a.asked.Job.Places {
		if p.Subtask == id {
			return p.Node
		}
	}
	return ""
}

func (a *attempt) here(id dataflow.SubtaskID) bool { return a.place(id) == a.x.o.Node }

// local are the subtasks that run here.
func (a *attempt) local() (all []dataflow.SubtaskID) {
	for _, p := range a.asked.Job.Places {
		if p.Node == a.x.o.Node {
			all = append(all, p.Subtask)
		}
	}
	return all
}

func (a *attempt) localTables() map[dataflow.SubtaskID][]runtime.TableOf {
	tables := make(map[dataflow.SubtaskID][]runtime.TableOf)
	for _, id := range a.local() {
		tables[id] = a.parsed.layout.Tables[id]
	}
	return tables
}

// build parses the job and plans it for where it begins.
func (a *attempt) build() (*parsed, error) {
	spec := a.asked.Job
	p := &parsed{}
	var err error
	if p.job, err = job.Load(spec.Name, spec.Spec, job.Options{Set: spec.Sets, Parallelism: spec.Parallelism}); err != nil {
		return nil, err
	}
	if from := a.asked.From; from != nil {
		m, err := manifest.Decode(from.Manifest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from.Name, err)
		}
		p.from = &m
		if err := a.foreign(p); err != nil {
			return nil, err
		}
	}
	if err := a.plan(p, p.job.Graph); err != nil {
		return nil, err
	}
	tables := runtime.New(p.plan, runtime.Options{}).Tables()
	if p.from != nil {
		saved := *p.from
		own := a.asked.From.Job == a.ref.Job && saved.Kind == manifest.Checkpoint
		saved.Drained = saved.Drained && !own // of its own the last commit is still to be done
		report := restore.Check(&saved, restore.JobOf(p.job.Graph, durable.TablesOf(tables)), restore.Options{AllowNonRestored: spec.AllowNonRestored})
		if err := report.Err(); err != nil {
			return nil, err
		}
		p.rows = report.Plan()
		if p.rows.MaxParallelism != p.job.Graph.MaxParallelism {
			g := *p.job.Graph
			g.MaxParallelism = p.rows.MaxParallelism
			if err := a.plan(p, &g); err != nil {
				return nil, err
			}
		}
	}
	p.layout = durable.LayoutOf(p.graph, tables)
	p.base = durable.BaseOf(p.rows, p.layout)
	return p, a.placed(p)
}

// placed checks that the places are those of this job's subtasks.
func (a *attempt) placed(p *parsed) error {
	for i := range p.graph.Subtasks {
		if id := p.graph.Subtasks[i].ID; a.place(id) == "" {
			return fmt.Errorf("job %q: subtask %s has no place: its leader knows another job by this name", p.job.Name, id)
		}
	}
	if n := len(a.asked.Job.Places); n != len(p.graph.Subtasks) {
		return fmt.Errorf("job %q: %d subtasks have a place, and it has %d", p.job.Name, n, len(p.graph.Subtasks))
	}
	return nil
}

// foreign refuses positions in feeds that this job has not taken over: they are
// numbers in another log.
func (a *attempt) foreign(p *parsed) error {
	j := a.asked.Job
	if a.asked.From.Job == j.ID {
		return nil
	}
	for _, s := range p.job.Sources {
		took := func(ad coordinator.Adoption) bool { return ad.Source == s.ID }
		if s.MQTT == nil || slices.ContainsFunc(j.Adopted, took) {
			continue
		}
		for _, o := range p.from.Operators {
			if o.ID == s.ID && len(o.Positions) > 0 {
				return fmt.Errorf("%s: source %q stands at positions of another log than that of feed %s; give the source another id to begin with what arrives", p.from.Name, s.ID, j.OwnFeed(s.ID))
			}
		}
	}
	return nil
}

// plan makes the plan of the whole job, of which only what is here is opened.
func (a *attempt) plan(p *parsed, g *graph.StreamGraph) (err error) {
	p.graph = graph.Expand(graph.Chain(g, graph.Options{}))
	task := make(map[dataflow.OperatorID]dataflow.TaskID)
	for i := range p.graph.Subtasks {
		for _, l := range p.graph.Subtasks[i].Task.Links {
			task[l.Node.ID] = p.graph.Subtasks[i].ID.Task
		}
	}
	x := a.x
	o := connect.Options{
		Job: p.job, Clock: x.o.Clock, Secrets: x.o.Secrets, Events: func(line string) { a.tell("%s", line) }, From: p.from, Permit: x.o.Permit, Durable: true,
		Files: x.o.Files, Out: x.out(), Overwrite: a.asked.Job.Overwrite, State: x.o.State.FS(),
		SinkDir: func(op dataflow.OperatorID) string { return x.o.State.SinkDir(string(a.ref.Job), op) },
		Local: func(op dataflow.OperatorID, subtask int) bool {
			return a.here(dataflow.SubtaskID{Task: task[op], Index: subtask})
		},
		Placed: func(op dataflow.OperatorID, _, parallelism int) sensors.Placed {
			return a.sinkPlaced(op, task[op], parallelism)
		},
		Feed: func(s *job.Source, subtask, parallelism int) (sensors.Reader, error) {
			return x.logs.reader(a.ctx, a.asked.Job, s, subtask, parallelism)
		},
	}
	p.ends = connect.New(o)
	if p.plan, err = runtime.NewPlan(p.graph, p.ends); err != nil {
		return fmt.Errorf("job %q: %w", p.job.Name, err)
	}
	p.plan.Keep(a.here)
	connect.GiveDisk(p.job, &p.plan, x.o.State.Scratch(string(a.ref.Job)))
	return nil
}

// sinkPlaced is where a sink is, and what is on record of it.
func (a *attempt) sinkPlaced(op dataflow.OperatorID, task dataflow.TaskID, parallelism int) sensors.Placed {
	p := sensors.Placed{Node: string(a.x.o.Node), Attempt: a.ref.Token}
	for i := range parallelism {
		p.Nodes = append(p.Nodes, string(a.place(dataflow.SubtaskID{Task: task, Index: i})))
	}
	if a.asked.From != nil {
		p.From = a.asked.From.ID
	}
	for _, c := range a.asked.Job.Sinks {
		if c.Operator == op {
			p.Commits = append(p.Commits, sensors.Commit{Target: c.Target, Through: c.Through, Length: c.Length})
		}
	}
	return p
}

// cutBack makes the files of sinks that this agent has lost what is on record of
// them: another one commits what is behind that.
func (a *attempt) cutBack() error {
	written := make(map[string]bool)
	for i := range a.parsed.graph.Subtasks {
		st := &a.parsed.graph.Subtasks[i]
		for _, l := range st.Task.Links {
			s, ok := l.Node.Sink.(*job.Sink)
			if ok && s.File != nil && a.here(st.ID) {
				written[file.SiteTarget(string(a.x.o.Node), file.Target(s.File.Path, st.ID.Index, st.Task.Parallelism))] = true
			}
		}
	}
	a.x.awaitCut(a.ref.Job)
	if err := a.x.cutBack(a.asked.Job, func(target string) bool { return written[target] }); err != nil {
		return err
	}
	a.x.mu.Lock()
	a.written = written
	a.x.mu.Unlock()
	return nil
}

// cutting is a job whose files are being cut back, or which is being forgotten: that is
// done before another attempt of it touches them.
type cutting struct {
	job  coordinator.JobID
	done chan struct{} // closed when they are
}

// Lost has those files of a job cut back that nobody writes here: what a zombie, or a
// process that was killed, committed here without its being on record, another agent
// commits again; and what is not on record any more comes again. It is for whenever
// worker.Effect says so; doing it again is nothing. It does not block.
func (x *Executor) Lost(j *coordinator.Job) {
	if slices.ContainsFunc(j.Sinks, func(c coordinator.SinkCommit) bool { return c.Node == x.o.Node }) {
		x.kept.lose(j)
	}
}

// loses cuts back the files of such a job, to what is on record now; false: its last
// attempt here still ends, or the present one begins. A later one than was asked for
// does it itself, or it is said once more.
func (x *Executor) loses(asked *coordinator.Job) (bool, error) {
	j, token := asked, asked.Token(x.o.Site)
	if x.o.Present != nil {
		j = x.o.Present(asked.ID)
		if j == nil || j.Token(x.o.Site) != token || j.Status.Ended() != asked.Status.Ended() {
			return true, nil
		}
	}
	x.mu.Lock()
	a, last := x.attempts[j.ID], x.tokens[j.ID]
	var written map[string]bool
	switch {
	case slices.ContainsFunc(j.Places, func(p coordinator.Place) bool { return p.Node == x.o.Node }):
		if a == nil || a.ref.Token != token || a.written == nil {
			x.mu.Unlock()
			return false, nil
		}
		written = a.written
	case !last.Less(token) && !j.Status.Ended():
		x.mu.Unlock()
		return true, nil
	case a != nil:
		x.mu.Unlock()
		return false, nil
	}
	x.cutting = &cutting{job: j.ID, done: make(chan struct{})}
	x.mu.Unlock()
	defer x.hasCut()
	return true, x.cutBack(j, func(target string) bool { return written[target] })
}

func (x *Executor) cutBack(j *coordinator.Job, written func(string) bool) error {
	var errs []error
	var is map[dataflow.OperatorID]bool // file sinks, once they are asked for
	files := connect.Rooted(x.o.Files, x.out())
	for _, c := range j.Sinks {
		if c.Node != x.o.Node || written(c.Target) || x.givenAway(j.ID, c) {
			continue
		}
		if is == nil {
			var err error
			if is, err = fileSinks(j); err != nil {
				return err
			}
		}
		if is[c.Operator] {
			errs = append(errs, file.CutBack(files, string(x.o.Node), c.Target, c.Length))
		}
	}
	return errors.Join(errs...)
}

// givenAway tells whether a target is not the job's any more: another one has gone
// on with it, after this was asked.
func (x *Executor) givenAway(id coordinator.JobID, c coordinator.SinkCommit) bool {
	if x.o.Present == nil {
		return false
	}
	now := x.o.Present(id)
	return now == nil || !slices.ContainsFunc(now.Sinks, func(s coordinator.SinkCommit) bool { return s.Node == c.Node && s.Target == c.Target })
}

// fileSinks are the operators of a job that write files.
func fileSinks(spec *coordinator.Job) (map[dataflow.OperatorID]bool, error) {
	j, err := job.Load(spec.Name, spec.Spec, job.Options{Set: spec.Sets, Parallelism: spec.Parallelism})
	if err != nil {
		return nil, err
	}
	is := make(map[dataflow.OperatorID]bool)
	for _, s := range j.Sinks {
		is[s.ID] = s.File != nil
	}
	return is, nil
}

// fetch gets the parts that the subtasks here are restored from.
func (a *attempt) fetch() error {
	if a.parsed.rows == nil {
		return nil
	}
	holders := make(map[store.Digest][]mesh.NodeID)
	for _, c := range a.asked.From.Copies {
		holders[c.Part] = c.Nodes
	}
	needed := durable.Needed(a.parsed.rows, a.parsed.layout, a.local())
	a.phases.From, a.phases.Parts = a.asked.From.Name, len(needed)
	for _, p := range needed {
		a.phases.Bytes += p.Size
		if !a.x.o.State.Parts().Has(p) {
			a.phases.Fetched += p.Size
		}
		if err := a.mend(holders[p.Digest], p); err != nil {
			return fmt.Errorf("%s: %w", a.asked.From.Name, err)
		}
	}
	err := a.x.peers.FetchAll(a.ctx, needed, func(d store.Digest) []mesh.NodeID { return holders[d] })
	if err != nil {
		return fmt.Errorf("%s: %w", a.asked.From.Name, err)
	}
	a.x.holds.Take(a.held(), dataflow.CheckpointID{}, needed...)
	return nil
}

// mend fetches a part anew that was found damaged here.
func (a *attempt) mend(from []mesh.NodeID, p store.Part) error {
	x := a.x
	x.mu.Lock()
	bad := slices.Contains(x.damaged[a.ref.Job], p)
	x.mu.Unlock()
	if !bad {
		return nil
	}
	if err := x.peers.Replace(a.ctx, from, p); err != nil {
		return err
	}
	x.o.State.Parts().Unpin(p) // it is pinned again with the others
	x.mu.Lock()
	x.damaged[a.ref.Job] = slices.DeleteFunc(x.damaged[a.ref.Job], func(d store.Part) bool { return d == p })
	x.mu.Unlock()
	return nil
}

// defaultCommit is how often sinks that do not commit with checkpoints make
// their rows visible when the job names no interval.
const defaultCommit = time.Second

func (a *attempt) runtimeOptions() runtime.Options {
	commit := defaultCommit
	if i := a.parsed.job.Checkpoint.Interval; i > 0 {
		commit = i.Go()
	}
	slots := schedule.Used(schedule.Slots(a.parsed.graph, a.parsed.job.Constraints, a.parsed.job.Placement), a.asked.Job.Places)[a.x.o.Node]
	o := runtime.Options{
		Memory: a.x.memoryOf(slots), CommitInterval: commit, Now: time.Now, Events: a.heard, AtLeastOnce: a.parsed.job.Checkpoint.Mode == job.AtLeastOnce,
		Collector: collector{a}, Outlet: func(c runtime.Channel) (runtime.Outlet, error) { return a.joined.Outlet(c) },
	}
	if a.parsed.rows != nil {
		o.Drained = a.parsed.from.Drained
		o.Restore, o.GoesOn = a.x.o.State.Restore(a.parsed.rows, a.parsed.layout), a.parsed.base.GoesOn
		if a.warm != nil {
			o.Warm, o.Restore = a.warm.warm, a.warm.state.Rest(a.parsed.rows, a.parsed.layout)
		}
	}
	return o
}
