package ingestlog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Open opens a log or makes a new one. It takes the lock of the folder
// (store.ErrLocked if another process has it) and recovers what a crash left:
// all commits that returned are there, and of one that did not either all or
// nothing. Damage that keeps it from knowing what is in the log is an error, and
// wraps store.ErrCorrupt; a damaged block of the last segment is an Event, and
// an error for who reads it.
func Open(o Options) (*Log, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("ingestlog: %w", disk.Full(err))
		}
	}
	l := &Log{o: o, pins: make(map[string][]sensors.Position), more: make(chan struct{}), offered: dataflow.MinTime, shown: math.MaxInt64}
	l.tail.limit = o.TailBytes
	l.tail.spare.limit = spareBytes
	var err error
	if l.lock, err = lock(o.Dir, o.ReadOnly); err != nil {
		return nil, err
	}
	if l.promised, err = readPromise(&o); err == nil {
		err = l.recover()
	}
	if err == nil {
		err = l.inspect()
	}
	if err != nil {
		l.abandon()
		return nil, err
	}
	return l, nil
}

func (o *Options) check() error {
	if o.Lanes < 0 || o.Lanes > 1024 {
		return fmt.Errorf("ingestlog: %d lanes; use at most 1024", o.Lanes)
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegment
	}
	for _, bound := range []int64{o.Cap, o.Retain.Bytes} {
		if bound > 0 {
			o.SegmentBytes = min(o.SegmentBytes, max(bound/8, minSegment))
		}
	}
	if o.TailBytes <= 0 {
		o.TailBytes = defaultTail
	}
	if o.FS == nil {
		o.FS = disk.Shared
	}
	if o.ID == (LogID{}) {
		_, _ = rand.Read(o.ID[:]) // it never fails
	}
	return nil
}

// abandon closes what Open opened.
func (l *Log) abandon() {
	for _, s := range l.segs {
		if s.db != nil {
			_ = s.db.Close()
		}
	}
	if l.lock != nil {
		_ = l.lock.Close()
	}
}

// recover finds the segments and what is in them.
func (l *Log) recover() error {
	numbers, err := l.list()
	if err != nil {
		return err
	}
	for i, n := range numbers {
		path := segmentPath(l.o.Dir, n)
		if i > 0 && numbers[i-1]+1 != n {
			return fmt.Errorf("ingestlog: %s is missing: %w; put it back, or move those before it away, and what they hold is lost", segmentPath(l.o.Dir, numbers[i-1]+1), store.ErrCorrupt)
		}
		if err := l.load(path, n, i == len(numbers)-1); err != nil {
			return err
		}
	}
	switch {
	case len(numbers) == 0 && l.o.ReadOnly:
		return fmt.Errorf("ingestlog: there is no log in %s: %w", l.o.Dir, store.ErrMissing)
	case len(numbers) == 0:
		head := newState(max(1, l.o.Lanes))
		head.id, head.segment = l.o.ID, 1
		seg, err := l.o.create(head)
		if err != nil {
			return err
		}
		l.segs = append(l.segs, seg)
	}
	if err := l.dropBefore(); err != nil {
		return err
	}
	if err := l.settle(); err != nil {
		return err
	}
	l.at(l.last().end.clone())
	if n := len(l.done.lanes); l.o.Lanes != 0 && l.o.Lanes != n {
		if l.done.seq == 0 && !l.o.ReadOnly {
			return l.makeAnew(newState(l.o.Lanes))
		}
		return fmt.Errorf("ingestlog: %s has %d lanes, not %d; their number is fixed when a log is made", l.o.Dir, n, l.o.Lanes)
	}
	return nil
}

// at sets where the log is, with nothing appended.
func (l *Log) at(end state) {
	if end.id == (LogID{}) {
		end.id = l.o.ID // one of version 1; the next commit writes it down
	}
	l.app = end.clone()
	l.open = make([]*builder, len(end.lanes))
	l.dirty, l.batch, l.pending, l.staged = nil, nil, 0, nil
	l.mu.Lock()
	l.done = end
	l.mu.Unlock()
}

// settle makes durable what is there: some may only be in the system's memory, and
// what is read counts as safe. That the folder's names cannot be made durable once,
// and later can, is not foreseen: a file system that fails to write its journal stops.
func (l *Log) settle() error {
	if l.o.ReadOnly {
		return nil
	}
	err := l.last().confirm(l.o.FS)
	if err == nil {
		err = disk.Shared.SyncDir(l.o.Dir)
	}
	if err != nil {
		return fmt.Errorf("ingestlog: %s: %w", l.last().path, disk.Full(err))
	}
	return nil
}

// list is the numbers of the segments, ascending. Files that a crash left half
// made are removed.
func (l *Log) list() ([]uint64, error) {
	entries, err := os.ReadDir(l.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("ingestlog: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		path := filepath.Join(l.o.Dir, e.Name())
		if strings.HasSuffix(e.Name(), suffix+newSuffix) && !l.o.ReadOnly {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("ingestlog: %w", err)
			}
			l.emit(Event{Kind: Cleaned, File: path})
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), suffix), 10, 64)
		if err == nil && path == segmentPath(l.o.Dir, n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// load reads head and end of a segment. The last one stays open.
func (l *Log) load(path string, number uint64, last bool) error {
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return damagedFile(path, "it is empty") // bbolt would begin a new one in it
	}
	db, err := l.o.openFile(path, l.o.ReadOnly || !last, 0)
	if err != nil {
		return err
	}
	seg := &segment{path: path}
	if seg.head, seg.end, seg.bytes, err = readStates(path, db); err == nil && !fits(&seg.head, &seg.end, number) {
		err = fmt.Errorf("ingestlog: %s: its end does not fit its head: %w", path, store.ErrCorrupt)
	}
	if last && err == nil {
		seg.db = db
	} else if e := db.Close(); err == nil {
		err = e
	}
	if err == nil && len(l.segs) > 0 && !seg.head.anew {
		// A segment ends where the next one begins, see commit.go.
		before := l.segs[len(l.segs)-1]
		if !fits(&before.head, &seg.head, before.head.segment) || seg.head.seq > before.end.seq {
			err = fmt.Errorf("ingestlog: %s does not begin where %s ends: %w", path, before.path, store.ErrCorrupt)
		} else {
			before.end = seg.head.clone()
		}
	}
	if err != nil {
		if seg.db != nil {
			_ = db.Close()
		}
		return err
	}
	l.segs = append(l.segs, seg)
	return nil
}

// fits tells whether end can be the end of the segment that begins with head.
func fits(head, end *state, number uint64) bool {
	if head.segment != number || len(head.lanes) != len(end.lanes) || end.seq < head.seq || end.epoch < head.epoch {
		return false
	}
	if head.id != (LogID{}) && head.id != end.id {
		return false
	}
	for i := range head.lanes {
		h, e := &head.lanes[i], &end.lanes[i]
		if e.next < h.next || e.clock < h.clock || e.messages < h.messages || e.bytes < h.bytes {
			return false
		}
	}
	return true
}

// inspect looks at all blocks of the last segment, which a crash may have met.
func (l *Log) inspect() error {
	seg := l.last()
	broken, err := brokenMeta(seg.path)
	if err != nil {
		return fmt.Errorf("ingestlog: %w", err)
	}
	if broken {
		l.emit(Event{Kind: Damaged, File: seg.path, Err: fmt.Errorf("ingestlog: %s: a meta page is not in order: %w; if the power did not fail during a commit, what the last one wrote is lost", seg.path, store.ErrCorrupt)})
	}
	if err = l.verify(seg); err == nil {
		return nil
	}
	l.emit(Event{Kind: Damaged, File: seg.path, Err: err})
	var d *damage
	if errors.As(err, &d) {
		return nil // some blocks; who reads them is told
	}
	return err
}
