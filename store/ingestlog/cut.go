package ingestlog

import (
	"errors"
	"fmt"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// This file takes entries away again: those that never belonged to the log,
// because its members went on without them. A crash at any step leaves a log
// that is whole, and the cut is made again.

// CutTo removes all groups that end behind seq, and returns where the log ends
// then. Nobody may read it, and no epoch be led. What retention let go is
// store.ErrMissing, and nothing is done. After another error the log must be
// opened again.
//
// Whole segments go first, the newest first. Then the last that is left may show
// more than the next one began with, where a commit had failed: that is cut with
// the rest.
func (l *Log) CutTo(seq int64) (int64, error) {
	if err := l.writable(); err != nil {
		return 0, err
	}
	if l.epoch > 0 {
		return 0, fmt.Errorf("ingestlog: %s: epoch %d is led: nothing is cut", l.o.Dir, l.epoch)
	}
	if seq >= l.done.seq {
		return l.done.seq, nil
	}
	if first := l.segs[0].head.seq; seq < first {
		return 0, fmt.Errorf("ingestlog: %s: cutting back to %d: %w: it begins with %d", l.o.Dir, seq, store.ErrMissing, first)
	}
	if err := l.cutTo(seq); err != nil {
		l.broken = fmt.Errorf("ingestlog: %s: cutting back to %d: %w", l.o.Dir, seq, disk.Full(err))
		return 0, l.broken
	}
	return l.done.seq, nil
}

// Broken is why the log must be opened again; nil: it need not be. The owner calls it.
func (l *Log) Broken() error { return l.broken }

func (l *Log) cutTo(seq int64) error {
	l.forget()
	for l.last().head.seq > seq {
		if err := l.dropLast(); err != nil {
			return err
		}
	}
	seg := l.last()
	unsure := l.unsure || seg.db == nil // a commit may have failed when it was the last one
	if seg.db == nil {
		db, err := l.o.openFile(seg.path, false, lockPatience)
		if err != nil {
			return err
		}
		l.mu.Lock()
		seg.db = db
		l.mu.Unlock()
	}
	if unsure {
		if err := seg.confirm(l.o.FS); err != nil {
			return err
		}
		l.unsure = false
	}
	end, err := seg.cut(seq)
	if err != nil {
		return err
	}
	_, size, err := seg.last()
	l.mu.Lock()
	seg.end = end.clone()
	if err == nil {
		seg.bytes = size
	}
	l.mu.Unlock()
	l.at(end)
	l.wrote = true
	return nil
}

// forget lets go what is in memory.
func (l *Log) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail.clear()
}

// dropLast removes the last segment, durably.
func (l *Log) dropLast() error {
	seg := l.last()
	l.mu.Lock()
	db := seg.db
	seg.db = nil
	l.mu.Unlock()
	if db != nil {
		if err := db.Close(); err != nil {
			return err
		}
	}
	if err := l.remove(seg); err != nil {
		return err
	}
	l.mu.Lock()
	l.segs = l.segs[:len(l.segs)-1]
	l.mu.Unlock()
	return nil
}

// remove deletes a segment's file, durably.
func (l *Log) remove(seg *segment) error {
	if err := os.Remove(seg.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := disk.Shared.SyncDir(l.o.Dir); err != nil {
		return err
	}
	l.emit(Event{Kind: Deleted, File: seg.path})
	return nil
}

// cut removes the groups of a segment that end behind seq, and returns its end.
func (s *segment) cut(seq int64) (end state, err error) {
	err = guard(s.path, func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			groups, err := openGroups(s.path, tx)
			if err != nil {
				return err
			}
			end = s.head.clone()
			// A cursor does not find its way in pages that deleting has emptied: first
			// look, then delete.
			var gone [][]byte
			c := groups.Cursor()
			for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
				g := groups.Bucket(k)
				if g == nil {
					return damagedFile(s.path, "a commit is none")
				}
				if g.Sequence() > uint64(seq) {
					gone = append(gone, slices.Clone(k))
					continue
				}
				if err := end.decode(g.Get(keyState())); err != nil {
					return fmt.Errorf("ingestlog: %s: the commit that began with entry %d of the log does not say where the log was: %w; without an epoch it cannot be cut", s.path, seqOf(k), err)
				}
				break
			}
			for _, k := range gone {
				if err := groups.DeleteBucket(k); err != nil {
					return err
				}
			}
			end.segment, end.anew = s.head.segment, false
			if !fits(&s.head, &end, s.head.segment) {
				return damagedFile(s.path, "where it is cut does not fit its head")
			}
			return tx.Bucket(keyRoot()).Put(keyEnd(), end.encode(nil))
		})
	})
	return end, err
}

// BeginAnew forgets all that is in the log, which becomes a copy of another: head
// is what the other's First gave. by is the epoch of the owner who says so,
// which was promised. After an error the log must be opened again.
func (l *Log) BeginAnew(by uint64, head []byte) error {
	var s state
	if err := s.decode(head); err != nil {
		return fmt.Errorf("ingestlog: %s: the beginning of a copy: %w: %w", l.o.Dir, store.ErrCorrupt, err)
	}
	return l.anew(by, s)
}

// Empty forgets all that is in the log, which begins with entry 0 then and has
// another id: what it is to be has nothing in common with it. by is the epoch
// in which it is owned here, which was promised. After an error the log must be
// opened again.
func (l *Log) Empty(by uint64) error { return l.anew(by, newState(l.Lanes())) }

func (l *Log) anew(by uint64, s state) error {
	if err := l.writable(); err != nil {
		return err
	}
	if by != l.promised.epoch {
		return l.sealed(by)
	}
	if l.epoch > 0 {
		return fmt.Errorf("ingestlog: %s: epoch %d is led: it does not begin anew", l.o.Dir, l.epoch)
	}
	if err := l.makeAnew(s); err != nil {
		l.broken = fmt.Errorf("ingestlog: %s: beginning a copy: %w", l.o.Dir, disk.Full(err))
		return l.broken
	}
	l.follows = true
	l.mu.Lock()
	l.shown = s.seq
	l.mu.Unlock()
	return nil
}

// makeAnew replaces all segments by one that begins with s. All but the last go,
// the oldest first; then the new one is made, which says that it is the first;
// then the last goes.
func (l *Log) makeAnew(s state) error {
	l.forget()
	for len(l.segs) > 1 {
		if err := l.remove(l.segs[0]); err != nil {
			return err
		}
		l.mu.Lock()
		l.segs = l.segs[1:]
		l.mu.Unlock()
	}
	old := l.last()
	if s.id == (LogID{}) {
		s.id = l.o.ID
	}
	s.segment, s.anew = old.head.segment+1, true
	seg, err := l.o.create(s)
	if err != nil {
		return err
	}
	l.mu.Lock()
	db := old.db
	old.db = nil
	l.segs = append(l.segs, seg)
	l.mu.Unlock()
	if err := db.Close(); err != nil {
		return err
	}
	if err := l.dropBefore(); err != nil {
		return err
	}
	l.unsure = false
	l.at(seg.end.clone())
	return nil
}

// dropBefore removes what is before the segment with which the log begins anew.
func (l *Log) dropBefore() error {
	first := 0
	for i, s := range l.segs {
		if s.head.anew {
			first = i
		}
	}
	for _, s := range l.segs[:first] {
		if l.o.ReadOnly {
			continue
		}
		if err := l.remove(s); err != nil {
			return fmt.Errorf("ingestlog: %w", err)
		}
	}
	l.mu.Lock()
	l.segs = l.segs[first:]
	l.mu.Unlock()
	return nil
}
