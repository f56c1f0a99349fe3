package consensus

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Timing is how long the group waits. The zero value of a field is its default.
type Timing struct {
	// Heartbeat is how long a follower hears nothing of the leader before it asks
	// for another one; 400 ms. The leader sends ten to five in that time. A loss is
	// seen after one to three of it, with two other voters mostly after two.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes before it asks again; 400 ms.
	Election time.Duration
	// Lease is how long a leader that does not reach a majority goes on; 300 ms. Not
	// more than Heartbeat.
	Lease time.Duration
	// Commit is how long a follower waits at most to hear that an entry is
	// committed when no other follows; 20 ms.
	Commit time.Duration
	// RPC bounds a call to another node; 10 s, and a snapshot's more, by its size.
	RPC time.Duration
	// Voters is how often the voters are looked at; 500 ms.
	Voters time.Duration
	// Stable is how much longer than not a node must have been well before it is given
	// a vote; 3 s.
	Stable time.Duration
	// Dead is how long a voter must have been away before another gets its vote; 10 s.
	Dead time.Duration
	// Snapshot is how often it is looked whether a snapshot is due; 30 s.
	Snapshot time.Duration
}

// Options are what a node is made of. Dir, Transport, Self and Machine are
// needed.
type Options struct {
	Dir       string // its own; made if it is not there
	Transport mesh.Transport
	Self      mesh.NodeID
	Site      mesh.Site // streams of other sites are refused; empty: none are
	// Founder lets this node begin a group of itself alone, if the folder is new.
	// It is refused in the folder of a node that was in another one's group.
	Founder bool
	Machine Machine
	// Events are told one at a time or not: any goroutine calls it, and it must not
	// block. nil: nobody listens.
	Events func(Event)
	// Health tells of the agents of the site: Node, Host and Alive of each. The leader
	// asks it, and gives votes by it. It must not block. nil: no vote is given or taken.
	Health func() []Candidate
	// MaxVoters is 1, 3 or 5; 0: 5.
	MaxVoters int
	Timing    Timing
	// Reserve is the bytes of disk that are kept for term and vote; 0: 16 MiB.
	Reserve int64
	// SnapshotEntries and SnapshotBytes of log are when a snapshot is due; 0: 1024 and 8 MiB.
	SnapshotEntries uint64
	SnapshotBytes   int64
	// Trailing is the entries that are kept behind a snapshot for followers that
	// are a little behind; 0: 256.
	Trailing uint64
}

// The kinds of errors of a node.
var (
	ErrFounded = errors.New("consensus: the folder belongs to a group that another node founded")
	ErrForeign = errors.New("consensus: the folder belongs to another node")
	ErrClosed  = errors.New("consensus: the node is closed")
)

const maxPooled = 3 // connections to each node that are kept for later

// Node is a member of the site's group: it votes, or follows. Any goroutine may
// call it.
type Node struct {
	o         Options
	raft      *raft.Raft
	log       *logStore
	layer     *layer
	transport *contacts
	fsm       *fsm
	leaving   *leavers

	observer   *raft.Observer
	observed   chan raft.Observation
	leadership chan Leadership
	changed    chan struct{}

	changes, commands atomic.Uint64 // see Stats
	waited            atomic.Int64  // nanoseconds

	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	own    sync.WaitGroup // the node's goroutines
	once   sync.Once
	closed error
}

// Open opens the folder and joins the group that it belongs to: it follows until
// it hears otherwise. A node that is in no group yet waits until a leader adds it.
// ErrInUse, ErrFounded, ErrForeign, ErrCorrupt.
func Open(o Options) (*Node, error) {
	if o.Dir == "" || o.Transport == nil || o.Self == "" || o.Machine == nil {
		return nil, errors.New("consensus: Options lack Dir, Transport, Self or Machine")
	}
	o = o.withDefaults()
	if err := makeDir(o.Dir); err != nil {
		return nil, err
	}
	log, err := openLog(filepath.Join(o.Dir, logFile), o.Reserve, o.Events)
	if err != nil {
		return nil, err
	}
	n := &Node{o: o, log: log, fsm: &fsm{machine: o.Machine}, leaving: newLeavers(),
		observed: make(chan raft.Observation, 16), leadership: make(chan Leadership, 1), changed: make(chan struct{}, 1)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(); err != nil {
		n.cancel()
		return nil, errors.Join(err, log.close())
	}
	return n, nil
}

// start begins the library's goroutines and the node's own.
func (n *Node) start() error {
	hlog := libraryLog(n.o.Events)
	snaps, err := openSnapshots(n.o.Dir, hlog)
	if err != nil {
		return err
	}
	conf := n.o.config(hlog)
	if err := claim(n.log, snaps, conf, n.o); err != nil {
		return err
	}
	n.layer = newLayer(n.o.Transport, n.o.Site)
	n.transport = &contacts{seen: make(map[raft.ServerID]contact), NetworkTransport: raft.NewNetworkTransportWithConfig(
		&raft.NetworkTransportConfig{Stream: n.layer, MaxPool: maxPooled, Timeout: n.o.Timing.RPC, Logger: hlog})}
	n.raft, err = raft.NewRaft(conf, n.fsm, n.log, n.log, snaps, n.transport)
	if err != nil {
		return errors.Join(fmt.Errorf("consensus: %s: %w", n.o.Dir, err), n.transport.Close())
	}
	n.observer = raft.NewObserver(n.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(n.observer)
	n.run("leadership", n.followLeadership)
	n.run("leader", n.followLeader)
	n.run("voters", n.keepVoters)
	n.run("snapshot", n.keepSnapshots)
	return nil
}

// run starts one of the node's goroutines.
func (n *Node) run(name string, f func()) {
	n.own.Go(func() {
		pprof.Do(n.ctx, pprof.Labels("consensus", name), func(context.Context) { f() })
	})
}

// Close leaves without ceremony, as a crash does: the others see it as one. It
// may be called again.
func (n *Node) Close() error {
	n.once.Do(func() {
		n.cancel()
		n.log.release()
		down := n.raft.Shutdown()
		// The library's goroutines may be in a call to a node that does not answer.
		err := n.layer.Close()
		n.closed = errors.Join(err, down.Error())
		n.raft.DeregisterObserver(n.observer)
		n.own.Wait()
		n.closed = errors.Join(n.closed, n.log.close())
	})
	return n.closed
}

const (
	logFile   = "log.db"
	keySelf   = "self"    // in ownBucket: the node that the folder belongs to
	keyFound  = "founded" // in ownBucket: this node founded its group
	foundDone = "done"    // its values: the group is there,
	foundTry  = "try"     // or may be half there
)

// claim makes the folder this node's, and founds a group if it shall and may.
func claim(log *logStore, snaps *snapshots, conf *raft.Config, o Options) error {
	owner, err := log.get(ownBucket, []byte(keySelf))
	switch {
	case errors.Is(err, errNotFound):
		err = log.put(ownBucket, []byte(keySelf), []byte(o.Self))
	case err == nil && string(owner) != string(o.Self):
		err = fmt.Errorf("%w: %s is of %s, this is %s", ErrForeign, o.Dir, owner, o.Self)
	}
	if err != nil || !o.Founder {
		return err
	}
	found, err := log.get(ownBucket, []byte(keyFound))
	if err != nil && !errors.Is(err, errNotFound) || string(found) == foundDone {
		return err
	}
	has, err := raft.HasExistingState(log, log, snaps)
	if err != nil {
		return fmt.Errorf("consensus: %s: %w", o.Dir, err)
	}
	if has && string(found) != foundTry {
		return fmt.Errorf("%w: %s: start without founding, or with an empty folder", ErrFounded, o.Dir)
	}
	last, err := log.LastIndex()
	if err == nil && last == 0 {
		err = foundGroup(log, snaps, conf, o)
	}
	if err != nil {
		return err
	}
	return log.put(ownBucket, []byte(keyFound), []byte(foundDone))
}

// foundGroup writes the first entry of a group of one. A crash in it leaves foundTry, and
// perhaps a term, of which nobody else knows.
func foundGroup(log *logStore, snaps *snapshots, conf *raft.Config, o Options) error {
	if err := log.put(ownBucket, []byte(keyFound), []byte(foundTry)); err != nil {
		return err
	}
	if err := log.SetUint64([]byte(currentTermKey), 0); err != nil {
		return err
	}
	o.Events(Event{Kind: Founded})
	alone := raft.Configuration{Servers: []raft.Server{server(o.Self)}}
	if err := raft.BootstrapCluster(conf, log, log, snaps, nil, alone); err != nil {
		return fmt.Errorf("consensus: found in %s: %w", o.Dir, err)
	}
	return nil
}

// server is a voter: its address is its id.
func server(id mesh.NodeID) raft.Server {
	return raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}
}

func makeDir(dir string) error {
	if err := disk.MkdirAll(disk.Secret, dir); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	return nil
}

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	t := &o.Timing
	or(&t.Heartbeat, 400*time.Millisecond)
	or(&t.Election, t.Heartbeat)
	or(&t.Lease, t.Heartbeat*3/4)
	or(&t.Commit, 20*time.Millisecond)
	or(&t.RPC, 10*time.Second)
	or(&t.Voters, 500*time.Millisecond)
	or(&t.Stable, 3*time.Second)
	or(&t.Dead, 10*time.Second)
	or(&t.Snapshot, 30*time.Second)
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	if o.MaxVoters == 0 {
		o.MaxVoters = 5
	}
	if o.Reserve == 0 {
		o.Reserve = defaultReserve
	}
	if o.SnapshotEntries == 0 {
		o.SnapshotEntries = 1024
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 8 << 20
	}
	if o.Trailing == 0 {
		o.Trailing = 256
	}
	return o
}

func (o Options) config(log hclog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.Self)
	c.HeartbeatTimeout = o.Timing.Heartbeat
	c.ElectionTimeout = o.Timing.Election
	c.LeaderLeaseTimeout = o.Timing.Lease
	c.CommitTimeout = o.Timing.Commit
	c.SnapshotInterval = o.Timing.Snapshot
	c.SnapshotThreshold = o.SnapshotEntries
	c.TrailingLogs = o.Trailing
	// A node that was removed does not campaign, as it has no vote; who closes it
	// is its owner.
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = log
	return c
}
