package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// StateOptions are the surroundings of a state folder.
type StateOptions struct {
	FS      store.FS      // nil: the disk
	Clock   sensors.Clock // nil: the machine's
	Secrets job.Resolver
	Events  func(string) // must not block; nil: nobody listens
	// Session opens what a feed reads; nil: an MQTT session.
	Session func(feed.Config, feed.SessionOptions) (sensors.Reader, error)
}

// State is a state folder, DIR of --state: parts, checkpoints and savepoints of
// any number of jobs, and the feeds that they read. One process has it at a
// time.
type State struct {
	store *durable.State
	feeds *feed.Feeds

	// looking is held while the log of a feed is opened, or looked at without
	// being opened: either locks its folder for the other, also in one process.
	looking sync.Mutex
}

// OpenState opens a state folder, or makes it. One that another process has is
// store.ErrLocked.
func OpenState(dir string, o StateOptions) (*State, error) {
	s, err := durable.Open(dir, o.FS)
	if err != nil {
		return nil, err
	}
	if o.Events == nil {
		o.Events = func(string) {}
	}
	if _, err := s.Collect(); err != nil { // what a crash left; a damaged manifest is named when its job is run
		o.Events(fmt.Sprintf("parts that are not needed any more stay where they are: %v", err))
	}
	feeds := feed.New(feed.Options{
		Dir: dir, FS: s.FS(), Clock: o.Clock, Secrets: o.Secrets, Session: o.Session, Events: func(e feed.Event) { o.Events(e.String()) },
	})
	if err := feeds.Clean(); err != nil {
		o.Events(fmt.Sprintf("what is left of deleted feeds stays where it is: %v", err))
	}
	return &State{store: s, feeds: feeds}, nil
}

// Close gives the folder back, when no job of it runs any more.
func (s *State) Close() error { return s.store.Close() }

// surroundings are what of a state folder one job needs.
type surroundings struct {
	state *State
	job   string
	feeds map[*job.Source]*feed.Feed // open ones

	quit    chan struct{} // closed by close
	waiting sync.WaitGroup
}

func newSurroundings(s *State, jobName string) *surroundings {
	return &surroundings{state: s, job: jobName, feeds: make(map[*job.Source]*feed.Feed), quit: make(chan struct{})}
}

// sinkDir is where a sink keeps what must outlive the process.
func (d *surroundings) sinkDir(id dataflow.OperatorID) string {
	return filepath.Join(d.state.store.Dir(), "jobs", d.job, "sinks", string(id))
}

// feedName is the feed that a source reads; empty: none.
func feedName(jobName string, s *job.Source) string {
	switch {
	case s.MQTT != nil:
		name, _ := feed.FromSource(jobName, s)
		return name
	case s.Feed != nil:
		return s.Feed.Name
	}
	return ""
}

// open opens the feeds that the job reads, and anew those that have failed.
func (d *surroundings) open(j *job.Job, h *hearing) error {
	var kept *keepers
	for _, s := range j.Sources {
		name := feedName(d.job, s)
		if f := d.feeds[s]; name == "" || f != nil && f.Err() == nil {
			continue
		} else if f != nil {
			delete(d.feeds, s)
			_ = f.Close() // why it failed is known
		}
		if kept == nil {
			var err error
			if kept, err = keepersIn(d.state.store); err != nil {
				return err
			}
		}
		f, err := d.openFeed(name, s, kept.need(d.job, name, s))
		if err != nil {
			return fmt.Errorf("source %q: %w", s.ID, err)
		}
		d.feeds[s] = f
		d.waiting.Go(func() {
			select {
			case <-f.Subscribed():
				h.subscribed(s)
			case <-f.Done():
			case <-d.quit: // the feed may go on for another job
			}
		})
	}
	return nil
}

func (d *surroundings) openFeed(name string, s *job.Source, needed map[string]map[int]int64) (*feed.Feed, error) {
	d.state.looking.Lock()
	defer d.state.looking.Unlock()
	if s.MQTT != nil {
		_, cfg := feed.FromSource(d.job, s)
		return d.state.feeds.OpenKeeping(name, &cfg, needed)
	}
	f, err := d.state.feeds.OpenKeeping(name, nil, needed)
	if err != nil {
		return nil, err
	}
	if err := s.CheckFilters(f.Config().Topics); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// reader reads a subtask's lanes of a source's feed.
func (d *surroundings) reader(s *job.Source, subtask, parallelism int) (sensors.Reader, error) {
	f := d.feeds[s]
	lanes := f.LanesOf(subtask, parallelism)
	if len(lanes) == 0 {
		return connect.Nothing{}, nil
	}
	return f.Reader(fmt.Sprintf("%s, %s/%d", d.job, s.ID, subtask), lanes)
}

// close gives the feeds back, for good.
func (d *surroundings) close() error {
	close(d.quit)
	d.waiting.Wait()
	var errs []error
	for s, f := range d.feeds {
		errs = append(errs, f.Close())
		delete(d.feeds, s)
	}
	return errors.Join(errs...)
}
