package ingestlog

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Pin keeps the entries from the given positions on (Split is the lane; other
// lanes are not pinned), in place of what the same name pinned before. Pins are
// not written down: after Open the owner pins before its first Append.
func (l *Log) Pin(name string, at []sensors.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pins[name] = slices.Clone(at)
}

// Unpin lets go what a name pinned.
func (l *Log) Unpin(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pins, name)
}

// MakeRoom deletes what retention lets go at an instant of the arrival clock. It
// is for an owner whose Append was refused: the clock of a log that takes
// nothing stands still. store.ErrFull: there is still no room for that.
func (l *Log) MakeRoom(now dataflow.Time) error {
	if err := l.writable(); err != nil {
		return err
	}
	l.offered = max(l.offered, now)
	l.retain()
	return l.room(l.refused)
}

// retain deletes the oldest segments as far as they may go, one after the
// other, so that after a crash there is no gap between those that are left.
func (l *Log) retain() {
	l.mu.Lock()
	for l.mayGo() {
		l.doomed = append(l.doomed, l.segs[0])
		l.segs = slices.Delete(l.segs, 0, 1)
	}
	l.mu.Unlock()
	l.reap()
}

// reap deletes what was chosen.
func (l *Log) reap() {
	l.mu.Lock()
	doomed := slices.Clone(l.doomed)
	l.mu.Unlock()
	for _, seg := range doomed {
		err := os.Remove(seg.path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			err = disk.Shared.SyncDir(l.o.Dir)
		}
		if err != nil {
			err = fmt.Errorf("ingestlog: deleting %s: %w", seg.path, err)
			l.emit(Event{Kind: Failed, File: seg.path, Err: err})
			return // it is tried again, and takes room until then
		}
		l.mu.Lock()
		l.doomed = l.doomed[1:]
		l.mu.Unlock()
		l.emit(Event{Kind: Deleted, File: seg.path})
	}
}

// mayGo tells whether nobody needs the oldest segment.
func (l *Log) mayGo() bool {
	if len(l.segs) < 2 {
		return false
	}
	end := &l.segs[1].head
	for _, at := range l.pins {
		for _, p := range at {
			if p.Split >= 0 && p.Split < len(end.lanes) && p.Offset < end.lanes[p.Split].next {
				return false
			}
		}
	}
	used := int64(0)
	for _, s := range l.segs {
		used += s.bytes
	}
	if l.held(end.seq, used) {
		return false
	}
	// The last messages are there to recognise what a broker sends again. They
	// may not use up the cap for good: then those in half of it are enough, or
	// fewer, if what comes next had no room otherwise.
	rest := used - l.segs[0].bytes
	if l.done.messages()-end.messages() < KeptMessages && (l.o.Cap == 0 || rest < l.o.Cap/2) && !l.lacks(used) {
		return false
	}
	r := &l.o.Retain
	now := max(l.done.clock(), l.offered)
	return r.Age > 0 && end.clock() < now.Add(-r.Age) || r.Bytes > 0 && (used > r.Bytes || l.lacks(used)) // a size near the cap is never reached
}

// lacks tells whether what was refused has no room beside so many bytes. What never
// has is no reason to let anything go.
func (l *Log) lacks(used int64) bool {
	need := l.refused + capSlack
	return l.refused > 0 && need <= l.o.Cap && used+l.pending+need > l.o.Cap
}
