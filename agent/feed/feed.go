package feed

import (
	"errors"
	"iter"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// SessionOptions are what a session gets beside the feed's config.
type SessionOptions struct {
	Clock    sensors.Clock
	Username func() (string, error)     // nil: none
	Password func() (string, error)     // nil: none; asked for each connection
	Recall   iter.Seq[*sensors.Records] // the tail of the log, in order
	Events   func(mqtt.Event)
	Tick     dataflow.Duration
}

// Feed is one session and its log. It runs from the first Feeds.Open until as
// many Close. Any goroutine may call it.
type Feed struct {
	name   string
	config Config
}

// Name is the feed's.
func (f *Feed) Name() string { return f.name }

// Config is what the feed runs with.
func (f *Feed) Config() Config { return f.config }

// Subscribed is closed when the broker has granted the topics for the first
// time in this process: what is published after that arrives.
func (f *Feed) Subscribed() <-chan struct{} { return nil }

// Done is closed when the feed has ended: by its last Close, or because the log
// or the session failed for good; Err then says why.
func (f *Feed) Done() <-chan struct{} { return nil }

// Err is why the feed failed; nil while it runs and after a Close.
func (f *Feed) Err() error { return nil }

// Reader opens a reader of some lanes, for one subtask of a job: split k is
// lanes[k], and SplitName its number. Without a Seek it begins with the oldest
// entry that the log has. Offsets number a lane's entries of all kinds. What it
// has not read is kept while it is open; Ack does not matter to it. Read fails
// when the feed has ended. who names it in Stats.
func (f *Feed) Reader(who string, lanes []int) (*Reader, error) { return nil, errors.New("soon") }

// LanesOf are the lanes of subtask i of p.
func (f *Feed) LanesOf(i, p int) []int {
	var lanes []int
	for l := i; l < f.config.Lanes; l += p {
		lanes = append(lanes, l)
	}
	return lanes
}

// Reader is a sensors.Reader of a feed's log, with named splits.
type Reader struct {
	sensors.Reader
}

// SplitName is the number of the lane.
func (r *Reader) SplitName(split int) string { return "" }

// Pin keeps the log from offset on, for a checkpoint or savepoint, until Unpin
// of the same name: at[lane] is the offset; a lane that is not in it is free.
// It is durable when Pin returns. Pinning a name again replaces it.
func (f *Feed) Pin(name string, at map[int]int64) error { return errors.New("soon") }

// Unpin ends a pin. A name that is not pinned is none.
func (f *Feed) Unpin(name string) error { return errors.New("soon") }

// Stats are counters since the feed was opened, and where the log stands.
func (f *Feed) Stats() Stats { return Stats{} }

// Close gives the feed back. The last Close ends the session (the broker keeps
// it), then the log; readers fail from then on.
func (f *Feed) Close() error { return nil }

// Stats is what a feed has done.
type Stats struct {
	Session  mqtt.ReaderStats // received, duplicates, shed, connected, …; zero if the session counts nothing
	Appended int64            // messages made durable
	Commits  int64            // fsyncs for them
	Full     bool             // the log has no room now
	Bytes    int64            // of the log on disk
	Lanes    []LaneStats
	Readers  []ReaderStats // in the order in which they were opened
}

// LaneStats is where a lane of the log stands.
type LaneStats struct {
	First int64         // the oldest entry that is kept
	Next  int64         // after the newest durable one
	Clock dataflow.Time // of the newest; MinTime: there is none
}

// ReaderStats is how far a reader is.
type ReaderStats struct {
	Who    string
	Lanes  []int
	Unread int64 // entries, durable and not handed out yet
}

// Info is what is known of a feed that does not run.
type Info struct {
	Name   string
	Config Config
	Bytes  int64
	Lanes  []LaneStats
	Pins   []Pin
}

// Pin is who keeps the log from where on.
type Pin struct {
	Name string
	At   map[int]int64
}
