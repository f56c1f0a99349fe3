package ingestlog

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tidemark-mesh/tidemark/store"
)

// This file is how a Reader comes to its blocks: from memory at the end of the
// log, from disk behind it.

// next is the block that comes next, which stays in the queue; nil: there is
// none. Blocks that were delivered before are passed over.
func (r *Reader) next() (*block, error) {
	for {
		for ; r.head < len(r.queue); r.head++ {
			b := r.queue[r.head]
			switch pos := r.pos[r.split[b.lane]]; {
			case b.next <= pos:
				r.release(b)
			case b.first > pos:
				return nil, fmt.Errorf("ingestlog: %s: lane %d: entries %d to %d are not there: %w", r.l.o.Dir, b.lane, pos, b.first-1, store.ErrCorrupt)
			default:
				return b, nil
			}
		}
		r.queue, r.head = r.queue[:0], 0
		if !r.begun {
			if err := r.start(); err != nil {
				return nil, err
			}
			r.begun = true
		}
		if more, err := r.load(); err != nil || !more {
			return nil, err
		}
	}
}

// load takes more blocks into the queue, from memory or from disk; false: all
// has been read.
func (r *Reader) load() (bool, error) {
	l := r.l
	l.mu.Lock()
	end := min(l.done.seq, l.shown)
	switch {
	case r.at >= end:
		l.mu.Unlock()
		return false, nil
	case r.at >= l.tail.first(l.done.seq):
		r.share(end)
		l.mu.Unlock()
		r.closeSegment()
		return true, nil
	}
	seg, limit := l.holding(r.at)
	l.mu.Unlock()
	if seg == nil {
		// Retention was faster; start says whether anything was missed.
		r.begun = false
		return true, nil
	}
	return true, r.loadDisk(seg, min(limit, end))
}

// share takes groups that are in memory and before end. The log's lock is held.
func (r *Reader) share(end int64) {
	t := &r.l.tail
	live := t.live()
	size := int64(0)
	for i := t.find(r.at); i < len(live) && live[i].next <= end && size < readAhead; i++ {
		for _, b := range live[i].blocks {
			if r.want[b.lane] {
				b.refs++
				r.queue = append(r.queue, b)
			}
		}
		size += live[i].bytes
		r.at = live[i].next
	}
}

// holding is the segment that has the group at seq, and where it ends; nil:
// retention has passed it. The log's lock is held.
func (l *Log) holding(seq int64) (*segment, int64) {
	for _, s := range l.segs {
		if seq >= s.head.seq && seq < s.end.seq {
			return s, s.end.seq
		}
	}
	return nil, 0
}

// loadDisk takes blocks of a segment, from r.at on. If the segment was closed or
// deleted meanwhile it takes none.
func (r *Reader) loadDisk(seg *segment, limit int64) error {
	var bad error
	badLane, size := 0, 0
	next := r.at
	err := r.pages(seg, func(db *bolt.DB) (err error) {
		next, err = scan(seg.path, db, r.at, limit, r.want, func(_ int64, lane int, data []byte) (bool, error) {
			_, why := r.c.openHead(data)
			if why == nil && r.c.lane == lane && r.c.end <= r.pos[r.split[lane]] {
				return true, nil
			}
			if size >= readAhead {
				return false, nil
			}
			if why = verify(data); why == nil && r.c.lane != lane {
				why = errMalformed
			}
			if why != nil {
				bad, badLane = why, lane
				return false, nil // first what comes before it
			}
			b := &block{lane: lane, first: r.c.offset, next: r.c.end, own: true, data: append(r.spare.take(len(data)), data...)}
			r.queue = append(r.queue, b)
			size += len(data)
			return true, nil
		})
		return err
	})
	r.at = next
	if bad != nil && len(r.queue) == 0 {
		return r.damaged(badLane, bad)
	}
	return err
}

// pages calls f with the pages of a segment. Those of the last one belong to the
// log, which may close them at any time, and any other may be deleted: then
// nothing happens, and the caller looks again where to read.
func (r *Reader) pages(seg *segment, f func(*bolt.DB) error) error {
	if r.seg != seg {
		r.closeSegment()
		db, mine, err := r.l.openSegment(seg)
		switch {
		case err != nil && r.l.gone(seg):
			return nil
		case err != nil:
			return err
		case !mine:
			if err = f(db); errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
				return nil
			}
			return err
		}
		r.seg, r.db = seg, db
	}
	return f(r.db)
}

// gone tells whether a segment was let go by retention.
func (l *Log) gone(seg *segment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		if s == seg {
			return false
		}
	}
	return true
}

// damaged names the block of a lane that cannot be read.
func (r *Reader) damaged(lane int, why error) error {
	l := r.l
	pos := r.pos[r.split[lane]]
	l.mu.Lock()
	var seg *segment
	for _, s := range l.segs {
		if pos >= s.head.lanes[lane].next && pos < s.end.lanes[lane].next {
			seg = s
		}
	}
	l.mu.Unlock()
	if seg == nil {
		return fmt.Errorf("ingestlog: %s: lane %d, from entry %d on: %w: %w", l.o.Dir, lane, pos, store.ErrCorrupt, why)
	}
	all := l.verify(seg)
	if j, ok := all.(interface{ Unwrap() []error }); ok {
		for _, err := range j.Unwrap() {
			var d *damage
			if errors.As(err, &d) && d.lane == lane && d.from <= pos && pos < d.to {
				return d
			}
		}
	}
	return fmt.Errorf("ingestlog: %s: lane %d, from entry %d on: %w: %w", seg.path, lane, pos, store.ErrCorrupt, errors.Join(why, all))
}

// start finds the group with which to begin: the first that has an entry still
// to be delivered.
func (r *Reader) start() error {
	l := r.l
	l.mu.Lock()
	r.at = l.done.seq
	l.mu.Unlock()
	for i, lane := range r.lanes {
		if err := l.kept(lane, r.pos[i]); err != nil {
			return err
		}
		for {
			found, err := r.locate(lane, r.pos[i])
			if err != nil {
				return err
			}
			if found {
				break
			}
			if err := l.kept(lane, r.pos[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// locate moves r.at to the group that has an entry of a lane, if that is before
// it; false: the segment is gone.
func (r *Reader) locate(lane int, offset int64) (bool, error) {
	l := r.l
	l.mu.Lock()
	if offset == l.done.lanes[lane].next {
		l.mu.Unlock()
		return true, nil
	}
	for _, g := range l.tail.live() {
		for _, b := range g.blocks {
			if b.lane == lane && b.first <= offset && offset < b.next {
				r.at = min(r.at, g.seq)
				l.mu.Unlock()
				return true, nil
			}
		}
	}
	var seg *segment
	var from, limit int64
	for _, s := range l.segs {
		if offset >= s.head.lanes[lane].next && offset < s.end.lanes[lane].next {
			seg, from, limit = s, s.head.seq, min(r.at, s.end.seq)
		}
	}
	l.mu.Unlock()
	if seg == nil {
		return false, nil
	}
	want := make([]bool, len(r.want))
	want[lane] = true
	found := limit <= from // another lane begins before the segment
	err := r.pages(seg, func(db *bolt.DB) error {
		found = true
		at, err := scan(seg.path, db, from, limit, want, func(_ int64, _ int, data []byte) (bool, error) {
			// One that cannot be read is found out when it is delivered.
			_, why := r.c.openHead(data)
			return why != nil || r.c.end <= offset, nil
		})
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			found = false
		}
		r.at = min(r.at, at)
		return err
	})
	return found, err
}
