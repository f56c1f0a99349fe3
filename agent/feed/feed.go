package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// SessionOptions are what a session gets beside the feed's config.
type SessionOptions struct {
	Clock  sensors.Clock
	Recall iter.Seq[*sensors.Records] // the tail of the log in order; it is asked for once, before the session begins
	Events func(mqtt.Event)           // Subscribed among them: the feed waits for it
	Permit sensors.Permit             // without it nothing is said to the broker; nil: it may
}

// ErrClosed is wrapped by what is called after the last Close.
var ErrClosed = errors.New("the feed is closed")

// Feed is one session and its log. It runs from the first Feeds.Open until as
// many Close. Any goroutine may call it.
//
//	opening  --the time away is noted as deaf-->  pumping
//	pumping  --the log takes nothing-->  stalled  --it takes again-->  pumping
//	any  --the last Close, or a failure-->  ended
type Feed struct {
	owner  *Feeds
	name   string
	config Config
	ctx    context.Context // ends the pump
	cancel context.CancelFunc

	begun      chan struct{} // closed when start has returned
	subscribed chan struct{}
	heard      sync.Once     // of subscribed
	done       chan struct{} // closed when all has ended

	refs   int  // users; under owner.mu
	ending bool // nobody may join any more; under owner.mu

	role     *ownership    // in a mesh; nil: none
	gathered chan struct{} // closed when all members have been brought up to date once
	mirrors  mirrors       // of other sites
	upstream upstream      // of a mirror
	shown    shownLanes

	log     *ingestlog.Log
	away    int             // the lane to note the time away of next
	last    dataflow.Time   // the latest clock that the log had when it was opened
	deaf    []bool          // by lane: nothing is heard since its last entry
	forgot  error           // why the tail of the log could not be read
	rec     sensors.Records // the pump's
	dirty   []int64         // the pump's, by lane: up to where the session is to be acknowledged; -1: as it is
	pending int64           // messages appended and not committed

	appended, commits atomic.Int64
	full              atomic.Bool
	reading           atomic.Int32 // how many readers are open

	mu       sync.Mutex     // guards what follows; no I/O under it
	err      error          // why it failed
	session  sensors.Reader // nil before the time away is noted
	readers  []*Reader      // open ones
	serial   int            // of readers
	replicas *replicas      // in a mesh; a mirror that begins anew has others then

	pinMu sync.Mutex               // guards pins, their file and needs; nobody who must not wait takes it
	pins  map[string]map[int]int64 // offset by name and lane
	needs map[string]Need          // why they are pinned, as far as that was said
}

// Name is the feed's.
func (f *Feed) Name() string { return f.name }

// Config is what the feed runs with.
func (f *Feed) Config() Config { return f.config }

// Subscribed is closed when the broker has granted the topics for the first
// time in this process: what is published after that arrives.
func (f *Feed) Subscribed() <-chan struct{} { return f.subscribed }

// Done is closed when the feed has ended: by its last Close, or because the
// session failed for good; Err then says why.
func (f *Feed) Done() <-chan struct{} { return f.done }

// Err is why the feed failed; nil while it runs and after a Close.
func (f *Feed) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *Feed) ended() bool { return f.ctx.Err() != nil }

// start opens the log and, if the log takes the first entry, the session; the
// pump does the rest.
func (f *Feed) start(c *Config, needed map[string]Need) (err error) {
	defer close(f.begun)
	if err = f.open(c, needed); err == nil && f.role == nil {
		err = f.begin()
		if errors.As(err, new(logError)) {
			err = nil // the pump tries again
		}
		if err != nil {
			err = errors.Join(err, f.log.Close())
		}
	}
	if err != nil {
		f.fail(err) // who asks for the reason names the feed
		err = fmt.Errorf("feed %q: %w", f.name, err)
		f.owner.fail(f)
		f.cancel()
		f.owner.gone(f)
		close(f.done)
		return err
	}
	go pprof.Do(f.ctx, pprof.Labels("feed", f.name), f.run)
	return nil
}

func (f *Feed) fail(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
}

// open settles the config, opens the log and pins what is pinned. With no
// config given the stored one is taken.
func (f *Feed) open(c *Config, needed map[string]Need) error {
	o := f.owner.o
	old, whole, err := readConfig(o, f.name)
	missing := errors.Is(err, store.ErrMissing)
	switch {
	case missing && c != nil:
		if err := disk.MkdirAll(o.FS, folder(o.Dir, f.name)); err != nil {
			return err
		}
		old = *c
	case err != nil:
		return err
	case c == nil && !whole:
		return errPlainSecret
	case c != nil && c.Lanes != old.Lanes:
		return fmt.Errorf("it has %d lanes, for ever; %d were asked for: keep the number, or make a feed of another name", old.Lanes, c.Lanes)
	}
	if err := f.settle(c, old, missing); err != nil {
		return err
	}
	if f.pins, err = readPins(o, f.name); err != nil {
		return err
	}
	f.log, err = ingestlog.Open(ingestlog.Options{
		Dir: folder(o.Dir, f.name), Lanes: f.config.Lanes, Retain: retention(f.config.Keep), Cap: f.config.Keep.Cap,
		FS: o.FS, Events: f.hearLog, OpenDB: o.log.OpenDB,
	})
	if err != nil {
		return err
	}
	if f.role != nil {
		err = f.lead()
	}
	if err == nil {
		err = f.adopt(needed)
	}
	if err != nil {
		return errors.Join(err, f.log.Close())
	}
	for name, at := range f.pins {
		f.log.Pin(pinned+name, positions(at))
	}
	f.last = dataflow.MinTime
	f.deaf, f.dirty = make([]bool, f.config.Lanes), make([]int64, f.config.Lanes)
	for i := range f.dirty {
		f.dirty[i] = -1
	}
	return nil
}

// settle makes c what the feed runs with, if it is given, and stores it. What the
// session may have of before is written down first: then nothing subscribes to the
// new filters while nobody knows of the old ones. Of another client id nothing is taken over.
func (f *Feed) settle(c *Config, old Config, missing bool) error {
	had, err := readLeft(f.owner.o, f.name)
	if err != nil {
		return err
	}
	changed := c != nil && (missing || !old.same(*c))
	if f.config = old; c != nil {
		f.config = *c
	}
	if had.ClientID != f.config.ClientID {
		had.Left = nil
	}
	if old.ClientID != f.config.ClientID {
		old.Topics = nil
	}
	f.config.Left = leftOf(f.config.Topics, had.Left, f.config.Left, old.Topics)
	if !slices.Equal(had.Left, f.config.Left) {
		err = writeConfig(f.owner.o, f.name, leftFile, f.config)
	}
	if err == nil && changed {
		own := f.config
		own.Left = nil
		err = writeConfig(f.owner.o, f.name, configFile, own)
	}
	return err
}

// begin notes on every lane that has entries that nothing was heard since the
// last one, and only then opens the session: nothing comes between. It can be
// called again after an error of the log.
func (f *Feed) begin() error {
	for ; f.away < f.log.Lanes(); f.away++ {
		l := f.log.Lane(f.away)
		if l.Clock == dataflow.MinTime {
			continue
		}
		f.last = max(f.last, l.Clock)
		f.rec.Reset(f.away)
		f.rec.Clock, f.rec.Deaf = int64(l.Clock), true
		if _, err := f.log.Append(&f.rec); err != nil {
			return logError{err}
		}
		f.deaf[f.away] = true
	}
	if f.last != dataflow.MinTime {
		if err := f.persist(); err != nil {
			return err
		}
	}
	if err := f.permitted(); err != nil {
		return err
	}
	session, err := f.owner.o.Session(f.config, SessionOptions{Clock: f.owner.o.Clock, Recall: f.recall, Events: f.hearSession, Permit: f.owner.o.Permit})
	if err != nil {
		return err
	}
	if f.forgot != nil {
		return errors.Join(fmt.Errorf("what the broker may send again cannot be read: %w", f.forgot), session.Close())
	}
	if n := session.Splits(); n != f.config.Lanes {
		return errors.Join(fmt.Errorf("its session has %d splits, not %d", n, f.config.Lanes), session.Close())
	}
	f.mu.Lock()
	f.session = session
	f.mu.Unlock()
	e := Event{Kind: Opened}
	if f.last != dataflow.MinTime {
		e.Away = dataflow.Duration(max(0, f.owner.o.Clock.Now()-f.last))
	}
	f.emit(e)
	return nil
}

// recall is what the session gets to know of the log: its last messages and
// releases.
func (f *Feed) recall(yield func(*sensors.Records) bool) { f.forgot = f.log.Tail(recalled, yield) }

func (f *Feed) emit(e Event) {
	e.Feed = f.name
	f.owner.o.Events(e)
}

func (f *Feed) hearSession(e mqtt.Event) {
	if e.Kind == mqtt.Subscribed {
		f.heard.Do(func() { close(f.subscribed) })
	}
	f.emit(Event{Kind: Session, MQTT: e})
}

func (f *Feed) hearLog(e ingestlog.Event) {
	switch e.Kind {
	case ingestlog.Damaged, ingestlog.Cleaned:
		f.emit(Event{Kind: Log, Log: e})
	case ingestlog.Rolled, ingestlog.Deleted, ingestlog.Full, ingestlog.Room, ingestlog.Failed: // told by the pump, or of no interest
	}
}

// Close gives the feed back. The last Close ends the session (the broker keeps
// it), then the log; readers fail from then on.
func (f *Feed) Close() error {
	if f.owner.release(f) {
		f.cancel()
		<-f.done
	}
	return nil
}

// Reader opens a reader of some lanes, for one subtask of a job: split k is
// lanes[k], and SplitName says so. Without a Seek it begins with the oldest
// entry that the log has. Offsets number a lane's entries of all kinds. What it
// has not read is kept while it is open; Ack does not matter to it. Read fails
// when the feed has ended. who names it in Stats.
func (f *Feed) Reader(who string, lanes []int) (*Reader, error) {
	for _, l := range lanes {
		if l < 0 || l >= f.config.Lanes {
			return nil, fmt.Errorf("feed %q: lane %d of %d", f.name, l, f.config.Lanes)
		}
	}
	if f.ended() {
		return nil, fmt.Errorf("feed %q: %w", f.name, f.reason())
	}
	f.mu.Lock()
	f.serial++
	pin := fmt.Sprint(readerPin, f.serial)
	f.mu.Unlock()
	all := make([]sensors.Position, len(lanes))
	for k, l := range lanes {
		all[k].Split = l
	}
	f.log.Pin(pin, all) // so that the oldest entry is there still when it is read
	r := &Reader{feed: f, who: who, lanes: lanes, pin: pin, Reader: f.log.NewReader(lanes), at: make([]atomic.Int64, len(lanes))}
	f.mu.Lock()
	f.readers = append(f.readers, r)
	f.reading.Store(int32(len(f.readers)))
	f.mu.Unlock()
	for k, l := range lanes {
		r.at[k].Store(f.log.Lane(l).First)
	}
	r.keep()
	return r, nil
}

// reason is why the feed has ended.
func (f *Feed) reason() error {
	if err := f.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// LanesOf are the lanes of subtask i of p.
func (f *Feed) LanesOf(i, p int) []int {
	var lanes []int
	for l := i; l < f.config.Lanes; l += p {
		lanes = append(lanes, l)
	}
	return lanes
}

// Names of pins in the log: of those that are written down, of readers, and while it is
// looked at what is pinned.
const (
	pinned    = "pin "
	readerPin = "reader "
	settling  = "settling"
)

func positions(at map[int]int64) []sensors.Position {
	var p []sensors.Position
	for _, lane := range slices.Sorted(maps.Keys(at)) {
		p = append(p, sensors.Position{Split: lane, Offset: at[lane]})
	}
	return p
}

// Pin keeps the log from offset on, for a checkpoint or savepoint, until Unpin
// of the same name: at[lane] is the offset; a lane that is not in it is free.
// It is durable when Pin returns. Pinning a name again replaces it. The pin of a
// job that has no checkpoint yet belongs where it begins to read.
func (f *Feed) Pin(name string, at map[int]int64) error {
	for lane := range at {
		if lane < 0 || lane >= f.config.Lanes {
			return fmt.Errorf("feed %q: pin %q of lane %d; there are %d", f.name, name, lane, f.config.Lanes)
		}
	}
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	if maps.Equal(f.pins[name], at) && f.pins[name] != nil {
		return nil
	}
	next := maps.Clone(f.pins)
	next[name] = maps.Clone(at)
	if err := writePins(f.owner.o, f.name, next); err != nil {
		return err
	}
	f.pins = next
	f.log.Pin(pinned+name, positions(at))
	return nil
}

// Unpin ends a pin. A name that is not pinned is none.
func (f *Feed) Unpin(name string) error {
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	if f.pins[name] == nil {
		return nil
	}
	next := maps.Clone(f.pins)
	delete(next, name)
	if err := writePins(f.owner.o, f.name, next); err != nil {
		return err
	}
	f.pins = next
	f.log.Unpin(pinned + name)
	return nil
}

// Pins are the pins, sorted by name.
func (f *Feed) Pins() []Pin {
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	return sortedPins(f.pins)
}
