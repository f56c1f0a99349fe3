package ingestlog

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// damage is a block whose bytes are not those that were written.
type damage struct {
	file     string
	lane     int
	from, to int64 // its offsets
	why      error
}

func (d *damage) Error() string {
	return fmt.Sprintf("ingestlog: %s: lane %d, entries %d to %d: %v: %v; read on from %d, and they are lost", d.file, d.lane, d.from, d.to-1, d.why, store.ErrCorrupt, d.to)
}

func (d *damage) Is(target error) bool { return target == store.ErrCorrupt }

// Verify reads all blocks and returns an error that names each damaged one, its
// file, lane and offsets; it wraps store.ErrCorrupt.
func (l *Log) Verify() error {
	l.mu.Lock()
	segs := append([]*segment(nil), l.segs...)
	l.mu.Unlock()
	var errs []error
	for _, seg := range segs {
		if err := l.verify(seg); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// verify checks a segment: every block by itself, that they follow each other,
// and that they end where the segment says. Blocks that are damaged are all
// named, each as a damage; another error says that not even that can be known.
func (l *Log) verify(seg *segment) error {
	db, mine, err := l.openSegment(seg)
	if err != nil {
		return err
	}
	if mine {
		defer func() { _ = db.Close() }()
	}
	l.mu.Lock()
	v := verifier{file: seg.path, at: seg.head.clone(), open: make([]*damage, len(seg.head.lanes))}
	end := seg.end.clone()
	l.mu.Unlock()
	if _, err := scan(seg.path, db, v.at.seq, end.seq, nil, v.block); err != nil {
		return err
	}
	for i := range end.lanes {
		v.known(i, end.lanes[i].next)
		if m := &v.at.lanes[i]; v.open[i] == nil && (m.next != end.lanes[i].next || m.clock != end.lanes[i].clock) {
			return fmt.Errorf("ingestlog: %s: lane %d ends with entry %d where %d was written: %w", seg.path, i, m.next, end.lanes[i].next, store.ErrCorrupt)
		}
	}
	return errors.Join(v.found...)
}

// openSegment is the pages of a segment; mine: the caller closes them.
func (l *Log) openSegment(seg *segment) (db *bolt.DB, mine bool, err error) {
	l.mu.Lock()
	db, closed := seg.db, l.closed
	l.mu.Unlock()
	switch {
	case closed:
		return nil, false, fmt.Errorf("ingestlog: %s: %w", l.o.Dir, ErrClosed)
	case db != nil:
		return db, false, nil
	}
	db, err = l.o.openFile(seg.path, true, lockPatience)
	return db, true, err
}

// verifier follows the blocks of a segment.
type verifier struct {
	file  string
	at    state     // behind the last block of each lane
	open  []*damage // of each lane: the last block, if it is damaged
	found []error
	c     cursor
	recs  sensors.Records
}

// known says where a lane's damaged block ends.
func (v *verifier) known(lane int, next int64) {
	if d := v.open[lane]; d != nil {
		d.to = next
	}
}

func (v *verifier) block(_ int64, lane int, data []byte) (bool, error) {
	if lane >= len(v.at.lanes) {
		return false, fmt.Errorf("ingestlog: %s: a block of lane %d in a log of %d: %w", v.file, lane, len(v.at.lanes), store.ErrCorrupt)
	}
	m := &v.at.lanes[lane]
	why := verify(data)
	if why == nil {
		why = v.c.open(data)
	}
	if why == nil && v.c.lane != lane {
		why = errMalformed
	}
	if why == nil {
		if v.open[lane] != nil {
			v.known(lane, v.c.offset)
			v.open[lane] = nil
		} else if v.c.offset != m.next || v.c.clock != m.clock {
			return false, fmt.Errorf("ingestlog: %s: lane %d: entries %d to %d are not there: %w", v.file, lane, m.next, v.c.offset-1, store.ErrCorrupt)
		}
		from := v.c.offset
		why = v.walk()
		m.next, m.clock = v.c.end, v.c.clock
		if why == nil {
			return true, nil
		}
		m.next = from
	}
	if v.open[lane] != nil {
		return true, nil // it stands for this one too: where that begins is not known
	}
	d := &damage{file: v.file, lane: lane, from: m.next, why: why}
	v.open[lane] = d
	v.found = append(v.found, d)
	return true, nil
}

// walk reads all entries of a block.
func (v *verifier) walk() error {
	for {
		v.recs.Reset(0)
		more, err := v.c.deliver(&v.recs, blockRows)
		if err != nil {
			return err
		}
		if !more {
			return v.c.finish()
		}
	}
}
