package ingestlog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

const (
	// readAhead is how many bytes of blocks a reader takes at once, or one block
	// more.
	readAhead = 1 << 20
	// recordsBytes is the size at which Records take no other block.
	recordsBytes = 1 << 20
)

// Reader reads some lanes of a log: split i is the i-th of them. It is a
// sensors.Reader and a sensors.SplitNamer; one goroutine calls it, Close any.
//
// Entries come commit by commit, within a commit lane by lane, within a lane in
// order: so what is delivered depends on the log and the offsets only, not on
// max, nor on whether it came from memory or from disk. Ticks and changes of
// hearing are Records without rows; notes are skipped, so Next may pass over
// offsets. At the end of the log Read waits.
//
// It keeps nothing from being deleted: who needs entries pins them. It holds at
// most readAhead and a block of what it read from disk.
type Reader struct {
	l     *Log
	lanes []int
	split []int   // by lane of the log; -1: it is not read
	want  []bool  // the same for scan
	pos   []int64 // by split: the next entry to deliver

	begun   bool
	at      int64    // sequence of the first group that was not read whole
	queue   []*block // to be delivered, the first is at head
	head    int
	cur     *block // what c reads; nil: nothing
	c       cursor
	spare   spares // of blocks from disk
	scratch sensors.Records

	seg *segment // whose pages db has
	db  *bolt.DB

	busy    atomic.Bool // Read runs, or nobody may any more
	closing sync.Once
	closed  chan struct{}
}

// NewReader makes a reader of the given lanes, which are all different, from
// their oldest entries on if Seek says nothing else.
func (l *Log) NewReader(lanes []int) *Reader {
	r := &Reader{l: l, lanes: append([]int(nil), lanes...), closed: make(chan struct{})}
	r.spare.limit = readAhead
	r.split = make([]int, l.Lanes())
	r.want = make([]bool, l.Lanes())
	for i := range r.split {
		r.split[i] = -1
	}
	for i, lane := range lanes {
		r.split[lane], r.want[lane] = i, true
		r.pos = append(r.pos, l.Lane(lane).First)
	}
	return r
}

// Splits is the number of lanes that it reads.
func (r *Reader) Splits() int { return len(r.lanes) }

const laneName = "lane-"

// SplitName is "lane-3" for lane 3.
func (r *Reader) SplitName(split int) string { return laneName + strconv.Itoa(r.lanes[split]) }

// LaneOf is the lane that a split's name names; ok is false if it names none.
func LaneOf(splitName string) (lane int, ok bool) {
	number, ok := strings.CutPrefix(splitName, laneName)
	lane, err := strconv.Atoi(number)
	return lane, ok && err == nil && lane >= 0
}

// Ack does nothing: what is read stays until retention lets it go.
func (r *Reader) Ack(sensors.Position) {}

// Seek sets the offset of a split before the first Read. One that retention has
// passed is an error that wraps store.ErrMissing and says from where the lane
// can be read; one behind the end, too.
func (r *Reader) Seek(p sensors.Position) error {
	if p.Split < 0 || p.Split >= len(r.lanes) {
		return fmt.Errorf("ingestlog: %s: split %d of a reader of %d lanes", r.l.o.Dir, p.Split, len(r.lanes))
	}
	if r.begun {
		return fmt.Errorf("ingestlog: %s: seek to %d after the first read", r.l.o.Dir, p.Offset)
	}
	lane := r.lanes[p.Split]
	if err := r.l.kept(lane, p.Offset); err != nil {
		return err
	}
	r.pos[p.Split] = p.Offset
	return nil
}

// kept tells whether a lane can be read from an offset on.
func (l *Log) kept(lane int, offset int64) error {
	s := l.Lane(lane)
	switch {
	case offset < s.First:
		return fmt.Errorf("ingestlog: %s: lane %d: entry %d is not kept any more: %w; it can be read from %d on", l.o.Dir, lane, offset, store.ErrMissing, s.First)
	case offset > s.Next:
		return fmt.Errorf("ingestlog: %s: lane %d: entry %d was never written here: %w; the log ends with %d: is it an older copy?", l.o.Dir, lane, offset, store.ErrMissing, s.Next)
	}
	return nil
}

// Close ends a Read that waits. It may be called twice, and while Read runs.
func (r *Reader) Close() error {
	r.closing.Do(func() { close(r.closed) })
	r.free()
	return nil
}

// free gives back what a closed reader holds, unless Read runs, which does it
// when it ends. Nobody reads behind it: busy stays.
func (r *Reader) free() {
	select {
	case <-r.closed:
		if r.busy.CompareAndSwap(false, true) {
			r.letGo()
		}
	default:
	}
}

// Read is sensors.Reader's.
func (r *Reader) Read(ctx context.Context, out *sensors.Records, max int) error {
	if !r.busy.CompareAndSwap(false, true) {
		return r.ended()
	}
	err := r.read(ctx, out, max)
	r.busy.Store(false)
	r.free()
	return err
}

func (r *Reader) ended() error {
	return fmt.Errorf("ingestlog: the reader of %s: %w", r.l.o.Dir, ErrClosed)
}

func (r *Reader) read(ctx context.Context, out *sensors.Records, max int) error {
	for {
		more, err := r.stopped(ctx)
		if err != nil {
			return err
		}
		out.Reset(0)
		err = r.fill(out, max)
		if err != nil {
			r.letGo()
		}
		if out.Next > 0 {
			return nil // an error comes again, without anything before it
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-r.closed:
		case <-more:
		}
	}
}

// stopped tells whether reading has an end, and if not, what to wait for if
// there is nothing to read: it is asked for before that is looked at.
func (r *Reader) stopped(ctx context.Context) (<-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-r.closed:
		return nil, r.ended()
	default:
	}
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("ingestlog: %s: %w", l.o.Dir, ErrClosed)
	}
	l.waiting = true
	return l.more, nil
}

// letGo gives back what the reader holds.
func (r *Reader) letGo() {
	if r.cur != nil {
		r.release(r.cur)
		r.cur = nil
	}
	for ; r.head < len(r.queue); r.head++ {
		r.release(r.queue[r.head])
	}
	r.closeSegment()
	r.begun, r.at = false, 0 // the queue is gone: begin again at pos
}

func (r *Reader) closeSegment() {
	if r.db != nil {
		_ = r.db.Close()
	}
	r.db, r.seg = nil, nil
}

func (r *Reader) release(b *block) {
	if b.own {
		r.spare.give(b.data)
		return
	}
	r.l.mu.Lock()
	r.l.tail.release(b)
	r.l.mu.Unlock()
}

// fill puts into out what comes next; nothing if the log has no more.
func (r *Reader) fill(out *sensors.Records, max int) error {
	for {
		if r.cur == nil {
			b, err := r.next()
			if b == nil || err != nil {
				return err
			}
			split := r.split[b.lane]
			if out.Len() > 0 && (split != out.Split || len(out.Payloads) > recordsBytes) {
				return nil // it belongs to the next Records
			}
			r.head++
			r.cur = b
			if err = r.c.open(b.data); err == nil {
				err = r.c.skip(r.pos[split], &r.scratch)
			}
			if err != nil {
				return r.damaged(b.lane, err)
			}
		}
		out.Split = r.split[r.cur.lane]
		more, err := r.c.deliver(out, max)
		switch _, _, left := r.c.peek(); {
		case err != nil:
			return r.damaged(r.cur.lane, err)
		case more:
			r.pos[out.Split] = out.Next
			if out.Len() == 0 {
				return nil
			}
			continue
		case left:
			return nil
		}
		if err := r.c.finish(); err != nil {
			return r.damaged(r.cur.lane, err)
		}
		r.pos[r.split[r.cur.lane]] = r.c.end // notes at its end are passed, too
		r.release(r.cur)
		r.cur = nil
	}
}
