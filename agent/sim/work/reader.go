package work

import (
	"github.com/tidemark-mesh/tidemark/sensors"
)

// laneReader reads a subtask's lanes of a feed that is owned here, up to what all
// members have.
type laneReader struct {
	o      *owner
	lanes  []int
	offset []int64 // the next entry of each lane, counted in the lane
	at     int64   // the entry of the log that is looked at next
	seen   []int64 // so many of each lane are before it
	sub    *subtask
	lost   string
}

// reader makes a reader of the lanes of a subtask; nil: the feed is not owned here
// yet.
func (s *feeds) reader(feed string, subtask, parallelism int) *laneReader {
	o := s.owned[feed]
	if o == nil {
		return nil
	}
	r := &laneReader{o: o}
	for l := subtask; l < o.topic.Lanes(); l += parallelism {
		r.lanes = append(r.lanes, l)
	}
	r.offset, r.seen = make([]int64, len(r.lanes)), make([]int64, len(r.lanes))
	o.readers = append(o.readers, r)
	return r
}

func (r *laneReader) wake() {
	if r.sub != nil {
		r.sub.wake()
	}
}

func (r *laneReader) lose(why string) {
	r.lost = why
	r.wake()
}

// read takes the next records of one lane; false: there are none.
func (r *laneReader) read(out *sensors.Records, most int) bool {
	split := -1
	for r.at < r.o.shown {
		e := &r.o.log.Entries[r.at]
		k := -1
		for i, l := range r.lanes {
			if l == e.Lane {
				k = i
			}
		}
		switch {
		case k < 0:
		case r.seen[k] < r.offset[k]: // it was read before
			r.seen[k]++
		case split >= 0 && (k != split || out.Len() >= most):
			return true
		default:
			if split < 0 {
				split = k
				out.Reset(k)
				out.First = r.offset[k]
			}
			out.AppendMessage([]byte("t"), []byte(r.o.topic.Payload(e.Number)), int64(e.Arrival))
			r.seen[k]++
			r.offset[k]++
			out.Next, out.Clock = r.offset[k], int64(e.Arrival)
		}
		r.at++
	}
	return split >= 0
}
