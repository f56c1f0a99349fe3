package feed

import (
	"errors"
	"sync"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// Options are the surroundings of the feeds of a process.
type Options struct {
	Dir     string   // the state folder; a feed is in Dir/feeds/NAME
	FS      store.FS // of feed.json; the log's segments are real files in any case
	Clock   sensors.Clock
	Secrets job.Resolver
	Events  func(Event) // must not block; nil: nobody listens
	// Session opens what a feed reads; nil: an MQTT session.
	Session func(c Config, s SessionOptions) (sensors.Reader, error)
}

// Feeds are the feeds that run in this process. Each is opened once, however
// many jobs read it. Any goroutine may call it.
type Feeds struct {
	o Options

	mu      sync.Mutex // guards running; no I/O under it
	running map[string]*Feed
}

// New makes the feeds of a state folder. Nothing is opened yet.
func New(o Options) *Feeds {
	if o.Clock == nil {
		o.Clock = sensors.Wall{}
	}
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	return &Feeds{o: o, running: make(map[string]*Feed)}
}

// Open returns the feed of that name, which runs from the first Open to the
// last Close. A feed that is not there is created. One that is there goes on
// with the config given, which is stored: all of it may change between two runs
// but the lanes; while the feed runs nothing may.
func (s *Feeds) Open(name string, c Config) (*Feed, error) { return nil, errors.New("soon") }

// OpenStored is Open with the config in feed.json: for `feed: NAME`. A feed
// that was never created is store.ErrMissing.
func (s *Feeds) OpenStored(name string) (*Feed, error) { return nil, errors.New("soon") }

// Create makes a feed to be opened by its name; one that is there is refused.
func Create(o Options, name string, c Config) error { return errors.New("soon") }

// List is the names of the feeds in a state folder, sorted.
func List(o Options) ([]string, error) { return nil, errors.New("soon") }

// Show tells of a feed without running it.
func Show(o Options, name string) (Info, error) { return Info{}, errors.New("soon") }

// Delete removes a feed with its log. One that is in use is store.ErrLocked.
func Delete(o Options, name string) error { return errors.New("soon") }
