package feed_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// fakeBroker has a session for whoever is connected last: it gives what is not
// acknowledged, in order, again and again.
type fakeBroker struct {
	mu      sync.Mutex // guards what follows
	queue   []string   // not acknowledged
	acked   []string
	more    chan struct{}
	current *fakeSession
	hook    func() // called before an acknowledgement counts
	batch   int    // messages of a read
}

func newFakeBroker() *fakeBroker { return &fakeBroker{more: make(chan struct{}), batch: 3} }

func (b *fakeBroker) publish(texts ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, texts...)
	close(b.more)
	b.more = make(chan struct{})
}

func (b *fakeBroker) acks() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.acked)
}

func (b *fakeBroker) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

func (b *fakeBroker) connect(c feed.Config, s feed.SessionOptions) (sensors.Reader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &fakeSession{b: b, clock: s.Clock}
	for range s.Recall { // as sessions do
	}
	b.current = f
	close(b.more)
	b.more = make(chan struct{})
	return f, nil
}

// fakeSession is what a feed reads. One that another has replaced hears nothing,
// and what it acknowledges nobody hears.
type fakeSession struct {
	b     *fakeBroker
	clock sensors.Clock
	given int // of b.queue
	next  int64
	dead  bool // its process is
}

func (f *fakeSession) Splits() int                 { return 1 }
func (f *fakeSession) Seek(sensors.Position) error { return nil }
func (f *fakeSession) Close() error                { return nil }

func (f *fakeSession) Read(ctx context.Context, r *sensors.Records, max int) error {
	r.Reset(0)
	for {
		f.b.mu.Lock()
		more := f.b.more
		if f.b.current == f && !f.dead {
			for ; f.given < len(f.b.queue) && r.Len() < min(max, f.b.batch); f.given++ {
				r.AppendMessage([]byte("t"), []byte(f.b.queue[f.given]), int64(f.clock.Now()))
			}
		}
		f.b.mu.Unlock()
		if n := r.Len(); n > 0 {
			r.First, r.Next = f.next, f.next+int64(n)
			f.next = r.Next
			r.Clock = r.Arrivals[n-1]
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// Ack acknowledges what was read up to p.
func (f *fakeSession) Ack(p sensors.Position) {
	b := f.b
	b.mu.Lock()
	hook, mine := b.hook, b.current == f && !f.dead
	b.mu.Unlock()
	if !mine {
		return
	}
	if hook != nil {
		hook()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := f.given - int(f.next-p.Offset)
	b.acked = append(b.acked, b.queue[:n]...)
	b.queue = slices.Clone(b.queue[n:])
	f.given -= n
}

// site is some agents and the chain of epochs of one feed, "f".
type site struct {
	t      testing.TB
	name   mesh.Site
	net    *simnet.Net
	broker *fakeBroker
	agents map[mesh.NodeID]*siteAgent
	epoch  coordinator.LogEpoch
	config feed.Config
	source []mesh.NodeID // agents of the site that is mirrored
	keep   int64         // feed.Options.MirrorKeep
	plain  bool          // it knows nothing of packed frames
	full   func() bool   // the disk of agents' logs is; nil: it is not
	events func(feed.Event)
}

// siteAgent is a process.
type siteAgent struct {
	s     *site
	node  mesh.NodeID
	dir   string
	feeds *feed.Feeds
	tr    *simnet.Transport
	packs *pack.Packer

	mu     sync.Mutex // guards said
	said   []worker.LogEvent
	permit *permit
}

type permit struct {
	mu  sync.Mutex // guards err
	err error
}

func (p *permit) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *permit) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func newSite(t testing.TB, nodes ...mesh.NodeID) *site {
	s := &site{t: t, name: "here", net: simnet.New(), broker: newFakeBroker(), agents: make(map[mesh.NodeID]*siteAgent)}
	s.config = feed.Config{Broker: "mqtt://broker.example", Topics: []string{"t"}, QoS: 1, ClientID: "f"}
	for _, n := range nodes {
		s.start(n, t.TempDir())
	}
	return s
}

// start starts an agent's process on a folder.
func (s *site) start(node mesh.NodeID, dir string) *siteAgent {
	a := &siteAgent{s: s, node: node, dir: dir, tr: s.net.New(node, s.name), packs: new(pack.Packer), permit: new(permit)}
	o := feed.Options{Dir: dir, Transport: a.tr, Permit: a.permit, Session: s.broker.connect, MirrorKeep: s.keep, Events: s.events,
		Packer: a.packs, Packs: func(node mesh.NodeID) bool { return !s.plain && slices.Contains(s.source, node) },
		Sources: func(coordinator.Mirror) []mesh.NodeID { return s.source }, Tell: func(e worker.LogEvent) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.said = append(a.said, e)
		}}
	o.SmallCopies()
	if full := s.full; full != nil {
		o.OpensDB(func(path string, mode os.FileMode, b *bolt.Options) (*bolt.DB, error) {
			db, err := bolt.Open(path, mode, b)
			if err == nil && !b.ReadOnly {
				storetest.WatchPages(db).Fail = func(storetest.PageWrite) error {
					if full() {
						return syscall.ENOSPC
					}
					return nil
				}
			}
			return db, err
		})
	}
	a.feeds = feed.New(o)
	a.tr.Start()
	s.agents[node] = a
	return a
}

// events is what the agent has told of the present epoch, in words.
func (a *siteAgent) events() (words []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.said {
		switch {
		case e.InSync != nil:
			words = append(words, fmt.Sprint("in sync ", e.InSync.Epoch))
		case e.OutOfSync != nil:
			words = append(words, fmt.Sprint("without ", e.OutOfSync.Member, " ", e.OutOfSync.Epoch))
		case e.Failed != nil:
			words = append(words, "failed: "+e.Failed.Why)
		}
	}
	return words
}

// stop ends an agent's process orderly.
func (a *siteAgent) stop() {
	a.s.t.Helper()
	if err := a.feeds.Close(); err != nil {
		a.s.t.Error(err)
	}
	if err := a.tr.Close(); err != nil {
		a.s.t.Error(err)
	}
}

// crash ends an agent's process as it stands, when nothing moves, and returns
// what is on its disk.
func (a *siteAgent) crash() string {
	synctest.Wait()
	next := image(a.s.t, a.dir)
	a.s.broker.mu.Lock()
	if c := a.s.broker.current; c != nil && a.node == a.s.epoch.Owner && a.s.epoch.Mirror == nil {
		c.dead = true
	}
	a.s.broker.mu.Unlock()
	a.stop()
	return next
}

func (s *site) stop() {
	for _, a := range s.agents {
		a.stop()
	}
}

// begin begins an epoch, as the leader does: with what a member that was sealed
// said, or of a log that was never begun.
func (s *site) begin(owner mesh.NodeID, start int64, members ...mesh.NodeID) {
	s.epoch.Epoch++
	s.epoch.Owner, s.epoch.Start, s.epoch.Members = owner, start, members
	s.epoch.Starts = append(slices.Clone(s.epoch.Starts), start)
}

// know tells an agent of the present epoch.
func (s *site) know(node mesh.NodeID) error {
	a := s.agents[node]
	switch {
	case a == nil:
		return nil
	case node == s.epoch.Owner:
		return a.feeds.Own("f", s.epoch, s.config, nil)
	case slices.Contains(s.epoch.Members, node):
		return a.feeds.Follow("f", s.epoch, s.config)
	}
	return a.feeds.Rest("f")
}

func (s *site) knows(nodes ...mesh.NodeID) {
	s.t.Helper()
	for _, n := range nodes {
		if err := s.know(n); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) seal(node mesh.NodeID) int64 {
	s.t.Helper()
	sealed, err := s.agents[node].feeds.Seal("f", s.epoch)
	if err != nil {
		s.t.Fatal(err)
	}
	return sealed.End
}

// onDisk is the messages of a log in a folder, in order.
func onDisk(t testing.TB, dir string) []string {
	t.Helper()
	log, err := ingestlog.Open(ingestlog.Options{Dir: filepath.Join(image(t, dir), "feeds", "f"), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	if err := log.Tail(1<<20, func(r *sensors.Records) bool {
		for i := range r.Len() {
			all = append(all, string(r.Payload(i)))
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// groups is the groups of a log in a folder.
func groups(t testing.TB, dir string) []*ingestlog.Group {
	t.Helper()
	log, err := ingestlog.Open(ingestlog.Options{Dir: filepath.Join(image(t, dir), "feeds", "f"), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []*ingestlog.Group
	at, _ := log.First()
	for {
		some, err := log.ReadGroups(at, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
		at = some[len(some)-1].Next
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// numbers are the texts from one number to another.
func numbers(from, to int) (s []string) {
	for i := from; i < to; i++ {
		s = append(s, strconv.Itoa(i))
	}
	return s
}
