package eventtime

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// A device is in one of these states; one that is silent for longer than
// idle_after is in none, because it is forgotten: should it come back, it is
// new.
//
//	joining  new: it holds the source at the watermark at which it came
//	member   its own watermark counts
//	waiting  was new for longer than idle_after and has not marked: it does
//	         not count until it does
//
//	joining --first marker, or own watermark beyond the source's--> member
//	joining --idle_after since it came-->                           waiting
//	waiting --first marker, or own watermark beyond the source's--> member
const (
	joining   uint8 = iota + 1
	member          //
	waiting         //
	stateBits = 3
)

// The other bits of device.bits.
const (
	queued  uint8 = 1 << (iota + 2) // it has an entry in devices.counted
	dirty                           // changed since the last snapshot
	saved                           // in the last snapshot
	nullKey                         // the device column is null
)

// inline is the longest key that a device holds itself: with it a device is
// one cache line, and a textual UUID fits.
const inline = 36

// device is what is known of a live device of a split.
type device struct {
	watermark int64 // joining: the source's when it came; waiting: of no meaning
	last      int64 // the split's heard time at its last row
	gen       uint32
	tag       uint32 // of its hash and split: what the index finds it by
	split     uint16
	bits      uint8
	size      uint8 // of the key; over inline: it is in devices.long
	key       [inline]byte
}

func (d *device) state() uint8     { return d.bits & stateBits }
func (d *device) become(s uint8)   { d.bits = d.bits&^stateBits | s | dirty }
func (d *device) has(b uint8) bool { return d.bits&b != 0 }

// devices holds the live devices of a source, and finds them by key.
type devices struct {
	slots   []device
	free    []int32  // slots of forgotten devices
	index   []uint64 // open addressing by tag: tag<<32 | slot+1; 0 is empty; at most half full
	n       int
	fetched uint8            // of no meaning: keeps the compiler from skipping foresee's reads
	long    map[int32][]byte // keys longer than inline, by slot
	counted queue            // by watermark: the joining and the members
	gone    []deviceKey      // forgotten since the last snapshot, which has them
}

// deviceKey names a device outside the table.
type deviceKey struct {
	split uint16
	null  bool
	key   []byte
}

func newDevices() *devices {
	return &devices{index: make([]uint64, 64), long: make(map[int32][]byte)}
}

// tagOf is the part of a device's hash that the index uses.
func tagOf(hash uint64, split int) uint32 { return uint32(hash>>32) ^ uint32(split)*0x9e3779b1 }

// hashKey is the hash of a device key: that of a key of one column.
func hashKey(key []byte) uint64 { return xxh3.Hash(key) }

// keyAt is the device key at position i, encoded as a key of one column; fixed
// types are put into scratch. Null is no bytes.
func keyAt(c *batch.Column, i int, scratch *[8]byte) (key []byte, null bool) {
	if c.IsNull(i) {
		return nil, true
	}
	switch c.Type {
	case batch.Bigint, batch.Timestamp:
		binary.LittleEndian.PutUint64(scratch[:], uint64(c.Ints[i]))
	case batch.Double:
		binary.LittleEndian.PutUint64(scratch[:], state.DoubleBits(c.Doubles[i]))
	case batch.Boolean:
		scratch[0] = 0
		if c.Bits.Get(i) {
			scratch[0] = 1
		}
		return scratch[:1], false
	default:
		return c.At(i), false
	}
	return scratch[:], false
}

// find is the slot of a device, or -1.
func (t *devices) find(tag uint32, split uint16, key []byte, null bool) int32 {
	mask := uint32(len(t.index) - 1)
	for at := tag & mask; ; at = (at + 1) & mask {
		e := t.index[at]
		if e == 0 {
			return -1
		}
		if uint32(e>>32) != tag {
			continue
		}
		if slot := int32(uint32(e)) - 1; t.is(slot, split, key, null) {
			return slot
		}
	}
}

// is tells whether a device is in the slot, and is that one. Slot -1 is nobody's.
func (t *devices) is(slot int32, split uint16, key []byte, null bool) bool {
	if slot < 0 {
		return false
	}
	d := &t.slots[slot]
	if d.split != split || d.has(nullKey) != null || d.state() == 0 {
		return false
	}
	if d.size > inline {
		return string(t.long[slot]) == string(key)
	}
	if n := len(key); n == int(d.size) && n >= 8 && n <= 16 { // most names: two words, which may overlap
		return binary.LittleEndian.Uint64(key) == binary.LittleEndian.Uint64(d.key[:]) &&
			binary.LittleEndian.Uint64(key[n-8:]) == binary.LittleEndian.Uint64(d.key[n-8:])
	}
	return string(d.key[:d.size]) == string(key)
}

// foresee guesses the slots of the devices of the rows from position i on, -1
// for none, and has them fetched from memory: first every place in the index is
// read, then every device. So the processor waits for many lines at once, and
// not for one after the other. Without the keys no more can be said.
func (t *devices) foresee(in *Rows, i, split int, slots []int32) {
	if in.DeviceHash == nil {
		for k := range slots {
			slots[k] = -1
		}
		return
	}
	mask := uint32(len(t.index) - 1)
	for k, h := range in.DeviceHash[i : i+len(slots)] {
		tag := tagOf(h, split)
		e := t.index[tag&mask]
		if uint32(e>>32) != tag {
			e = t.index[(tag+1)&mask]
		}
		slots[k] = int32(uint32(e)) - 1
	}
	fetched := uint8(0)
	for _, slot := range slots {
		if slot >= 0 {
			fetched += t.slots[slot].size
		}
	}
	t.fetched = fetched
}

// add makes a device that find did not find. Its state is the caller's to set.
func (t *devices) add(tag uint32, split uint16, key []byte, null bool) int32 {
	if 2*(t.n+1) > len(t.index) {
		t.grow()
	}
	var slot int32
	if n := len(t.free); n > 0 {
		slot = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		slot = int32(len(t.slots))
		t.slots = append(t.slots, device{})
	}
	d := &t.slots[slot]
	*d = device{gen: d.gen, tag: tag, split: split, size: uint8(min(len(key), inline+1)), bits: dirty}
	if null {
		d.bits |= nullKey
	}
	if len(key) <= inline {
		copy(d.key[:], key)
	} else {
		t.long[slot] = append([]byte(nil), key...)
	}
	t.enter(tag, slot)
	t.n++
	return slot
}

func (t *devices) enter(tag uint32, slot int32) {
	mask := uint32(len(t.index) - 1)
	at := tag & mask
	for t.index[at] != 0 {
		at = (at + 1) & mask
	}
	t.index[at] = uint64(tag)<<32 | uint64(slot+1)
}

func (t *devices) grow() {
	old := t.index
	t.index = make([]uint64, 2*len(old))
	for _, e := range old {
		if e != 0 {
			t.enter(uint32(e>>32), int32(uint32(e))-1)
		}
	}
}

// forget removes a device. Its entries in queues are stale from here on.
func (t *devices) forget(slot int32) {
	d := &t.slots[slot]
	if d.has(saved) {
		t.gone = append(t.gone, deviceKey{split: d.split, null: d.has(nullKey), key: append([]byte(nil), t.keyOf(slot)...)})
	}
	mask := uint32(len(t.index) - 1)
	at := d.tag & mask
	for uint32(t.index[at]) != uint32(slot+1) {
		at = (at + 1) & mask
	}
	t.vacate(at)
	delete(t.long, slot)
	d.gen++
	d.bits = 0
	t.free = append(t.free, slot)
	t.n--
}

// vacate empties a place of the index and moves those behind it up, so that no
// probe ends too soon.
func (t *devices) vacate(at uint32) {
	mask := uint32(len(t.index) - 1)
	for next := (at + 1) & mask; t.index[next] != 0; next = (next + 1) & mask {
		home := uint32(t.index[next]>>32) & mask
		if (next-home)&mask >= (next-at)&mask {
			t.index[at] = t.index[next]
			at = next
		}
	}
	t.index[at] = 0
}

// keyOf is the key of the device in a slot.
func (t *devices) keyOf(slot int32) []byte {
	if d := &t.slots[slot]; d.size <= inline {
		return d.key[:d.size]
	}
	return t.long[slot]
}

// count puts a device among those whose watermark counts.
func (t *devices) count(slot int32) {
	d := &t.slots[slot]
	if d.has(queued) {
		return // it has an entry from before it was waiting; that is low enough
	}
	if t.counted.n > 2*t.n+64 {
		t.compact()
	}
	d.bits |= queued
	t.counted.push(entry{key: d.watermark, id: slot, gen: d.gen})
}

// compact rids the queue of the entries of forgotten devices. It is called when
// they are more than half, so it costs O(1) for each.
func (t *devices) compact() {
	var live queue
	t.counted.each(func(e entry) {
		if t.slots[e.id].gen == e.gen {
			live.push(e)
		}
	})
	t.counted = live
}

// least is the device with the least watermark among those that count, or -1.
func (t *devices) least() int32 {
	for {
		e, ok := t.counted.least()
		if !ok {
			if !t.counted.refill(t.watermarkNow) {
				return -1
			}
			continue
		}
		switch key, ok := t.watermarkNow(e); {
		case !ok:
			t.counted.drop()
		case key > e.key:
			t.counted.raise(e, key)
		default:
			return e.id
		}
	}
}

// watermarkNow is the watermark of the device of an entry of counted; ok is
// false if it does not count.
func (t *devices) watermarkNow(e entry) (key int64, ok bool) {
	d := &t.slots[e.id]
	if d.gen != e.gen {
		return 0, false
	}
	if d.state() == waiting {
		d.bits &^= queued
		return 0, false
	}
	return d.watermark, true
}

// lastNow is when the device of an entry of a split's silence was last heard of.
// All devices of the split are there, so it is never gone.
func (t *devices) lastNow(e entry) (key int64, ok bool) { return t.slots[e.id].last, true }

// joinedNow says whether the device of an entry of a split's fresh is joining;
// its key is when it came.
func (t *devices) joinedNow(e entry) (key int64, ok bool) {
	d := &t.slots[e.id]
	return e.key, d.gen == e.gen && d.state() == joining
}
