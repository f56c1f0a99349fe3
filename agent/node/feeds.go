package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// keptFeeds are the feeds of this agent as the executor wants them, and the pins
// that keep what jobs may have to read again.
//
// What a feed's log must keep is in the replicated state: for each live job that
// reads it, from the oldest checkpoint on that is kept for itself, or all of it while
// it has none; and what each savepoint stands at. What stands before the log's
// beginning cannot be restored, and keeps nothing.
type keptFeeds struct {
	feeds *feed.Feeds
	view  func(func(*coordinator.State))
	mesh  string
	tell  func(string)

	changed chan struct{}    // 1: the state may need other pins
	came    chan struct{}    // 1: an awaited mirror has more
	mu      sync.Mutex       // guards what follows
	awaited map[string]bool  // mirrors without which a job that is on its way here cannot come
	owned   map[string]owned // feeds that run here
	moving  map[string]bool  // feeds that run here, and whose pins may not be those of the state
}

// owned is what a feed was when it began to run here.
type owned struct {
	job  coordinator.JobID // Feed.Whose
	made uint64            // Feed.Made
}

func ownedOf(f *coordinator.Feed) owned { return owned{f.Whose(), f.Made} }

var _ executor.Feeds = (*keptFeeds)(nil)

// newKeptFeeds makes them; feeds and mesh are set before anything else is called.
func newKeptFeeds(view func(func(*coordinator.State)), tell func(string)) *keptFeeds {
	return &keptFeeds{view: view, tell: tell, changed: make(chan struct{}, 1), came: make(chan struct{}, 1), awaited: make(map[string]bool), owned: make(map[string]owned), moving: make(map[string]bool)}
}

// Own is executor.Feeds'.
func (k *keptFeeds) Own(r *worker.LogRole) error {
	c, err := k.config(r.Feed)
	if err != nil {
		return errors.Join(err, k.Rest(r.Feed.Name)) // what it did before is over
	}
	var needed map[string]feed.Need
	k.view(func(st *coordinator.State) { needed = pinsOf(st, r.Feed.Name, max(1, c.Lanes)) })
	k.owns(r.Feed.Name, ownedOf(r.Feed))
	if err := k.feeds.Own(r.Feed.Name, r.Epoch, c, needed); err != nil {
		return err
	}
	k.mu.Lock()
	k.moving[r.Feed.Name] = true // what is not needed any more is pinned still
	k.mu.Unlock()
	k.stateChanged()
	return nil
}

// Follow is executor.Feeds'.
func (k *keptFeeds) Follow(r *worker.LogRole) error {
	c, err := k.config(r.Feed)
	if err != nil {
		return errors.Join(err, k.Rest(r.Feed.Name))
	}
	k.rests(r.Feed.Name)
	return k.feeds.Follow(r.Feed.Name, r.Epoch, c)
}

// Seal is executor.Feeds'.
func (k *keptFeeds) Seal(r *worker.LogRole) (coordinator.Sealed, error) {
	k.rests(r.Feed.Name)
	return k.feeds.Seal(r.Feed.Name, r.Epoch)
}

// Rest is executor.Feeds'.
func (k *keptFeeds) Rest(name string) error {
	k.rests(name)
	return k.feeds.Rest(name)
}

// Drop is executor.Feeds'.
func (k *keptFeeds) Drop(name string) error {
	k.rests(name)
	return k.feeds.Drop(name)
}

func (k *keptFeeds) owns(name string, as owned) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owned[name] = as
}

func (k *keptFeeds) rests(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.owned, name)
	delete(k.moving, name)
}

// ownedAs is what a feed was when it began to run here.
func (k *keptFeeds) ownedAs(name string) (as owned, runs bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	as, runs = k.owned[name]
	return as, runs
}

// config is a feed's, whose broker session is named after the mesh and the feed
// unless its user named it: at the site from which it was taken there is one of that name.
func (k *keptFeeds) config(f *coordinator.Feed) (feed.Config, error) {
	c, err := feed.ParseConfig(f.Name, f.Config)
	switch _, by := f.Taken(); {
	case err == nil && by != "":
		c.ClientID = coordinator.TakenClient(k.mesh, by, f.Name)
	case err == nil && c.ClientID == "":
		c.ClientID = k.mesh + "/" + f.Name
	}
	return c, err
}

// Reader is executor.Feeds'.
func (k *keptFeeds) Reader(name, who string, s *job.Source, subtask, parallelism int) (sensors.Reader, error) {
	var spec *coordinator.Feed
	k.view(func(st *coordinator.State) { spec = st.Feeds[name] })
	if spec == nil {
		return nil, fmt.Errorf("feed %q: %w", name, store.ErrMissing)
	}
	if c, err := k.config(spec); err == nil && subtask >= max(1, c.Lanes) {
		return noLanes{}, nil
	}
	if as, runs := k.ownedAs(name); !runs || as != ownedOf(spec) { // it still runs for the job before, or is the feed that had the name before
		return nil, fmt.Errorf("feed %q: %w", name, feed.ErrNotOwner)
	}
	f, err := k.feeds.OpenKeeping(name, nil, nil)
	if err != nil {
		return nil, err
	}
	r, err := f.Reader(who, f.LanesOf(subtask, parallelism))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &feedReader{Reader: r, feed: f}, nil
}

// noLanes is the reader of a subtask for which there is no lane: wherever it
// runs, it has nothing to read.
type noLanes struct{}

// Splits is sensors.Reader's.
func (noLanes) Splits() int { return 0 }

// Read is sensors.Reader's.
func (noLanes) Read(context.Context, *sensors.Records, int) error { return io.EOF }

// Ack is sensors.Reader's.
func (noLanes) Ack(sensors.Position) {}

// Seek is sensors.Reader's.
func (noLanes) Seek(p sensors.Position) error {
	return fmt.Errorf("split %d of a subtask without lanes", p.Split)
}

// Close is sensors.Reader's.
func (noLanes) Close() error { return nil }

// feedReader gives its feed back.
type feedReader struct {
	*feed.Reader
	feed *feed.Feed
}

// Close is sensors.Reader's.
func (r *feedReader) Close() error { return errors.Join(r.Reader.Close(), r.feed.Close()) }

// stateChanged says that pins may have to move.
func (k *keptFeeds) stateChanged() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// pinAgain is when pins that could not be moved are tried again.
const pinAgain = time.Second

// run moves pins until ctx ends. look says what has changed in the state.
func (k *keptFeeds) run(ctx context.Context, look func(func(*coordinator.State, jobmanager.Changed))) {
	var said repeated
	var retry <-chan time.Time // nil: all are where they belong
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		case <-retry:
		}
		look(k.mark)
		var errs []error
		for _, name := range k.take() {
			if err := k.pin(name); err != nil && !errors.Is(err, feed.ErrNotOwner) && !errors.Is(err, feed.ErrClosed) {
				errs = append(errs, fmt.Errorf("the log of feed %s keeps what it had to keep before, until its pins can be moved: %w", name, err))
				k.again(name)
			}
		}
		if retry = nil; len(errs) > 0 {
			retry = time.After(pinAgain)
		}
		if err := errors.Join(errs...); said.due(err, dataflow.Time(sensors.WallTime().UnixMicro())) {
			k.tell(err.Error())
		}
	}
}

// mark marks the feeds whose pins may be others now: those that a job reads which
// has changed, or whose savepoint. Of what is gone nobody knows what it read.
func (k *keptFeeds) mark(st *coordinator.State, changed jobmanager.Changed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	readers := func(job coordinator.JobID, there bool) {
		for name := range k.owned {
			if _, reads := sourceOf(st, job, name); reads || !there {
				k.moving[name] = true
			}
		}
	}
	if changed.All {
		readers("", false)
		k.await(st)
	}
	for _, c := range changed.Names {
		switch c.What {
		case jobmanager.Job:
			id := coordinator.JobID(c.Name)
			readers(id, st.Jobs[id] != nil)
		case jobmanager.Savepoint:
			s := st.Savepoints[c.Name]
			readers(jobOf(s), s != nil)
		case jobmanager.Replica:
			id := coordinator.JobID(c.Name)
			readers(id, st.Replicas[id] != nil)
		case jobmanager.Feed:
			if _, runs := k.owned[c.Name]; runs {
				k.moving[c.Name] = true
			}
		case jobmanager.Move:
			k.await(st)
		case jobmanager.Leader, jobmanager.Site, jobmanager.Level, jobmanager.Agent, jobmanager.Token:
		}
	}
}

func jobOf(s *coordinator.Snapshot) coordinator.JobID {
	if s == nil {
		return ""
	}
	return s.Job
}

// take is the feeds that are marked, in order; they are marked no more.
func (k *keptFeeds) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := slices.Sorted(maps.Keys(k.moving))
	clear(k.moving)
	return names
}

// again marks a feed whose pins could not be moved.
func (k *keptFeeds) again(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, runs := k.owned[name]; runs {
		k.moving[name] = true
	}
}

// pin makes a feed's pins those of the state.
func (k *keptFeeds) pin(name string) (err error) {
	f, err := k.feeds.OpenKeeping(name, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var want map[string]feed.Need
	k.view(func(st *coordinator.State) { want = pinsOf(st, name, f.Config().Lanes) })
	f.MirroredAt(k.mirroredAt(name))
	return f.SetPins(want, func(name string) bool {
		return !strings.HasPrefix(name, jobPin) && !strings.HasPrefix(name, savepointPin) && !strings.HasPrefix(name, replicaPin)
	})
}

// The pins' names begin with these.
const (
	jobPin       = "job "
	savepointPin = "savepoint "
	replicaPin   = "replica "
)

// pinsOf is what the state needs of a feed, by the names of pins.
func pinsOf(st *coordinator.State, name string, lanes int) map[string]feed.Need {
	pins := make(map[string]feed.Need)
	begun := begunWith(st)
	for id, j := range st.Jobs {
		source, reads := sourceOf(st, id, name)
		kept := needed(j, begun)
		if begin := st.Snapshot(j, j.Begin); len(kept) == 0 && j.Begin != "" && begin != nil && !stale(st, name, begin) {
			kept = []*coordinator.Snapshot{begin}
		}
		if !reads || j.Status.Ended() && stale(st, name, kept...) || j.Status == coordinator.Moved || j.Status.Ended() && len(kept) == 0 { // where one that has moved stands its site says
			continue
		}
		pins[jobPin+string(id)] = feed.Need{From: places(lanes, source, kept...), All: len(kept) == 0}
	}
	for _, s := range st.Savepoints {
		source, reads := sourceOf(st, s.Job, name)
		if reads = reads || slices.ContainsFunc(s.Stands, func(o coordinator.Stand) bool { return o.Feed == name }); reads && !stale(st, name, s) {
			pins[savepointPin+s.Name] = feed.Need{From: places(lanes, source, s)}
		}
	}
	for id, r := range st.Replicas {
		if source, reads := sourceOf(st, id, name); reads {
			// While there is nothing to restore the job from, all is kept: what is fetched
			// next may need it.
			var kept []*coordinator.Snapshot
			for _, s := range []*coordinator.Snapshot{r.Restorable(), r.Next} {
				if s != nil {
					kept = append(kept, s)
				}
			}
			pins[replicaPin+string(id)] = feed.Need{From: places(lanes, source, kept...), All: true}
		}
	}
	return pins
}

// stale tells whether snapshots of a job stand in a shared feed that had the name
// before: they need nothing of this one.
func stale(st *coordinator.State, name string, all ...*coordinator.Snapshot) bool {
	f := st.Feeds[name]
	return f != nil && f.Whose() == "" && slices.ContainsFunc(all, func(s *coordinator.Snapshot) bool { return !st.StandsIn(s, f) })
}

// begunWith is what live jobs may still have to be begun with.
func begunWith(st *coordinator.State) map[string]bool {
	names := make(map[string]bool)
	for _, j := range st.Jobs {
		if !j.Status.Ended() && j.Begin != "" {
			names[j.Begin] = true
		}
	}
	return names
}

// needed are a job's checkpoints that it, or a job that was begun with one, can be
// restored from here. What another site is fetching beside them needs nothing of the
// log here: that site's mirror does, for which the log waits only so long.
func needed(j *coordinator.Job, begun map[string]bool) (all []*coordinator.Snapshot) {
	own := j.Retained()
	for _, c := range j.Checkpoints[:len(j.Checkpoints)-len(own)] {
		if begun[string(j.ID)+"/"+c.Name] {
			all = append(all, c)
		}
	}
	return append(all, own...)
}

// sourceOf is the source of a job that reads a feed, or read it when it was its
// own; empty: any may. What a forgotten job read of shared feeds its savepoints say.
func sourceOf(st *coordinator.State, id coordinator.JobID, name string) (dataflow.OperatorID, bool) {
	if f := st.Feeds[name]; f != nil && f.Of(id) {
		return f.Source(), true
	}
	j, r := st.Jobs[id], st.Replicas[id]
	if r != nil {
		for i := range r.Job.Feeds {
			if m := &r.Job.Feeds[i]; slices.Contains(r.Job.Reads, m.Name) && r.Job.NameAt(m, r.From, st.Site, r.Moving) == name {
				return "", true
			}
		}
	}
	return "", j != nil && slices.Contains(j.Reads, name)
}

// places are where a job can read on, restored from one of the snapshots. Of one that
// nobody can read, or that does not say, all of the log is kept. Where several sources
// of a job may read the feed it is one place for each that has as many lanes.
func places(lanes int, source dataflow.OperatorID, all ...*coordinator.Snapshot) (from []map[int]int64) {
	for _, s := range all {
		n := len(from)
		if source == "" {
			sources := perSource(s)
			for _, id := range slices.Sorted(maps.Keys(sources)) {
				if covers(sources[id], lanes) {
					from = append(from, sources[id])
				}
			}
		}
		if len(from) == n {
			from = append(from, positions(s, source))
		}
	}
	return from
}

// covers tells whether a source has all of the lanes, and no other ones.
func covers(of map[int]int64, lanes int) bool {
	for lane := range lanes {
		if _, has := of[lane]; !has {
			return false
		}
	}
	return len(of) == lanes
}

// positions are where a snapshot's source stands, by lane. Where several sources
// of a job may read the feed, the least of theirs.
func positions(s *coordinator.Snapshot, source dataflow.OperatorID) map[int]int64 {
	at := make(map[int]int64)
	for id, of := range perSource(s) {
		if source != "" && id != source {
			continue
		}
		for lane, offset := range of {
			if was, there := at[lane]; !there || offset < was {
				at[lane] = offset
			}
		}
	}
	return at
}

// perSource are where a snapshot's sources stand, by lane; none: nobody can read it.
func perSource(s *coordinator.Snapshot) map[dataflow.OperatorID]map[int]int64 {
	all := make(map[dataflow.OperatorID]map[int]int64)
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		return all
	}
	for _, o := range m.Operators {
		for _, p := range o.Positions {
			if lane, ok := ingestlog.LaneOf(p.Split); ok {
				if all[o.ID] == nil {
					all[o.ID] = make(map[int]int64)
				}
				if was, there := all[o.ID][lane]; !there || p.Offset < was {
					all[o.ID][lane] = p.Offset
				}
			}
		}
	}
	return all
}
