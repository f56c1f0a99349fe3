package executor

import (
	"fmt"
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Feeds is what executor needs of agent/feed. The calls for one feed come one
// after the other, and may take as long as a disk. How a log fares is told
// elsewhere.
type Feeds interface {
	Own(*worker.LogRole) error
	Follow(*worker.LogRole) error
	Seal(feed string, epoch uint64) (coordinator.Sealed, error)
	Rest(feed string) error
	Drop(feed string) error
	// Reader reads the lanes of a feed that are a subtask's; who names it for
	// people. The feed must be owned here: if it is not yet, Reader waits, or fails
	// so that another attempt comes.
	Reader(feed, who string, s *job.Source, subtask, parallelism int) (sensors.Reader, error)
}

// FeedOf is the feed that a source of a job reads; empty: none.
func FeedOf(id coordinator.JobID, s *job.Source) string {
	switch {
	case s.MQTT != nil:
		return string(id) + "." + string(s.ID)
	case s.Feed != nil:
		return s.Feed.Name
	}
	return ""
}

// logs does what a worker decided of feeds: in order for one, side by side for
// several.
type logs struct {
	o Options

	mu      sync.Mutex          // guards what follows
	queues  map[string][]func() // by feed: what is to be done; there is a goroutine for each
	closed  bool
	working sync.WaitGroup
}

func newLogs(o Options) *logs { return &logs{o: o, queues: make(map[string][]func())} }

func (l *logs) do(e worker.Effect) {
	if l.o.Feeds == nil {
		return
	}
	f := l.o.Feeds
	failed := func(feed string, epoch uint64, err error) {
		if err != nil {
			l.o.Logs(worker.LogEvent{Failed: &worker.LogFailed{Feed: feed, Epoch: epoch, Why: err.Error()}})
		}
	}
	said := func(feed, what string, err error) {
		if err != nil {
			l.o.Tell(fmt.Sprintf("feed %s: it could not be %s: %v", feed, what, err))
		}
	}
	switch {
	case e.Own != nil:
		l.put(e.Own.Feed.Name, func() { failed(e.Own.Feed.Name, e.Own.Epoch.Epoch, f.Own(e.Own)) })
	case e.Follow != nil:
		l.put(e.Follow.Feed.Name, func() { failed(e.Follow.Feed.Name, e.Follow.Epoch.Epoch, f.Follow(e.Follow)) })
	case e.Seal != nil:
		l.put(e.Seal.Feed, func() {
			sealed, err := f.Seal(e.Seal.Feed, e.Seal.Epoch)
			if err != nil {
				failed(e.Seal.Feed, e.Seal.Epoch, err)
				return
			}
			l.o.Logs(worker.LogEvent{Sealed: &sealed})
		})
	case e.Rest != nil:
		l.put(*e.Rest, func() { said(*e.Rest, "put to rest", f.Rest(*e.Rest)) })
	case e.Drop != nil:
		l.put(*e.Drop, func() { said(*e.Drop, "removed", f.Drop(*e.Drop)) })
	}
}

// put adds to what is to be done of a feed.
func (l *logs) put(feed string, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	queue, there := l.queues[feed]
	l.queues[feed] = append(queue, f)
	if !there {
		l.working.Go(func() { l.work(feed) })
	}
}

// work ends when nothing is left to be done.
func (l *logs) work(feed string) {
	for {
		l.mu.Lock()
		queue := l.queues[feed]
		if len(queue) == 0 {
			delete(l.queues, feed)
			l.mu.Unlock()
			return
		}
		l.queues[feed] = queue[1:]
		l.mu.Unlock()
		queue[0]()
	}
}

func (l *logs) close() {
	l.mu.Lock()
	l.closed = true
	for feed := range l.queues {
		l.queues[feed] = nil
	}
	l.mu.Unlock()
	l.working.Wait()
}

func (l *logs) reader(id coordinator.JobID, jobName string, s *job.Source, subtask, parallelism int) (sensors.Reader, error) {
	if l.o.Feeds == nil {
		return nil, fmt.Errorf("source %q: this agent keeps no feeds", s.ID)
	}
	return l.o.Feeds.Reader(FeedOf(id, s), fmt.Sprintf("%s, %s/%d", jobName, s.ID, subtask), s, subtask, parallelism)
}
