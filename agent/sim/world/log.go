package world

import "github.com/tidemark-mesh/tidemark/dataflow"

// Log is a copy of a feed's log on a disk: what is there is durable. It stands
// for store/ingestlog.
type Log struct {
	ID       [16]byte
	Entries  []Record // entry i has sequence number i; one that is cut leaves what was behind it as it is
	Placed   uint64   // the epoch to whose chain it was cut
	Promised uint64   // nothing below it is taken
}

// Record is a message in a log.
type Record struct {
	Message
	Epoch   uint64
	Arrival dataflow.Time
}

// End is the sequence number of the next record.
func (l *Log) End() int64 { return int64(len(l.Entries)) }
