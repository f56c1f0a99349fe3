package ingestlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tidemark-mesh/tidemark/store"
)

// This file is how a copy of a log is kept: ReadGroups on the side that has it,
// Take on the side that gets it.

// Take writes groups of another copy, byte for byte, with one commit. by is the
// epoch of the owner who sends them, which was promised; the groups may be of
// earlier ones. They must follow the log's end. Nothing of them is there after
// an error: ErrSealed, store.ErrFull, store.ErrCorrupt, or what the disk says.
// The callee borrows them.
func (l *Log) Take(by uint64, groups ...*Group) error {
	if err := l.writable(); err != nil {
		return err
	}
	switch {
	case by != l.promised.epoch:
		return l.sealed(by)
	case l.epoch > 0 || l.pending > 0:
		return fmt.Errorf("ingestlog: %s: it has an owner here, of epoch %d", l.o.Dir, l.epoch)
	case len(groups) == 0:
		return nil
	}
	at := l.done.clone()
	l.spent = l.spent[:0]
	for _, g := range groups {
		w, err := at.follow(g, by)
		if err != nil {
			l.spent = l.spent[:0]
			return fmt.Errorf("ingestlog: %s: a copy of entries %d to %d: %w", l.o.Dir, g.Seq, g.Next-1, err)
		}
		l.spent = append(l.spent, w)
	}
	l.hide()
	if err := l.write(&at); err != nil {
		return err
	}
	l.app.become(&l.done)
	return nil
}

// hide begins to follow: readers see what the owner says all members have.
func (l *Log) hide() {
	if !l.follows {
		l.follows = true
		l.mu.Lock()
		l.shown = min(l.shown, l.done.seq)
		l.mu.Unlock()
	}
}

// follow checks that a group follows s, and makes s the state behind it.
func (s *state) follow(g *Group, by uint64) (bundle, error) {
	w := bundle{seq: g.Seq, next: g.Next, state: bytes.Clone(g.State)}
	var end state
	if err := end.decode(g.State); err != nil {
		return w, fmt.Errorf("its state: %w: %w", store.ErrCorrupt, err)
	}
	bare := end.segment == 0 && !end.anew
	end.segment = s.segment
	switch {
	case g.Seq != s.seq:
		return w, fmt.Errorf("the log ends with %d: %w", s.seq, store.ErrMissing)
	case end.id != s.id:
		return w, fmt.Errorf("it is of log %v, this one is %v", end.id, s.id)
	case end.epoch == 0 || end.epoch > by:
		return w, fmt.Errorf("it is of epoch %d, its owner of %d: %w", end.epoch, by, store.ErrCorrupt)
	case !bare || end.seq != g.Next || g.Next <= g.Seq || !fits(s, &end, s.segment):
		return w, fmt.Errorf("it does not fit: %w", store.ErrCorrupt)
	}
	next := s.clone()
	var c cursor
	for i := range g.Blocks {
		b := &g.Blocks[i]
		err := verify(b.Data)
		if err == nil {
			_, err = c.openHead(b.Data)
		}
		if err == nil && (c.lane != b.Lane || c.lane >= len(next.lanes) || c.offset != next.lanes[c.lane].next || i > 0 && b.Lane < g.Blocks[i-1].Lane) {
			err = errMalformed
		}
		if err != nil {
			return w, fmt.Errorf("block %d: %w: %w", i, store.ErrCorrupt, err)
		}
		next.lanes[c.lane].next = c.end
		w.blocks = append(w.blocks, &block{lane: c.lane, first: c.offset, next: c.end, seq: c.seq, data: b.Data})
	}
	for i := range end.lanes {
		if next.lanes[i].next != end.lanes[i].next {
			return w, fmt.Errorf("lane %d ends with %d, not %d: %w", i, next.lanes[i].next, end.lanes[i].next, store.ErrCorrupt)
		}
	}
	s.become(&end)
	return w, nil
}

// LetGo deletes the segments that end at or before floor, whole: the owner of
// the log keeps nothing before it.
func (l *Log) LetGo(floor int64) error {
	if err := l.writable(); err != nil {
		return err
	}
	l.mu.Lock()
	for len(l.segs) > 1 && l.segs[1].head.seq <= floor {
		l.doomed = append(l.doomed, l.segs[0])
		l.segs = l.segs[1:]
	}
	l.mu.Unlock()
	l.reap()
	return nil
}

// ReadGroups reads groups from seq on, where one begins, until they have about
// so many bytes, or up to the end of the log: then there are none. What is not
// kept any more is store.ErrMissing; groups of no epoch cannot be copied. Any
// goroutine may call it.
func (l *Log) ReadGroups(seq int64, size int) ([]*Group, error) {
	for {
		l.mu.Lock()
		end := l.done.seq
		seg, limit := l.holding(seq)
		l.mu.Unlock()
		switch {
		case seq == end:
			return nil, nil
		case seg == nil:
			return nil, fmt.Errorf("ingestlog: %s: entry %d: %w: it was let go, or never written", l.o.Dir, seq, store.ErrMissing)
		}
		db, mine, err := l.openSegment(seg)
		if err != nil {
			if l.gone(seg) {
				continue
			}
			return nil, err
		}
		groups, err := readGroups(seg.path, db, seq, limit, size)
		if mine {
			err = errors.Join(err, db.Close())
		}
		if !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return groups, err
		}
	}
}

// readGroups reads groups of a segment.
func readGroups(path string, db *bolt.DB, seq, limit int64, size int) (all []*Group, err error) {
	err = guard(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			groups, err := openGroups(path, tx)
			if err != nil {
				return err
			}
			for have := 0; seq < limit && have < size; {
				g, err := readGroup(path, groups, seq)
				if err != nil {
					return err
				}
				all = append(all, g)
				seq = g.Next
				have += g.Size()
			}
			return nil
		})
	})
	return all, err
}

func readGroup(path string, groups *bolt.Bucket, seq int64) (*Group, error) {
	b := groups.Bucket(groupKey(seq))
	if b == nil || b.Sequence() <= uint64(seq) {
		return nil, fmt.Errorf("ingestlog: %s: no commit began with entry %d of the log: %w", path, seq, store.ErrCorrupt)
	}
	g := &Group{Seq: seq, Next: int64(b.Sequence())}
	if g.State = bytes.Clone(b.Get(keyState())); g.State == nil {
		return nil, fmt.Errorf("ingestlog: %s: the commit that began with entry %d of the log is of no epoch, and cannot be copied", path, seq)
	}
	_, err := scanGroup(path, b, seq, nil, func(_ int64, lane int, data []byte) (bool, error) {
		g.Blocks = append(g.Blocks, GroupBlock{lane, bytes.Clone(data)})
		return true, nil
	})
	return g, err
}

// seqOf reads a group's key.
func seqOf(key []byte) int64 { return int64(binary.BigEndian.Uint64(key)) }
