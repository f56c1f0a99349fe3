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
//     counts once.
//   - No other segment can be made either: the commit fails again, and nothing
//     is acknowledged until one can.

// Commit makes durable and then visible what was appended. After an error
// nothing of it is visible, and the next Commit writes the same again:
// store.ErrFull means that the disk is full, anything else that it fails.
func (l *Log) Commit() error {
	if err := l.writable(); err != nil {
		return err
	}
	for _, lane := range l.dirty {
		l.seal(lane)
	}
	l.dirty = l.dirty[:0]
	if len(l.batch) == 0 {
		return nil
	}
	slices.SortStableFunc(l.batch, func(a, b *block) int {
		return cmp.Or(cmp.Compare(a.lane, b.lane), cmp.Compare(a.first, b.first))
	})
	if err := l.write(); err != nil {
		if errors.Is(err, store.ErrFull) {
			return l.refuse(err)
		}
		l.emit(Event{Kind: Failed, File: l.last().path, Err: err})
		return err
	}
	l.publish()
	if !l.capped {
		l.hasRoom()
	}
	l.retain()
	return nil
}

// last is the segment that is written. Only the owner changes which it is.
func (l *Log) last() *segment { return l.segs[len(l.segs)-1] }

// write puts the batch into the last segment, or into a new one if that is full
// or not to be trusted.
func (l *Log) write() error {
	if err := l.rollIfDue(); err != nil {
		return err
	}
	seg := l.last()
	l.app.segment = seg.head.segment
	l.scratch = l.app.encode(l.scratch)
	unsure, err := seg.write(l.done.seq, l.app.seq, l.batch, l.scratch)
	if err != nil {
		l.unsure = unsure
		return fmt.Errorf("ingestlog: %s: commit of %d bytes: %w", seg.path, l.pending, err)
	}
	return nil
}

// publish makes the batch visible.
func (l *Log) publish() {
	seg := l.last()
	_, size, err := seg.last()
	g := group{seq: l.done.seq, next: l.app.seq, blocks: l.batch}
	for _, b := range l.batch {
		g.bytes += int64(cap(b.data)) + 128
	}
	l.batch = nil
	l.pending = 0
	l.wrote = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done.seq = l.app.seq
	copy(l.done.lanes, l.app.lanes)
	seg.end.seq = l.done.seq
	copy(seg.end.lanes, l.done.lanes)
	if err == nil {
		seg.bytes = size
	}
	l.tail.push(g)
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
