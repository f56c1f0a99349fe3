package ingestlog

import (
	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// Tail calls f with the last n messages, and all notes behind the first of
// them, in the order in which they were appended over all lanes, until f
// returns false. If the log has fewer messages, it gives all its notes. Tags are set; notes are in Records of their own, ticks and
// changes of hearing are left out. f borrows what it gets, and does not call the
// log.
func (l *Log) Tail(n int, f func(*sensors.Records) bool) error {
	l.mu.Lock()
	segs := append([]*segment(nil), l.segs...)
	end := l.done.seq
	total := l.done.messages()
	first := len(segs) - 1
	for first > 0 && total-segs[first].head.messages() < int64(n) {
		first--
	}
	skip := max(0, total-segs[first].head.messages()-int64(n))
	l.mu.Unlock()
	if n <= 0 {
		return nil
	}
	m := &merger{f: f, skip: skip, begun: total-segs[first].head.messages() < int64(n)}
	for _, seg := range segs[first:] {
		if err := m.segment(l, seg, end); err != nil || m.stopped {
			return err
		}
	}
	return nil
}

// merger brings the blocks of a commit into the order of appending.
type merger struct {
	f       func(*sensors.Records) bool
	skip    int64 // messages to pass over
	begun   bool  // no message is passed over from here on
	stopped bool
	blocks  []*block // of whole groups, in the order of lanes
	cursors []cursor
	recs    sensors.Records
}

func (m *merger) segment(l *Log, seg *segment, end int64) error {
	db, mine, err := l.openSegment(seg)
	if err != nil {
		return err
	}
	if mine {
		defer func() { _ = db.Close() }()
	}
	l.mu.Lock()
	at, end := seg.head.seq, min(end, seg.end.seq)
	l.mu.Unlock()
	for at < end && !m.stopped {
		if at, err = m.load(seg.path, db, at, end); err != nil {
			return err
		}
		for from := 0; from < len(m.blocks) && !m.stopped; {
			to := from + 1
			for to < len(m.blocks) && m.blocks[to].group == m.blocks[from].group {
				to++
			}
			if err := m.merge(seg.path, m.blocks[from:to]); err != nil {
				return err
			}
			from = to
		}
	}
	return nil
}

// load takes whole groups, a readAhead of them, and returns where the next
// begins.
func (m *merger) load(path string, db *bolt.DB, at, end int64) (int64, error) {
	m.blocks = m.blocks[:0]
	size, last := 0, int64(-1)
	return scan(path, db, at, end, nil, func(group int64, lane int, data []byte) (bool, error) {
		if group != last && size >= readAhead {
			return false, nil
		}
		last = group
		size += len(data)
		m.blocks = append(m.blocks, &block{lane: lane, group: group, data: append([]byte(nil), data...)})
		return true, nil
	})
}

// merge hands out the entries of a group.
func (m *merger) merge(path string, blocks []*block) error {
	m.cursors = m.cursors[:0]
	for _, b := range blocks {
		m.cursors = append(m.cursors, cursor{})
		c := &m.cursors[len(m.cursors)-1]
		why := verify(b.data)
		if why == nil {
			why = c.open(b.data)
		}
		if why != nil {
			_, _ = c.openHead(b.data)
			return &damage{file: path, lane: b.lane, from: c.offset, to: c.end, why: why}
		}
	}
	for !m.stopped {
		var c *cursor
		for i := range m.cursors {
			if o := &m.cursors[i]; o.at < len(o.runs) && (c == nil || o.seq < c.seq) {
				c = o
			}
		}
		if c == nil {
			return nil
		}
		if err := m.take(c); err != nil {
			return &damage{file: path, lane: c.lane, from: c.offset, to: c.end, why: err}
		}
	}
	return nil
}

// take hands out the next run of a block.
func (m *merger) take(c *cursor) error {
	k, n, _ := c.peek()
	m.recs.Reset(c.lane)
	m.recs.First = c.offset
	switch k {
	case message:
		if m.skip > 0 {
			n = int(min(int64(n), m.skip))
			m.skip -= int64(n)
			return c.takeMessages(&m.recs, n, true)
		}
		m.begun = true
		if err := c.takeMessages(&m.recs, n, true); err != nil {
			return err
		}
	case note:
		m.recs.Notes = c.takeNotes(m.recs.Notes, n)
		if !m.begun {
			return nil
		}
	default:
		_, err := c.takeClock()
		return err
	}
	m.recs.Next, m.recs.Clock = c.offset, c.clock
	m.stopped = !m.f(&m.recs)
	return nil
}
