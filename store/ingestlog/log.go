package ingestlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// Options say where a log is and how much it keeps.
type Options struct {
	ID           LogID  // of a new log; zero: a random one
	Dir          string // made if it is not there; other files in it are left alone
	Lanes        int    // of a new log; 0: as the log on disk has, or 1. Another number than the log has is refused
	SegmentBytes int64  // size at which a new segment is begun; 0: 64 MiB. At most an eighth of Cap and of Retain.Bytes
	Retain       Retention
	Cap          int64 // bytes of all segments at which Append refuses with store.ErrFull; 0: the disk is the bound
	TailBytes    int64 // recent entries kept in memory for readers at the end; 0: 8 MiB

	ReadOnly bool        // nothing is changed, and nobody may have the log open for writing
	Events   func(Event) // called by the goroutine that opens, appends, commits; nil: nobody listens

	// FS is what the promise is written through, and a segment's meta when it is
	// opened; nil: the disk.
	FS store.FS
	// OpenDB opens a segment; nil: bolt.Open. Tests fail writes with it.
	OpenDB func(path string, mode os.FileMode, o *bolt.Options) (*bolt.DB, error)
}

// Retention is what may be deleted: a segment goes if all of it is older than
// Age by the arrival clock, or if all segments together exceed Bytes. What is
// pinned, and the last KeptMessages messages, stay in any case.
type Retention struct {
	Age   dataflow.Duration // 0: no bound
	Bytes int64             // 0: no bound
}

// KeptMessages is how many of the last messages retention leaves in a log, so
// that a connector can tell what a broker sends again.
const KeptMessages = 65536

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	Rolled  EventKind = iota + 1 // a new segment was begun
	Deleted                      // retention deleted a segment
	Full                         // the cap or the disk is reached: nothing is taken
	Room                         // there is room again
	Failed                       // a commit failed; what it would have made durable waits for the next
	Damaged                      // bytes on disk are not those that were written
	Cleaned                      // a file that a crash left half made was removed
)

// Event is something that a person may want to know.
type Event struct {
	Kind EventKind
	File string
	Err  error
}

// LaneState is what a lane holds. All of it is durable.
type LaneState struct {
	First   int64         // offset of the oldest entry that is kept
	Next    int64         // offset of the next entry
	Clock   dataflow.Time // arrival clock after the last entry; MinTime: it has none yet
	Deaf    bool          // the last change said that it cannot hear
	Records int64         // messages kept
	Bytes   int64         // their payloads and topics
}

// Stats is the state of a whole log.
type Stats struct {
	Bytes    int64 // of all segments
	Segments int
}

// ErrClosed is wrapped by what is called after Close. ErrSealed: a later epoch
// was promised, and nothing of this one is taken any more.
var (
	ErrClosed = errors.New("closed")
	ErrSealed = errors.New("a later epoch of the log has begun")
)

// defaults of Options.
const (
	defaultSegment = 64 << 20
	defaultTail    = 8 << 20
	minSegment     = 256 << 10
	// maxPending is how much may wait for a Commit; then Append refuses.
	maxPending = 64 << 20
	// MaxGroup bounds Group.Size: what may wait for a Commit, the records that are
	// appended to that, and what blocks take beside their entries.
	MaxGroup = 3 * maxPending
	// capSlack is what a commit takes beside its blocks, with a new segment.
	capSlack = 64 << 10
	// spareBytes is how much memory of blocks is kept for reuse.
	spareBytes = 4 << 20
)

// Log is the log of a feed. One goroutine, its owner, calls Append, Commit,
// MakeRoom, what is in epoch.go, copy.go and cut.go where nothing else is said,
// and, when it is done, Close; any goroutine calls the rest.
type Log struct {
	o    Options
	lock *os.File

	// The owner's: what was appended and is not durable.
	app     state // behind all that was appended
	open    []*builder
	dirty   []int    // lanes whose builder has entries
	batch   []*block // complete blocks that wait for Commit
	pending int64
	offered dataflow.Time // the latest instant that it was told
	unsure  bool          // nothing may be added to the last segment any more
	wrote   bool          // there was a commit
	full    bool          // it has refused, and has not said that there is room
	capped  bool          // it was the cap, not the disk
	refused int64         // what was to be taken, and was more than the cap; 0: nothing is
	ended   bool          // Close was called
	scratch []byte
	spent   []bundle // what is being written

	// The owner's, of a log with copies: see epoch.go.
	epoch    uint64  // that it leads; 0: none
	promised promise // what PROMISE says
	follows  bool    // it takes what another owner sends
	staged   *staged // ended and not written yet; nil: none
	broken   error   // a cut failed half way: the log must be opened again

	mu      sync.Mutex // guards what follows; no I/O and no callback under it
	done    state      // behind all that is durable
	shown   int64      // readers see nothing behind it; the end of a group, or MaxInt64
	segs    []*segment // the oldest first
	doomed  []*segment // chosen by retention, not deleted yet
	tail    tail
	pins    map[string][]sensors.Position
	holds   map[string]hold
	more    chan struct{} // closed when there is more to read, if waiting
	waiting bool
	closed  bool
}

// Append takes the entries of a lane (r.Split): its messages, then its notes,
// then a tick if r.Clock is past the last message, or that the lane is deaf.
// r.First and r.Next do not matter. Arrival times and clocks that go back, also
// behind what an earlier process wrote, are set to the lane's clock; a tick that
// tells nothing is left out. It returns the position behind them.
//
// Nothing is durable or visible before Commit. store.ErrFull: nothing of r was
// taken; see MakeRoom. The callee borrows r.
func (l *Log) Append(r *sensors.Records) (sensors.Position, error) {
	if err := l.mayAppend(); err != nil {
		return sensors.Position{}, err
	}
	size := len(r.Payloads) + len(r.Topics) + 16*r.Len() + 4*len(r.Notes) + 64
	if err := l.check(r, size); err != nil {
		return sensors.Position{}, err
	}
	l.offered = max(l.offered, dataflow.Time(r.Clock))
	if err := l.room(int64(size)); err != nil {
		return sensors.Position{}, err
	}
	m := &l.app.lanes[r.Split]
	l.appendMessages(r, m)
	if n := len(r.Notes); n > 0 {
		b := l.builder(r.Split)
		b.addNotes(r.Notes, l.app.seq)
		l.took(r.Split, n, 4*n)
	}
	clock := max(r.Clock, m.clock)
	switch {
	case r.Deaf && (!m.deaf || clock > m.clock):
		l.appendClock(r.Split, deaf, clock)
		m.deaf = true
	case !r.Deaf && r.Clock != minClock && (clock > m.clock || m.deaf && r.Len() == 0):
		l.appendClock(r.Split, tick, clock)
		m.deaf = false
	}
	return sensors.Position{Split: r.Split, Offset: m.next}, nil
}

func (l *Log) writable() error {
	switch {
	case l.ended:
		return fmt.Errorf("ingestlog: %s: %w", l.o.Dir, ErrClosed)
	case l.o.ReadOnly:
		return fmt.Errorf("ingestlog: %s is open for reading only", l.o.Dir)
	case l.broken != nil:
		return l.broken
	}
	return nil
}

// check refuses what the contract of Records does not know.
func (l *Log) check(r *sensors.Records, size int) error {
	n := r.Len()
	switch {
	case r.Split < 0 || r.Split >= len(l.app.lanes):
		return fmt.Errorf("ingestlog: lane %d of a log of %d", r.Split, len(l.app.lanes))
	case size > maxPending:
		return fmt.Errorf("ingestlog: records of %d bytes at once; at most %d are taken", size, maxPending)
	case r.Deaf && n > 0:
		return errors.New("ingestlog: records of a lane that is deaf")
	case len(r.Arrivals) != 0 && len(r.Arrivals) != n, len(r.Tags) != 0 && len(r.Tags) != n, len(r.TopicEnd) != 0 && len(r.TopicEnd) != n:
		return fmt.Errorf("ingestlog: %d records with %d arrivals, %d tags, %d topics", n, len(r.Arrivals), len(r.Tags), len(r.TopicEnd))
	}
	return nil
}

func (l *Log) appendMessages(r *sensors.Records, m *mark) {
	n := r.Len()
	for from := 0; from < n; {
		b := l.builder(r.Split)
		to := min(n, from+blockRows-b.messages)
		start := 0
		if from > 0 {
			start = int(r.Ends[from-1])
		}
		// As many as fit, and one at least.
		if most := start + blockBytes - len(b.payloads); int(r.Ends[to-1]) > most {
			k, _ := slices.BinarySearch(r.Ends[from:to], int32(most)+1)
			to = from + max(1, k)
		}
		m.clock = b.addMessages(r, from, to, m.clock, l.app.seq)
		m.messages += int64(to - from)
		l.took(r.Split, to-from, int(r.Ends[to-1])-start+16*(to-from))
		from = to
	}
	if n > 0 {
		m.bytes += int64(len(r.Payloads) + len(r.Topics))
		m.deaf = false
		l.pending += int64(len(r.Topics))
	}
}

func (l *Log) appendClock(lane int, k kind, clock int64) {
	m := &l.app.lanes[lane]
	l.builder(lane).addClock(k, clock, m.clock, l.app.seq)
	m.clock = clock
	l.took(lane, 1, 8)
}

// took counts n entries that a lane's builder has taken.
func (l *Log) took(lane, n, bytes int) {
	l.app.seq += int64(n)
	l.app.lanes[lane].next += int64(n)
	l.pending += int64(bytes)
}

// builder is the block of a lane that has room.
func (l *Log) builder(lane int) *builder {
	b := l.open[lane]
	if b == nil {
		b = new(builder)
		l.open[lane] = b
	}
	if b.entries > 0 && b.full() {
		l.seal(lane)
	}
	if b.entries == 0 {
		b.reset(l.app.lanes[lane].next, l.app.seq, l.app.lanes[lane].clock)
		l.dirty = append(l.dirty, lane)
	}
	return b
}

// seal makes a complete block of what a lane's builder has.
func (l *Log) seal(lane int) {
	b := l.open[lane]
	if b.entries == 0 {
		return
	}
	data := b.encode(l.buffer(b.size()), lane)
	l.batch = append(l.batch, &block{lane: lane, first: b.first, next: b.first + int64(b.entries), seq: b.seq, data: data})
	b.entries = 0
}

// buffer is an empty one with room for n bytes.
func (l *Log) buffer(n int) []byte {
	l.mu.Lock()
	b := l.tail.spare.take(n)
	l.mu.Unlock()
	return slices.Grow(b, n)
}

// room tells whether n bytes more can be taken.
func (l *Log) room(n int64) error {
	if l.pending > maxPending {
		return fmt.Errorf("ingestlog: %s: %d bytes wait for a commit: %w", l.o.Dir, l.pending, store.ErrFull)
	}
	if l.o.Cap == 0 {
		return nil
	}
	l.mu.Lock()
	used := l.used()
	l.mu.Unlock()
	was := l.capped
	if l.capped = used+l.pending+n+capSlack > l.o.Cap; l.capped {
		l.refused = n
		return l.refuse(fmt.Errorf("ingestlog: %s: %d of %d bytes are used, and retention lets nothing go: %w", l.o.Dir, used+l.pending, l.o.Cap, store.ErrFull))
	}
	l.refused = 0
	if was {
		l.hasRoom()
	}
	return nil
}

// refuse and hasRoom say when the log becomes full and when it is no more.
func (l *Log) refuse(err error) error {
	if !l.full {
		l.full = true
		l.emit(Event{Kind: Full, File: l.o.Dir, Err: err})
	}
	return err
}

func (l *Log) hasRoom() {
	if l.full {
		l.full = false
		l.emit(Event{Kind: Room, File: l.o.Dir})
	}
}

// used is the bytes of all segments.
func (l *Log) used() (n int64) {
	for _, s := range l.segs {
		n += s.bytes
	}
	for _, s := range l.doomed {
		n += s.bytes
	}
	return n
}

func (l *Log) emit(e Event) {
	if l.o.Events != nil {
		l.o.Events(e)
	}
}

// Lanes is the number of lanes.
func (l *Log) Lanes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done.lanes)
}

// Lane is the state of a lane.
func (l *Log) Lane(i int) LaneState {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, next := &l.segs[0].head.lanes[i], &l.done.lanes[i]
	return LaneState{
		First: first.next, Next: next.next, Clock: dataflow.Time(next.clock), Deaf: next.deaf,
		Records: next.messages - first.messages, Bytes: next.bytes - first.bytes,
	}
}

// Stats is the state of the log.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Bytes: l.used(), Segments: len(l.segs)}
}

// Close gives up what was not committed, ends all readers and lets the lock go.
// It may be called twice.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.more)
	last := l.segs[len(l.segs)-1]
	db := last.db
	last.db = nil
	l.mu.Unlock()
	l.ended = true
	var err error
	if db != nil {
		if l.wrote && !l.unsure {
			_ = last.settle(db) // all that counts is durable, whatever becomes of this
		}
		err = db.Close()
	}
	if l.lock != nil {
		if e := l.lock.Close(); err == nil {
			err = e
		}
	}
	return err
}
