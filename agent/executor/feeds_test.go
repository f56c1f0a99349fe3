package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// slowFeeds take a second for everything, and note it when it is done.
type slowFeeds struct {
	mu    sync.Mutex
	done  []string
	owned map[string]bool
}

func (f *slowFeeds) note(what, feed string, owned bool) error {
	<-time.After(time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, what+" "+feed)
	f.owned[feed] = owned
	if feed == "ill" {
		return errors.New("no disk")
	}
	return nil
}

func (f *slowFeeds) Own(r *worker.LogRole) error    { return f.note("own", r.Feed.Name, true) }
func (f *slowFeeds) Follow(r *worker.LogRole) error { return f.note("follow", r.Feed.Name, false) }
func (f *slowFeeds) Rest(feed string) error         { return f.note("rest", feed, false) }
func (f *slowFeeds) Drop(feed string) error         { return f.note("drop", feed, false) }
func (f *slowFeeds) Seal(r *worker.LogRole) (coordinator.Sealed, error) {
	return coordinator.Sealed{Feed: r.Feed.Name, Epoch: r.Epoch.Epoch + 1, End: 7}, f.note("seal", r.Feed.Name, false)
}

func (f *slowFeeds) Reader(name, who string, _ *job.Source, _, _ int) (sensors.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.owned[name] {
		return nil, fmt.Errorf("feed %q for %s: %w", name, who, feed.ErrNotOwner)
	}
	return connect.Nothing{}, nil
}

// What is asked of one feed is done in order, of several side by side; failures
// are told, and a reader waits for its feed.
func TestFeedsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slowFeeds{owned: make(map[string]bool)}
		var said []worker.LogEvent
		var told []string
		done := make(map[string]int)
		var mu sync.Mutex // guards said and done: each feed has a goroutine
		hear := func(e worker.LogEvent) {
			mu.Lock()
			defer mu.Unlock()
			if e.Done != nil {
				done[*e.Done]++
			} else {
				said = append(said, e)
			}
		}
		l := newLogs(Options{Feeds: f, Clock: sensors.Wall{}, Logs: hear, Tell: func(s string) { told = append(told, s) }})
		role := func(feed string) *worker.LogRole { return &worker.LogRole{Feed: &coordinator.Feed{Name: feed}} }
		one, ill := "one", "ill"
		seven := &coordinator.Job{ID: "j7", Name: "counts"}
		l.do(worker.Effect{Follow: role(one)})
		l.do(worker.Effect{Seal: role(one)})
		l.do(worker.Effect{Own: role("j7.in")})
		l.do(worker.Effect{Rest: &one})
		l.do(worker.Effect{Drop: &one})
		began := time.Now()
		if _, err := l.reader(t.Context(), seven, &job.Source{ID: "in", MQTT: &job.MQTTSource{}}, 0, 1); err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		mine := slices.DeleteFunc(slices.Clone(f.done), func(s string) bool { return s == "own j7.in" })
		if fmt.Sprint(mine) != "[follow one seal one rest one drop one]" || f.done[1] != "own j7.in" && f.done[0] != "own j7.in" {
			t.Errorf("%q", f.done)
		}
		if len(said) != 1 || said[0].Sealed.End != 7 || len(told) > 0 {
			t.Errorf("%+v, %q", said, told)
		}
		l.do(worker.Effect{Own: role(ill)})
		l.do(worker.Effect{Rest: &ill})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(said) != 2 || said[1].Failed.Why != "no disk" || len(told) != 1 {
			t.Errorf("%+v, %q", said, told)
		}
		l.do(worker.Effect{Seal: &worker.LogRole{Feed: &coordinator.Feed{Name: ill}, Epoch: coordinator.LogEpoch{Epoch: 8}}})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(said) != 3 || said[2].Failed == nil || said[2].Failed.Epoch != 9 {
			t.Errorf("%+v, want that it could not be promised", said[2:])
		}
		if done[one] != 4 || done["j7.in"] != 1 || done[ill] != 3 {
			t.Errorf("done: %v", done)
		}
		_, err := l.reader(t.Context(), seven, &job.Source{ID: "in", Feed: &job.FeedSource{Name: one}}, 0, 1)
		if !errors.Is(err, feed.ErrNotOwner) || !errors.As(err, new(passing)) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errClosed)
		if _, err = l.reader(ctx, seven, &job.Source{ID: "in", Feed: &job.FeedSource{Name: one}}, 0, 1); !errors.Is(err, errClosed) {
			t.Errorf("%v", err)
		}
		l.close()
	})
}
