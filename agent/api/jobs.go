package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/manifest"

	"github.com/danielgtaylor/huma/v2"
)

// JobPath is the {job} of a path.
type JobPath struct {
	Job  string `path:"job" doc:"its id, or its name: of a live job, else of the one that ended last"`
	Site string `query:"site" doc:"the site that is to answer; else the one that has the job"`
}

func (s *server) registerJobs() {
	register(s, op(http.MethodGet, "/v1/jobs", "list-jobs", "All jobs, live ones first"), s.listJobs)
	register(s, op(http.MethodPost, "/v1/jobs", "submit-job", "Check a job and run it", status(http.StatusCreated),
		describe("All that is wrong with it is said at once. Secrets must be references.")), s.submit)
	register(s, op(http.MethodPost, "/v1/check", "check-job", "The dry run: what is wrong with a job, and what would become of saved state", lasting(patient)), s.check)
	register(s, op(http.MethodGet, "/v1/jobs/{job}", "show-job", "A job, its subtasks and what they have done"), s.showJob)
	register(s, op(http.MethodGet, "/v1/jobs/{job}/spec", "show-job-spec", "The text of a job"), s.showSpec)
	register(s, op(http.MethodPost, "/v1/jobs/{job}/stop", "stop-job", "Stop a job with a savepoint", lasting(patient),
		describe("The answer comes when it has stopped.")), s.stopJob)
	register(s, op(http.MethodPost, "/v1/jobs/{job}/cancel", "cancel-job", "Give a job up, without a savepoint"), s.cancelJob)
	register(s, op(http.MethodPost, "/v1/jobs/{job}/rescale", "rescale-job", "Go on with another parallelism, from the last checkpoint"), s.rescaleJob)
	register(s, op(http.MethodDelete, "/v1/jobs/{job}", "forget-job", "Forget a job that has ended, with its checkpoints and feeds", status(http.StatusNoContent)), s.forgetJob)
}

// findJob finds a job by its id, by the name of a live one, or of the one that
// ended last.
func findJob(st *coordinator.State, ref string) (*coordinator.Job, error) {
	if j := st.Jobs[coordinator.JobID(ref)]; j != nil {
		return j, nil
	}
	if id, ok := st.Names[coordinator.NameKey(coordinator.DefaultNamespace, ref)]; ok && st.Jobs[id] != nil {
		return st.Jobs[id], nil
	}
	var last *coordinator.Job
	for _, j := range st.Jobs {
		if j.Name == ref && (last == nil || j.End > last.End) {
			last = j
		}
	}
	if last != nil {
		return last, nil
	}
	for id, r := range st.Replicas {
		if string(id) == ref || r.Job.Name == ref {
			return nil, refusal(http.StatusNotFound, "job %s (%s) is not here: site %s has it, as is known here. If that one is lost: \"tidemark job failover %s --to %s --dry-run\" says what is kept here", r.Job.Name, id, r.From, id, st.Site)
		}
	}
	var names []string
	for _, j := range sortedJobs(st) {
		if !slices.Contains(names, j.Name) {
			names = append(names, j.Name)
		}
	}
	return nil, missing("job", ref, names)
}

// sortedJobs are live ones, then those that have ended, newest first in each.
func sortedJobs(st *coordinator.State) []*coordinator.Job {
	all := slices.Collect(maps.Values(st.Jobs))
	slices.SortFunc(all, func(a, b *coordinator.Job) int {
		live := func(j *coordinator.Job) int {
			if j.Status.Ended() {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(live(a), live(b)), cmp.Compare(b.End, a.End), cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (s *server) shortJob(j *coordinator.Job) Job {
	out := shortJob(j)
	s.b.View(func(st *coordinator.State) {
		out.Site, out.Savepoint = cmp.Or(out.Site, string(st.Site)), savepointOf(st, j)
	})
	verb := fmt.Sprintf(`"tidemark job failover %s --to %s --force"`, j.ID, out.Site)
	switch {
	case j.Status == coordinator.Quarantined:
		out.Hint = "look at both copies; have the one go on that is right, with " + verb + " or the same with the other site; or cancel it"
	case j.Isolated:
		out.Hint = "it goes on by itself, or ends here, when each site that keeps it is reached; if one of those is gone for good: " + verb
	}
	return out
}

// savepointOf is what a job stopped with, if that was not deleted since.
func savepointOf(st *coordinator.State, j *coordinator.Job) string {
	if st.Savepoints[j.Savepoint] == nil {
		return ""
	}
	return j.Savepoint
}

func shortJob(j *coordinator.Job) Job {
	out := Job{
		ID: string(j.ID), Name: j.Name, Namespace: j.Namespace, Status: j.Status.String(), Why: j.Why, Attempt: j.Attempt, Restarts: j.Restarts,
		From: j.From, Parallelism: parallelism(j), Created: stamp(j.Created), Since: stamp(j.Since), Site: string(j.Owner), Move: string(j.Move), Isolated: j.Isolated,
	}
	if c := j.Newest(); c != nil {
		out.Checkpoint = c.Name
	}
	switch {
	case j.Status.Ended() || j.Why != "":
	case j.Cancel:
		out.Why = "it is being cancelled"
	case j.Move != "":
		out.Why = "it stops to move to another site, by " + string(j.Move)
	case j.Then != dataflow.GoOn:
		out.Why = "it was told to stop"
	}
	return out
}

// parallelism is what a job was rescaled to, else the greatest that it says; 0: it
// cannot be read any more.
func parallelism(j *coordinator.Job) int {
	if j.Parallelism > 0 {
		return j.Parallelism
	}
	most := 0
	if loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets}); err == nil {
		for _, n := range loaded.Graph.Nodes {
			most = max(most, n.Parallelism)
		}
	}
	return most
}

func (s *server) listJobs(ctx context.Context, in *Stale) (*body[[]Job], error) {
	var jobs []*coordinator.Job
	err := s.read(ctx, *in, func(st *coordinator.State) error {
		jobs = sortedJobs(st)
		return nil
	})
	all := []Job{}
	for _, j := range jobs { // a job's record never changes; reading its text takes a while
		all = append(all, s.shortJob(j))
	}
	return answer(all), err
}

// job finds the job of a path.
func (s *server) job(ctx context.Context, stale Stale, ref string) (found *coordinator.Job, err error) {
	err = s.read(ctx, stale, func(st *coordinator.State) error {
		found, err = findJob(st, ref)
		return err
	})
	return found, err
}

func (s *server) showJob(ctx context.Context, in *struct {
	JobPath
	Stale
}) (*body[JobDetail], error) {
	var out JobDetail
	var j *coordinator.Job
	names := make(map[mesh.NodeID]string)
	err := s.read(ctx, in.Stale, func(st *coordinator.State) (err error) {
		if j, err = findJob(st, in.Job); err != nil {
			return err
		}
		for id, a := range st.Agents {
			names[id] = a.Name
		}
		out.Feeds = feedsOfJob(st, j)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Job, out.History = s.shortJob(j), tenures(j)
	s.measured(out.Feeds)
	for _, r := range s.b.Replicas() {
		if r.Job == string(j.ID) {
			out.Replicas = append(out.Replicas, r)
		}
	}
	for _, c := range j.Sinks {
		out.Sinks = append(out.Sinks, SinkFile{string(c.Operator), cmp.Or(names[c.Node], string(c.Node)), strings.TrimPrefix(c.Target, string(c.Node)+":"), c.Length})
	}
	out.Checkpoints.Kept = len(j.Checkpoints)
	if c := j.Newest(); c != nil {
		out.Checkpoints.Completed = cmp.Or(j.Completed, c.ID.Counter)
		out.Checkpoints.Last = &LastCheckpoint{ID: c.Name, Bytes: c.Bytes}
		if m, err := manifest.Decode(c.Manifest); err == nil {
			out.Checkpoints.Last.Took, out.Checkpoints.Last.At = millis(m.Took), stamp(m.Created)
		}
	}
	roles := make(map[dataflow.OperatorID]graph.Role)
	if loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets, Parallelism: j.Parallelism}); err == nil {
		out.MaxParallelism = loaded.Graph.MaxParallelism
		for _, n := range loaded.Graph.Nodes {
			roles[n.ID] = n.Role
		}
	}
	out.Subtasks, out.Totals = s.subtasks(j, names, roles)
	return answer(out), nil
}

func (s *server) showSpec(ctx context.Context, in *struct {
	JobPath
	Stale
}) (*body[JobSpec], error) {
	j, err := s.job(ctx, in.Stale, in.Job)
	if err != nil {
		return nil, err
	}
	return answer(JobSpec{ID: string(j.ID), Name: j.Name, Spec: string(j.Spec), Set: j.Sets, Parallelism: j.Parallelism}), nil
}

// subtasks are where they run, and what was heard of them in this attempt.
func (s *server) subtasks(j *coordinator.Job, names map[mesh.NodeID]string, roles map[dataflow.OperatorID]graph.Role) ([]Subtask, Totals) {
	heard := make(map[dataflow.SubtaskID]coordinator.SubtaskStatus)
	for _, st := range s.b.Statuses(j.ID) {
		if st.Token.Attempt == j.Attempt {
			heard[st.Subtask] = st
		}
	}
	all := []Subtask{}
	var t Totals
	low := dataflow.MaxTime
	sources := false
	add := func(id dataflow.SubtaskID, node mesh.NodeID) {
		h, ok := heard[id]
		out := Subtask{Subtask: id.String(), Agent: names[node], Node: string(node)}
		if ok {
			out.count(&h, roles, &t)
			if len(h.Operators) > 0 && roles[h.Operators[0].Operator] == graph.SourceNode {
				low, sources = min(low, h.Watermark), true
			}
		}
		all = append(all, out)
	}
	for _, p := range j.Places {
		add(p.Subtask, p.Node)
	}
	if len(j.Places) == 0 { // it has ended: what was heard last
		for _, st := range s.b.Statuses(j.ID) {
			if st.Token.Attempt == j.Attempt {
				add(st.Subtask, "")
			}
		}
	}
	if sources {
		t.Watermark = watermark(low)
	}
	return all, t
}

// count fills in what a subtask said of itself.
func (out *Subtask) count(h *coordinator.SubtaskStatus, roles map[dataflow.OperatorID]graph.Role, t *Totals) {
	out.Watermark, out.Busy, out.Blocked = watermark(h.Watermark), millis(h.Busy), millis(h.Blocked)
	for i, o := range h.Operators {
		if i == 0 {
			out.In = o.In
		}
		out.Out = o.Out
		switch roles[o.Operator] {
		case graph.SourceNode:
			t.In += o.In
		case graph.SinkNode:
			t.Out += o.In
			out.Out = o.In
		}
		out.Late += o.Late
		out.Rejected += o.Rejected
		out.Operators = append(out.Operators, Operator{
			ID: string(o.Operator), In: o.In, Out: o.Out, Late: o.Late, InNoWindow: o.NoWindow, Rejected: o.Rejected, Markers: o.Markers, Filtered: o.Filtered,
			Duplicates: o.Duplicates, Forgotten: o.Forgotten, DivByZero: o.DivByZero, Overflow: o.Overflow, FirstRejected: o.First,
		})
		t.Late += o.Late
		t.InNoWindow += o.NoWindow
		t.Rejected += o.Rejected
		t.Markers += o.Markers
		t.Filtered += o.Filtered
		t.Duplicates += o.Duplicates
		t.DivByZero += o.DivByZero
		t.Overflow += o.Overflow
		t.FirstRejected = cmp.Or(t.FirstRejected, o.First)
	}
}

func (s *server) stopJob(ctx context.Context, in *struct {
	JobPath
	Drain bool `query:"drain" doc:"end the input first, so that all windows fire"`
}) (*body[Savepointed], error) {
	j, err := s.job(ctx, Stale{}, in.Job)
	switch {
	case err != nil:
		return nil, err
	case j.Status == coordinator.Moved:
		return nil, refusal(http.StatusConflict, "job %s is not here: %s", j.Name, j.Why)
	case j.Status.Ended() && j.Savepoint != "": // asked twice
		there := ""
		if s.b.View(func(st *coordinator.State) { there = savepointOf(st, j) }); there == "" {
			return nil, refusal(http.StatusConflict, "job %s has ended already: it is %s, and savepoint %s, with which it stopped, was deleted", j.Name, j.Status, j.Savepoint)
		}
		return answer(Savepointed{there}), nil
	case j.Status.Ended():
		return nil, refusal(http.StatusConflict, "job %s has ended already: it is %s, without a savepoint", j.Name, j.Status)
	}
	told := coordinator.JobTold{Job: j.ID, Then: dataflow.Halt}
	if in.Drain {
		told.Then = dataflow.Drain
	}
	a, err := s.b.Ask(ctx, leader.Wish{Stop: &told})
	if err != nil {
		return nil, asked(err)
	}
	if a.Savepoint == "" {
		s.b.View(func(st *coordinator.State) {
			if now := st.Jobs[j.ID]; now != nil {
				j = now
			}
		})
		if a.Savepoint = j.Savepoint; a.Savepoint == "" {
			return nil, refusal(http.StatusConflict, "job %s is %s without a savepoint: %s", j.Name, j.Status, cmp.Or(j.Why, "there was nothing to save"))
		}
	}
	return answer(Savepointed{a.Savepoint}), nil
}

// asked gives an error of a wish its status: what the leader's machine refuses
// is not possible as things are.
func asked(err error) error {
	if f := failed(err); !is500(f) {
		return f
	}
	return refusal(http.StatusConflict, "%v", err)
}

func is500(err error) bool {
	e, ok := err.(huma.StatusError)
	return ok && e.GetStatus() == http.StatusInternalServerError
}

func (s *server) cancelJob(ctx context.Context, in *JobPath) (*body[Job], error) {
	j, err := s.job(ctx, Stale{}, in.Job)
	switch {
	case err != nil:
		return nil, err
	case j.Status == coordinator.Cancelled:
		return answer(s.shortJob(j)), nil
	}
	if _, err := s.propose(ctx, coordinator.Command{JobTold: &coordinator.JobTold{Job: j.ID, Cancel: true}}); err != nil {
		return nil, err
	}
	if j, err = s.settled(ctx, j.ID); err != nil {
		return nil, err
	}
	return answer(s.shortJob(j)), nil
}

// settled is a job when it has ended; one that takes long as it is then.
func (s *server) settled(ctx context.Context, id coordinator.JobID) (*coordinator.Job, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(quick / 2)
	defer late.Stop()
	for {
		j, err := s.job(ctx, Stale{Stale: true}, string(id))
		if err != nil || j.Status.Ended() {
			return j, err
		}
		select {
		case <-tick.C:
		case <-late.C:
			return j, nil
		case <-ctx.Done():
			return j, nil
		}
	}
}

func (s *server) rescaleJob(ctx context.Context, in *struct {
	JobPath
	Body Rescaling
}) (*body[Job], error) {
	j, err := s.job(ctx, Stale{}, in.Job)
	if err != nil {
		return nil, err
	}
	p := in.Body.Parallelism
	loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets})
	if err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "job %s: %v", j.Name, err)
	}
	most := loaded.Graph.MaxParallelism
	if c := j.Newest(); c != nil { // of the saved state, which decides
		if m, err := manifest.Decode(c.Manifest); err == nil {
			most = m.MaxParallelism
		}
	}
	if p > most {
		return nil, refusal(http.StatusUnprocessableEntity, "job %s: parallelism %d is over its max_parallelism %d, which is fixed for the life of its state", j.Name, p, most)
	}
	if err := s.room(j, p); err != nil {
		return nil, err
	}
	if _, err := s.propose(ctx, coordinator.Command{JobRescaled: &coordinator.JobRescaled{Job: j.ID, Parallelism: p}}); err != nil {
		return nil, err
	}
	if j, err = s.job(ctx, Stale{Stale: true}, string(j.ID)); err != nil {
		return nil, err
	}
	return answer(s.shortJob(j)), nil
}

// room refuses to take down a running job that could not be brought up again: it
// would need more slots than there are for it.
func (s *server) room(j *coordinator.Job, parallelism int) error {
	loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets, Parallelism: parallelism})
	if err != nil || j.Status != coordinator.Running {
		return nil //nolint:nilerr // whoever begins it says so
	}
	has := 0
	for _, n := range slotsOf(j) {
		has += n
	}
	for _, a := range s.members() {
		if a.Status == mesh.Alive.String() {
			has += a.Free
		}
	}
	if wants := graph.Chain(loaded.Graph, graph.Options{}).Slots(); wants > has {
		return refusal(http.StatusConflict, "job %s needs %d slots with parallelism %d, and can have %d: start agents that have some, or ask for less; it runs on as it did", j.Name, wants, parallelism, has)
	}
	return nil
}

func (s *server) forgetJob(ctx context.Context, in *JobPath) (*struct{}, error) {
	j, err := s.job(ctx, Stale{}, in.Job)
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: j.ID}})
	return nil, err
}
