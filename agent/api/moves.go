package api

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Migration is where a job is to go.
type Migration struct {
	To      string   `json:"to" doc:"a site of the mesh" maxLength:"255"`
	Feed    string   `json:"feed,omitempty" enum:"move,stay" doc:"whether the MQTT sessions of what it reads go along; stay: their logs are mirrored. Default: move"`
	Set     []string `json:"set,omitempty" doc:"replaced values that hold there, as PATH=VALUE" maxItems:"1000"`
	DryRun  bool     `json:"dry_run,omitempty" doc:"only ask the other site whether it would take the job"`
	Request string   `json:"request,omitempty" doc:"a random text: sent again with the same one, it is the same move" maxLength:"128"`
}

// Move is a job's way from a site to another one.
type Move struct {
	ID        string     `json:"id" doc:"empty: a dry run, which is on record nowhere"`
	Job       string     `json:"job"`
	Name      string     `json:"name,omitempty"`
	From      string     `json:"from"`
	To        string     `json:"to"`
	Site      string     `json:"site" doc:"that says so"`
	Phase     string     `json:"phase" doc:"at its source copying, halting, offered, handed-over, aborted, fenced; at its target receiving, prepared, active, dropped"`
	Over      bool       `json:"over" doc:"it is decided"`
	Doubt     bool       `json:"in_doubt" doc:"the target has everything, and does not hear what the source has decided"`
	Forced    bool       `json:"forced,omitempty" doc:"a person had the job begin here, and the source did not say so"`
	Why       string     `json:"why,omitempty"`
	Savepoint string     `json:"savepoint,omitempty" doc:"with which the job has stopped"`
	Feeds     []string   `json:"feeds,omitempty" doc:"whose sessions go along"`
	Stay      []string   `json:"stay,omitempty" doc:"feeds whose sessions stay"`
	Set       []string   `json:"set,omitempty"`
	Begun     string     `json:"begun,omitempty"`
	Since     string     `json:"since,omitempty" doc:"when its phase changed last"`
	Bytes     int64      `json:"bytes" doc:"that were fetched so far, as this leader knows"`
	Pause     int64      `json:"pause_us,omitempty" doc:"µs from the last row out of the job at its source to the first one at its target; 0: not known"`
	PauseOff  int64      `json:"pause_off_us,omitempty" doc:"what that may be off, either way"`
	Steps     []MoveStep `json:"steps,omitempty" doc:"what this leader has told of it, oldest first"`
}

// MoveStep is something that happened to a move. What is not known is 0.
type MoveStep struct {
	At       string `json:"at"`
	Phase    string `json:"phase" doc:"that it is in from then on"`
	Ended    string `json:"ended,omitempty" doc:"the phase that ended"`
	Round    int    `json:"round,omitempty" doc:"of copying, from 1, that was done"`
	Bytes    int64  `json:"bytes,omitempty" doc:"of the round; of copying, when that ended: in all"`
	Took     int64  `json:"took_us,omitempty" doc:"µs of the round, or of the phase that ended"`
	Left     int64  `json:"left_us,omitempty" doc:"µs that would still be to copy if the job stopped now"`
	Snapshot string `json:"snapshot,omitempty" doc:"that the target has with the round; the same one may be told again by another leader"`
	Anew     bool   `json:"anew,omitempty" doc:"another leader has taken over: rounds and bytes are counted from here"`
	Lag      int64  `json:"lag,omitempty" doc:"bytes of logs that the target does not have"`
	Pause    int64  `json:"pause_us,omitempty"`
	PauseOff int64  `json:"pause_off_us,omitempty"`
	Doubt    bool   `json:"in_doubt,omitempty"`
	Why      string `json:"why,omitempty"`
	Text     string `json:"text" doc:"all of that as a line"`
}

func (s *server) registerMoves() {
	register(s, op(http.MethodPost, "/v1/jobs/{job}/migrate", "migrate-job", "Move a job to another site", lasting(2*time.Minute), status(http.StatusAccepted),
		describe("The answer comes when the move is on record, which says nothing of how it ends: look at it, or at the events. With dry_run it comes when the other site has said that it would take the job; a refusal is 409.")), s.migrateJob)
	register(s, op(http.MethodPost, "/v1/jobs/{job}/migrate/cancel", "cancel-move", "Give up the move of a job, which goes on where it is", lasting(2*time.Minute),
		describe("The answer comes when that is decided; 409: it was too late.")), s.cancelMove)
	s.registerFailover()
	s.registerKept()
	register(s, op(http.MethodGet, "/v1/moves", "list-moves", "Moves of jobs from here and to here that are on record"), s.listMoves)
	register(s, op(http.MethodGet, "/v1/moves/{move}", "show-move", "A move with what was told of it",
		describe("One that is over stays for a while, on the agent that led the site.")), s.showMove)
}

func stepOf(t MoveTold) MoveStep {
	p := t.Progress
	return MoveStep{At: t.At.GoTime().UTC().Format("2006-01-02T15:04:05.000Z07:00"), Phase: p.Phase, Ended: p.Ended, Round: p.Round, Bytes: p.Bytes, Took: int64(p.Took), Left: int64(p.Left), Lag: p.Lag, Snapshot: p.Snapshot, Anew: p.Anew,
		Pause: int64(p.Pause), PauseOff: int64(p.Error), Doubt: p.Doubt, Why: p.Why, Text: MoveLine(p)}
}

// MoveLine is a step of a move as a line for people.
func MoveLine(p migration.Progress) string {
	because := ""
	if p.Why != "" {
		because = ": " + p.Why
	}
	took := p.Took.Go().Round(time.Millisecond)
	switch {
	case p.Doubt:
		return "IN_DOUBT" + because
	case p.Anew:
		return p.Phase + ", with another leader: rounds and bytes are counted anew"
	case p.Pause > 0:
		return fmt.Sprintf("pause %s, give or take %s: nothing came out of the job", p.Pause.Go().Round(time.Millisecond), p.Error.Go().Round(time.Millisecond))
	case p.Round > 0:
		line := fmt.Sprintf("%s, round %d: %s in %s", p.Phase, p.Round, BytesText(p.Bytes), took)
		if p.Lag > 0 {
			line += ", the logs lag " + BytesText(p.Lag)
		}
		return line
	case p.Ended != "":
		line := fmt.Sprintf("%s, after %s of %s", p.Phase, took, p.Ended)
		if p.Bytes > 0 {
			line += ", " + BytesText(p.Bytes)
		}
		return line + because
	}
	return p.Phase + because
}

// moves are those on record, and those of before that were told of.
func (s *server) moves(st *coordinator.State, told []MoveTold) []Move {
	all := make(map[coordinator.MoveID]*Move)
	for id, d := range st.Moves.Departures {
		m := &Move{ID: string(id), Job: string(d.Job), From: string(st.Site), To: string(d.To), Phase: d.Phase.String(), Over: d.Phase.Decided(), Why: d.Why, Savepoint: d.Savepoint,
			Stay: d.Stay, Set: d.Sets, Begun: stamp(d.Begun), Since: stamp(d.Since)}
		if j := st.Jobs[d.Job]; j != nil {
			m.Name = j.Name
			for _, name := range jobFeeds(st, j) {
				if !slices.Contains(d.Stay, name) {
					m.Feeds = append(m.Feeds, name)
				}
			}
		}
		all[id] = m
	}
	for id, a := range st.Moves.Arrivals {
		m := &Move{ID: string(id), Job: string(a.Job.ID), Name: a.Job.Name, From: string(a.From), To: string(st.Site), Phase: a.Phase.String(), Over: a.Phase.Decided(), Forced: a.Forced,
			Why: a.Why, Set: a.Job.Sets, Begun: stamp(a.Begun), Since: stamp(a.Since)}
		for _, f := range a.Job.Feeds {
			if f.Stay {
				m.Stay = append(m.Stay, f.Name)
			} else {
				m.Feeds = append(m.Feeds, f.Name)
			}
		}
		if a.Savepoint != nil {
			m.Savepoint = a.Savepoint.Name
		}
		all[id] = m
	}
	for _, t := range told {
		m := all[t.Move]
		if m == nil {
			m = forgotten(st, t)
			all[t.Move] = m
		}
		m.tell(t)
	}
	var out []Move
	for _, m := range all {
		m.Site = string(st.Site)
		out = append(out, *m)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := &out[i], &out[j]
		return cmp.Or(cmp.Compare(b.Begun, a.Begun), cmp.Compare(len(b.ID), len(a.ID)), cmp.Compare(b.ID, a.ID)) < 0
	})
	return out
}

// forgotten is a move that is not on record any more: it was decided.
func forgotten(st *coordinator.State, t MoveTold) *Move {
	_, from, _ := t.Move.Parts()
	m := &Move{ID: string(t.Move), Job: string(t.Job), From: string(from), Over: true}
	if j := st.Jobs[t.Job]; j != nil {
		m.Name = j.Name
	}
	return m
}

// tell adds a step. All that is known of a move whose record is gone is what its steps
// say.
func (m *Move) tell(t MoveTold) {
	p := t.Progress
	m.Steps = append(m.Steps, stepOf(t))
	m.Doubt = p.Doubt && !m.Over
	if p.Round > 0 {
		m.Bytes += p.Bytes
	}
	if p.Pause > 0 {
		m.Pause, m.PauseOff = int64(p.Pause), int64(p.Error)
	}
	if m.Since == "" {
		m.Phase, m.Why, m.To = p.Phase, cmp.Or(p.Why, m.Why), cmp.Or(string(t.To), m.To)
	}
}

// jobFeeds are the names of the feeds that a job reads.
func jobFeeds(st *coordinator.State, j *coordinator.Job) (names []string) {
	m, _ := st.MovingTo(j.ID, nil, nil, nil)
	for _, f := range m.Feeds {
		names = append(names, f.Name)
	}
	return names
}

func (s *server) listMoves(ctx context.Context, in *Stale) (*body[[]Move], error) {
	all := []Move{}
	err := s.read(ctx, *in, func(st *coordinator.State) error {
		for _, m := range s.moves(st, s.b.Told()) {
			if m.Steps = nil; !coordinator.MoveID(m.ID).DryRun() {
				all = append(all, m)
			}
		}
		return nil
	})
	return answer(all), err
}

func (s *server) showMove(ctx context.Context, in *struct {
	Move string `path:"move" doc:"its id"`
	Stale
}) (*body[Move], error) {
	var out Move
	err := s.read(ctx, in.Stale, func(st *coordinator.State) error {
		var there []string
		for _, m := range s.moves(st, s.b.Told()) {
			if m.ID == in.Move {
				out = m
				return nil
			}
			there = append(there, m.ID)
		}
		return missing("move", in.Move, there)
	})
	return answer(out), err
}

// move is one by its id, as it is now.
func (s *server) move(ctx context.Context, id coordinator.MoveID) (*body[Move], error) {
	return s.showMove(ctx, &struct {
		Move string `path:"move" doc:"its id"`
		Stale
	}{Move: string(id)})
}

func (s *server) migrateJob(ctx context.Context, in *struct {
	JobPath
	Body Migration
}) (*body[Move], error) {
	j, err := s.job(ctx, Stale{}, in.Job)
	if err != nil {
		return nil, err
	}
	var self mesh.Site
	began := coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: mesh.Site(in.Body.To), Sets: in.Body.Set, Request: in.Body.Request}
	s.b.View(func(st *coordinator.State) {
		self = st.Site
		if in.Body.Feed == "stay" {
			began.Stay = jobFeeds(st, j)
		}
		began.Configs, err = movedConfigs(st, j, &began)
	})
	if err == nil {
		err = s.movable(j, began.To, self)
	}
	if err != nil {
		return nil, err
	}
	w := leader.Migrate{Begin: &began}
	if in.Body.DryRun {
		w = leader.Migrate{Dry: &began}
	}
	a, err := s.b.Ask(ctx, leader.Wish{Migrate: &w})
	switch {
	case err != nil:
		return nil, asked(err)
	case in.Body.DryRun:
		return answer(Move{Job: string(j.ID), Name: j.Name, From: string(self), To: in.Body.To, Site: string(self), Phase: "dry run", Stay: began.Stay, Set: began.Sets}), nil
	case a.Move == "":
		return nil, refusal(http.StatusConflict, "the move of job %s was begun, and is over already: look at the job", j.Name)
	}
	return s.move(ctx, a.Move)
}

// movedConfigs are the configs of the feeds that move, as the move's settings have them,
// where they are others than now.
func movedConfigs(st *coordinator.State, j *coordinator.Job, began *coordinator.MoveBegan) (all []coordinator.FeedConfig, err error) {
	if len(began.Sets) == 0 {
		return nil, nil
	}
	loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: slices.Concat(j.Sets, began.Sets), Parallelism: j.Parallelism})
	if err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "with these settings the job is not valid: %v", err)
	}
	d := &coordinator.Departure{Job: j.ID, Stay: began.Stay}
	for _, src := range loaded.Sources {
		f := st.Feeds[j.OwnFeed(src.ID)]
		if src.MQTT == nil || f == nil || !d.Takes(j, f) {
			continue
		}
		_, cfg := feed.FromSource(j.Name, src)
		was, err := feed.ParseConfig(f.Name, f.Config)
		if err != nil {
			return nil, err
		}
		if src.MQTT.ClientID == "" {
			cfg.ClientID = was.ClientID
		}
		if lanes := max(1, cfg.Lanes); lanes != max(1, was.Lanes) {
			return nil, refusal(http.StatusUnprocessableEntity, "source %s: feed %s has %d lanes for ever, and %d are asked for", src.ID, f.Name, max(1, was.Lanes), lanes)
		}
		if st.Level >= coordinator.SettledLevel {
			cfg = cfg.After(was)
		}
		text, err := feedText(f.Name, cfg)
		if err != nil {
			return nil, refusal(http.StatusUnprocessableEntity, "source %s: %v", src.ID, err)
		}
		if !bytes.Equal(text, f.Config) {
			all = append(all, coordinator.FeedConfig{Feed: f.Name, Config: text})
		}
	}
	return all, movedTwice(st, j, began, all)
}

// movedTwice refuses two feeds that would go with one session.
func movedTwice(st *coordinator.State, j *coordinator.Job, began *coordinator.MoveBegan, configs []coordinator.FeedConfig) error {
	m, _ := st.MovingTo(j.ID, began.Stay, nil, configs)
	called := func(f *coordinator.MovingFeed) string {
		if slices.Contains(m.Reads, f.Name) {
			return "feed " + f.Name
		}
		return fmt.Sprintf("source %q", st.Feeds[f.Name].Source())
	}
	for i := range m.Feeds {
		f := &m.Feeds[i]
		if o := st.ComesTwice(&m, f, st.Site); o != nil {
			return refusal(http.StatusUnprocessableEntity, "with these settings %s: %v", called(f), sameSession(st.Comes(&m, f, st.Site), called(o)))
		}
	}
	return nil
}

// movable says why a job cannot begin to move to a site.
func (s *server) movable(j *coordinator.Job, to, self mesh.Site) error {
	known, seen := s.b.SiteSeen(to)
	var others []string
	for _, o := range s.b.OtherSites() {
		others = append(others, string(o))
	}
	switch {
	case to == "":
		return refusal(http.StatusUnprocessableEntity, "where to? Give a site")
	case to == self:
		return refusal(http.StatusConflict, "job %s is at site %s already", j.Name, self)
	case j.Status.Ended():
		return refusal(http.StatusConflict, "job %s has ended: it is %s", j.Name, statusLine(j))
	case !known:
		return missing("site", string(to), others)
	case !seen:
		return refusal(http.StatusConflict, "site %s is not reached now, so nothing was done: see `tidemark site list`", to)
	}
	return nil
}

func (s *server) cancelMove(ctx context.Context, in *JobPath) (*body[Move], error) {
	var id coordinator.MoveID
	err := s.read(ctx, Stale{}, func(st *coordinator.State) error {
		if a := arriving(st, in.Job); a != nil {
			id = a.ID
			return nil
		}
		j, err := findJob(st, in.Job)
		if err != nil {
			return err
		}
		d := st.Leaving(j.ID)
		if d == nil {
			return refusal(http.StatusConflict, "job %s is not moving: it is %s", j.Name, statusLine(j))
		}
		id = d.ID
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.b.Ask(ctx, leader.Wish{Migrate: &leader.Migrate{Cancel: id, Why: "a user cancelled it"}}); err != nil {
		return nil, asked(err)
	}
	return s.move(ctx, id)
}

// arriving is the arrival of a job that is not decided, by its id or name.
func arriving(st *coordinator.State, ref string) (found *coordinator.Arrival) {
	for _, a := range st.Moves.Arrivals {
		if !a.Phase.Decided() && (string(a.Job.ID) == ref || a.Job.Name == ref) && (found == nil || a.ID < found.ID) {
			found = a
		}
	}
	return found
}

// tenures is who had a job, for people.
func tenures(j *coordinator.Job) (all []Tenure) {
	for _, t := range j.History {
		all = append(all, Tenure{string(t.Site), t.Epoch, stamp(t.At)})
	}
	return all
}
