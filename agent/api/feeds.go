package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
)

type FeedPath struct {
	Feed string `path:"feed" doc:"its name; of a job's own source JOB.SOURCE, where JOB is the id or the name"`
}

func (s *server) registerFeeds() {
	register(s, op(http.MethodGet, "/v1/feeds", "list-feeds", "All feeds"), s.listFeeds)
	register(s, op(http.MethodPost, "/v1/feeds", "create-feed", "Make a feed that jobs read with feed: NAME", status(http.StatusCreated)), s.createFeed)
	register(s, op(http.MethodGet, "/v1/feeds/{feed}", "show-feed", "A feed, its log and where that is"), s.showFeed)
	register(s, op(http.MethodDelete, "/v1/feeds/{feed}", "delete-feed", "Delete a feed with its log", status(http.StatusNoContent)), s.deleteFeed)
}

func describeFeed(st *coordinator.State, f *coordinator.Feed) Feed {
	out := Feed{
		Name: f.Name, Namespace: f.Namespace, Job: string(f.Job), Replicas: f.Replicas, WhenShort: "block", Epoch: f.Log.Epoch,
		Topics: []string{}, Members: []string{}, Readers: []string{}, State: "nothing was heard of it",
	}
	if f.Degrade {
		out.WhenShort = "degrade"
	}
	if f.Log.Epoch == 0 {
		out.State = "never opened"
	} else {
		out.Owner, out.Entries = nameOf(st.Agents, f.Log.Owner), f.Log.Start
	}
	for _, n := range f.Log.Members {
		out.Members = append(out.Members, nameOf(st.Agents, n))
	}
	for _, j := range sortedJobs(st) {
		if !j.Status.Ended() && (j.ID == f.Job || slices.Contains(j.Reads, f.Name)) {
			out.Readers = append(out.Readers, j.Name)
		}
	}
	if f.Mirror != nil {
		out.Mirror = &FeedMirror{Site: string(f.Mirror.Site), Feed: f.Mirror.Feed}
	} else if f.Job != "" && len(out.Readers) == 0 {
		out.State, out.Hint = stopped, left(st, f)
	}
	c, err := feed.ParseConfig(f.Name, f.Config)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Broker, out.Topics, out.QoS, out.Lanes, out.ClientID = c.Broker, c.Topics, c.QoS, c.Lanes, c.ClientID
	if from, by := f.Taken(); from != "" {
		out.ClientID = coordinator.TakenClient(st.Mesh, cmp.Or(by, st.Site), f.Name)
	}
	return out
}

// stopped is the state of a feed whose job has ended.
const stopped = "stopped"

// left says what can be done with the feed of a job that has ended.
func left(st *coordinator.State, f *coordinator.Feed) string {
	if j := st.Jobs[f.Job]; j != nil {
		if j.Status == coordinator.Moved { // one that is submitted from here would be a second one
			return fmt.Sprintf("job %s (%s) is at site %s: this log stays for its way back", j.ID, j.Name, j.Owner)
		}
		forget := fmt.Sprintf("`tidemark job forget %s` deletes it", j.ID)
		was := fmt.Sprintf("job %s (%s) is %s: ", j.ID, j.Name, j.Status)
		from := savepointOf(st, j)
		if from == "" && j.Newest() == nil {
			return was + forget
		}
		return was + fmt.Sprintf("`tidemark job submit FILE --from-savepoint %s` goes on with it, %s", cmp.Or(from, string(j.ID)), forget)
	}
	for _, name := range slices.Sorted(maps.Keys(st.Savepoints)) {
		if f.Of(st.Savepoints[name].Job) {
			return fmt.Sprintf("savepoint %s stands in it: `tidemark job submit FILE --from-savepoint %[1]s` goes on with it, `tidemark savepoint delete %[1]s` lets it go", name)
		}
	}
	return ""
}

// findFeed finds a feed by its name, or a job's own as NAME.SOURCE: of the live
// job of that name, else of the one that ended last.
func findFeed(st *coordinator.State, ref string) (*coordinator.Feed, error) {
	if f := st.Feeds[ref]; f != nil {
		return f, nil
	}
	for _, j := range sortedJobs(st) {
		for _, f := range st.Feeds {
			if f.Job == j.ID && ref == j.Name+"."+string(f.Source()) {
				return f, nil
			}
		}
	}
	return nil, missing("feed", ref, slices.Sorted(maps.Keys(st.Feeds)))
}

// measured adds what owners said of their logs. What is known of one that has not begun
// is of a feed that had the name before, and was deleted.
func (s *server) measured(all []Feed) {
	for _, l := range s.b.Logs() {
		for i := range all {
			f := &all[i]
			if f.Name != l.Feed || f.Epoch == 0 || l.Epoch < f.Epoch {
				continue
			}
			f.Entries, f.Bytes, f.Messages = l.End, l.Bytes, l.Messages
			if f.State != stopped { // that was said before it ended
				f.State, f.Why = cmp.Or(l.Broker, "connecting"), l.Why
			}
			mirrored(f, &l, sensors.Wall{}.Now())
		}
	}
}

// mirrored adds what is known of the log that a feed is a mirror of, and of its own
// mirrors.
func mirrored(f *Feed, l *coordinator.LogStatus, now dataflow.Time) {
	if m := f.Mirror; m != nil && l.Of != nil {
		m.Agent, m.Lost, m.Heard = string(l.Of.Node), l.Of.Lost, int64(l.Of.Heard)
		m.Entries, m.Bytes, m.Time = LagOf(l, now)
		if f.State = "mirroring"; m.Agent == "" {
			f.State = "away: " + cmp.Or(l.Of.Why, "its source was not asked yet")
		}
	}
	f.Mirrors = nil
	for _, m := range l.Mirrors {
		f.Mirrors = append(f.Mirrors, FeedMirrors{Site: string(m.Site), Feed: m.Feed, Agent: string(m.Node), Entries: max(0, l.End-m.End), Heard: int64(m.Heard), Let: m.Let})
	}
}

// quiet is from when on what a source said last is old: it says where its log is once a
// second, and that comes here by way of two clocks.
const quiet = 10 * dataflow.Second

// LagOf is how far a mirror is behind: entries, bytes and ms. These are by the arrival
// clock to where its source was when it was heard last, and by the wall clock from there on
// where that is long ago: nobody knows what came there since.
func LagOf(l *coordinator.LogStatus, now dataflow.Time) (entries, bytes, ms int64) {
	of := l.Of
	if entries = max(0, of.End-l.End); entries > 0 {
		bytes = max(0, of.Payload-l.Payload)
		if l.Clock != 0 {
			ms = max(0, int64(of.Clock-l.Clock)/int64(dataflow.Millisecond))
		}
	}
	if since := dataflow.Duration(now - of.Heard); of.Heard != 0 && since > quiet {
		ms += int64(since / dataflow.Millisecond)
	}
	return entries, bytes, ms
}

func feedsOfJob(st *coordinator.State, j *coordinator.Job) []Feed {
	all := []Feed{}
	for _, name := range slices.Sorted(maps.Keys(st.Feeds)) {
		if f := st.Feeds[name]; f.Job == j.ID || slices.Contains(j.Reads, name) {
			all = append(all, describeFeed(st, f))
		}
	}
	return all
}

func (s *server) listFeeds(ctx context.Context, in *Stale) (*body[[]Feed], error) {
	all := []Feed{}
	err := s.read(ctx, *in, func(st *coordinator.State) error {
		for _, name := range slices.Sorted(maps.Keys(st.Feeds)) {
			all = append(all, describeFeed(st, st.Feeds[name]))
		}
		return nil
	})
	s.measured(all)
	return answer(all), err
}

func (s *server) showFeed(ctx context.Context, in *struct {
	FeedPath
	Stale
}) (*body[Feed], error) {
	one := make([]Feed, 1)
	err := s.read(ctx, in.Stale, func(st *coordinator.State) error {
		f, err := findFeed(st, in.Feed)
		if err != nil {
			return err
		}
		one[0] = describeFeed(st, f)
		return nil
	})
	s.measured(one)
	return answer(one[0]), err
}

func (s *server) createFeed(ctx context.Context, in *struct{ Body NewFeed }) (*body[Feed], error) {
	n := in.Body
	if !job.IsFeedName(n.Name) {
		return nil, refusal(http.StatusUnprocessableEntity, "a feed cannot be called %q: use letters, digits, - and _, a letter first, at most 64", n.Name)
	}
	if most := int64(dataflow.MaxTime) / int64(dataflow.Millisecond); n.KeepAge > most {
		return nil, refusal(http.StatusUnprocessableEntity, "feed %q: keep_age_ms is %d, at most %d are possible", n.Name, n.KeepAge, most)
	}
	c := feed.Config{
		Broker: n.Broker, Topics: n.Topics, QoS: n.QoS, Lanes: n.Lanes, ClientID: n.ClientID, TLS: job.TLS{CA: n.CA, Cert: n.Cert, Key: n.Key},
		Keep:     job.Retention{Age: dataflow.Duration(n.KeepAge) * dataflow.Millisecond, Size: n.KeepSize, Cap: n.Cap},
		Retained: map[string]job.Retained{"all": job.RetainedAll, "never": job.RetainedNever}[n.Retained],
	}
	if c.Keep == (job.Retention{}) { // jobs that read it come later
		c.Keep.Age, c.Keep.Size = feed.DefaultKeepAge, feed.DefaultKeepSize
	}
	var err error
	if c.Username, err = job.ParseSecret(n.Username); err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "username: %v", err)
	}
	if c.Password, err = job.ParseSecret(n.Password); err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "password: it is no reference; give ${file:PATH} or ${env:NAME}")
	}
	f := coordinator.Feed{Name: n.Name, Namespace: coordinator.DefaultNamespace, Replicas: n.Replicas, Degrade: n.WhenShort == "degrade"}
	err = s.read(ctx, Stale{}, func(st *coordinator.State) error {
		if n.ClientID == "" {
			c.ClientID = freeClient(st, clientOf(st, n.Name))
		}
		err := configure(st, &f, n.Name, c)
		if err == nil && st.Feeds[n.Name] == nil { // that it is there already the leader says
			err = occupied(st, &f, c, "")
		}
		if err != nil {
			return refusal(http.StatusUnprocessableEntity, "%v", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.propose(ctx, coordinator.Command{FeedCreated: &f}); err != nil {
		return nil, err
	}
	var out Feed
	s.b.View(func(st *coordinator.State) { out = describeFeed(st, &f) })
	return answer(out), nil
}

func (s *server) deleteFeed(ctx context.Context, in *FeedPath) (*struct{}, error) {
	var name string
	err := s.read(ctx, Stale{}, func(st *coordinator.State) error {
		f, err := findFeed(st, in.Feed)
		if err == nil {
			name = f.Name
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, coordinator.Command{FeedDeleted: &coordinator.FeedDeleted{Name: name}})
	return nil, err
}
