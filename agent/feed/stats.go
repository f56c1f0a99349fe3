package feed

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// Stats is what a feed has done since it was opened, and where its log stands.
type Stats struct {
	Session  mqtt.ReaderStats // received, duplicates, shed, connected, …; zero if the session counts nothing
	Appended int64            // messages made durable
	Commits  int64            // fsyncs for them
	Full     bool             // the log takes nothing now
	Bytes    int64            // of the log on disk
	Lanes    []LaneStats
	Readers  []ReaderStats // in the order in which they were opened
}

// LaneStats is where a lane of the log stands.
type LaneStats struct {
	First int64         // the oldest entry that is kept
	Next  int64         // after the newest durable one
	Clock dataflow.Time // of the newest; MinTime: there is none
	Deaf  bool          // nothing is heard since
}

// ReaderStats is how far a reader is.
type ReaderStats struct {
	Who    string
	Lanes  []int
	Unread int64 // entries, durable and not handed out yet
}

// Stats may be called by any goroutine, also when the feed has ended.
func (f *Feed) Stats() Stats {
	s := Stats{Appended: f.appended.Load(), Commits: f.commits.Load(), Full: f.full.Load(), Bytes: f.log.Stats().Bytes, Lanes: laneStats(f.log)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.session.(interface{ Stats() mqtt.ReaderStats }); ok {
		s.Session = c.Stats()
	}
	for _, r := range f.readers {
		rs := ReaderStats{Who: r.who, Lanes: r.lanes}
		for k, l := range r.lanes {
			rs.Unread += max(0, s.Lanes[l].Next-r.at[k].Load())
		}
		s.Readers = append(s.Readers, rs)
	}
	return s
}

func laneStats(log *ingestlog.Log) []LaneStats {
	all := make([]LaneStats, log.Lanes())
	for i := range all {
		l := log.Lane(i)
		all[i] = LaneStats{l.First, l.Next, l.Clock, l.Deaf}
	}
	return all
}
