package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// SnapshotPath is the {savepoint} of a path; the slash of JOB/ID is escaped.
type SnapshotPath struct {
	Savepoint string `path:"savepoint" doc:"id of a savepoint, JOB/ID of a checkpoint (the slash as %2F), or JOB for its newest"`
}

func (s *server) registerSnapshots() {
	register(s, op(http.MethodGet, "/v1/jobs/{job}/checkpoints", "list-checkpoints", "The checkpoints of a job that are kept, oldest first"), s.listCheckpoints)
	register(s, op(http.MethodPost, "/v1/jobs/{job}/savepoints", "create-savepoint", "Take a savepoint of a running job, which goes on", lasting(patient), status(http.StatusCreated)), s.createSavepoint)
	register(s, op(http.MethodGet, "/v1/savepoints", "list-savepoints", "All savepoints, oldest first"), s.listSavepoints)
	register(s, op(http.MethodGet, "/v1/savepoints/{savepoint}", "show-savepoint", "Operators, states, columns, rows and source positions"), s.showSavepoint)
	register(s, op(http.MethodDelete, "/v1/savepoints/{savepoint}", "delete-savepoint", "Delete a savepoint", status(http.StatusNoContent)), s.deleteSavepoint)
	register(s, op(http.MethodPost, "/v1/savepoints/{savepoint}/verify", "verify-savepoint", "Read every part, and compare it with its digest", lasting(patient)), s.verifySavepoint)
	register(s, op(http.MethodGet, "/v1/savepoints/{savepoint}/export", "export-savepoint", "A savepoint with all its parts, as one file", lasting(patient), gives("application/x-tar")), s.exportSavepoint)
	register(s, op(http.MethodPost, pathImport, "import-savepoint", "Take in what an export gave; every part is verified", lasting(patient), status(http.StatusCreated), takes("application/x-tar")), s.importSavepoint)
}

// gives describes an answer that is a stream of bytes.
func gives(kind string) func(*huma.Operation) {
	return func(o *huma.Operation) {
		o.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{kind: {}}}}
	}
}

// takes describes a request that is a stream of bytes.
func takes(kind string) func(*huma.Operation) {
	return func(o *huma.Operation) {
		o.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{kind: {}}}
	}
}

// findSnapshot finds what is named, and gives its name in the state: a savepoint,
// JOB/ID, or the newest checkpoint of JOB, else the savepoint that it stopped
// with.
func findSnapshot(st *coordinator.State, ref string) (*coordinator.Snapshot, string, error) {
	if c := st.Savepoints[ref]; c != nil {
		return c, ref, nil
	}
	of, own, both := strings.Cut(ref, "/")
	j, err := findJob(st, of)
	switch {
	case err != nil && both:
		return nil, "", err
	case err != nil:
		var names []string
		for _, c := range sortedSavepoints(st) {
			names = append(names, c.Name)
		}
		for _, j := range sortedJobs(st) {
			names = append(names, j.Name)
		}
		return nil, "", missing("savepoint or job", ref, names)
	case both:
		if c := j.Checkpoint(own); c != nil {
			return c, string(j.ID) + "/" + own, nil
		}
		var names []string
		for _, c := range j.Checkpoints {
			names = append(names, of+"/"+c.Name)
		}
		return nil, "", missing("checkpoint", ref, names)
	}
	if c := st.Savepoints[j.Savepoint]; j.Savepoint != "" && c != nil {
		return c, c.Name, nil
	}
	if c := j.Newest(); c != nil {
		return c, string(j.ID) + "/" + c.Name, nil
	}
	return nil, "", refusal(http.StatusNotFound, "job %s (%s) has completed no checkpoint yet", j.Name, j.ID)
}

func sortedSavepoints(st *coordinator.State) []*coordinator.Snapshot {
	all := slices.Collect(maps.Values(st.Savepoints))
	created := make(map[string]int64, len(all))
	for _, c := range all {
		if m, err := manifest.Decode(c.Manifest); err == nil {
			created[c.Name] = int64(m.Created)
		}
	}
	slices.SortFunc(all, func(a, b *coordinator.Snapshot) int {
		return cmp.Or(cmp.Compare(created[a.Name], created[b.Name]), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// describeSnapshot shows a snapshot. before are the manifests that it may share
// parts with.
func describeSnapshot(c *coordinator.Snapshot, agents map[mesh.NodeID]*coordinator.Agent, whole bool, before ...manifest.Manifest) (Snapshot, *manifest.Manifest) {
	out := Snapshot{ID: c.Name, Namespace: coordinator.DefaultNamespace, JobID: string(c.Job), Where: []string{}}
	where := make(map[mesh.NodeID]bool)
	for i, p := range c.Copies {
		n := 0
		for _, node := range p.Nodes {
			if agents[node] != nil { // who was removed has no copy any more
				where[node] = true
				n++
			}
		}
		if i == 0 || n < out.Copies {
			out.Copies = n
		}
	}
	for n := range where {
		out.Where = append(out.Where, nameOf(agents, n))
	}
	slices.Sort(out.Where)
	m, err := manifest.Decode(c.Manifest)
	if err != nil {
		out.Kind, out.Error = "unreadable", err.Error()
		return out, nil
	}
	size := manifest.Sizes(m, before...)
	out.Job, out.Kind, out.Created, out.Mode, out.MaxParallelism = m.Job, kindOf(m), stamp(m.Created), m.Mode, m.MaxParallelism
	out.Drained, out.Finished, out.Duration = m.Drained, m.Finished, millis(m.Took)
	out.Bytes, out.Delta, out.Rows = size.Bytes, size.New, size.Rows
	if whole {
		out.Operators = describeOperators(m)
	}
	return out, &m
}

func kindOf(m manifest.Manifest) string {
	switch {
	case m.Drained:
		return "drained"
	case m.Finished:
		return "final"
	}
	return m.Mode
}

func nameOf(agents map[mesh.NodeID]*coordinator.Agent, n mesh.NodeID) string {
	if a := agents[n]; a != nil && a.Name != "" {
		return a.Name
	}
	return string(n)
}

func describeOperators(m manifest.Manifest) (all []SnapshotOperator) {
	for _, o := range m.Operators {
		so := SnapshotOperator{ID: string(o.ID), Parallelism: o.Parallelism}
		for _, p := range o.Positions {
			so.Positions = append(so.Positions, SnapshotPosition(p))
		}
		for _, t := range o.Tables {
			st := SnapshotState{Name: t.Name, Keyed: t.Keyed, Columns: t.Schema}
			if h, err := avro.ParseSchema(t.Schema); err == nil {
				st.Columns = h.Schema.String()
			}
			for _, sh := range t.Shards {
				for _, p := range sh.Parts {
					st.Rows += p.Rows
					st.Bytes += p.Size
					st.Parts++
				}
			}
			so.States = append(so.States, st)
		}
		all = append(all, so)
	}
	return all
}

func (s *server) listCheckpoints(ctx context.Context, in *struct {
	JobPath
	Stale
}) (*body[[]Snapshot], error) {
	all := []Snapshot{}
	err := s.read(ctx, in.Stale, func(st *coordinator.State) error {
		j, err := findJob(st, in.Job)
		if err != nil {
			return err
		}
		var before []manifest.Manifest
		for _, c := range j.Checkpoints {
			d, m := describeSnapshot(c, st.Agents, false, before...)
			if m != nil {
				before = []manifest.Manifest{*m}
			}
			all = append(all, d)
		}
		return nil
	})
	return answer(all), err
}

func (s *server) listSavepoints(ctx context.Context, in *Stale) (*body[[]Snapshot], error) {
	all := []Snapshot{}
	err := s.read(ctx, *in, func(st *coordinator.State) error {
		for _, c := range sortedSavepoints(st) {
			d, _ := describeSnapshot(c, st.Agents, false)
			all = append(all, d)
		}
		return nil
	})
	return answer(all), err
}

func (s *server) createSavepoint(ctx context.Context, in *struct {
	JobPath
	Body *Saving
}) (*body[Savepointed], error) {
	j, err := s.job(ctx, Stale{}, in.Job)
	if err != nil {
		return nil, err
	}
	id, request := j.ID, ""
	if in.Body != nil {
		request = in.Body.Request
	}
	a, err := s.b.Ask(ctx, leader.Wish{Savepoint: &id, Request: request})
	if err != nil {
		return nil, asked(err)
	}
	return answer(Savepointed{a.Savepoint}), nil
}

// snapshot finds what a path names, with its manifest.
func (s *server) snapshot(ctx context.Context, stale Stale, ref string) (c *coordinator.Snapshot, d Snapshot, m *manifest.Manifest, err error) {
	err = s.read(ctx, stale, func(st *coordinator.State) error {
		if c, _, err = findSnapshot(st, ref); err != nil {
			return err
		}
		d, m = describeSnapshot(c, st.Agents, true)
		return nil
	})
	if err == nil && m == nil {
		err = refusal(http.StatusUnprocessableEntity, "%s cannot be read: %s", c.Name, d.Error)
	}
	return c, d, m, err
}

// saved reads the parts of a snapshot wherever they are.
func (s *server) saved(ctx context.Context, c *coordinator.Snapshot, m manifest.Manifest) *durable.Saved {
	return durable.SavedIn(m, func(p store.Part) (io.ReadCloser, error) { return s.b.OpenPart(ctx, p, c.Copies) })
}

func (s *server) showSavepoint(ctx context.Context, in *struct {
	SnapshotPath
	Stale
}) (*body[Snapshot], error) {
	_, d, _, err := s.snapshot(ctx, in.Stale, in.Savepoint)
	return answer(d), err
}

func (s *server) deleteSavepoint(ctx context.Context, in *SnapshotPath) (*struct{}, error) {
	if strings.Contains(in.Savepoint, "/") {
		return nil, refusal(http.StatusUnprocessableEntity, "%s is no savepoint; the checkpoints of a job are its own, and it lets them go itself", in.Savepoint)
	}
	err := s.read(ctx, Stale{}, func(st *coordinator.State) error {
		if st.Savepoints[in.Savepoint] != nil {
			return nil
		}
		var names []string
		for _, c := range sortedSavepoints(st) {
			names = append(names, c.Name)
		}
		return missing("savepoint", in.Savepoint, names)
	})
	if err == nil {
		_, err = s.propose(ctx, coordinator.Command{SavepointDeleted: &coordinator.SavepointDeleted{Name: in.Savepoint}})
	}
	return nil, err
}

func (s *server) verifySavepoint(ctx context.Context, in *SnapshotPath) (*body[Verified], error) {
	c, d, m, err := s.snapshot(ctx, Stale{}, in.Savepoint)
	if err != nil {
		return nil, err
	}
	if err := s.saved(ctx, c, *m).Verify(); err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "%s is not whole, and no job can go on from it: %v", c.Name, err)
	}
	return answer(Verified{ID: c.Name, OK: true, Parts: manifest.Sizes(*m).Parts, Bytes: d.Bytes}), nil
}

func (s *server) exportSavepoint(ctx context.Context, in *SnapshotPath) (*huma.StreamResponse, error) {
	c, _, m, err := s.snapshot(ctx, Stale{}, in.Savepoint)
	if err != nil {
		return nil, err
	}
	if err := writable(c.Name); err != nil {
		return nil, err
	}
	return s.stream("application/x-tar", func(ctx context.Context, w io.Writer) error { return s.saved(ctx, c, *m).Export(w) }), nil
}

// writable refuses names that are no savepoint's: a manifest may be of a newer
// program.
func writable(name string) error {
	if err := manifest.CheckName(name); err != nil {
		return refusal(http.StatusUnprocessableEntity, "%v", err)
	}
	return nil
}

// importInput takes the body as it comes.
type importInput struct {
	As   string `query:"as" doc:"its id here; empty: the one it has" maxLength:"128"`
	body io.Reader
}

// Resolve is huma.Resolver's.
func (i *importInput) Resolve(ctx huma.Context) []error {
	i.body = ctx.BodyReader()
	return nil
}

func (s *server) importSavepoint(ctx context.Context, in *importInput) (*body[Snapshot], error) {
	var copies []coordinator.PartCopies
	m, err := part.ImportTo(in.body, in.As, func(want store.Part, write func(io.Writer) error) error {
		p, nodes, err := s.b.PutPart(ctx, write)
		if err == nil && p != want {
			err = store.ErrCorrupt
		}
		copies = append(copies, coordinator.PartCopies{Part: p.Digest, Nodes: nodes})
		return err
	})
	switch {
	case errors.Is(err, store.ErrCorrupt):
		return nil, refusal(http.StatusUnprocessableEntity, "%v; give what `tidemark savepoint export` wrote", err)
	case err != nil:
		return nil, failed(err)
	}
	data, err := manifest.Encode(m)
	if err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "%v", err)
	}
	sort.Slice(copies, func(i, j int) bool { return bytes.Compare(copies[i].Part[:], copies[j].Part[:]) < 0 })
	c := coordinator.Snapshot{Name: m.Name, ID: m.ID, Manifest: data, Copies: copies, Bytes: manifest.Sizes(m).Bytes}
	if _, err := s.propose(ctx, coordinator.Command{SavepointAdded: &c}); err != nil {
		return nil, err
	}
	var d Snapshot
	s.b.View(func(st *coordinator.State) { d, _ = describeSnapshot(&c, st.Agents, false) })
	return answer(d), nil
}
