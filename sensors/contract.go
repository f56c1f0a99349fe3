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
	Arrivals []int64  // arrival time of each record, µs; never goes back within a split; nil: the split has no arrival clock
	TooLong  []int32  // indexes, ascending, of records over the reader's limit: only their beginning is here, and they go to SOURCE.rejected undecoded
	First    int64    // offset of the first record. Where offsets number records, the i-th is at First+i; a file counts bytes
	Next     int64    // the position after the last record
	Clock    int64    // the split's arrival clock after these records, µs; with no record it is a tick. MinInt64: no clock
	Done     bool     // the split has ended; no record will follow
	Tags     []uint32 // the connector's own note on each record, by which it knows it again after a restart; nil: none
	Notes    []uint32 // the connector's own notes that belong behind these records; a Records may hold nothing else
	Deaf     bool     // no record is here, and the split cannot hear from Clock on: its broker is away. Its next Records is a tick from whose Clock on it hears again; the time between is nobody's silence
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
	*r = Records{Split: s, Payloads: r.Payloads[:0], Ends: r.Ends[:0], Topics: r.Topics[:0], TopicEnd: r.TopicEnd[:0], Arrivals: r.Arrivals[:0], TooLong: r.TooLong[:0], Tags: r.Tags[:0], Notes: r.Notes[:0], Clock: int64(dataflow.MinTime)}
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

// SplitNamer is a Reader or BatchReader whose splits have names of their own,
// by which a restored job finds them again however many subtasks it has: a
// file's path, a lane's number. Without it split k of subtask i of p is named
// by its number, i + k*p.
type SplitNamer interface {
	SplitName(split int) string
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

// Transactional is a Writer that checkpoints take part in. What was written
// between two Prepares is a transaction; it is visible after the CommitThrough
// of its checkpoint, and of no earlier one. Commit is not called on it in a job
// that takes checkpoints.
//
// One goroutine calls: Recover until it succeeds, before the first Write; then
// Write and Prepare; CommitThrough after each checkpoint that completed. A checkpoint
// that did not complete is never mentioned again: its transaction is committed
// with the next one that completes.
type Transactional interface {
	Writer
	// Prepare ends the transaction and emits what a checkpoint must hold so that
	// it, and all before it that are not committed, can be committed by another
	// process: the pieces that are new since the last Prepare, and as Gone those
	// that were committed since; with full, all that are not committed. Piece 0
	// of a target is what the connector must know of it (lengths, packet ids); it
	// is emitted every time. The callee borrows Data.
	Prepare(id dataflow.CheckpointID, full bool, emit func(Pending) error) error
	// CommitThrough makes the transactions up to id's visible and durable. It is
	// idempotent. ErrFull: there is no room; the caller tries again.
	CommitThrough(ctx context.Context, id dataflow.CheckpointID) error
	// Recover brings the targets to where they were at the checkpoint from which
	// the job is restored and commits its pending rows: nothing of them is lost
	// or there twice, also when it is interrupted and called again. pending holds
	// the pieces of all subtasks of the sink, old and perhaps of another
	// parallelism, in order of target and piece: a writer takes its own, and
	// those of the targets that nobody owns any more if owns says so. A fresh
	// start calls it too, with nothing pending: then what an earlier job left at
	// the targets is not ours. It may wait for a broker, until ctx ends. ErrFull:
	// there is no room; the caller calls it again, with the same arguments, as
	// after any other error it may.
	Recover(ctx context.Context, pending []Pending, owns func(target string) bool) error
}

// Pending is a piece of what a transactional writer has not committed.
type Pending struct {
	Target string // what it is to become a part of: a file, a client id
	Piece  int64  // with Target it is unique; grows; 0 is the target's own record
	Gone   bool   // the piece was committed and need not be kept any more
	Data   []byte // at most about 64 KiB; its meaning is the connector's, and has a version
}

// ErrFull is wrapped by a Writer's errors when the target has no room: the
// rows stay pending, and the caller holds its inputs back and tries again.
var ErrFull = errors.New("no space left")

// Full makes err an ErrFull that says no more than err: "no space left on
// device" needs no second "no space left".
func Full(err error) error { return full{err} }

type full struct{ error }

func (f full) Unwrap() error        { return f.error }
func (f full) Is(target error) bool { return target == ErrFull }
