package ingestlog

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// version is that of blocks. docs/INGEST_LOG.md has the bytes.
const version = 1

const (
	// A block takes no more messages once it has so many, or so many bytes of
	// payloads.
	blockRows  = 4096
	blockBytes = 256 << 10
	// sumBytes is the checksum in front of blocks and states.
	sumBytes = 8
)

// kind is what an entry is.
type kind uint8

const (
	message kind = iota
	tick
	deaf
	note
)

// run is some entries of one kind that follow each other within a lane. gap is
// the number of entries of other lanes that came between it and the run before
// in its block.
type run struct {
	kind  kind
	count int
	gap   int64
}

// The flags of a block.
const (
	withMessages = 1 << iota
	withTags
	withTooLong
	allFlags = withMessages | withTags | withTooLong
)

// block is some entries of one lane, encoded. data never changes while somebody
// refers to the block.
type block struct {
	lane        int
	first, next int64 // offsets
	seq         int64 // of its first entry, among those of all lanes
	group       int64 // sequence of its group, where that matters
	data        []byte
	refs        int  // readers that have it, beside the tail; under the log's lock
	own         bool // a reader has loaded it from disk: nobody else refers to it
}

// builder collects the entries of a block of one lane, column by column.
type builder struct {
	first, seq int64 // of the first entry
	base       int64 // the lane's clock before it
	next       int64 // sequence behind the last entry
	entries    int
	messages   int
	tagged     bool
	runs       []run
	clocks     []byte // uvarints: how far the clock went with each message, tick and deaf
	index      []byte // uvarints: the topic of each message
	lens       []byte // uvarints: the length of each payload
	tooLong    []int32
	tags       []byte
	notes      []byte
	payloads   []byte
	topics     dictionary
}

func (b *builder) reset(first, seq, clock int64) {
	b.first, b.seq, b.base, b.next = first, seq, clock, seq
	b.entries, b.messages, b.tagged = 0, 0, false
	b.runs = b.runs[:0]
	b.clocks, b.index, b.lens = b.clocks[:0], b.index[:0], b.lens[:0]
	b.tooLong, b.tags, b.notes, b.payloads = b.tooLong[:0], b.tags[:0], b.notes[:0], b.payloads[:0]
	b.topics.reset()
}

func (b *builder) full() bool { return b.messages >= blockRows || len(b.payloads) >= blockBytes }

// add notes that n entries of a kind come now.
func (b *builder) add(k kind, n int, seq int64) {
	gap := seq - b.next
	if i := len(b.runs) - 1; i >= 0 && gap == 0 && b.runs[i].kind == k {
		b.runs[i].count += n
	} else {
		b.runs = append(b.runs, run{k, n, gap})
	}
	b.entries += n
	b.next = seq + int64(n)
}

// addMessages takes messages from to to of r, all of which have room, and
// returns the lane's clock behind them. Arrivals before clock are set to it.
func (b *builder) addMessages(r *sensors.Records, from, to int, clock, seq int64) int64 {
	n := to - from
	b.add(message, n, seq)
	start := int32(0)
	if from > 0 {
		start = r.Ends[from-1]
	}
	b.payloads = append(b.payloads, r.Payloads[start:r.Ends[to-1]]...)
	for _, end := range r.Ends[from:to] {
		b.lens = appendUvarint(b.lens, uint64(end-start))
		start = end
	}
	if len(r.Arrivals) == 0 {
		for range n {
			b.clocks = append(b.clocks, 0)
		}
	} else {
		for _, a := range r.Arrivals[from:to] {
			a = max(a, clock)
			b.clocks = appendUvarint(b.clocks, uint64(a)-uint64(clock))
			clock = a
		}
	}
	for i := from; i < to; i++ {
		b.index = appendUvarint(b.index, uint64(b.topics.number(r.Topic(i))))
	}
	for _, i := range r.TooLong {
		if i := int(i); i >= from && i < to {
			b.tooLong = append(b.tooLong, int32(b.messages+i-from))
		}
	}
	if len(r.Tags) > 0 {
		b.tagged = true
		b.tags = append(b.tags, make([]byte, 4*b.messages-len(b.tags))...)
		for _, t := range r.Tags[from:to] {
			b.tags = binary.LittleEndian.AppendUint32(b.tags, t)
		}
	}
	b.messages += n
	return clock
}

// addClock takes a tick or deaf.
func (b *builder) addClock(k kind, clock, before, seq int64) {
	b.add(k, 1, seq)
	b.clocks = appendUvarint(b.clocks, uint64(clock)-uint64(before))
}

func (b *builder) addNotes(notes []uint32, seq int64) {
	b.add(note, len(notes), seq)
	for _, n := range notes {
		b.notes = binary.LittleEndian.AppendUint32(b.notes, n)
	}
}

// encode appends the block to dst, which is empty.
func (b *builder) encode(dst []byte, lane int) []byte {
	flags := byte(0)
	if b.messages > 0 {
		flags |= withMessages
	}
	if b.tagged {
		flags |= withTags
		b.tags = append(b.tags, make([]byte, 4*b.messages-len(b.tags))...)
	}
	if len(b.tooLong) > 0 {
		flags |= withTooLong
	}
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, version, flags)
	dst = appendUvarint(dst, uint64(lane))
	dst = appendUvarint(dst, uint64(b.first))
	dst = appendUvarint(dst, uint64(b.seq))
	dst = binary.AppendVarint(dst, b.base)
	dst = appendUvarint(dst, uint64(len(b.runs)))
	for _, r := range b.runs {
		dst = appendUvarint(dst, uint64(r.count)<<2|uint64(r.kind))
		dst = appendUvarint(dst, uint64(r.gap))
	}
	dst = append(dst, b.notes...)
	dst = appendBytes(dst, b.clocks)
	if b.messages > 0 {
		dst = b.encodeMessages(dst)
	}
	binary.LittleEndian.PutUint64(dst, xxh3.Hash(dst[sumBytes:]))
	return dst
}

func (b *builder) encodeMessages(dst []byte) []byte {
	dst = appendUvarint(dst, uint64(len(b.topics.ends)))
	start := int32(0)
	for _, end := range b.topics.ends {
		dst = appendBytes(dst, b.topics.names[start:end])
		start = end
	}
	if len(b.tooLong) > 0 {
		dst = appendUvarint(dst, uint64(len(b.tooLong)))
		last := int32(0)
		for _, i := range b.tooLong {
			dst = appendUvarint(dst, uint64(i-last))
			last = i
		}
	}
	dst = appendBytes(dst, b.index)
	dst = appendBytes(dst, b.lens)
	dst = append(dst, b.tags...)
	return append(dst, b.payloads...)
}

// size is about what encode will append, and never less.
func (b *builder) size() int {
	return 128 + 20*len(b.runs) + len(b.notes) + len(b.clocks) + len(b.topics.names) + 5*len(b.topics.ends) +
		5*len(b.tooLong) + len(b.index) + len(b.lens) + 4*b.messages + len(b.payloads)
}

func appendUvarint(dst []byte, v uint64) []byte {
	if v < 0x80 {
		return append(dst, byte(v))
	}
	return binary.AppendUvarint(dst, v)
}

func appendBytes(dst, b []byte) []byte {
	return append(appendUvarint(dst, uint64(len(b))), b...)
}

// dictionary numbers the topics of a block in the order in which they come.
type dictionary struct {
	names []byte
	ends  []int32
	last  int      // number of the last topic asked for
	then  []uint16 // by number: the topic that came after it the last time, since devices take turns
	slots []uint16 // open addressing by hash, of a power of two: number + 1
}

func (d *dictionary) reset() {
	if len(d.slots) > 64 && len(d.slots) > 16*len(d.ends) {
		d.slots = nil // a block with many topics does not make those with few dear
	}
	d.names, d.ends, d.then, d.last = d.names[:0], d.ends[:0], d.then[:0], 0
	clear(d.slots)
}

func (d *dictionary) name(i int) []byte {
	start := int32(0)
	if i > 0 {
		start = d.ends[i-1]
	}
	return d.names[start:d.ends[i]]
}

func (d *dictionary) number(topic []byte) int {
	if len(d.ends) > 0 {
		if n := int(d.then[d.last]); bytes.Equal(d.name(n), topic) {
			d.last = n
			return n
		}
	}
	before := d.last
	d.last = d.find(topic)
	d.then[before] = uint16(d.last)
	return d.last
}

func (d *dictionary) find(topic []byte) int {
	if 2*len(d.ends) >= len(d.slots) {
		d.grow()
	}
	mask := uint64(len(d.slots) - 1)
	for s := xxh3.Hash(topic) & mask; ; s = (s + 1) & mask {
		switch n := int(d.slots[s]); {
		case n == 0:
			d.names = append(d.names, topic...)
			d.ends = append(d.ends, int32(len(d.names)))
			d.slots[s] = uint16(len(d.ends))
			d.then = append(d.then, uint16(len(d.ends)-1)) // the same again
			return len(d.ends) - 1
		case bytes.Equal(d.name(n-1), topic):
			return n - 1
		}
	}
}

func (d *dictionary) grow() {
	size := max(64, 1<<bits.Len(uint(2*len(d.ends))))
	if size <= len(d.slots) {
		size = 2 * len(d.slots)
	}
	d.slots = make([]uint16, size)
	mask := uint64(size - 1)
	for i := range d.ends {
		s := xxh3.Hash(d.name(i)) & mask
		for d.slots[s] != 0 {
			s = (s + 1) & mask
		}
		d.slots[s] = uint16(i + 1)
	}
}
