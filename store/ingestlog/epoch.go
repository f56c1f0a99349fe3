package ingestlog

import (
	"errors"
	"fmt"
	"math"
)

// This file is what the owner of a log with copies calls, in place of Commit:
//
//	Lead      once, when the log is at the beginning of an epoch
//	Append    as always
//	Stage     ends a group, which is then sent to the members
//	Write     makes it durable here, while they do the same
//	Replicated  when all have it: only now readers see it, and it is acknowledged
//
// A staged group never changes: a member may have it already. When Write fails
// it is written again, the same; what is appended meanwhile is the next group's.

// Group is a commit: the unit in which a log is copied. All copies have the same
// groups, byte for byte.
type Group struct {
	Seq, Next int64 // of its entries
	Blocks    []GroupBlock
	State     []byte // behind it, encoded; its segment is 0
}

// GroupBlock is some entries of a lane, encoded.
type GroupBlock struct {
	Lane int
	Data []byte
}

// Size is about what the group takes.
func (g *Group) Size() int {
	n := len(g.State) + 64
	for i := range g.Blocks {
		n += len(g.Blocks[i].Data) + 16
	}
	return n
}

// staged is groups that have ended: one that was appended, or those of another
// site that were adopted.
type staged struct {
	groups  []*Group
	bundles []bundle
	end     state // behind them
	bytes   int64 // of what waits for a commit
}

// ID names the log. Of a log of version 1 it is durable after Lead.
func (l *Log) ID() LogID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done.id
}

// End is where the log ends on disk, and the epoch of its last group (0: none).
func (l *Log) End() (epoch uint64, seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done.epoch, l.done.seq
}

// Nexts is where the log ends on disk, and each of its lanes.
func (l *Log) Nexts() (seq int64, lanes []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.done.lanes {
		lanes = append(lanes, l.done.lanes[i].next)
	}
	return l.done.seq, lanes
}

// First is the sequence of the oldest entry that is kept, and the state there,
// with which a copy may begin anew.
func (l *Log) First() (seq int64, head []byte) {
	l.mu.Lock()
	h := l.segs[0].head.clone()
	l.mu.Unlock()
	if h.id == (LogID{}) {
		h.id = l.ID()
	}
	h.segment, h.anew = 0, true
	return h.seq, h.encode(nil)
}

// Lead says that what is appended from now on is of an epoch. Readers see
// nothing before Replicated says how far all members are. ErrSealed: a later
// epoch was promised.
func (l *Log) Lead(epoch uint64) error {
	if err := l.writable(); err != nil {
		return err
	}
	if last := l.done.epoch; epoch == 0 || epoch < last || l.pending > 0 {
		return fmt.Errorf("ingestlog: %s: epoch %d cannot begin: the last is %d, %d bytes wait for a commit", l.o.Dir, epoch, last, l.pending)
	}
	if err := l.Place(epoch); err != nil {
		return err
	}
	if l.last().end.id == (LogID{}) {
		if err := l.roll(); err != nil { // copies must know the log by a name that lasts
			return err
		}
	}
	l.epoch, l.app.epoch, l.follows = epoch, epoch, false
	l.mu.Lock()
	l.shown = 0
	l.mu.Unlock()
	return nil
}

// mayAppend tells whether Append takes anything now.
func (l *Log) mayAppend() error {
	if err := l.writable(); err != nil {
		return err
	}
	switch {
	case l.follows:
		return fmt.Errorf("ingestlog: %s is a copy: only what its owner sends is added", l.o.Dir)
	case l.epoch < l.promised.epoch:
		return l.sealed(l.epoch)
	}
	return nil
}

// Stage ends the group of all that was appended; nil: nothing was. One that is
// not written yet is the answer again. It is valid until Write returned nil.
func (l *Log) Stage() (*Group, error) {
	if err := l.mayAppend(); err != nil {
		return nil, err
	}
	if l.epoch == 0 {
		return nil, errors.New("ingestlog: no epoch is led")
	}
	if l.staged != nil {
		return l.staged.groups[0], nil
	}
	if l.complete(); len(l.batch) == 0 {
		return nil, nil
	}
	s := &staged{end: l.app.clone(), bytes: l.pending}
	s.end.segment, s.end.anew = 0, false
	g := &Group{Seq: l.done.seq, Next: l.app.seq, State: s.end.encode(nil)}
	for _, b := range l.batch {
		g.Blocks = append(g.Blocks, GroupBlock{b.lane, b.data})
	}
	s.groups, s.bundles = []*Group{g}, []bundle{{seq: g.Seq, next: g.Next, blocks: l.batch, state: g.State}}
	l.staged, l.batch = s, nil
	return g, nil
}

// Write makes what is staged durable. After an error the same is written by
// the next Write: store.ErrFull, or what the disk says.
func (l *Log) Write() error {
	if err := l.mayAppend(); err != nil {
		return err
	}
	s := l.staged
	if s == nil {
		return nil
	}
	l.spent = append(l.spent[:0], s.bundles...)
	if err := l.write(&s.end); err != nil {
		return err
	}
	l.staged = nil
	l.pending -= s.bytes
	l.settled()
	return nil
}

// Replicated says that all members have everything before seq, which is where a
// group ends: readers see it.
func (l *Log) Replicated(seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown != math.MaxInt64 && seq > l.shown {
		l.shown = seq
		l.wake()
	}
}

// Shown is how far readers see.
func (l *Log) Shown() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(l.shown, l.done.seq)
}
