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
	dirty   uint8 = 1 << (iota + 2) // changed since the last snapshot
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
func (d *device) counts() bool     { return d.state() == joining || d.state() == member }
func (d *device) become(s uint8)   { d.bits = d.bits&^stateBits | s | dirty }
func (d *device) has(b uint8) bool { return d.bits&b != 0 }

// devices holds the live devices of a source, and finds them by key.
type devices struct {
	slots   []device
	free    []int32  // slots of forgotten devices
	index   []uint64 // open addressing by tag: tag<<32 | slot+1; 0 is empty; at most a third full
	n       int
	fetched uint8            // of no meaning: keeps the compiler from skipping guess's reads
	long    map[int32][]byte // keys longer than inline, by slot
	counted laggard          // by watermark: the joining and the members
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

// bucket is how many entries of the index are looked at in one go: those of a
// tag begin with the bucket that it says. They lie in one line of cache.
const bucket = 4

// home is where the search for a tag begins.
func home(tag, mask uint32) uint32 { return tag & mask &^ (bucket - 1) }

// find is the slot of a device, or -1.
func (t *devices) find(tag uint32, split uint16, key []byte, null bool) int32 {
	mask := uint32(len(t.index) - 1)
	for at := home(tag, mask); ; at = (at + 1) & mask {
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

// named is is for most names, those of 8 to 16 bytes: two words, which may
// overlap. False says nothing.
func (d *device) named(split uint16, key []byte) bool {
	n := len(key)
	return n >= 8 && n <= 16 && n == int(d.size) && d.split == split && d.bits&stateBits != 0 && d.bits&nullKey == 0 &&
		binary.LittleEndian.Uint64(key) == binary.LittleEndian.Uint64(d.key[:]) &&
		binary.LittleEndian.Uint64(key[n-8:]) == binary.LittleEndian.Uint64(d.key[n-8:])
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
	return string(d.key[:d.size]) == string(key)
}

// far is how many devices do not fit into the nearest caches.
const far = 4096

// lookup finds the slots of the devices of the rows from position i on; -1: find
// has to. It goes over the rows several times, in loops so small that the
// processor waits for many lines of memory at once, and not for one after the
// other.
func (t *devices) lookup(in *Rows, i, split int, slots []int32) {
	if in.DeviceHash == nil {
		for k := range slots {
			slots[k] = -1
		}
		return
	}
	t.guess(in.DeviceHash[i:i+len(slots)], split, slots)
	if in.Device.Valid != nil || !in.Device.Type.Variable() {
		var scratch [8]byte
		for k, slot := range slots {
			if key, null := keyAt(in.Device, i+k, &scratch); !t.is(slot, uint16(split), key, null) {
				slots[k] = -1
			}
		}
		return
	}
	data, offsets := in.Device.Data, in.Device.Offsets[i:i+len(slots)+1]
	from := offsets[0]
	for k, to := range offsets[1:] {
		key := data[from:to]
		from = to
		if slot := slots[k]; slot < 0 || !t.slots[slot].named(uint16(split), key) && !t.is(slot, uint16(split), key, false) {
			slots[k] = -1
		}
	}
}

// guess is lookup without a look at the keys: the slot in the bucket that has the
// tag. If there are many devices it has the index, and then the slots, fetched.
func (t *devices) guess(hashes []uint64, split int, slots []int32) {
	index, mask := t.index, uint32(len(t.index)-1)
	fetched := uint8(0)
	if len(t.slots) >= far {
		for _, h := range hashes {
			fetched += uint8(index[home(tagOf(h, split), mask)])
		}
	}
	for k, h := range hashes {
		tag := tagOf(h, split)
		at := home(tag, mask)
		near := (*[bucket]uint64)(index[at : at+bucket])
		e0, e1, e2, e3 := near[0], near[1], near[2], near[3] // all of them, so that no branch is needed
		e := uint64(0)
		if uint32(e3>>32) == tag {
			e = e3
		}
		if uint32(e2>>32) == tag {
			e = e2
		}
		if uint32(e1>>32) == tag {
			e = e1
		}
		if uint32(e0>>32) == tag {
			e = e0
		}
		slots[k] = int32(uint32(e)) - 1
	}
	if len(t.slots) >= far {
		for _, slot := range slots {
			if slot >= 0 {
				fetched += t.slots[slot].size
			}
		}
	}
	t.fetched = fetched
}

// add makes a device that find did not find. Its state is the caller's to set.
func (t *devices) add(tag uint32, split uint16, key []byte, null bool) int32 {
	if 3*(t.n+1) > len(t.index) {
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
	at := home(tag, mask)
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
	at := home(d.tag, mask)
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
		begin := home(uint32(t.index[next]>>32), mask)
		if (next-begin)&mask >= (next-at)&mask {
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
func (t *devices) count(slot int32) { t.counted.lower(slot, t.slots[slot].watermark) }

// least is the device with the least watermark among those that count, or -1.
func (t *devices) least() int32 {
	group, w := t.counted.least(t.leastIn)
	if w == none {
		return -1
	}
	for i := group * fan; ; i++ {
		if d := &t.slots[i]; d.watermark == w && d.counts() {
			return int32(i)
		}
	}
}

// at tells whether the watermark of the device in a slot counts and is w.
func (t *devices) at(slot int32, w int64) bool {
	return int(slot) < len(t.slots) && t.slots[slot].watermark == w && t.slots[slot].counts()
}

// leastIn is the least watermark in a group of slots, or none.
func (t *devices) leastIn(group int) int64 {
	w := int64(none)
	from := group * fan
	for i := range t.slots[from:min(from+fan, len(t.slots))] {
		if d := &t.slots[from+i]; d.counts() {
			w = min(w, d.watermark)
		}
	}
	return w
}

// joinedNow says whether the device of an entry of a split's fresh is joining;
// its key is when it came.
func (t *devices) joinedNow(e entry) (key int64, ok bool) {
	d := &t.slots[e.id]
	return e.key, d.gen == e.gen && d.state() == joining
}
