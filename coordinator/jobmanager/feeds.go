package jobmanager

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func checkFeed(f *coordinator.Feed) error {
	if err := manifest.CheckName(f.Name); err != nil {
		return refuse(ErrRefused, "the feed's name %q: use 1 to 128 letters, digits, '-', '_', '.', and a letter or digit first", f.Name)
	}
	switch {
	case f.Namespace != "" && f.Namespace != coordinator.DefaultNamespace:
		return refuse(ErrRefused, "feed %q: namespace %q: there is only %q", f.Name, f.Namespace, coordinator.DefaultNamespace)
	case f.Job != "":
		return refuse(ErrRefused, "feed %q: a job's own feeds come with its submission", f.Name)
	case f.Replicas < 0 || f.Replicas > MaxReplicas:
		return refuse(ErrRefused, "feed %q: %d replicas; 1 to %d are possible", f.Name, f.Replicas, MaxReplicas)
	case len(f.Config) > MaxSpec:
		return refuse(ErrRefused, "feed %q: its config has more than %d bytes", f.Name, MaxSpec)
	}
	return nil
}

// newFeed is what the state keeps of a feed that was asked for.
func newFeed(f *coordinator.Feed, at dataflow.Time) *coordinator.Feed {
	return &coordinator.Feed{Name: f.Name, Namespace: coordinator.DefaultNamespace, Config: bytes.Clone(f.Config), Replicas: f.Replicas, Degrade: f.Degrade, Created: at}
}

func (a *apply) feedCreated(c *coordinator.Feed) error {
	if err := checkFeed(c); err != nil {
		return err
	}
	switch {
	case likeOwn(c.Name):
		return refuse(ErrRefused, "feed %q: such names are of jobs' own feeds", c.Name)
	case a.Feeds[c.Name] != nil:
		return refuse(ErrExists, "feed %q is there already", c.Name)
	case len(a.Feeds) >= MaxFeeds:
		return refuse(ErrRefused, "there are %d feeds: delete some first", MaxFeeds)
	}
	a.Feeds[c.Name] = newFeed(c, a.c.At)
	a.changed(Feed, c.Name)
	return nil
}

// likeOwn tells whether a name could be that of a job's own feed: j7.in.
func likeOwn(name string) bool {
	job, _, ok := strings.Cut(name, ".")
	digits, j := strings.CutPrefix(job, "j")
	return ok && j && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func (a *apply) feedDeleted(c *coordinator.FeedDeleted) error {
	f := a.Feeds[c.Name]
	switch {
	case f == nil:
		return refuse(ErrUnknown, "no feed %q", c.Name)
	case f.Job != "":
		return refuse(ErrRefused, "feed %q belongs to job %s: it goes when the job is forgotten", c.Name, f.Job)
	}
	for _, id := range sorted(a.Jobs) {
		if job := a.Jobs[id]; !job.Status.Ended() && slices.Contains(job.Reads, c.Name) {
			return refuse(ErrRefused, "feed %q: job %s (%q) reads it: stop the job first", c.Name, id, job.Name)
		}
	}
	delete(a.Feeds, c.Name)
	a.changed(Feed, c.Name)
	return nil
}

func (a *apply) logEpochBegun(c *coordinator.LogEpochBegun) error {
	f := a.Feeds[c.Feed]
	if f == nil {
		return refuse(ErrUnknown, "no feed %q", c.Feed)
	}
	if err := a.ofTerm(c.Term); err != nil {
		return err
	}
	old, log := f.Log, c.Log
	switch {
	case log.Epoch != old.Epoch+1:
		return refuse(ErrStale, "feed %q: epoch %d is to begin, and the present one is %d", f.Name, log.Epoch, old.Epoch)
	case !slices.Contains(log.Members, log.Owner):
		return refuse(ErrRefused, "feed %q: the owner %q is not one of the members", f.Name, log.Owner)
	case log.Start < 0:
		return refuse(ErrRefused, "feed %q: epoch %d is to start at %d", f.Name, log.Epoch, log.Start)
	case len(log.Members) > MaxReplicas:
		return refuse(ErrRefused, "feed %q: %d members; at most %d are possible", f.Name, len(log.Members), MaxReplicas)
	}
	for i, node := range log.Members {
		if a.Agents[node] == nil || slices.Contains(log.Members[:i], node) {
			return refuse(ErrStale, "feed %q: member %q is there twice, or no agent of the site any more", f.Name, node)
		}
	}
	if why := logepoch.Refuse(&old, log.Owner, log.Start); why != "" {
		return refuse(ErrRefused, "feed %q: %s", f.Name, why)
	}
	next := *f
	next.Log = logepoch.Next(&old, log.Owner, log.Members, log.Start)
	next.Log.Heirs = slices.DeleteFunc(next.Log.Heirs, func(h coordinator.Heir) bool { return a.Agents[h.Node] == nil })
	if drop := len(next.Log.Starts) - MaxStarts; drop > 0 {
		next.Log.Starts = slices.Clone(next.Log.Starts[drop:])
		next.Log.Forgotten += uint64(drop)
	}
	a.Feeds[f.Name] = &next
	a.changed(Feed, f.Name)
	return nil
}
