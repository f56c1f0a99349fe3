package bench

import "slices"

// loop does the job's work as one would write it by hand for these rows, with
// the same filter, arithmetic and windows, and the same results: it is the
// limit that the engine is measured beside. Rows may be out of order and late
// here too. All memory is used again, so that it allocates nothing for a row.
//
// It is a Go programmer's good loop, not the fastest one there could be: one
// map look-up a row, one accumulator to update.
type loop struct {
	size      int64
	put       func([]result) // takes the results of a window, a few thousand at a time
	open      []*bucket      // windows, by start
	spare     []*bucket
	watermark int64
	late      int64
	out       []result
}

// bucket is an open window.
type bucket struct {
	start int64
	index map[string]int32
	keys  []accumulator
}

// accumulator is what is kept of a key in a window.
type accumulator struct {
	key      string
	sum, max float64
	n        int64
}

// result is a row that comes out.
type result struct {
	key        string
	start, end int64
	avg, max   float64
	n          int64
}

const resultsAtATime = 4096

func newLoop(size int64, put func([]result)) *loop {
	return &loop{size: size, put: put, watermark: -1 << 62, out: make([]result, 0, resultsAtATime)}
}

// rows takes rows in.
func (l *loop) rows(rows []row) {
	var w *bucket // of the row before
	for i := range rows {
		r := &rows[i]
		if r.a >= 5 {
			score := r.a*1.8 + 32 - r.b
			if w == nil || r.time < w.start || r.time >= w.start+l.size {
				w = l.window(r.time)
			}
			if w == nil {
				l.late++
			} else if k, ok := w.index[r.key]; ok {
				a := &w.keys[k]
				a.sum += score
				if score > a.max {
					a.max = score
				}
				a.n++
			} else {
				w.index[r.key] = int32(len(w.keys))
				w.keys = append(w.keys, accumulator{key: r.key, sum: score, max: score, n: 1})
			}
		}
		if r.marker && r.time > l.watermark {
			l.watermark = r.time
			if len(l.open) > 0 && l.open[0].start+l.size-1 <= l.watermark {
				l.close()
				w = nil
			}
		}
	}
}

// window is the open window of a time, nil if it has gone.
func (l *loop) window(t int64) *bucket {
	start := t - t%l.size // times are after 1970
	if start+l.size-1 <= l.watermark {
		return nil
	}
	i, found := slices.BinarySearchFunc(l.open, start, func(b *bucket, start int64) int { return int(b.start - start) })
	if found {
		return l.open[i]
	}
	var b *bucket
	if n := len(l.spare); n > 0 {
		b, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		b = &bucket{index: make(map[string]int32)}
	}
	b.start = start
	l.open = slices.Insert(l.open, i, b)
	return b
}

// close puts out the windows that the watermark has passed.
func (l *loop) close() {
	for len(l.open) > 0 && l.open[0].start+l.size-1 <= l.watermark {
		b := l.open[0]
		l.open = slices.Delete(l.open, 0, 1)
		for i := range b.keys {
			a := &b.keys[i]
			l.out = append(l.out, result{key: a.key, start: b.start, end: b.start + l.size, avg: a.sum / float64(a.n), max: a.max, n: a.n})
			if len(l.out) == resultsAtATime {
				l.flush()
			}
		}
		clear(b.index)
		b.keys = b.keys[:0]
		l.spare = append(l.spare, b)
		l.flush()
	}
}

func (l *loop) flush() {
	l.put(l.out)
	l.out = l.out[:0]
}
