package sensors

import (
	"context"
	"errors"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Position is a reader's place in one of its splits: everything before it was
// handed out. Its meaning is the connector's (a byte offset, a sequence
// number), but it only ever grows.
type Position struct {
	Split  int
	Offset int64
}

// Records is a run of raw records of one split, in order, as struct of arrays:
// no allocation per record. The reader's caller owns it and passes it in
// again; what it holds is valid until then.
type Records struct {
	Split    int
	Payloads []byte  // all payloads, one after the other
	Ends     []int32 // Ends[i] is where payload i ends
	Topics   []byte  // MQTT topics in the same way; empty for other connectors
	TopicEnd []int32
	Arrivals []int64 // arrival time of each record, µs; never goes back within a split; nil: the split has no arrival clock
	TooLong  []int32 // indexes, ascending, of records over the reader's limit: only their beginning is here, and they go to SOURCE.rejected undecoded
	First    int64   // offset of the first record. Where offsets number records, the i-th is at First+i; a file counts bytes
	Next     int64   // the position after the last record
	Clock    int64   // the split's arrival clock after these records, µs; with no record it is a tick. MinInt64: no clock
	Done     bool    // the split has ended; no record will follow
	Deaf     bool    // no record is here, and the split cannot hear from Clock on: its broker is away. Its next Records is a tick from whose Clock on it hears again; the time between is nobody's silence
}

// Len is the number of records.
func (r *Records) Len() int { return len(r.Ends) }

// Payload is the payload of record i.
func (r *Records) Payload(i int) []byte { return r.Payloads[start(r.Ends, i):r.Ends[i]] }

// Topic is the topic of record i, empty if there are none.
func (r *Records) Topic(i int) []byte {
	if len(r.TopicEnd) == 0 {
		return nil
	}
	return r.Topics[start(r.TopicEnd, i):r.TopicEnd[i]]
}

func start(ends []int32, i int) int32 {
	if i == 0 {
		return 0
	}
	return ends[i-1]
}

// Reset empties r for split s and keeps its memory.
func (r *Records) Reset(s int) {
	*r = Records{Split: s, Payloads: r.Payloads[:0], Ends: r.Ends[:0], Topics: r.Topics[:0], TopicEnd: r.TopicEnd[:0], Arrivals: r.Arrivals[:0], TooLong: r.TooLong[:0], Clock: int64(dataflow.MinTime)}
}

// Append adds a record without an arrival time.
func (r *Records) Append(payload []byte) {
	r.Payloads = append(r.Payloads, payload...)
	r.Ends = append(r.Ends, int32(len(r.Payloads)))
}

// AppendMessage adds a record with topic and arrival time.
func (r *Records) AppendMessage(topic, payload []byte, arrival int64) {
	r.Append(payload)
	r.Topics = append(r.Topics, topic...)
	r.TopicEnd = append(r.TopicEnd, int32(len(r.Topics)))
	r.Arrivals = append(r.Arrivals, arrival)
}

// Reader is one subtask's share of a source. One goroutine calls Read, Ack and
// Close; Read may block until there is something, all else is quick.
type Reader interface {
	// Splits is the number of splits this reader has; Records.Split is below it.
	Splits() int
	// Read fills r, which it resets first, with what is there: at least one
	// record, a tick, or the end of a split; at most max records, all of one
	// split. It blocks until then or until ctx ends (then it returns ctx's
	// error). io.EOF means that all splits have ended. Other errors are final
	// and name the file or broker; a broker that is away is not an error.
	Read(ctx context.Context, r *Records, max int) error
	// Ack says that everything before p is safe: the connector may acknowledge
	// it to whoever sent it. Positions of one split are acknowledged in order.
	Ack(p Position)
	// Seek sets where a split is read from next, before the first Read.
	Seek(p Position) error
	Close() error
}

// BatchReader is a source that makes columns itself, without payloads to
// decode.
type BatchReader interface {
	// ReadBatch returns the next batch with event times set, its split, and the
	// position after it; the caller owns the reference. io.EOF at the end.
	// Arrivals are in arrivals, one for each row (nil: no arrival clock).
	ReadBatch(ctx context.Context, max int) (b *batch.Batch, arrivals []int64, p Position, err error)
	Seek(p Position) error
	Close() error
}

// Writer is one subtask's share of a sink. One goroutine calls it.
//
// Rows are pending from Write until the Commit that follows; a reader of the
// sink's target sees either none or all of them where the connector can do
// that, and its comment says where it cannot.
type Writer interface {
	// Write takes the rows of b, in order; marks do not matter to it. It borrows
	// b. It may block for back-pressure until ctx ends. ErrFull means that there
	// is no room even for pending rows: nothing of b was taken, and the caller
	// comes again with it.
	Write(ctx context.Context, b *batch.Batch) error
	// Commit makes all rows written so far visible and durable. ErrFull means
	// that there is no room: nothing of the commit is visible, and the caller
	// tries again later.
	Commit(ctx context.Context) error
	// Close gives up what was not committed.
	Close() error
}

// ErrFull is wrapped by a Writer's errors when the target has no room: the
// rows stay pending, and the caller holds its inputs back and tries again.
var ErrFull = errors.New("no space left")
