package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func (s *server) submit(ctx context.Context, in *struct{ Body Submission }) (*body[Submitted], error) {
	sub := in.Body
	j, err := load(&sub)
	if err != nil {
		return nil, err
	}
	if done, err := s.submitted(ctx, j, sub.Request); done != nil || err != nil {
		return done, err
	}
	c := coordinator.JobSubmitted{
		Namespace: coordinator.DefaultNamespace, Name: j.Name, Spec: []byte(sub.Spec), Sets: sub.Set, AllowNonRestored: sub.AllowNonRestored, Request: sub.Request, Overwrite: sub.Overwrite,
	}
	from, err := s.begin(ctx, j, &sub, &c)
	if err != nil {
		return nil, err
	}
	if from.Snapshot != nil {
		report, err := fits(j, &from, sub.AllowNonRestored)
		if err == nil {
			err = report.Err()
		}
		if err != nil {
			return nil, refusal(http.StatusUnprocessableEntity, "%v", err)
		}
	}
	id, err := s.propose(ctx, coordinator.Command{JobSubmitted: &c})
	if err != nil {
		return nil, err
	}
	return answer(Submitted{ID: string(id), Name: j.Name, Notes: s.notes(j)}), nil
}

// submitted answers a submission that came before, whatever has become of the
// job since.
func (s *server) submitted(ctx context.Context, j *job.Job, request string) (done *body[Submitted], err error) {
	err = s.read(ctx, Stale{}, func(st *coordinator.State) error {
		for _, k := range st.Jobs {
			if request != "" && k.Request == request {
				done = answer(Submitted{ID: string(k.ID), Name: k.Name})
			}
		}
		return nil
	})
	if done != nil {
		done.Body.Notes = s.notes(j)
	}
	return done, err
}

// beginning is what a job is to begin with.
type beginning struct {
	*coordinator.Snapshot // nil: afresh
	manifest              *manifest.Manifest
	refused               []error // why sources cannot go on where it stands
}

// begin settles what a job's feeds are and what it begins with, as the state is
// now.
func (s *server) begin(ctx context.Context, j *job.Job, sub *Submission, c *coordinator.JobSubmitted) (from beginning, err error) {
	err = s.read(ctx, Stale{}, func(st *coordinator.State) error {
		from = beginning{}
		if sub.From != "" {
			var err error
			if from.Snapshot, c.From, err = findSnapshot(st, sub.From); err != nil {
				return err
			}
			m, err := manifest.Decode(from.Manifest)
			if err != nil {
				return refusal(http.StatusUnprocessableEntity, "%s: %v", from.Name, err)
			}
			from.manifest = &m
		}
		if c.Overwrite && st.Level < coordinator.AdoptLevel {
			return refusal(http.StatusConflict, "overwrite: %s", behind(st))
		}
		from.forks(st, j)
		return feedsFor(st, j, &from, c)
	})
	return from, err
}

// behind says that the site cannot do yet what this program can.
func behind(st *coordinator.State) string {
	var old []string
	for _, a := range st.Agents {
		if a.Level < coordinator.AdoptLevel {
			old = append(old, a.Name)
		}
	}
	if len(old) == 0 {
		return "the site is about to take up the new feature level; ask again"
	}
	slices.Sort(old)
	return "the site is at feature level " + strconv.Itoa(int(st.Level)) + ", and this wants level " + strconv.Itoa(coordinator.AdoptLevel) +
		": give these agents the newer program first: " + strings.Join(old, ", ")
}

// load reads and checks a job; everything that is wrong with it is in the error.
func load(sub *Submission) (*job.Job, error) {
	file := cmp.Or(sub.File, "job")
	j, err := job.Load(file, []byte(sub.Spec), job.Options{Set: sub.Set})
	var wrong job.Errors
	if errors.As(err, &wrong) {
		return nil, invalid(file, wrong)
	}
	if err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "%v", err)
	}
	if wrong = unfit(j); len(wrong) > 0 {
		return nil, invalid(file, wrong)
	}
	return j, nil
}

// notValid is the title of a problem that is a job's own errors.
const notValid = "The job is not valid"

func invalid(file string, wrong job.Errors) error {
	what := "1 error"
	if len(wrong) > 1 {
		what = fmt.Sprintf("%d errors", len(wrong))
	}
	e := &huma.ErrorModel{Status: http.StatusUnprocessableEntity, Title: notValid, Detail: file + ": " + what}
	for _, w := range wrong {
		d := &huma.ErrorDetail{Message: w.Error(), Location: w.Path}
		e.Errors = append(e.Errors, d)
	}
	return e
}

// unfit is what is wrong with a valid job in a mesh.
func unfit(j *job.Job) (wrong job.Errors) {
	bad := func(path, msg, hint string) {
		wrong = append(wrong, &job.Error{File: j.File, Path: path, Msg: msg, Hint: hint})
	}
	secret := func(path string, password job.Secret, broker string) {
		const hint = "give a reference, ${file:PATH} or ${env:NAME}: it is looked up on the agent that connects"
		if !password.Stored() {
			bad(path+".password", "is given as text, and the mesh stores no secrets", hint)
		}
		if u, err := url.Parse(broker); err == nil && u.User != nil {
			bad(path+".broker", "has a user or password in it, and the mesh stores no secrets", "use the keys username and password; for the password "+hint)
		}
	}
	for _, s := range j.Sources {
		switch {
		case s.MQTT != nil:
			secret("sources."+string(s.ID)+".mqtt", s.MQTT.Password, s.MQTT.Broker)
		case s.File != nil && s.File.Path == "-":
			bad("sources."+string(s.ID)+".file.path", "is stdin, which an agent does not have", "name a file that is on the agent")
		}
	}
	for _, s := range j.Sinks {
		if s.MQTT != nil {
			secret("sinks."+string(s.ID)+".mqtt", s.MQTT.Password, s.MQTT.Broker)
		}
	}
	for _, n := range j.NotYet {
		if n.Fatal {
			wrong = append(wrong, &job.Error{File: j.File, Line: n.Line, Path: n.Path, Msg: n.Msg})
		}
	}
	return wrong
}

// notes are what is worth telling of a job that is valid.
func (s *server) notes(j *job.Job) (all []string) {
	var here string
	s.b.View(func(st *coordinator.State) { here = string(st.Site) })
	for _, site := range j.ReplicateTo {
		switch known, seen := s.b.SiteSeen(mesh.Site(site)); {
		case site == here:
			all = append(all, fmt.Sprintf("%s: warning: replicate_to: %s is this site: nothing is kept elsewhere because of it", j.File, site))
		case !known:
			all = append(all, fmt.Sprintf("%s: warning: replicate_to: no site %s is known yet: the job is kept there when it comes", j.File, site))
		case !seen:
			all = append(all, fmt.Sprintf("%s: warning: replicate_to: nobody of site %s is seen now: the job is kept there when it is back", j.File, site))
		}
	}
	for _, n := range j.Warnings {
		all = append(all, j.File+": warning: "+n.String())
	}
	return all
}

// feedText is a feed's config as the state keeps it, checked. A user name may be
// text there, a password may not.
func feedText(name string, c feed.Config) ([]byte, error) {
	if !c.Password.Stored() {
		return nil, errors.New("the password is given as text, and the mesh stores no secrets; give a reference, ${file:PATH} or ${env:NAME}")
	}
	text, err := c.Format()
	if err == nil && !c.Username.Stored() {
		text, err = withUser(text, c.Username)
	}
	if err == nil {
		_, err = feed.ParseConfig(name, text)
	}
	return text, err
}

// withUser puts a user name that is given as text into a config, from which the
// feed package leaves it out.
func withUser(text []byte, user job.Secret) ([]byte, error) {
	var all map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return nil, err
	}
	name, err := user.Resolve(job.Resolver{})
	if err != nil {
		return nil, err
	}
	all["username"] = name
	return json.MarshalIndent(all, "", "  ")
}

// fits compares a job with what it is to begin with.
func fits(j *job.Job, from *beginning, allow bool) (*restore.Report, error) {
	nowhere := func(dataflow.OperatorID, int) bool { return false } // files of the job are on other agents
	c := connect.New(connect.Options{
		Job: j, Clock: sensors.Wall{}, Events: func(string) {}, From: from.manifest, Durable: true, Local: nowhere, Stdout: io.Discard,
		Feed: func(*job.Source, int, int) (sensors.Reader, error) { return connect.Nothing{}, nil },
	})
	plan, err := runtime.NewPlan(graph.Expand(graph.Chain(j.Graph, graph.Options{})), c)
	if err != nil {
		return nil, fmt.Errorf("job %q: %w", j.Name, err)
	}
	tables := durable.TablesOf(runtime.New(plan, runtime.Options{}).Tables())
	report := restore.Check(from.manifest, restore.JobOf(j.Graph, tables), restore.Options{AllowNonRestored: allow})
	for _, why := range from.refused {
		refuse(report, why)
	}
	return report, nil
}

func refuse(r *restore.Report, err error) {
	r.OK = false
	r.Findings = append(r.Findings, restore.Finding{Verdict: restore.Refused, Reason: strings.ReplaceAll(err.Error(), "\n", "; ")})
}

func (s *server) check(ctx context.Context, in *struct{ Body Dry }) (*body[Checked], error) {
	j, err := load(&in.Body.Submission)
	if err != nil {
		return nil, err
	}
	g := graph.Chain(j.Graph, graph.Options{})
	out := Checked{OK: true, Job: j.Name, Operators: len(j.Graph.Nodes), Tasks: g.Subtasks(), Slots: g.Slots(), Notes: s.notes(j)}
	var c coordinator.JobSubmitted
	from, err := s.begin(ctx, j, &in.Body.Submission, &c)
	if err != nil || from.Snapshot == nil {
		return answer(out), err
	}
	report, err := fits(j, &from, in.Body.AllowNonRestored)
	if err != nil {
		return nil, failed(err)
	}
	if in.Body.Verify {
		if err := s.saved(ctx, from.Snapshot, *from.manifest).Verify(); err != nil {
			refuse(report, err)
		}
	}
	out.Restore, out.OK = report, report.OK
	return answer(out), nil
}
