package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Failover is which site is to have a job that another one had.
type Failover struct {
	To     string `json:"to" doc:"the site that is to have it" maxLength:"255"`
	Force  bool   `json:"force,omitempty" doc:"although the site that has it is reached, or another one may have it"`
	DryRun bool   `json:"dry_run,omitempty" doc:"only say what would be lost"`
}

// FailedOver is what became of it, or would. What is not known is empty or 0.
type FailedOver struct {
	Job        string      `json:"job"`
	Name       string      `json:"name"`
	From       string      `json:"from" doc:"the site that had it, as is known here; the same as to: a job that was isolated or quarantined"`
	To         string      `json:"to"`
	DryRun     bool        `json:"dry_run,omitempty"`
	Epoch      uint64      `json:"epoch,omitempty" doc:"of owners, at which it is here"`
	Move       string      `json:"move,omitempty" doc:"it was moving here, and all of it was: that move is forced"`
	Checkpoint string      `json:"checkpoint,omitempty" doc:"from which it goes on, or the savepoint of the move"`
	Taken      string      `json:"taken,omitempty" doc:"when that was begun, by the clock of the site that took it"`
	Age        int64       `json:"age_ms,omitempty" doc:"since then"`
	Entries    int64       `json:"lag_entries" doc:"of its logs that are not here, as the site that had it said last"`
	Bytes      int64       `json:"lag_bytes" doc:"their payloads and topics"`
	Time       int64       `json:"lag_ms" doc:"the same on the arrival clock"`
	Logs       int         `json:"logs" doc:"how many logs it reads"`
	Gap        string      `json:"gap,omitempty" doc:"which of its logs has not what the checkpoint needs: it cannot go on from there"`
	Heard      string      `json:"heard,omitempty" doc:"when it said that; empty: it has not said it of all logs since the leader here began"`
	Feeds      []TakenFeed `json:"feeds,omitempty" doc:"shared feeds that it reads under other names here"`
	Needs      string      `json:"needs_force,omitempty" doc:"of a dry run: why it would be refused without force"`
	Refused    string      `json:"refused,omitempty" doc:"of a dry run: why it would be refused anyhow"`
	Text       []string    `json:"text" doc:"all of that as lines for people"`
}

// TakenFeed is a shared feed of a site that is lost, which goes on here.
type TakenFeed struct {
	Feed   string `json:"feed" doc:"as it was called there"`
	As     string `json:"as" doc:"as it is called here"`
	Client string `json:"client_id" doc:"of its session at the broker, which is a new one"`
}

const verbFailover = "failover"

func (s *server) registerFailover() {
	register(s, op(http.MethodPost, "/v1/jobs/{job}/"+verbFailover, "failover-job", "Have a job that another site had, which is lost", lasting(2*time.Minute),
		describe("It goes on from what replicate_to keeps of it, or, where it was moving here and all of it is, by that move. The answer says what may be lost, and comes when it is on record that the job is here. The site that is to have it answers, whoever is asked; the one that is lost is not needed. A job that is isolated or quarantined at a site goes on there. 409: it is refused.")), s.failoverJob)
}

// toSite is where a failover is to go, by its query or its body; empty: it is none, or
// does not say it.
func toSite(r *http.Request) mesh.Site {
	if kind, _, verb := about(r.URL.EscapedPath()); kind != "jobs" || verb != verbFailover || r.Method != http.MethodPost {
		return ""
	}
	if site := r.URL.Query().Get("site"); site != "" {
		return mesh.Site(site)
	}
	text, err := io.ReadAll(r.Body) // it is whole
	if err != nil {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	var f Failover
	_ = json.Unmarshal(text, &f) // whoever answers it says what is wrong with it
	return mesh.Site(f.To)
}

// straight tells whether a request goes to another site without a word of the leader
// here: this site may be the one that is lost.
func (s *server) straight(r *http.Request) bool {
	to := toSite(r)
	if to == "" || r.Header.Get(passed) != "" {
		return false
	}
	s.b.View(func(st *coordinator.State) {
		if to == st.Site {
			to = ""
		}
	})
	return to != ""
}

func (s *server) failoverJob(ctx context.Context, in *struct {
	JobPath
	Body Failover
}) (*body[FailedOver], error) {
	var out FailedOver
	err := s.read(ctx, Stale{}, func(st *coordinator.State) (err error) {
		if in.Body.To != string(st.Site) {
			return refusal(http.StatusConflict, "this is site %s, and %q is to have the job: ask that one, with ?site=", st.Site, in.Body.To)
		}
		id, name, err := toTake(st, in.Job)
		out = FailedOver{Job: string(id), Name: name, To: string(st.Site), DryRun: in.Body.DryRun, Feeds: takenFeeds(st, id)}
		return err
	})
	if err != nil {
		return nil, err
	}
	a, err := s.b.Ask(ctx, leader.Wish{Failover: &leader.Failover{Job: coordinator.JobID(out.Job), Force: in.Body.Force, Dry: in.Body.DryRun, Why: "a user had it taken over"}})
	if err != nil {
		return nil, asked(err)
	}
	s.b.View(func(st *coordinator.State) { out.came(st, &a) })
	out.Text = out.lines()
	return answer(out), nil
}

// toTake finds the job of a failover by its id or name: one that is kept here, comes
// here, or is here and waits for a person.
func toTake(st *coordinator.State, ref string) (coordinator.JobID, string, error) {
	names := make(map[coordinator.JobID]string)
	for id, r := range st.Replicas {
		names[id] = r.Job.Name
	}
	for _, a := range st.Moves.Arrivals {
		if !a.Phase.Decided() {
			names[a.Job.ID] = a.Job.Name
		}
	}
	for id, j := range st.Jobs {
		if !j.Status.Ended() && (j.Isolated || j.Status == coordinator.Quarantined || string(id) == ref) {
			names[id] = j.Name
		}
	}
	if name, ok := names[coordinator.JobID(ref)]; ok {
		return coordinator.JobID(ref), name, nil
	}
	var found []coordinator.JobID
	var there, ids []string
	for id, name := range names {
		if name == ref {
			found, ids = append(found, id), append(ids, string(id))
		}
		there = append(there, fmt.Sprintf("%s (%s)", name, id))
	}
	slices.Sort(ids)
	slices.Sort(there)
	switch live := st.Names[coordinator.NameKey(coordinator.DefaultNamespace, ref)]; {
	case len(found) == 1:
		return found[0], ref, nil
	case len(found) > 1:
		return "", "", refusal(http.StatusConflict, "%q is the name of several jobs: which one of %s?", ref, strings.Join(ids, ", "))
	case live != "":
		return live, ref, nil
	case len(there) == 0:
		return "", "", refusal(http.StatusNotFound, "nothing is kept at site %s of a job %q, nor of any other job: what is to be kept there has replicate_to in its text", st.Site, ref)
	}
	return "", "", refusal(http.StatusNotFound, "nothing is kept at site %s of a job %q; what could go on here is %s", st.Site, ref, strings.Join(there, ", "))
}

// takenFeeds are the shared feeds of a job that is kept here, as they will be.
func takenFeeds(st *coordinator.State, id coordinator.JobID) (all []TakenFeed) {
	r := st.Replicas[id]
	if r == nil || r.Moving != "" {
		return nil
	}
	for i := range r.Job.Feeds {
		if f := &r.Job.Feeds[i]; f.Of == nil && slices.Contains(r.Job.Reads, f.Name) {
			as := r.Job.NameAt(f, r.From, st.Site, r.Moving)
			all = append(all, TakenFeed{f.Name, as, coordinator.TakenClient(st.Mesh, st.Site, as)})
		}
	}
	return all
}

// came is what the leader says of it.
func (f *FailedOver) came(st *coordinator.State, a *leader.Answer) {
	if arr := st.Moves.Arrivals[a.Move]; arr != nil {
		f.Move, f.From, f.Epoch, f.Checkpoint, f.Feeds = string(arr.ID), string(arr.From), arr.Epoch, arr.Savepoint.Name, nil
	}
	if o := a.FailedOver; o != nil {
		f.From, f.Epoch, f.Move, f.Checkpoint = string(o.From), o.Epoch, string(o.Move), o.Snapshot
		f.Entries, f.Bytes, f.Time = o.Lag.Rows, o.Lag.Bytes, millis(o.Lag.Time)
		f.Heard, f.Logs, f.Gap = stamp(o.Heard), o.Logs, o.Gap
		if o.Needs != nil {
			f.Needs = o.Needs.Error()
		}
		if o.Refused != nil {
			f.Refused = o.Refused.Error()
		}
	}
	snapshot := st.Of(coordinator.JobID(f.Job), f.Checkpoint)
	if snapshot == nil {
		snapshot = st.Savepoints[f.Checkpoint]
	}
	if snapshot == nil {
		return
	}
	if m, err := manifest.Decode(snapshot.Manifest); err == nil {
		f.Taken = stamp(m.Created)
		f.Age = max(0, millis(dataflow.Duration(dataflow.Time(sensors.WallTime().UnixMicro())-m.Created)))
	}
}

// lines are all of it, for people.
func (f *FailedOver) lines() []string {
	did, kept := "goes on", f.From == f.To
	if f.DryRun {
		did = "would go on"
	}
	text := []string{fmt.Sprintf("%s, job %q: %s at site %s", f.Job, f.Name, did, f.To)}
	if f.Epoch != 0 {
		text[0] += fmt.Sprintf(", at epoch %d", f.Epoch)
	}
	took := ""
	if f.Taken != "" {
		took = fmt.Sprintf(", taken %s ago (%s)", (time.Duration(f.Age) * time.Millisecond).Round(time.Second), f.Taken)
	}
	switch {
	case f.Move != "":
		return append(text, fmt.Sprintf("by its move %s from site %s, with savepoint %s: all of it is here", f.Move, f.From, f.Checkpoint))
	case f.Checkpoint == "" && kept:
		text = append(text, "it has no checkpoint, and begins afresh")
	case kept:
		text = append(text, fmt.Sprintf("from its checkpoint %s%s", f.Checkpoint, took), "another site that has it ends its copy as soon as it hears of this")
	case f.Checkpoint != "":
		text = append(text, fmt.Sprintf("from checkpoint %s%s: what site %s put out since then stands beside what comes out here", f.Checkpoint, took, f.From))
		if f.Logs > 0 {
			text = append(text, f.lag())
		}
		if f.Gap != "" {
			text = append(text, f.Gap+": it cannot go on from that checkpoint")
		}
	}
	for _, r := range f.Feeds {
		text = append(text, fmt.Sprintf("it reads %s here in the place of %s, with a session of its own (client id %s): what came to the broker after site %s was lost, and before this, is not in it", r.As, r.Feed, r.Client, f.From))
	}
	return text
}

// lag is what is lost of the logs.
func (f *FailedOver) lag() string {
	switch {
	case f.Heard == "" && f.Entries == 0:
		return fmt.Sprintf("how much of its logs is missing here is not known: site %s has not said it since the leader here began", f.From)
	case f.Entries == 0:
		return fmt.Sprintf("all that was in its logs is here, as site %s said last (%s): what that acknowledged to a broker afterwards is lost", f.From, f.Heard)
	}
	heard := cmp.Or(f.Heard, "not of all of them")
	return fmt.Sprintf("%d entries of its logs (%d bytes, %s) are not here, as site %s said last (%s): they are lost, and what that acknowledged to a broker afterwards", f.Entries, f.Bytes, time.Duration(f.Time)*time.Millisecond, f.From, heard)
}
