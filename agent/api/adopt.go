package api

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// This file is what becomes of the feeds of a job that is submitted: which are
// made, which are read, and which are taken over from a job of before.

// feedsFor names the shared feeds that a job reads, and makes those of its own
// sources, or takes them over where it goes on with one. Why it cannot go on
// with one is noted in from.
func feedsFor(st *coordinator.State, j *job.Job, from *beginning, c *coordinator.JobSubmitted) error {
	for _, s := range j.Sources {
		var err error
		switch {
		case s.Feed != nil:
			err = readsFeed(st, s, from, c)
		case s.MQTT != nil:
			err = ownFeed(st, j, s, from, c)
		}
		if err != nil {
			return refusal(http.StatusUnprocessableEntity, "source %q: %v", s.ID, err)
		}
	}
	return nil
}

// stands tells whether a job is to begin at positions of a source. That it had
// read nothing yet is one, too, where the source's feed is known.
func (b *beginning) stands(st *coordinator.State, s *job.Source) bool {
	if b.manifest != nil {
		for _, o := range b.manifest.Operators {
			if o.ID == s.ID && (len(o.Positions) > 0 || ownBefore(st, b, s) != nil) {
				return true
			}
		}
	}
	return false
}

func (b *beginning) refuse(s *job.Source, format string, args ...any) {
	b.refused = append(b.refused, fmt.Errorf("source %q stands at positions of "+format, append([]any{s.ID}, args...)...))
}

// forks refuses files that the job which the new one goes on from still writes: it
// would cut them back to where they were then.
func (b *beginning) forks(st *coordinator.State, j *job.Job) {
	if b.Snapshot == nil {
		return
	}
	old := st.Jobs[b.Job]
	for old != nil && st.Jobs[old.Successor] != nil {
		old = st.Jobs[old.Successor]
	}
	if old == nil || old.Status.Ended() {
		return
	}
	writes, err := job.Load(old.Name, old.Spec, job.Options{Set: old.Sets})
	if err != nil {
		b.refused = append(b.refused, fmt.Errorf("which files job %s (%s) writes, which is %s, cannot be told, so stop it first: %w", old.ID, old.Name, old.Status, err))
		return
	}
	for _, s := range j.Sinks {
		same := func(o *job.Sink) bool { return o.File != nil && s.File != nil && o.File.Path == s.File.Path }
		if slices.ContainsFunc(writes.Sinks, same) {
			b.refused = append(b.refused, fmt.Errorf("sink %q writes %s, and so does job %s (%s), which is %s: give it another path, or stop that job first", s.ID, s.File.Path, old.ID, old.Name, old.Status))
		}
	}
}

const (
	orAnew   = "give the source another id to begin with what arrives"
	elsewise = "; " + orAnew
)

func readsFeed(st *coordinator.State, s *job.Source, from *beginning, c *coordinator.JobSubmitted) error {
	f := st.Feeds[s.Feed.Name]
	if f == nil || f.Job != "" {
		return fmt.Errorf("it reads feed %q, and there is none that is shared; make it with `tidemark feed create`", s.Feed.Name)
	}
	cfg, err := feed.ParseConfig(f.Name, f.Config)
	if err == nil {
		err = s.CheckFilters(cfg.Topics)
	}
	if err != nil {
		return err
	}
	c.Reads = append(c.Reads, f.Name)
	if from.stands(st, s) {
		switch of := readBefore(st, from, s); {
		case from.Job == "":
			from.refuse(s, "a log of wherever %s was exported, and not of feed %s%s", from.Name, f.Name, elsewise)
		case of != "" && of != f.Name:
			from.refuse(s, "the log of feed %s, and not of feed %s%s", of, f.Name, elsewise)
		case !st.StandsIn(from.Snapshot, f):
			from.refuse(s, "the log of a feed that was deleted, and feed %s was made since%s", f.Name, elsewise)
		}
	}
	return nil
}

// readBefore is the feed that a source read in the job that from is of; empty:
// it is not known, as that job is forgotten.
func readBefore(st *coordinator.State, from *beginning, s *job.Source) string {
	if f := ownBefore(st, from, s); f != nil {
		return f.Name
	}
	old := st.Jobs[from.Job]
	if old == nil {
		return ""
	}
	loaded, err := job.Load(old.Name, old.Spec, job.Options{Set: old.Sets})
	if err != nil {
		return ""
	}
	for _, o := range loaded.Sources {
		if o.ID == s.ID && o.Feed != nil {
			return o.Feed.Name
		}
	}
	return ""
}

// ownBefore is the feed of its own that a source had in the job that from is of.
func ownBefore(st *coordinator.State, from *beginning, s *job.Source) *coordinator.Feed {
	for _, f := range st.Feeds {
		if f.Of(from.Job) && f.Source() == s.ID {
			return f
		}
	}
	return nil
}

func ownFeed(st *coordinator.State, j *job.Job, s *job.Source, from *beginning, c *coordinator.JobSubmitted) error {
	name, cfg := feed.FromSource(j.Name, s)
	if s.MQTT.ClientID == "" {
		cfg.ClientID = freeClient(st, clientOf(st, name), c.Feeds...)
	}
	adopted := ""
	if from.stands(st, s) {
		if old := adoptable(st, s, from); old != nil {
			was, err := feed.ParseConfig(old.Name, old.Config)
			if err != nil {
				return err
			}
			if s.MQTT.ClientID == "" { // the broker keeps messages for it
				cfg.ClientID = was.ClientID
			}
			if lanes := max(1, cfg.Lanes); lanes != max(1, was.Lanes) {
				from.refuse(s, "feed %s, which has %d lanes for ever, and %d are asked for; keep the number", old.Name, max(1, was.Lanes), lanes)
			}
			adopted = old.Name
			c.Adopts = append(c.Adopts, coordinator.Adoption{Source: s.ID, Feed: old.Name})
		}
	}
	f := coordinator.Feed{Name: string(s.ID), Namespace: coordinator.DefaultNamespace, Replicas: j.Replicas, Degrade: j.WhenShort == job.Degrade}
	if err := configure(st, &f, name, cfg); err != nil {
		return err
	}
	if err := occupied(st, &f, cfg, adopted, c.Feeds...); err != nil && adopted == "" {
		return err
	} else if err != nil {
		from.refused = append(from.refused, fmt.Errorf("source %q: %w", s.ID, err))
	}
	c.Feeds = append(c.Feeds, f)
	return nil
}

// configure gives a feed its config, with the filters that the session may have from
// before: from all on record that had one of its client id. Agents below SettledLevel could
// not read that.
func configure(st *coordinator.State, f *coordinator.Feed, name string, cfg feed.Config) (err error) {
	if f.Config, err = feedText(name, cfg); err != nil || st.Level < coordinator.SettledLevel {
		return err
	}
	client := st.SessionOf(f).Client
	for _, old := range slices.Sorted(maps.Keys(st.Feeds)) {
		o := st.Feeds[old]
		if st.SessionOf(o).Client != client {
			continue
		}
		if was, err := feed.ParseConfig(old, o.Config); err == nil { // that of the feed that it was has been read
			was.ClientID = cfg.ClientID // a feed that was taken has another one than its config
			cfg = cfg.After(was)
		}
	}
	f.Config, err = feedText(name, cfg)
	return err
}

// adoptable is the feed with which a source can go on; nil: there is none, and
// from says why.
func adoptable(st *coordinator.State, s *job.Source, from *beginning) *coordinator.Feed {
	f := ownBefore(st, from, s)
	if f == nil {
		switch of := readBefore(st, from, s); {
		case of != "":
			from.refuse(s, "the log of the shared feed %s, and an mqtt: source has a log of its own; read that one with feed: %s, or %s", of, of, orAnew)
		case from.Job == "":
			from.refuse(s, "a log of wherever %s was exported, which is not here%s", from.Name, elsewise)
		default:
			from.refuse(s, "a log that is not there any more%s", elsewise)
		}
		return nil
	}
	owner := st.Jobs[f.Job]
	switch {
	case owner != nil && owner.Status == coordinator.Moved:
		from.refuse(s, "feed %s, which is that of job %s (%s), and that is at site %s: stop it there and submit this one there, or %s", f.Name, owner.ID, owner.Name, owner.Owner, orAnew)
	case owner != nil && !owner.Status.Ended():
		from.refuse(s, "feed %s, which is that of job %s (%s), and that is %s. Its broker session is one job's: stop that job first (tidemark job stop %s). "+
			"For two jobs side by side on the same messages let both read a shared feed (tidemark feed create, feed: NAME), or %s", f.Name, owner.ID, owner.Name, owner.Status, owner.Name, orAnew)
	case f.Mirror != nil:
		from.refuse(s, "feed %s, whose session stayed at site %s when the job moved here: only where the session is can another job go on with it, so move a job back before you stop it for that; or %s", f.Name, f.Mirror.Site, orAnew)
	case st.Level < coordinator.AdoptLevel:
		from.refuse(s, "feed %s of job %s, which this job cannot take over yet: %s", f.Name, f.Job, behind(st))
	default:
		return f
	}
	return nil
}

// clientOf is the client id of a feed that names none. It moves with the feed, so
// no two sites may make the same one.
func clientOf(st *coordinator.State, name string) string {
	if st.Level >= coordinator.SitesLevel {
		return st.Mesh + "/" + string(st.Site) + "/" + name
	}
	return st.Mesh + "/" + name
}

// freeClient is a client id that no feed has, whether its session is in use here or
// elsewhere, or waits for a job that goes on from what one left that has ended: what its
// broker keeps is that job's. More are feeds that are not in the state yet.
func freeClient(st *coordinator.State, want string, more ...coordinator.Feed) string {
	used := make(map[string]bool)
	for _, f := range st.Feeds {
		if !givenUp(st, f) {
			used[st.SessionOf(f).Client] = true
		}
	}
	for i := range more {
		used[st.SessionOf(&more[i]).Client] = true
	}
	id := want
	for n := 2; used[id]; n++ {
		id = want + "-" + strconv.Itoa(n)
	}
	return id
}

// givenUp tells whether a feed's session waits for nobody: its job was cancelled, so that
// somebody did without what it left, and no savepoint stands in its log. The next job of
// the name has it, or each attempt would leave one more at the broker.
func givenUp(st *coordinator.State, f *coordinator.Feed) bool {
	if j := st.Jobs[f.Job]; j == nil || j.Status != coordinator.Cancelled {
		return false
	}
	for _, c := range st.Savepoints {
		if f.Of(c.Job) {
			return false
		}
	}
	return true
}

// sameSession is why two of one job cannot have a session.
func sameSession(is coordinator.Session, other string) error {
	return fmt.Errorf("client id %q at %s is that of %s, too: one session is one source's. Give them different ones, or none", is.Client, is.Broker, other)
}

// occupied refuses the session of a feed that another one uses, but for the one whose
// log and session it gets. More are feeds that are made with it.
func occupied(st *coordinator.State, f *coordinator.Feed, cfg feed.Config, but string, more ...coordinator.Feed) error {
	want := st.SessionOf(f)
	for i := range more {
		if st.SessionOf(&more[i]) == want {
			return sameSession(want, fmt.Sprintf("source %q", more[i].Name))
		}
	}
	by := st.SessionTaken(want, but)
	if by == nil {
		return nil
	}
	ways := []string{"give this one a client_id that nobody has"}
	switch j := st.Jobs[by.Job]; {
	case j != nil && !j.Status.Ended():
		ways = append(ways, "for two jobs on the same messages let both read a shared feed (tidemark feed create, feed: NAME)")
	case by.Whose() == "":
		ways = append(ways, "read that one (feed: "+by.Name+")")
	}
	return fmt.Errorf("client id %q at %s is that of %s", cfg.ClientID, cfg.Broker, st.Occupies(by, ways...))
}
