package ingestlog

import (
	"errors"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Options say where a log is and how much it keeps.
type Options struct {
	Dir          string // made if it is not there; other files in it are left alone
	Lanes        int    // of a new log; 0: as the log on disk has, or 1. Another number than the log has is refused
	SegmentBytes int64  // size at which a new segment is begun; 0: 64 MiB. At most an eighth of Cap and of Retain.Bytes
	Retain       Retention
	Cap          int64 // bytes of all segments at which Append refuses with store.ErrFull; 0: the disk is the bound
	TailBytes    int64 // recent entries kept in memory for readers at the end; 0: 8 MiB

	ReadOnly bool        // nothing is changed, and nobody may have the log open for writing
	Events   func(Event) // called by the goroutine that opens, appends, commits; nil: nobody listens

	// OpenDB opens a segment; nil: bolt.Open. Tests fail writes with it.
	OpenDB func(path string, mode os.FileMode, o *bolt.Options) (*bolt.DB, error)
}

// Retention is what may be deleted: a segment goes if all of it is older than
// Age by the arrival clock, or if all segments together exceed Bytes. What is
// pinned, and the last KeptMessages messages, stay in any case.
type Retention struct {
	Age   dataflow.Duration // 0: no bound
	Bytes int64             // 0: no bound
}

// KeptMessages is how many of the last messages retention leaves in a log, so
// that a connector can tell what a broker sends again.
const KeptMessages = 65536

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	Rolled  EventKind = iota + 1 // a new segment was begun
	Deleted                      // retention deleted a segment
	Full                         // the cap or the disk is reached: nothing is taken
	Room                         // there is room again
	Failed                       // a commit failed; what it would have made durable waits for the next
	Damaged                      // bytes on disk are not those that were written
	Cleaned                      // a file that a crash left half made was removed
)

// Event is something that a person may want to know.
type Event struct {
	Kind EventKind
	File string
	Err  error
}

// LaneState is what a lane holds. All of it is durable.
type LaneState struct {
	First   int64         // offset of the oldest entry that is kept
	Next    int64         // offset of the next entry
	Clock   dataflow.Time // arrival clock after the last entry; MinTime: it has none yet
	Deaf    bool          // the last change said that it cannot hear
	Records int64         // messages kept
	Bytes   int64         // their payloads and topics
}

// Stats is the state of a whole log.
type Stats struct {
	Bytes    int64 // of all segments
	Segments int
	Pending  int64 // bytes appended that are not durable
}

// ErrClosed is wrapped by what is called after Close.
var ErrClosed = errors.New("closed")

// Log is the log of a feed. One goroutine, its owner, calls Append, Commit,
// MakeRoom and, when it is done, Close; any goroutine calls the rest.
type Log struct {
	o Options
}

// Open opens a log or makes a new one. It takes the lock of the folder
// (store.ErrLocked if another process has it) and recovers what a crash left:
// all commits that returned are there, and of one that did not either all or
// nothing. Damage that keeps it from knowing what is in the log is an error, and
// wraps store.ErrCorrupt.
func Open(o Options) (*Log, error) { return nil, errors.ErrUnsupported }

// Append takes the entries of a lane (r.Split): its messages, then its notes;
// or a tick, or that the lane is deaf. r.First and r.Next do not matter. Arrival
// times and clocks that go back, also behind what an earlier process wrote, are
// set to the lane's clock. It returns the position behind them.
//
// Nothing is durable or visible before Commit. store.ErrFull: nothing of r was
// taken; see MakeRoom. The callee borrows r.
func (l *Log) Append(r *sensors.Records) (sensors.Position, error) {
	return sensors.Position{}, errors.ErrUnsupported
}

// Commit makes durable and then visible what was appended. After an error
// nothing of it is visible, and the next Commit writes the same again:
// store.ErrFull means that the disk is full, anything else that it fails.
func (l *Log) Commit() error { return errors.ErrUnsupported }

// MakeRoom deletes what retention lets go at an instant of the arrival clock. It
// is for an owner whose Append was refused: the clock of a log that takes
// nothing stands still. store.ErrFull: there is still no room.
func (l *Log) MakeRoom(now dataflow.Time) error { return errors.ErrUnsupported }

// Tail calls f with the last n messages, and all notes behind the first of
// them, in the order in which they were appended over all lanes, until f
// returns false. Tags are set; Notes are in Records of their own, or behind the
// messages that they were appended with. f borrows what it gets.
func (l *Log) Tail(n int, f func(*sensors.Records) bool) error { return errors.ErrUnsupported }

// Lanes is the number of lanes.
func (l *Log) Lanes() int { return 0 }

// Lane is the state of a lane.
func (l *Log) Lane(i int) LaneState { return LaneState{} }

// Stats is the state of the log.
func (l *Log) Stats() Stats { return Stats{} }

// Pin keeps the entries from the given positions on (Split is the lane; other
// lanes are not pinned), in place of what the same name pinned before. Pins are
// not written down: after Open the owner pins before its first Append.
func (l *Log) Pin(name string, at []sensors.Position) {}

// Unpin lets go what a name pinned.
func (l *Log) Unpin(name string) {}

// Verify reads all blocks and returns an error that names each damaged one, its
// file, lane and offsets; it wraps store.ErrCorrupt.
func (l *Log) Verify() error { return errors.ErrUnsupported }

// Close gives up what was not committed, ends all readers and lets the lock go.
func (l *Log) Close() error { return nil }
