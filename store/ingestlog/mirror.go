package ingestlog

import (
	"errors"
	"fmt"
	"os"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// This file is what a log has to do with a mirror of it: another site's log with
// the same groups, each of an epoch of that site. The mirror's owner calls Adopt
// in place of Append and Stage, and Replace where it begins anew; the source's
// owner calls Hold.

// Adopt stages groups of another site's log with this one's id: they become groups
// of the epoch that is led, and nothing else of them changes. They are returned as
// they are sent to members; Write makes them durable with one commit. They must
// follow the log's end, and nothing else be staged or appended. Nothing of them is
// there after an error: store.ErrFull, store.ErrCorrupt, store.ErrMissing. The log
// keeps their blocks.
func (l *Log) Adopt(groups ...*Group) ([]*Group, error) {
	if err := l.mayAppend(); err != nil {
		return nil, err
	}
	if l.epoch == 0 || l.staged != nil || l.pending > 0 || len(groups) == 0 {
		return nil, fmt.Errorf("ingestlog: %s: %d groups cannot be adopted in epoch %d: %d bytes wait for a commit", l.o.Dir, len(groups), l.epoch, l.pending)
	}
	s := &staged{end: l.done.clone()}
	for _, from := range groups {
		g := &Group{Seq: from.Seq, Next: from.Next, Blocks: from.Blocks}
		var end state
		err := end.decode(from.State)
		if err == nil && (end.segment != 0 || end.anew) {
			err = errMalformed
		}
		if err != nil {
			return nil, fmt.Errorf("ingestlog: %s: entries %d to %d of another site: their state: %w: %w", l.o.Dir, g.Seq, g.Next-1, store.ErrCorrupt, err)
		}
		end.epoch = l.epoch
		g.State = end.encode(nil)
		w, err := s.end.follow(g, l.epoch)
		if err != nil {
			return nil, fmt.Errorf("ingestlog: %s: entries %d to %d of another site: %w", l.o.Dir, g.Seq, g.Next-1, err)
		}
		s.groups, s.bundles = append(s.groups, g), append(s.bundles, w)
		s.bytes += int64(g.Size())
	}
	l.offered = max(l.offered, s.end.clock())
	if err := l.room(s.bytes); err != nil {
		return nil, err
	}
	l.staged, l.pending = s, s.bytes
	l.app.become(&s.end)
	return s.groups, nil
}

// Unstage gives up what was staged and could not be written, as if it had not been
// adopted. Members may have it: they are to be brought back to where the log ends.
func (l *Log) Unstage() {
	if l.staged == nil {
		return
	}
	l.pending -= l.staged.bytes
	l.staged = nil
	l.spent = l.spent[:0]
	l.app.become(&l.done)
	l.app.epoch = l.epoch
}

// Replace forgets all that is in a log that is led, and has it begin where another
// site's does: head is what that one's First gave. Readers that have not come so
// far get an error. After an error the log must be opened again.
func (l *Log) Replace(head []byte) error {
	if err := l.mayAppend(); err != nil {
		return err
	}
	var s state
	err := s.decode(head)
	if err == nil && len(s.lanes) != l.Lanes() {
		err = fmt.Errorf("it has %d lanes, not %d", len(s.lanes), l.Lanes())
	}
	if err != nil {
		return fmt.Errorf("ingestlog: %s: the beginning of another site's log: %w: %w", l.o.Dir, store.ErrCorrupt, err)
	}
	if l.epoch == 0 || l.staged != nil || l.pending > 0 {
		return fmt.Errorf("ingestlog: %s: it cannot begin anew in epoch %d: %d bytes wait for a commit", l.o.Dir, l.epoch, l.pending)
	}
	s.epoch = l.epoch
	if err := l.makeAnew(s); err != nil {
		err = fmt.Errorf("ingestlog: %s: beginning a mirror: %w", l.o.Dir, disk.Full(err))
		if _, no := os.Lstat(segmentPath(l.o.Dir, l.last().head.segment+1)); errors.Is(err, store.ErrFull) && l.last().db != nil && errors.Is(no, os.ErrNotExist) {
			return err // it was not begun
		}
		l.broken = err
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown = s.seq
	l.wake()
	return nil
}

// Head is what the head of a log says of it: its id, its first sequence number, and
// how many lanes it has.
func Head(head []byte) (id LogID, seq int64, lanes int, err error) {
	var s state
	if err := s.decode(head); err != nil {
		return id, 0, 0, fmt.Errorf("the beginning of a log: %w: %w", store.ErrCorrupt, err)
	}
	return s.id, s.seq, len(s.lanes), nil
}

// hold is how much a mirror has, and how many bytes may be kept for it.
type hold struct{ seq, most int64 }

// Hold keeps the segments that end behind seq, as long as the log has no more than
// so many bytes, half of its cap at most, and is not full. Any goroutine may call
// it.
func (l *Log) Hold(name string, seq, most int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds == nil {
		l.holds = make(map[string]hold)
	}
	l.holds[name] = hold{seq, most}
}

// Release ends a hold.
func (l *Log) Release(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holds, name)
}

// held tells whether a segment that ends there is kept for a mirror. The lock is
// held.
func (l *Log) held(end, used int64) bool {
	for _, h := range l.holds {
		most := h.most
		if l.o.Cap > 0 {
			most = min(most, l.o.Cap/2)
		}
		if end > h.seq && used <= most && !l.full {
			return true
		}
	}
	return false
}

// Beyond is closed when readers may see more than what is before seq. Any
// goroutine may call it.
func (l *Log) Beyond(seq int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if min(l.shown, l.done.seq) > seq || l.closed {
		now := make(chan struct{})
		close(now)
		return now
	}
	l.waiting = true
	return l.more
}

// Totals are the bytes of payloads and topics since the log was made, and the
// clock of the lane that is furthest, at its end on disk.
func (l *Log) Totals() (payload int64, clock dataflow.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.done.lanes {
		payload += l.done.lanes[i].bytes
	}
	return payload, l.done.clock()
}
