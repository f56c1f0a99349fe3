package ingestlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/store"
)

// This file is how entries become durable. A commit is one transaction of the
// last segment. When it fails there are three cases:
//
//   - The disk was full while pages were written: the file is as it was, as far
//     as anyone can see, and the same is written again.
//   - Anything else: what is in the file, and what of it will be there after a
//     power loss, nobody knows. What was durable before still is. Nothing is
//     added to that segment any more: the next Commit begins another one, whose
//     head says where the one before ends, so that what may be in it twice
//     counts once. A log that is opened does not know that it was so, and takes
//     what the file shows: for that it makes it durable first (segment.confirm).
//   - No other segment can be made either: the commit fails again, and nothing
//     is acknowledged until one can.

// Commit makes durable and then visible what was appended. After an error
// nothing of it is visible, and the next Commit writes the same again:
// store.ErrFull means that the disk is full, anything else that it fails. Of a
// log that is led it is Stage and Write.
func (l *Log) Commit() error {
	if err := l.writable(); err != nil {
		return err
	}
	if l.epoch > 0 {
		if _, err := l.Stage(); err != nil {
			return err
		}
		return l.Write()
	}
	l.complete()
	if len(l.batch) == 0 {
		return nil
	}
	l.spent = append(l.spent[:0], bundle{seq: l.done.seq, next: l.app.seq, blocks: l.batch})
	if err := l.write(&l.app); err != nil {
		return err
	}
	l.batch, l.pending = nil, 0
	l.settled()
	return nil
}

// complete makes blocks of all that was appended, in the order of lanes.
func (l *Log) complete() {
	for _, lane := range l.dirty {
		l.seal(lane)
	}
	l.dirty = l.dirty[:0]
	slices.SortStableFunc(l.batch, func(a, b *block) int {
		return cmp.Or(cmp.Compare(a.lane, b.lane), cmp.Compare(a.first, b.first))
	})
}

// settled says that there is room, if there was none, and lets go what may go.
func (l *Log) settled() {
	if !l.capped {
		l.hasRoom()
	}
	l.retain()
}

// last is the segment that is written. Only the owner changes which it is.
func (l *Log) last() *segment { return l.segs[len(l.segs)-1] }

// write makes the groups in spent durable, and then tells readers; end is the
// state behind them.
func (l *Log) write(end *state) error {
	err := l.store(end)
	switch {
	case err == nil:
		l.publish(end)
	case errors.Is(err, store.ErrFull):
		return l.refuse(err)
	default:
		l.emit(Event{Kind: Failed, File: l.last().path, Err: err})
	}
	return err
}

// store puts the groups into the last segment, or into a new one if that is full
// or not to be trusted.
func (l *Log) store(end *state) error {
	if err := l.rollIfDue(); err != nil {
		return err
	}
	seg := l.last()
	end.segment, end.anew = seg.head.segment, false
	l.scratch = end.encode(l.scratch)
	unsure, err := seg.write(l.spent, l.scratch)
	if err != nil {
		l.unsure = unsure
		return fmt.Errorf("ingestlog: %s: commit of %d bytes: %w", seg.path, l.pending, err)
	}
	return nil
}

// publish makes the groups in spent visible, or, in a log that is led or follows,
// ready to be.
func (l *Log) publish(end *state) {
	seg := l.last()
	_, size, err := seg.last()
	l.wrote = true
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.follows {
		l.tail.clear() // nobody reads here
	} else {
		for _, w := range l.spent {
			g := group{seq: w.seq, next: w.next, blocks: w.blocks}
			for _, b := range w.blocks {
				g.bytes += int64(cap(b.data)) + 128
			}
			l.tail.push(g)
		}
	}
	clear(l.spent)
	l.done.become(end)
	seg.end.become(end)
	if err == nil {
		seg.bytes = size
	}
	if l.shown >= l.done.seq {
		l.wake()
	}
}

// wake tells readers that there is more. The lock is held.
func (l *Log) wake() {
	if l.waiting {
		l.waiting = false
		close(l.more)
		l.more = make(chan struct{})
	}
}

// rollIfDue begins a new segment if the last one has its size, is too old to be
// deleted in time, or is not to be trusted.
func (l *Log) rollIfDue() error {
	seg := l.last()
	empty := seg.end.seq == seg.head.seq
	old := l.o.Retain.Age > 0 && !empty && l.done.clock() > seg.head.clock().Add(l.o.Retain.Age/8)
	if !l.unsure && (empty || seg.bytes < l.o.SegmentBytes && !old) {
		return nil
	}
	return l.roll()
}

func (l *Log) roll() error {
	old := l.last()
	head := l.done.clone()
	head.segment = old.head.segment + 1
	seg, err := l.o.create(head)
	if err != nil {
		return err
	}
	l.mu.Lock()
	db := old.db
	old.db = nil
	l.segs = append(l.segs, seg)
	l.mu.Unlock()
	if !l.unsure {
		_ = old.settle(db) // all that counts is durable, whatever becomes of this
	}
	l.unsure = false
	_ = db.Close()
	l.emit(Event{Kind: Rolled, File: seg.path})
	return nil
}
