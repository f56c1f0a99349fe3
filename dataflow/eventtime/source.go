package eventtime

import (
	"fmt"
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Source turns the decoded rows of one source subtask into a stream with time:
// it refuses rows whose time cannot be, takes out marker rows, and sets the
// marks. Assign takes rows; Tick, Deaf, Hearing and End take what else happens
// to a split. All of it is a function of the order of these calls.
//
// Each split has an arrival clock, which rows and ticks move and nothing moves
// back; a split whose rows have no arrivals has none, and nothing in it is ever
// idle or too far ahead. Before a row is looked at, the clock goes to its
// arrival, and all that is due by then happens first; so a tick more or less
// changes nothing but when it is heard of. Silence is measured in heard time:
// the arrival clock without the time in which the split was deaf. A refused
// row moves the clock and is not there otherwise; it is no sign of life.
//
// Without PerDevice each split has a watermark, and a Merge combines them. A
// split silent for more than IdleAfter is idle.
//
// With PerDevice each device of a split has a watermark; the source's is the
// least of those that count (see device). One silent for more than IdleAfter is
// forgotten, so memory is bounded by the live devices; those whose time is up
// at the same microsecond go together. When none counts the watermark holds,
// and the stream is not marked idle: what stands behind a dead source shall be
// as visible downstream as in it. A split that has shown no device yet holds
// the watermark like a new device. A subtask that has never seen a device, and
// holds for none any more, has nothing to say: that one is marked idle.
//
// A Source belongs to one goroutine.
type Source struct {
	cfg    Config
	pool   *batch.Pool
	bound  int64 // Bounded, Ascending: the watermark is this much behind the largest time
	splits []split
	merge  *Merge // of the splits' watermarks (without devices) and arrival clocks
	open   int    // splits that have not ended

	devices *devices // nil: one watermark a split
	least   int32    // the device with the least watermark; -1: to be found out
	holding int      // open splits that have shown no device and are waited for
	started int      // open splits that have shown a device

	now  batch.Mark // what is true
	sent batch.Mark // what the stream was last told

	tables    []operator.StateTable
	restored  bool // state was given back and is still to be put together
	strangers bool // what was given back are devices by another name
	inherited int  // splits whose state was given back

	// Of the batch at hand.
	sel      []int32
	markedAt int // how many rows that stay were before the last mark; -1: none yet
	refused  []Refusal
	markers  int
}

// split is what is known of one split.
type split struct {
	number int // in the job
	index  int // in the source

	watermark dataflow.Time // without devices
	clock     dataflow.Time // arrival clock; MinTime: none
	heard     dataflow.Time // clock less the time it was deaf
	deafFor   dataflow.Duration
	deafSince dataflow.Time
	deaf      bool

	last     dataflow.Time // heard time of the last row, or of the first clock
	deadline dataflow.Time // nothing is due while heard is not beyond it
	idle     bool          // without devices
	ended    bool
	known    bool // restored: it was there before

	started bool    // devices: it has shown one
	waived  bool    // devices: it has shown none for so long that nobody waits for it
	silence laggard // devices: all, by last
	fresh   queue   // devices: those that joined, by when
}

// Rows says more about the positions of a batch; the slices are borrowed.
type Rows struct {
	Arrivals    []int64       // when each arrived; MinTime: not known; nil: the split has no arrival clock
	TimeValid   batch.Bitmap  // has an event time; nil: all have
	Marker      batch.Bitmap  // Punctuated: carries a watermark; nil: none does
	MarkerAt    []int64       // the watermark, where Marker says so
	MarkerValid batch.Bitmap  // MarkerAt is not null; nil: none is
	Device      *batch.Column // PerDevice: whose row it is; null is a device like any other
	DeviceHash  []uint64      // state.HashKeys of Device; nil: worked out here
}

// Reason is why a row was refused.
type Reason uint8

// The reasons.
const (
	NoEventTime   Reason = iota + 1 // a data row whose event time is null
	MarkerNoTime                    // a marker whose time is null
	Ahead                           // further ahead of its arrival than MaxAhead
	accepted      Reason = 0
	maxSplits            = math.MaxUint16 + 1
	lastWatermark        = dataflow.MaxTime - 1 // MaxTime is for the end alone
)

// String is the reason as SOURCE.rejected shows it.
func (r Reason) String() string {
	switch r {
	case NoEventTime:
		return "no event time"
	case MarkerNoTime:
		return "marker without time"
	case Ahead:
		return "ahead"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Refusal is a position that was refused.
type Refusal struct {
	Row    int32
	Reason Reason
}

// Result is what became of a batch besides its marks.
type Result struct {
	Markers int       // marker rows taken out
	Refused []Refusal // ascending; valid until the next Assign
}

// NewSource makes the time of a source subtask that reads the splits with these
// numbers; the numbers are the job's, so that state finds its split again. Calls
// name a split by its place in the list. pool is for snapshots.
func NewSource(cfg Config, splits []int, pool *batch.Pool) *Source {
	if len(splits) > maxSplits {
		panic(fmt.Sprintf("eventtime: %d splits in one subtask; at most %d", len(splits), maxSplits))
	}
	s := &Source{cfg: cfg, pool: pool, splits: make([]split, len(splits)), open: len(splits), least: -1, tables: StateTables()}
	switch cfg.Strategy {
	case Bounded:
		s.bound = int64(min(cfg.Bound, math.MaxInt64-1)) + 1
	case Ascending:
		s.bound = 1
	}
	for i, n := range splits {
		s.splits[i] = split{number: n, index: i, watermark: dataflow.MinTime, clock: dataflow.MinTime,
			heard: dataflow.MinTime, last: dataflow.MinTime, deadline: dataflow.MaxTime}
	}
	s.merge = NewMerge(len(splits))
	s.now = s.merge.Out()
	s.sent = batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	if cfg.devices() {
		s.devices = newDevices()
		s.holding = len(splits)
	}
	return s
}

// Now is the mark that holds after all calls so far; its Row is 0. A source
// without open splits is at MaxTime from the start, and its caller has to say
// so.
func (s *Source) Now() batch.Mark {
	s.ready()
	return s.now
}

// Ended tells whether End has been said of a split, also before it was restored.
func (s *Source) Ended(split int) bool { return s.splits[split].ended }

// Devices is the number of live devices.
func (s *Source) Devices() int {
	if s.devices == nil {
		return 0
	}
	return s.devices.n
}

// Tick moves a split's arrival clock. If there is news, it returns the mark to
// send on, with Row 0.
func (s *Source) Tick(split int, arrival dataflow.Time) (batch.Mark, bool) {
	s.ready()
	sp := &s.splits[split]
	if sp.ended {
		return s.now, false
	}
	s.advance(sp, arrival)
	return s.news(sp)
}

// Deaf says that from arrival on the split's origin is out of reach: until
// Hearing, nobody's silence counts. Otherwise it is a Tick.
func (s *Source) Deaf(split int, arrival dataflow.Time) (batch.Mark, bool) {
	m, changed := s.Tick(split, arrival)
	if sp := &s.splits[split]; !sp.deaf && sp.clock != dataflow.MinTime {
		sp.deaf, sp.deafSince = true, sp.clock
	}
	return m, changed
}

// Hearing says that since arrival the split's origin can be heard again.
// Otherwise it is a Tick.
func (s *Source) Hearing(split int, arrival dataflow.Time) (batch.Mark, bool) {
	m, changed := s.Tick(split, arrival)
	if sp := &s.splits[split]; sp.deaf {
		sp.deaf = false
		sp.deafFor += dataflow.Duration(sp.clock - sp.deafSince)
	}
	return m, changed
}

// End says that nothing more comes from the split. When all have ended the mark
// is MaxTime, whatever held it.
func (s *Source) End(split int) (batch.Mark, bool) {
	s.ready()
	sp := &s.splits[split]
	if sp.ended {
		return s.now, false
	}
	s.publish(sp)
	sp.ended, sp.deadline = true, dataflow.MaxTime
	s.open--
	m, _ := s.merge.End(sp.index)
	m.Arrival = max(m.Arrival, s.now.Arrival)
	switch {
	case s.open == 0:
		s.now = batch.Mark{Watermark: dataflow.MaxTime, Arrival: m.Arrival}
	case s.devices == nil:
		s.now = m
	default:
		s.now.Arrival = m.Arrival
	}
	if s.devices != nil {
		s.endDevices(sp)
	}
	if s.now == s.sent {
		return s.now, false
	}
	s.sent = s.now
	return s.now, true
}

// news publishes what became of a split, and says whether the stream has to be
// told.
func (s *Source) news(sp *split) (batch.Mark, bool) {
	s.publish(sp)
	if s.now == s.sent {
		return s.now, false
	}
	s.sent = s.now
	return s.now, true
}

// publish makes the split's clock, and without devices its watermark and
// idleness, part of what is true of the source.
func (s *Source) publish(sp *split) {
	w, a, idle := sp.watermark, sp.clock, sp.idle
	if len(s.splits) > 1 {
		m, _ := s.merge.Mark(sp.index, batch.Mark{Watermark: w, Arrival: a, Idle: idle})
		w, a, idle = m.Watermark, m.Arrival, m.Idle
	}
	if s.devices == nil {
		s.now.Watermark = max(s.now.Watermark, w)
		s.now.Idle = idle
	}
	s.now.Arrival = max(s.now.Arrival, a)
}

// advance moves the split's arrival clock to a, unless it is there already, and
// does what is due by then.
func (s *Source) advance(sp *split, a dataflow.Time) {
	if a <= sp.clock {
		return
	}
	first := sp.clock == dataflow.MinTime
	sp.clock = a
	if !sp.deaf {
		sp.heard = a.Add(-sp.deafFor)
	}
	if first {
		s.startClock(sp)
	}
	if s.cfg.Strategy == Ingestion {
		sp.watermark = max(sp.watermark, a-1)
	}
	if sp.heard > sp.deadline {
		s.expire(sp)
	}
	if s.cfg.Strategy == Ingestion || s.cfg.MarkArrivals {
		s.publish(sp)
	}
}

// startClock is called when a split gets an arrival clock: what was there
// before it is as old as the clock.
func (s *Source) startClock(sp *split) {
	sp.last = sp.heard
	if s.cfg.IdleAfter <= 0 {
		return
	}
	sp.deadline = sp.heard.Add(s.cfg.IdleAfter)
	if s.devices != nil {
		s.devices.startClock(sp)
	}
}

// expire does what is due: it leaves out the split, or devices of it.
func (s *Source) expire(sp *split) {
	if s.devices != nil {
		s.expireDevices(sp)
		return
	}
	if d := sp.last.Add(s.cfg.IdleAfter); d >= sp.heard {
		sp.deadline = d
		return
	}
	sp.idle, sp.deadline = true, dataflow.MaxTime
	s.publish(sp)
}

// alive notes a row of the split.
func (s *Source) alive(sp *split) {
	sp.last = sp.heard
	if sp.idle {
		sp.idle, sp.deadline = false, sp.heard.Add(s.cfg.IdleAfter)
		s.publish(sp)
	}
}

// attention is the arrival after which something may be due in the split.
func (s *Source) attention(sp *split) int64 { return int64(sp.deadline.Add(sp.deafFor)) }
