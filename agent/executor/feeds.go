package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Feeds is what executor needs of agent/feed. The calls for one feed come one
// after the other, and may take as long as a disk. How a log fares is told
// elsewhere.
type Feeds interface {
	Own(*worker.LogRole) error
	Follow(*worker.LogRole) error
	Seal(*worker.LogRole) (coordinator.Sealed, error)
	Rest(feed string) error
	Drop(feed string) error
	// Reader reads the lanes of a feed that are a subtask's; who names it for
	// people. feed.ErrNotOwner: it is not owned here, or not yet.
	Reader(feed, who string, s *job.Source, subtask, parallelism int) (sensors.Reader, error)
}

// FeedOf is the feed that a source of a job reads; empty: none.
func FeedOf(j *coordinator.Job, s *job.Source) string {
	switch {
	case s.MQTT != nil:
		return j.OwnFeed(s.ID)
	case s.Feed != nil:
		return j.SharedFeed(s.Feed.Name)
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
	put := func(feed string, do func()) {
		l.put(feed, func() {
			do()
			l.o.Logs(worker.LogEvent{Done: &feed})
		})
	}
	switch {
	case e.Own != nil:
		put(e.Own.Feed.Name, func() { failed(e.Own.Feed.Name, e.Own.Epoch.Epoch, f.Own(e.Own)) })
	case e.Follow != nil:
		put(e.Follow.Feed.Name, func() { failed(e.Follow.Feed.Name, e.Follow.Epoch.Epoch, f.Follow(e.Follow)) })
	case e.Seal != nil:
		put(e.Seal.Feed.Name, func() {
			sealed, err := f.Seal(e.Seal)
			if failed(e.Seal.Feed.Name, e.Seal.Epoch.Epoch+1, err); err == nil {
				l.o.Logs(worker.LogEvent{Sealed: &sealed})
			}
		})
	case e.Rest != nil:
		put(*e.Rest, func() { said(*e.Rest, "put to rest", f.Rest(*e.Rest)) })
	case e.Drop != nil:
		put(*e.Drop, func() { said(*e.Drop, "removed", f.Drop(*e.Drop)) })
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

// passing is an error that says nothing of the job: the next attempt may not meet
// it.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// How long a reader waits until its feed is owned here: the agent hears of both
// at the same time.
const (
	ownedWithin = 10 * dataflow.Second
	ownedCheck  = 50 * dataflow.Millisecond
)

// reader reads a subtask's lanes of a feed.
func (l *logs) reader(ctx context.Context, j *coordinator.Job, s *job.Source, subtask, parallelism int) (sensors.Reader, error) {
	if l.o.Feeds == nil {
		return nil, fmt.Errorf("source %q: this agent keeps no feeds", s.ID)
	}
	who := fmt.Sprintf("%s, %s/%d", j.Name, s.ID, subtask)
	for waited := dataflow.Duration(0); ; waited += ownedCheck {
		r, err := l.o.Feeds.Reader(FeedOf(j, s), who, s, subtask, parallelism)
		switch {
		case err == nil:
			return r, nil
		case !errors.Is(err, feed.ErrNotOwner) || waited >= ownedWithin:
			return nil, passing{err}
		}
		select {
		case <-l.o.Clock.After(ownedCheck):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
