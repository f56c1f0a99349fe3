package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// Options are the surroundings of the feeds of a process.
type Options struct {
	Dir     string   // the state folder; a feed is in Dir/feeds/NAME
	FS      store.FS // of feed.json and pins.json; the log's segments are real files in any case. nil: the disk
	Clock   sensors.Clock
	Secrets job.Resolver
	Events  func(Event) // must not block; nil: nobody listens
	// Session opens what a feed reads; nil: an MQTT session.
	Session func(c Config, s SessionOptions) (sensors.Reader, error)

	// Of an agent of a mesh: see site.go.
	Transport mesh.Transport        // nil: feeds run by themselves, on this process's disk alone
	Permit    sensors.Permit        // asked before a session is opened and before each acknowledgement
	Tell      func(worker.LogEvent) // what becomes of the logs; must not block

	// Of feeds that are mirrors, or have some at other sites.
	Sources    func(coordinator.Mirror) []mesh.NodeID // agents of the source's site, in the order in which they are asked
	Moved      func(feed string)                      // more of a mirror is durable in all its copies; must not block
	OwnerOf    func(feed string) mesh.NodeID          // as this site knows it; empty: nobody
	MirroredAt func(feed string) []mesh.Site          // that are to have a mirror of a feed of this site, when it is opened
	MirrorKeep int64                                  // bytes that a log may have so that it still waits for a mirror; 0: DefaultMirrorKeep
	Packs      func(mesh.NodeID) bool                 // whether an agent knows of packed frames; nil: nobody does
	Packer     *pack.Packer                           // nil: one that nobody asks what it has counted

	log ingestlog.Options // OpenDB only, and SegmentBytes of copies: for tests
}

// Feeds are the feeds that run in this process. Each is opened once, however
// many jobs read it. Any goroutine may call it.
type Feeds struct {
	o Options

	mu      sync.Mutex       // guards what follows and the refs of running feeds; no I/O under it
	running map[string]*Feed // from before its log is opened until after it is closed
	copies  map[string]*follower
	epochs  map[string]uint64 // the greatest that this process was told of, by feed
}

// New makes the feeds of a state folder. Nothing is opened yet.
func New(o Options) *Feeds {
	s := &Feeds{o: o.filled(), running: make(map[string]*Feed), copies: make(map[string]*follower), epochs: make(map[string]uint64)}
	if o.Transport != nil {
		o.Transport.Handle(mesh.Log, s.take)
	}
	return s
}

func (o Options) filled() Options {
	if o.Clock == nil {
		o.Clock = sensors.Wall{}
	}
	if o.FS == nil {
		o.FS = disk.Group
	}
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	if o.Tell == nil {
		o.Tell = func(worker.LogEvent) {}
	}
	if o.Sources == nil {
		o.Sources = func(coordinator.Mirror) []mesh.NodeID { return nil }
	}
	if o.Packs == nil {
		o.Packs = func(mesh.NodeID) bool { return false }
	}
	if o.Packer == nil {
		o.Packer = new(pack.Packer)
	}
	if o.OwnerOf == nil {
		o.OwnerOf = func(string) mesh.NodeID { return "" }
	}
	if o.Moved == nil {
		o.Moved = func(string) {}
	}
	if o.MirroredAt == nil {
		o.MirroredAt = func(string) []mesh.Site { return nil }
	}
	if o.MirrorKeep == 0 {
		o.MirrorKeep = DefaultMirrorKeep
	}
	if o.Session == nil {
		o.Session = openMQTT(o.Secrets)
	}
	return o
}

// Open returns the feed of that name, which runs from the first Open to the
// last Close. In a mesh it is one that Own runs, and the config does not matter:
// ErrNotOwner. Otherwise a feed that is not there is created. One that is there goes on
// with the config given, which is stored: all of it may change between two runs
// but the lanes; while the feed runs nothing may.
func (s *Feeds) Open(name string, c Config) (*Feed, error) {
	return s.OpenKeeping(name, &c, nil)
}

// OpenKeeping is Open, or with no config (for `feed: NAME`) that of a feed that
// was created, with the config in feed.json: store.ErrMissing if there is none.
// The feed must keep what is needed: offsets by lane, under the names of pins.
// What is not pinned yet is, before anything is appended or let go. It heals
// what a lost pins.json said.
func (s *Feeds) OpenKeeping(name string, c *Config, needed map[string]map[int]int64) (*Feed, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if c != nil {
		fixed, err := c.fixed(name)
		if err != nil {
			return nil, err
		}
		c = &fixed
	}
	needs := make(map[string]Need, len(needed))
	for pin, from := range needed {
		needs[pin] = Need{From: []map[int]int64{from}}
	}
	return s.open(name, c, needs)
}

func (s *Feeds) open(name string, c *Config, needed map[string]Need) (*Feed, error) {
	for {
		s.mu.Lock()
		f := s.running[name]
		if f == nil && s.o.Transport != nil {
			s.mu.Unlock()
			return nil, fmt.Errorf("feed %q: %w", name, ErrNotOwner)
		}
		if f == nil {
			f = newFeed(s, name)
			s.running[name] = f
			s.mu.Unlock()
			return f, f.start(c, needed)
		}
		if f.ending {
			s.mu.Unlock()
			<-f.done
			continue
		}
		f.refs++
		s.mu.Unlock()
		<-f.begun
		switch {
		case f.ended():
			_ = f.Close()
			<-f.done
		case c != nil && f.role == nil && !f.config.same(*c):
			_ = f.Close()
			return nil, fmt.Errorf("feed %q runs with another config; stop the jobs that read it first", name)
		default:
			if err := f.adopt(needed); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		}
	}
}

// release counts one user less, and tells whether it was the last.
func (s *Feeds) release(f *Feed) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.refs--
	if f.refs == 0 {
		f.ending = true
	}
	return f.refs == 0
}

// fail says that f has failed and nobody may join it any more.
func (s *Feeds) fail(f *Feed) {
	s.mu.Lock()
	f.ending = true
	s.mu.Unlock()
}

func (s *Feeds) gone(f *Feed) {
	s.mu.Lock()
	delete(s.running, f.name)
	s.mu.Unlock()
}

// newFeed is a feed with one user that is not open yet.
func newFeed(s *Feeds, name string) *Feed {
	ctx, cancel := context.WithCancel(context.Background())
	return &Feed{
		owner: s, name: name, refs: 1, ctx: ctx, cancel: cancel,
		begun: make(chan struct{}), subscribed: make(chan struct{}), done: make(chan struct{}), gathered: make(chan struct{}),
	}
}
