package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/sensors/file"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// attempt makes one attempt: it finds where to begin, builds the job, and runs
// it. Without an error the job has finished or was stopped.
func (r *durableRun) attempt(ctx context.Context, kept *durable.Job, first bool) error {
	point, err := r.begin(kept)
	if err != nil {
		return final{err}
	}
	m := point.Manifest
	switch {
	case m == nil || m.Kind == manifest.Savepoint || !m.Finished:
	case m.Drained:
		return final{fmt.Errorf("job %q: %s: %w; start it under another name, or with --from-savepoint", r.local.job.Name, m.Name, ErrDrained)}
	default:
		return r.finishedBefore(m)
	}
	if first && m != nil {
		if err := r.goesOn(m); err != nil {
			return final{err}
		}
	}
	r.become(coordinator.Restoring)
	token, err := kept.NextAttempt()
	if err != nil {
		return r.unopened(first, err)
	}
	a, plan, layout, err := r.plan(m)
	if err != nil {
		return final{err}
	}
	if err := r.around.open(r.local.job, r.local.hearing); err != nil {
		return r.unopened(first, err)
	}
	if err := errors.Join(r.pinFrom(kept, point), r.around.tidyPins()); err != nil {
		return err
	}
	// Only now that nothing is refused, and before anything is put out.
	if r.from != "" {
		if err := kept.BeginAt(token, *m, r.from, r.local.opt.Claim); err != nil {
			return err
		}
		r.from = ""
	}
	base := durable.BaseOf(plan, layout)
	c := r.checkpointerOf(kept, a, layout, base, point, token)
	opt := r.local.runtimeOptions()
	opt.Collector, opt.AtLeastOnce = c, r.local.job.Checkpoint.Mode == job.AtLeastOnce
	if plan != nil {
		opt.Drained = m.Drained
		opt.Restore, opt.GoesOn = r.local.opt.State.store.Restore(plan, layout), base.GoesOn
	}
	if first {
		l := r.local
		l.opt.Events(fmt.Sprintf("job %s keeps its state in %s: a checkpoint every %s", l.job.Name, l.opt.State.store.Dir(), interval(l.job)))
	}
	r.become(coordinator.Running)
	ran, err := r.drive(ctx, a, c, opt)
	if errors.Is(err, file.ErrNotReplayable) || first && errors.Is(err, file.ErrChanged) { // and so it is at the next attempt
		return final{err}
	}
	if err != nil {
		if !ran {
			return r.unopened(first, err)
		}
		return err
	}
	return r.ended(c.Outcome())
}

// unopened is an error of an attempt in which nothing ran. What cannot even be
// opened when a person starts it is told at once.
func (r *durableRun) unopened(first bool, err error) error {
	if first {
		return final{err}
	}
	return err
}

// begin finds where the attempt begins.
func (r *durableRun) begin(kept *durable.Job) (p durable.Point, err error) {
	l := r.local
	if r.from != "" {
		m, on, err := kept.From(r.from)
		if err != nil {
			return p, err
		}
		if !on {
			if p.Kept, err = kept.Names(); err != nil {
				return p, err
			}
			if l.opt.Claim && strings.HasPrefix(m.Name, manifest.CheckpointPrefix) {
				return p, fmt.Errorf("job %q: %s cannot be claimed, as checkpoints of the job have names like it; delete it and import it again", l.job.Name, m.Name)
			}
			if l.opt.Claim {
				p.Kept = append([]string{m.Name}, p.Kept...)
			}
			p.Manifest = &m
			l.opt.Events(fmt.Sprintf("job %s begins at savepoint %s of job %s", l.job.Name, m.Name, m.Job))
			return p, nil
		}
		r.from = ""
		l.opt.Events(fmt.Sprintf("job %s has begun at savepoint %s before, and goes on from there", l.job.Name, m.Name))
	}
	p, err = kept.Newest()
	for _, d := range p.Damaged {
		l.opt.Events(fmt.Sprintf("job %s: DAMAGED: %v", l.job.Name, d))
	}
	if err != nil {
		return p, err
	}
	if p.Manifest != nil {
		if len(p.Damaged) > 0 {
			l.opt.Events(fmt.Sprintf("job %s goes back to the older %s, because what is newer is damaged", l.job.Name, p.Manifest.Name))
		}
		l.opt.Events(fmt.Sprintf("job %s goes on from %s", l.job.Name, p.Manifest.Name))
	}
	return p, nil
}

// goesOn refuses a savepoint or checkpoint from which the job's feeds could not go
// on, before a session is opened: it may be another's, that runs; and what
// arrived would get the numbers of entries that were lost, and be passed over.
func (r *durableRun) goesOn(m *manifest.Manifest) error {
	if err := foreign(r.local.job, m); err != nil {
		return err
	}
	s := r.local.opt.State.store
	for _, src := range r.local.job.Sources {
		if src.MQTT == nil && src.Feed == nil {
			continue
		}
		r.local.opt.State.looking.Lock()
		err := logged(r.local.job, m, src, feed.Options{Dir: s.Dir(), FS: s.FS()})
		r.local.opt.State.looking.Unlock()
		if err != nil {
			return fmt.Errorf("source %q: %w", src.ID, err)
		}
	}
	return nil
}

// foreign refuses positions in feeds that this job does not read: they are
// numbers in the other log.
func foreign(j *job.Job, m *manifest.Manifest) error {
	for _, s := range j.Sources {
		if s.MQTT == nil || m.Job == j.Name {
			continue
		}
		for _, o := range m.Operators {
			if o.ID == s.ID && len(o.Positions) > 0 {
				return fmt.Errorf("savepoint %s: source %q stands at positions of the feed %s, and this job's mqtt: source has a feed of its own, %s; read that one with feed: %s, or give the source another id to begin with what arrives",
					m.Name, s.ID, m.Job+"."+string(s.ID), feedName(j.Name, s), m.Job+"."+string(s.ID))
			}
		}
	}
	return nil
}

// plan builds the job for where it begins, and says what rows go where.
func (r *durableRun) plan(m *manifest.Manifest) (*attempt, *restore.Plan, durable.Layout, error) {
	l := r.local
	a, err := l.build(l.job.Graph, m)
	if err != nil {
		return nil, nil, durable.Layout{}, err
	}
	tables := runtime.New(a.plan, runtime.Options{}).Tables()
	if m == nil {
		return a, nil, durable.LayoutOf(a.graph, tables), nil
	}
	saved := *m
	saved.Drained = saved.Drained && saved.Kind == manifest.Savepoint // its own: the last commit is still to be done
	report := restore.Check(&saved, restore.JobOf(l.job.Graph, durable.TablesOf(tables)), restore.Options{AllowNonRestored: l.opt.AllowNonRestored})
	if err := report.Err(); err != nil {
		return nil, nil, durable.Layout{}, err
	}
	plan := report.Plan()
	if plan.MaxParallelism != l.job.Graph.MaxParallelism {
		g := *l.job.Graph
		g.MaxParallelism = plan.MaxParallelism
		if a, err = l.build(&g, m); err != nil {
			return nil, nil, durable.Layout{}, err
		}
	}
	return a, plan, durable.LayoutOf(a.graph, tables), nil
}

// pinFrom keeps what the attempt may have to read again before its first
// checkpoint: from where it begins, or from an older checkpoint if that is found
// damaged.
func (r *durableRun) pinFrom(kept *durable.Job, p durable.Point) error {
	var ms []*manifest.Manifest
	if p.Manifest != nil {
		ms = append(readable(kept, p.Kept), p.Manifest)
	}
	return r.around.pin(jobPin(r.local.job.Name), ms...)
}

// readable are those of a job's checkpoints that can be read.
func readable(kept *durable.Job, names []string) (ms []*manifest.Manifest) {
	for _, n := range names {
		if m, err := kept.Get(n); err == nil {
			ms = append(ms, &m)
		}
	}
	return ms
}

func (r *durableRun) checkpointerOf(kept *durable.Job, a *attempt, layout durable.Layout, base *durable.Base, p durable.Point, token dataflow.FencingToken) *durable.Checkpointer {
	l := r.local
	ck := l.job.Checkpoint
	// The first barrier need not be full: what goes on from nothing, or from more than
	// a restore gave back (splits that are gone, or have another number now), is whole
	// by itself.
	cfg := checkpoint.Config{
		Token: token, Interval: interval(l.job), MinPause: ck.MinPause, Timeout: ck.Timeout, Tolerable: ck.TolerableFailures, Retain: DefaultRetained,
		Subtasks: layout.Subtasks, Sources: layout.Sources, Kept: p.Kept, Drained: p.Manifest != nil && p.Manifest.Drained,
	}
	if !ck.Given {
		cfg.Timeout, cfg.Tolerable = DefaultTimeout, DefaultTolerable
	}
	for i := range a.graph.Subtasks {
		st := &a.graph.Subtasks[i]
		for _, link := range st.Task.Links {
			if a.connectors.Commits(link.Node.ID) {
				cfg.Committers = append(cfg.Committers, st.ID)
				break
			}
		}
	}
	return durable.NewCheckpointer(durable.CheckpointerOptions{
		Job: kept, MaxParallelism: a.graph.Job.Stream.MaxParallelism, AtLeastOnce: ck.Mode == job.AtLeastOnce, Config: cfg,
		Tables: layout.Tables, Parallelism: layout.Parallelism, Base: base, Clock: l.opt.Clock, Events: l.opt.Events, Completed: r.completed,
		Keep: func(m *manifest.Manifest) error {
			if m.Kind != manifest.Savepoint {
				return nil // what the job may have to read again is pinned from before it
			}
			return r.around.pin(savepointPin(m.Name), m)
		},
		Released: func(names []string) { r.released(kept, names) },
	})
}

// completed notes a checkpoint and passes it on.
func (r *durableRun) completed(c durable.Completed) {
	r.mu.Lock()
	if c.Checkpoint {
		r.outcome.Checkpoint = c.Name
	}
	r.mu.Unlock()
	if f := r.local.opt.Checkpoints; f != nil {
		f(c)
	}
}

// interval is from one checkpoint to the next.
func interval(j *job.Job) dataflow.Duration {
	if j.Checkpoint.Interval > 0 {
		return j.Checkpoint.Interval
	}
	return DefaultInterval
}

// released lets feeds forget what only checkpoints needed that are gone.
func (r *durableRun) released(kept *durable.Job, names []string) {
	if len(r.around.feeds) == 0 {
		return
	}
	ms := readable(kept, names)
	if len(ms) == 0 {
		return
	}
	// A savepoint that the job claimed may have gone.
	if err := errors.Join(r.around.pin(jobPin(r.local.job.Name), ms...), r.around.tidyPins()); err != nil {
		r.local.opt.Events(fmt.Sprintf("job %s: feeds keep more than they need to: %v", r.local.job.Name, err))
	}
}

// finishedBefore: a job all of whose input was read has nothing to do.
func (r *durableRun) finishedBefore(m *manifest.Manifest) error {
	r.become(coordinator.Finished)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Before, r.outcome.Checkpoint = true, m.Name
	r.local.opt.Events(fmt.Sprintf("job %s has finished before (%s): all its input was read and all its output is committed; nothing is left to do. To run it again, also because its input has grown, use another --state folder, or delete %s",
		r.local.job.Name, m.Name, filepath.Join(r.local.opt.State.store.Dir(), "jobs", r.local.job.Name)))
	return nil
}

// ended notes how an attempt ended that did not fail.
func (r *durableRun) ended(o durable.Outcome) error {
	if !o.Ended {
		return errors.New("its subtasks ended before the last checkpoint was taken") // and yet no input said so
	}
	s := coordinator.Stopped
	if o.Finished && !o.Drained {
		s = coordinator.Finished
	}
	r.become(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Drained, r.outcome.Checkpoint, r.outcome.Savepoint = o.Drained, o.Checkpoint, o.Savepoint
	return nil
}
