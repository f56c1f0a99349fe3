package task

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// SourceConfig is the head of a source task: how records become rows, and rows
// a stream with marks.
type SourceConfig struct {
	Schema   *batch.Schema
	Rejected *batch.Schema           // payload bytes, topic string, reason string; nil: the source has no such stream
	Decoder  func() (Decoder, error) // nil: the source makes columns itself
	Header   bool                    // the first record of each split names its columns
	NoRoom   error                   // what Decode returns (errors.Is) when the batch must be taken first
	Time     eventtime.Config
	EventAt  int // column of the event time; -1: ingestion
	DeviceAt int // column that names the device; -1: none
	Arrival  int // column of recorded arrivals; -1: the reader's
	When, At *expr.Expr
	Dedupe   *dedupe.Config // nil: a row may come again
	Splits   []int          // numbers, in the job, of the splits this subtask reads; set by the driver when the reader is open
	Names    []string       // of the splits; nil: their numbers. State finds a split again by its name. Set by the driver

	// Alone: no other source subtask's stream meets this one's. Then it is never
	// marked idle: nobody is held up by it, and where its own stream has been
	// dealt out and comes together again, channels that know of the idleness
	// would run ahead of those that know already how it ended. Set by the driver.
	Alone bool
}

// Decoder turns one payload into rows of a builder, all or none of them.
// Errors say why a payload is rejected; they may be valid until the next call.
type Decoder interface {
	Decode(topic, payload []byte, bl *batch.Builder) (rows int, err error)
	// Split says which split the next payloads are from, Header gives the first
	// record of one.
	Split(split int)
	Header(split int, record []byte) error
}

// reasoner is an error that can say its reason without allocating.
type reasoner interface{ AppendReason(dst []byte) []byte }

// Columns of the rejected stream.
const (
	rejectedPayload = iota
	rejectedTopic
	rejectedReason
)

// source is the head of a source task: it decodes records, gives rows their
// event time and marks, and emits them into the chain. One Records is worked on
// until all of its rows are out; Again cuts that into pieces.
type source struct {
	task    *Task
	cfg     *SourceConfig
	link    *link
	decoder Decoder
	rows    *batch.Builder
	refused *batch.Builder
	time    *eventtime.Source
	dups    *duplicates // nil: they are not looked for
	when    *expr.Eval
	at      *expr.Eval

	recs      *sensors.Records // being worked on; nil: none
	next      int              // the next record to decode
	tooLong   int              // the next entry of recs.TooLong
	splits    []split          // by their place in Splits
	open      int              // splits that have not ended
	arrivals  []int64          // of the rows in the builder
	from      []int32          // the record of each row in the builder, or in the batch that is being emitted
	times     []int64          // event times of the batch that is being emitted
	last      batch.Mark
	over      bool // no split will bring anything any more, and the end's mark was sent
	tables    []operator.StateTable
	renumber  map[int64]int64 // of a restored source: what the splits' numbers became
	byName    map[string]int  // of a restored source
	restored  bool
	unknown   int  // splits that the state given back has not named
	moved     bool // splits were read by another subtask, or by none
	deviceKey []int
	reason    []byte
	whenCol   batch.Column
	bits      batch.Bitmap
	atCol     batch.Column
}

func newSource(t *Task, cfg *SourceConfig) (*source, error) {
	s := &source{task: t, cfg: cfg, link: t.links[0], splits: newSplits(cfg)}
	s.last = batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	s.rows = batch.NewBuilder(t.cfg.Pool, cfg.Schema)
	if cfg.Rejected != nil {
		s.refused = batch.NewBuilder(t.cfg.Pool, cfg.Rejected)
	}
	if cfg.Decoder != nil {
		var err error
		if s.decoder, err = cfg.Decoder(); err != nil {
			return nil, err
		}
	}
	if cfg.DeviceAt >= 0 {
		s.deviceKey = []int{cfg.DeviceAt}
	}
	if cfg.When != nil {
		s.whenCol.Type = batch.Boolean
		s.when, s.at = cfg.When.NewEval(), cfg.At.NewEval()
		s.atCol.Type = batch.Timestamp
	}
	s.time = eventtime.NewSource(cfg.Time, cfg.Splits, t.cfg.Pool)
	s.tables = append([]operator.StateTable{splitsTable()}, s.time.StateTables()...)
	s.dups = s.newDuplicates()
	s.open = len(cfg.Splits)
	return s, nil
}

// busy tells whether records wait to be worked on.
func (s *source) busy() bool { return s.recs != nil }

// ended tells whether no split will bring anything any more.
func (s *source) ended() bool { return s.over && s.recs == nil }

func (s *source) clock() (event, arrival dataflow.Time) { return s.last.Watermark, s.last.Arrival }

// take takes records to work on. What was appended to a split after its end was
// reported is none of the job's.
func (s *source) take(r *sensors.Records) {
	s.recs, s.next, s.tooLong = r, 0, 0
	if s.splits[r.Split].ended {
		s.next = r.Len()
	}
	if s.decoder != nil {
		s.decoder.Split(r.Split)
	}
}

// advance works on the records until they are through or the outputs are full.
func (s *source) advance() {
	for s.recs != nil && s.task.err == nil {
		if s.link.blocked() || s.task.full() {
			return
		}
		if s.next < s.recs.Len() {
			s.decode()
			s.flush(s.recs.Split)
			continue
		}
		r := s.recs
		s.recs = nil
		s.clockOf(r)
		s.ack(sensors.Position{Split: r.Split, Offset: r.Next})
	}
}

func (s *source) ack(p sensors.Position) {
	s.passed(p)
	s.task.put(Effect{Kind: Ack, Position: p})
}

// payloadOf adds the payload to the error of an operator that panicked, if the
// row is one of the batch that is being emitted: in a step that shares its times
// a row has the position that it has here.
func (s *source) payloadOf(err error) {
	var p *operator.PanicError
	if !errors.As(err, &p) || p.At == nil || s.recs == nil {
		return
	}
	for i := range s.times {
		if &s.times[i] == p.At {
			p.Payload = quote(s.recs.Payload(int(s.from[i])))
		}
	}
}

// quote is a payload in an error, cut short.
func quote(payload []byte) string {
	const most = 500
	if len(payload) > most {
		return fmt.Sprintf("%q…", payload[:most])
	}
	return fmt.Sprintf("%q", payload)
}

// decode is decodeRecords; a payload over which the decoder panics is rejected.
func (s *source) decode() {
	defer func() {
		if v := recover(); v != nil {
			s.rows.Forget(s.rows.Len() + 1)
			i := s.next
			s.next++
			s.reject(s.recs.Payload(i), s.recs.Topic(i), fmt.Errorf("panic: %.200v", v))
		}
	}()
	s.decodeRecords()
}

// decodeRecords turns records into rows until the batch is full or all are
// decoded.
func (s *source) decodeRecords() {
	r := s.recs
	sp := &s.splits[r.Split]
	for s.next < r.Len() && !s.rows.Full() {
		i := s.next
		payload, topic := r.Payload(i), r.Topic(i)
		again := s.cfg.Header && sp.again && r.First == 0
		header := s.cfg.Header && !sp.headed
		sp.headed, sp.again = sp.headed || header, false
		switch {
		case again: // known from the snapshot, and rejected before it if that was its fate
			if len(r.TooLong) > 0 && r.TooLong[0] == 0 {
				s.tooLong++
			}
			s.next++
			continue
		case s.tooLong < len(r.TooLong) && int(r.TooLong[s.tooLong]) == i: // of a header as well: half of one names the wrong columns
			s.tooLong++
			s.next++
			s.reject(payload, topic, errTooLong)
			continue
		case header:
			s.next++
			sp.header = append([]byte{}, payload...)
			if err := s.decoder.Header(r.Split, payload); err != nil {
				s.reject(payload, topic, err)
			}
			continue
		}
		n, err := s.decoder.Decode(topic, payload, s.rows)
		if err != nil && errors.Is(err, s.cfg.NoRoom) {
			if s.rows.Len() == 0 {
				panic(fmt.Sprintf("task: an empty batch has no room for a payload of %d bytes", len(payload)))
			}
			return
		}
		s.next++
		if err != nil {
			s.reject(payload, topic, err)
			continue
		}
		for range n {
			s.from = append(s.from, int32(i))
			if len(r.Arrivals) > 0 {
				s.arrivals = append(s.arrivals, r.Arrivals[i])
			}
		}
	}
}

var errTooLong = errors.New("longer than a record may be")

// reject counts a payload that is no row, and writes it to the rejected stream
// if anybody reads that.
func (s *source) reject(payload, topic []byte, why error) {
	s.link.counters.In++
	s.link.counters.Rejected++
	if r, ok := why.(reasoner); ok {
		s.reason = r.AppendReason(s.reason[:0])
	} else {
		s.reason = append(s.reason[:0], why.Error()...)
	}
	s.writeRejected(payload, topic, s.reason)
}

func (s *source) writeRejected(payload, topic, reason []byte) {
	if c := &s.link.counters; c.FirstRejected == "" {
		c.FirstRejected = string(reason)
	}
	if s.refused == nil || !s.link.Wanted(operator.Rejected) {
		return
	}
	s.refused.SetBytes(rejectedPayload, payload)
	if topic != nil {
		s.refused.SetBytes(rejectedTopic, topic)
	}
	s.refused.SetBytes(rejectedReason, reason)
	s.refused.EndRow(max(0, s.last.Arrival))
	if s.refused.Full() {
		s.flushRejected()
	}
}

func (s *source) flushRejected() {
	if s.refused == nil {
		return
	}
	if b := s.refused.Take(); b != nil {
		s.link.EmitSide(operator.Rejected, b)
		b.Release()
	}
}

// flush gives the rows built so far their time and emits them.
func (s *source) flush(split int) {
	b := s.rows.Take()
	if b != nil {
		var arrivals []int64
		if len(s.arrivals) > 0 {
			arrivals = s.arrivals
		}
		s.arrived(split, b, arrivals)
		b.Release()
	}
	s.arrivals, s.from, s.times = s.arrivals[:0], s.from[:0], nil
	s.flushRejected()
}

// arrived takes the rows of b, which nobody else sees yet.
func (s *source) arrived(split int, b *batch.Batch, arrivals []int64) {
	if s.dups != nil {
		s.assignFresh(split, b, arrivals)
		return
	}
	s.assign(split, b, arrivals, dataflow.MinTime)
}

// assign gives the rows of b, which nobody else sees yet, event times and
// marks, and emits them. The split's clock has come to until; MinTime: to where
// the rows say.
func (s *source) assign(split int, b *batch.Batch, arrivals []int64, until dataflow.Time) {
	s.link.counters.In += int64(b.Rows)
	in := eventtime.Rows{Arrivals: arrivals}
	if s.cfg.Arrival >= 0 {
		in.Arrivals = s.recordedArrivals(b.Cols[s.cfg.Arrival], b.Rows)
	}
	if s.cfg.EventAt >= 0 {
		c := b.Cols[s.cfg.EventAt]
		b.Times, in.TimeValid = c.Ints, c.Valid
	}
	if s.when != nil {
		at := s.column(s.cfg.At, s.at, b, &s.atCol)
		in.Marker, in.MarkerAt, in.MarkerValid = s.markers(b), at.Ints, at.Valid
	}
	if s.cfg.DeviceAt >= 0 {
		state.HashKeys(b, s.deviceKey)
		in.Device, in.DeviceHash = b.Cols[s.cfg.DeviceAt], b.Hashes
		b.HashedColumn, b.ColumnHashes = in.Device, in.DeviceHash // often the key of a window too
	}
	res := s.time.Assign(split, b, in)
	s.link.counters.Markers += int64(res.Markers)
	s.link.counters.Rejected += int64(len(res.Refused))
	for _, r := range res.Refused {
		s.rejectRow(r)
	}
	b.Hashes = nil
	if until != dataflow.MinTime {
		if m, news := s.time.Tick(split, until); news {
			m.Row = int32(b.Rows)
			b.AddMark(m)
		}
	}
	s.times = b.Times
	s.emit(b)
}

// column is the values of e over b: a column of b if it is no more than that,
// which nobody may write to, or else own.
func (s *source) column(e *expr.Expr, eval *expr.Eval, b *batch.Batch, own *batch.Column) *batch.Column {
	if i, ok := e.Column(); ok {
		return b.Cols[i]
	}
	eval.Into(b, own)
	s.link.counters.DivByZero += eval.DivByZero
	s.link.counters.Overflow += eval.Overflow
	eval.DivByZero, eval.Overflow = 0, 0
	return own
}

// markers are the rows where the condition of the punctuation is true; unknown
// is not.
func (s *source) markers(b *batch.Batch) batch.Bitmap {
	c := s.column(s.cfg.When, s.when, b, &s.whenCol)
	if c.Valid == nil {
		return c.Bits
	}
	s.bits = append(s.bits[:0], c.Bits[:batch.Words(b.Rows)]...)
	for w := range s.bits {
		s.bits[w] &= c.Valid[w]
	}
	return s.bits
}

// recordedArrivals are the arrivals in a column; a null is one not known.
func (s *source) recordedArrivals(c *batch.Column, n int) []int64 {
	if c.Valid == nil {
		return c.Ints[:n]
	}
	s.arrivals = append(s.arrivals[:0], c.Ints[:n]...)
	for i := range s.arrivals {
		if c.IsNull(i) {
			s.arrivals[i] = int64(dataflow.MinTime)
		}
	}
	return s.arrivals
}

// rejectRow writes the payload of a decoded row that has no usable time.
func (s *source) rejectRow(r eventtime.Refusal) {
	s.reason = append(s.reason[:0], r.Reason.String()...)
	if s.recs == nil {
		s.writeRejected(nil, nil, s.reason)
		return
	}
	i := int(s.from[r.Row])
	s.writeRejected(s.recs.Payload(i), s.recs.Topic(i), s.reason)
}

// clockOf takes what records say beside their rows: the arrival clock, that
// the split is deaf, that it has ended.
func (s *source) clockOf(r *sensors.Records) {
	sp := &s.splits[r.Split]
	if r.Clock != int64(dataflow.MinTime) && s.cfg.Arrival < 0 && !sp.ended { // recorded arrivals have no other clock beside them
		clock := dataflow.Time(r.Clock)
		switch {
		case r.Deaf:
			s.emitMark(s.time.Deaf(r.Split, clock))
		case sp.deaf:
			s.emitMark(s.time.Hearing(r.Split, clock))
		default:
			s.emitMark(s.time.Tick(r.Split, clock))
		}
		sp.deaf = r.Deaf
	}
	if r.Done {
		s.emitMark(s.time.End(r.Split))
		s.endSplit(r.Split)
	}
}

// columns takes a batch of a source that makes columns itself.
func (s *source) columns(in Input) {
	if in.Batch != nil {
		if !s.splits[in.Position.Split].ended { // as in take
			s.arrived(in.Position.Split, in.Batch, in.Arrivals)
		}
		in.Batch.Release()
		s.ack(in.Position)
	}
}

// finish says that all splits have ended, with one mark: the reader has said that
// there is no more, or somebody has ended the input.
func (s *source) finish() {
	if s.over {
		return
	}
	last, news := batch.Mark{Watermark: dataflow.MaxTime, Arrival: s.last.Arrival}, len(s.splits) == 0
	for i := range s.splits {
		if m, changed := s.time.End(i); changed {
			last, news = m, true
		}
	}
	for i := range s.splits {
		s.endSplit(i)
	}
	s.over = true
	s.emitMark(last, news)
}

func (s *source) emitMark(m batch.Mark, changed bool) {
	if !changed {
		return
	}
	b := s.task.cfg.Pool.MarksOnly(s.cfg.Schema, m)
	s.emit(b)
	b.Release()
}

func (s *source) emit(b *batch.Batch) {
	if s.cfg.Alone {
		for i := range b.Marks {
			b.Marks[i].Idle = false
		}
	}
	if n := len(b.Marks); n > 0 {
		s.last = b.Marks[n-1]
	}
	if b.Len() > 0 || len(b.Marks) > 0 {
		s.link.Emit(b)
	}
	if len(b.Marks) > 0 {
		s.link.lastMark = s.last
		s.link.markSides()
	}
}
