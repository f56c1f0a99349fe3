package eventtime

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// The tables of a Source's state. Both go to every subtask, which takes the
// rows of its own splits.
const (
	splitTable = iota
	deviceTable
)

// The columns of the table of splits.
const (
	splitNumber = iota
	splitWatermark
	splitClock
	splitDeafFor
	splitDeafSince // null: not deaf
	splitLast
	splitIdle
	splitEnded
	splitStarted
	splitWaived
	splitOut // what the subtask had told its stream
	splitOutArrival
	splitOutIdle
)

// The columns of the table of devices.
const (
	deviceSplit = iota
	deviceName
	deviceState
	deviceWatermark
	deviceLast
	deviceJoined // null: not joining
)

// perNote is the split of a row of the table of devices that is none: in place of
// a device's key it has Config.Per. Programs that do not know it pass it over, as a
// split that is nobody's. A column would be in the way of checkpoints of subtasks
// in agents of two releases: a table has one schema.
const perNote = -1

// StateTables are the tables of every Source's state, with schemas made anew: a
// package holds no variables.
func StateTables() []operator.StateTable {
	return []operator.StateTable{
		{Name: "splits", Spread: operator.Union, Schema: batch.MustSchema(
			batch.Field{Name: "split", Type: batch.Bigint},
			batch.Field{Name: "watermark", Type: batch.Timestamp},
			batch.Field{Name: "clock", Type: batch.Timestamp},
			batch.Field{Name: "deaf_for", Type: batch.Bigint},
			batch.Field{Name: "deaf_since", Type: batch.Timestamp},
			batch.Field{Name: "last", Type: batch.Timestamp},
			batch.Field{Name: "idle", Type: batch.Boolean},
			batch.Field{Name: "ended", Type: batch.Boolean},
			batch.Field{Name: "started", Type: batch.Boolean},
			batch.Field{Name: "waived", Type: batch.Boolean},
			batch.Field{Name: "out_watermark", Type: batch.Timestamp},
			batch.Field{Name: "out_arrival", Type: batch.Timestamp},
			batch.Field{Name: "out_idle", Type: batch.Boolean},
		)},
		{Name: "devices", Spread: operator.Union, Identity: 2, Schema: batch.MustSchema(
			batch.Field{Name: "split", Type: batch.Bigint},
			batch.Field{Name: "device", Type: batch.Bytes},
			batch.Field{Name: "state", Type: batch.Bigint},
			batch.Field{Name: "watermark", Type: batch.Timestamp},
			batch.Field{Name: "last", Type: batch.Timestamp},
			batch.Field{Name: "joined", Type: batch.Timestamp},
		)},
	}
}

// StateTables names the tables of the source's state; see operator.Stateful for
// what it, Snapshot and Restore promise.
func (s *Source) StateTables() []operator.StateTable { return s.tables }

// Snapshot emits the state. It is taken between calls, when the stream has been
// told everything.
func (s *Source) Snapshot(delta bool, emit func(table int, b *batch.Batch) error) error {
	s.ready()
	w := stateWriter{emit: emit, table: splitTable, bl: batch.NewBuilder(s.pool, s.tables[splitTable].Schema)}
	for i := range s.splits {
		s.saveSplit(w.bl, &s.splits[i])
		if err := w.next(); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil || s.devices == nil {
		return err
	}
	w = stateWriter{emit: emit, table: deviceTable, bl: batch.NewBuilder(s.pool, s.tables[deviceTable].Schema)}
	return s.saveDevices(delta, &w)
}

// stateWriter cuts a table into batches.
type stateWriter struct {
	bl    *batch.Builder
	table int
	emit  func(table int, b *batch.Batch) error
}

func (w *stateWriter) next() error {
	w.bl.EndRow(0)
	if w.bl.Full() {
		return w.flush()
	}
	return nil
}

func (w *stateWriter) flush() error {
	b := w.bl.Take()
	if b == nil {
		return nil
	}
	defer b.Release()
	return w.emit(w.table, b)
}

func (s *Source) saveSplit(bl *batch.Builder, sp *split) {
	watermark := sp.watermark
	if s.devices != nil {
		watermark = s.now.Watermark // where it goes on if the job gives up `per:`
	}
	bl.SetInt(splitNumber, int64(sp.number))
	bl.SetInt(splitWatermark, int64(watermark))
	bl.SetInt(splitClock, int64(sp.clock))
	bl.SetInt(splitDeafFor, int64(sp.deafFor))
	if sp.deaf {
		bl.SetInt(splitDeafSince, int64(sp.deafSince))
	}
	bl.SetInt(splitLast, int64(sp.last))
	bl.SetBool(splitIdle, sp.idle)
	bl.SetBool(splitEnded, sp.ended)
	bl.SetBool(splitStarted, sp.started)
	bl.SetBool(splitWaived, sp.waived)
	bl.SetInt(splitOut, int64(s.now.Watermark))
	bl.SetInt(splitOutArrival, int64(s.now.Arrival))
	bl.SetBool(splitOutIdle, s.now.Idle)
}

// saveDevices emits the devices that were forgotten since the last snapshot
// (for a delta), then those that are there.
func (s *Source) saveDevices(delta bool, w *stateWriter) error {
	t := s.devices
	if s.cfg.Per != "" && !delta { // which has a whole one before it
		w.bl.SetInt(deviceSplit, perNote)
		w.bl.SetString(deviceName, s.cfg.Per)
		if err := w.next(); err != nil {
			return err
		}
	}
	if delta {
		for _, g := range t.gone {
			w.bl.SetInt(deviceSplit, int64(s.splits[g.split].number))
			if !g.null {
				w.bl.SetBytes(deviceName, g.key)
			}
			w.bl.EndRow(0)
			w.bl.Kind(batch.Delete)
			if w.bl.Full() {
				if err := w.flush(); err != nil {
					return err
				}
			}
		}
	}
	joined := make(map[int32]int64)
	for i := range s.splits {
		s.splits[i].fresh.each(func(e entry) {
			if t.slots[e.id].gen == e.gen {
				joined[e.id] = e.key
			}
		})
	}
	for i := range t.slots {
		slot := int32(i)
		d := &t.slots[slot]
		if d.state() == 0 || delta && !d.has(dirty) {
			continue
		}
		w.bl.SetInt(deviceSplit, int64(s.splits[d.split].number))
		if !d.has(nullKey) {
			w.bl.SetBytes(deviceName, t.keyOf(slot))
		}
		w.bl.SetInt(deviceState, int64(d.state()))
		w.bl.SetInt(deviceWatermark, d.watermark)
		w.bl.SetInt(deviceLast, d.last)
		if since, ok := joined[slot]; ok && d.state() == joining {
			w.bl.SetInt(deviceJoined, since)
		}
		if err := w.next(); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	t.gone = nil
	for i := range t.slots {
		if d := &t.slots[i]; d.state() != 0 {
			d.bits = d.bits&^dirty | saved
		}
	}
	return nil
}

// Restore takes back rows of a table; those of other subtasks' splits are
// passed over. A split that was not there before goes on where the source
// stands and holds it there, like a new device.
func (s *Source) Restore(table int, b *batch.Batch) error {
	s.restored = true
	byNumber := make(map[int64]*split, len(s.splits))
	for i := range s.splits {
		byNumber[int64(s.splits[i].number)] = &s.splits[i]
	}
	for k := range b.Len() {
		i := b.Position(k)
		number := b.Cols[0].Ints[i]
		sp := byNumber[number]
		switch {
		case table == deviceTable && number == perNote:
			s.strangers = s.strangers || s.cfg.Per != "" && s.cfg.Per != string(b.Cols[deviceName].At(i))
		case sp == nil:
		case table == splitTable:
			s.restoreSplit(sp, b, i)
		case s.devices != nil:
			s.restoreDevice(sp, b, i)
		}
	}
	return nil
}

func (s *Source) restoreSplit(sp *split, b *batch.Batch, i int) {
	at := func(c int) dataflow.Time { return dataflow.Time(b.Cols[c].Ints[i]) }
	sp.known = true
	if s.devices == nil {
		sp.watermark = at(splitWatermark)
		sp.idle = b.Cols[splitIdle].Bits.Get(i)
	}
	sp.clock, sp.heard = at(splitClock), at(splitClock)
	sp.deafFor = dataflow.Duration(at(splitDeafFor))
	if sp.deaf = !b.Cols[splitDeafSince].IsNull(i); sp.deaf {
		sp.deafSince = at(splitDeafSince)
		sp.heard = sp.deafSince
	}
	if sp.clock != dataflow.MinTime {
		sp.heard = sp.heard.Add(-sp.deafFor)
	}
	sp.last = at(splitLast)
	sp.ended = b.Cols[splitEnded].Bits.Get(i)
	sp.started = b.Cols[splitStarted].Bits.Get(i)
	sp.waived = b.Cols[splitWaived].Bits.Get(i)

	out := batch.Mark{Watermark: at(splitOut), Arrival: at(splitOutArrival), Idle: b.Cols[splitOutIdle].Bits.Get(i)}
	if s.inherited == 0 {
		s.sent = out
	} else {
		s.sent.Watermark = min(s.sent.Watermark, out.Watermark)
		s.sent.Arrival = min(s.sent.Arrival, out.Arrival)
		s.sent.Idle = s.sent.Idle && out.Idle
	}
	s.inherited++
}

func (s *Source) restoreDevice(sp *split, b *batch.Batch, i int) {
	t := s.devices
	key, null := b.Cols[deviceName].At(i), b.Cols[deviceName].IsNull(i)
	if null {
		key = nil
	}
	slot := t.add(tagOf(hashKey(key), sp.index), uint16(sp.index), key, null)
	d := &t.slots[slot]
	d.bits |= uint8(b.Cols[deviceState].Ints[i]) & stateBits
	d.bits = d.bits&^dirty | saved
	d.watermark = b.Cols[deviceWatermark].Ints[i]
	d.last = b.Cols[deviceLast].Ints[i]
	if s.cfg.IdleAfter > 0 {
		sp.silence.lower(slot, d.last)
		if joined := b.Cols[deviceJoined]; !joined.IsNull(i) {
			sp.fresh.push(entry{key: joined.Ints[i], id: slot, gen: d.gen})
		}
	}
}

// ready puts a restored source together, once, before its first call.
func (s *Source) ready() {
	if !s.restored {
		return
	}
	s.restored = false
	if s.strangers && s.devices != nil {
		s.dropDevices()
	}
	s.now = s.sent
	s.open, s.holding, s.started = 0, 0, 0
	inputs := make([]Input, len(s.splits))
	for i := range s.splits {
		sp := &s.splits[i]
		if !sp.known && s.devices == nil {
			sp.watermark = s.sent.Watermark
		}
		if sp.clock != dataflow.MinTime && s.cfg.IdleAfter > 0 && !sp.idle && !sp.ended {
			sp.deadline = dataflow.MinTime // to be worked out at the next arrival
		}
		inputs[i] = Input{Watermark: sp.watermark, Arrival: sp.clock, Idle: sp.idle, Ended: sp.ended}
		switch {
		case sp.ended:
			continue
		case sp.started:
			s.started++
		case !sp.waived:
			s.holding++
		}
		s.open++
	}
	s.merge = RestoreMerge(s.now, inputs)
	if s.open == 0 {
		s.now = s.merge.Out()
	}
	if s.devices == nil {
		return
	}
	for i := range s.devices.slots {
		if s.devices.slots[i].state() != waiting {
			s.devices.count(int32(i))
		}
	}
	s.settle()
}

// dropDevices lets go of restored devices that will never be heard of again, as
// rows have other names now. The source goes on from where it stood, and each split
// holds it there until it shows a device, like one that was not there before.
func (s *Source) dropDevices() {
	s.devices, s.strangers = newDevices(), false
	for i := range s.splits {
		sp := &s.splits[i]
		sp.silence, sp.fresh = laggard{}, queue{}
		if sp.started {
			sp.started, sp.waived, sp.last = false, false, sp.heard
		}
	}
}
