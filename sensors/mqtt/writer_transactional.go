package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
	durable "github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// TransactionalOptions say what a TransactionalWriter publishes.
type TransactionalOptions struct {
	// WriterOptions' ClientID is the sink's: the only subtask has it, subtask i
	// of several has ClientID-i. MaxInFlight is the most rows of a piece; MaxBytes
	// is not used.
	WriterOptions
	Subtask     int
	Parallelism int

	// Dir is a folder that outlives the process, beside the checkpoints: for the
	// journal, and for pending rows that memory has no room for. "": there is no
	// journal, so that a process that dies inside a commit publishes all of it
	// again; and no more than MaxPending bytes can wait.
	Dir string
	FS  durable.FS // that Dir is on

	MaxPending int // bytes of pending rows in memory. 0: 16 MiB

	Placed sensors.Placed // where the sink is in a site; the zero value: there is none
}

const (
	maxPiece          = 64 << 10 // bytes; a row that is longer is a piece of its own
	defaultMaxPending = 16 << 20
	recordVersion     = 1
)

// TransactionalWriter is a sink that publishes rows after their checkpoint
// completed. How far that is exactly once is in docs/MQTT.md: with QoS 2, a
// journal, and a broker that keeps the session, no crash at any step makes a
// row come twice or not at all.
//
// Rows wait in memory up to MaxPending, then in Dir. A commit publishes them
// piece by piece; see courier for how.
type TransactionalWriter struct {
	o     TransactionalOptions
	id    string // client id
	topic template

	queue   *pending.Queue // appendRow by appendRow
	trans   *pending.Transactions
	begin   int64 // where the piece that is being filled begins
	count   int   // its rows
	courier *courier
	closed  bool
	last    dataflow.CheckpointID // of Commit, which makes its own
	through dataflow.CheckpointID // up to which all is published
	adopted []sensors.Commit      // of client ids that nobody has any more

	name, payload, row, piece []byte
}

var (
	_ sensors.Writer        = (*TransactionalWriter)(nil)
	_ sensors.Transactional = (*TransactionalWriter)(nil)
	_ sensors.Recorder      = (*TransactionalWriter)(nil)
)

// ClientID is the id of a subtask of a sink, and its target in checkpoints.
func ClientID(sink string, subtask, parallelism int) string {
	if parallelism <= 1 {
		return sink
	}
	return sink + "-" + strconv.Itoa(subtask)
}

// NewTransactionalWriter makes a writer; it connects in Recover. Options that
// cannot work are an error.
func NewTransactionalWriter(o TransactionalOptions) (*TransactionalWriter, error) {
	if _, err := o.resolve(); err != nil {
		return nil, err
	}
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if o.ClientID == "" || o.Parallelism < 1 || o.Subtask < 0 || o.Subtask >= o.Parallelism {
		return nil, fmt.Errorf("mqtt: a transactional sink needs a client id; this is subtask %d of %d of %q", o.Subtask, o.Parallelism, o.ClientID)
	}
	if o.Placed.Node != "" && (len(o.Placed.Nodes) != o.Parallelism || o.Placed.Nodes[o.Subtask] != o.Placed.Node) {
		return nil, fmt.Errorf("mqtt: subtask %d of %d of %q does not run on agent %q of %q", o.Subtask, o.Parallelism, o.ClientID, o.Placed.Node, o.Placed.Nodes)
	}
	if o.Dir != "" && o.FS == nil {
		return nil, errors.New("mqtt: a transactional sink with a folder needs its file system")
	}
	if o.MaxPending <= 0 {
		o.MaxPending = defaultMaxPending
	}
	t, err := parseTemplate(o.Topic, o.Schema)
	if err != nil {
		return nil, err
	}
	w := &TransactionalWriter{o: o, id: ClientID(o.ClientID, o.Subtask, o.Parallelism), topic: t, trans: pending.NewTransactions(1)}
	scratch := ""
	if o.Dir != "" {
		scratch = strings.TrimSuffix(journalName(o.Dir, w.id), ".journal") + ".pending"
		j, err := openJournal(o.FS, o.Dir, w.id) // makes the folder, durably
		if err == nil {
			err = j.close()
		}
		if err != nil {
			return nil, err
		}
	}
	if w.queue, err = pending.NewQueue(o.FS, scratch, o.MaxPending, 0); err != nil {
		return nil, roomFault(scratch, err)
	}
	return w, nil
}

// Write encodes the rows of b and keeps them pending. See sensors.Writer.
func (w *TransactionalWriter) Write(_ context.Context, b *batch.Batch) error {
	if w.closed {
		return fmt.Errorf("%w: the writer to %s", ErrClosed, w.o.Broker)
	}
	if w.o.Dir == "" && w.queue.End()-w.queue.First() >= int64(w.o.MaxPending) {
		return fmt.Errorf("mqtt: %d bytes of rows wait for a checkpoint, and there is no folder for more; take checkpoints more often, or run with --state", w.queue.End()-w.queue.First())
	}
	if err := w.queue.Room(); err != nil {
		return roomFault("pending rows", err)
	}
	for k := range b.Len() {
		pos := b.Position(k)
		w.name = w.topic.append(w.name[:0], b, pos)
		w.payload = w.o.Encode(w.payload[:0], b, pos)
		if err := checkRow(w.name, w.payload); err != nil {
			return err
		}
		w.row = appendRow(w.row[:0], w.name, w.payload)
		if w.count > 0 && w.queue.End()+int64(len(w.row))-w.begin > maxPiece {
			w.endPiece()
		}
		w.queue.SetTail(append(w.queue.Tail(), w.row...))
		if w.count++; w.count == w.o.MaxInFlight {
			w.endPiece()
		}
	}
	return nil
}

func (w *TransactionalWriter) endPiece() {
	w.begin = w.queue.End()
	w.trans.Add(w.begin, w.count)
	w.count = 0
}

// record is piece 0 of a target, JSON; the other pieces have a pieceHead before
// their rows. docs/MQTT.md has both byte by byte.
type record struct {
	Version int    `json:"version"`
	Client  string `json:"client"`
	Next    int64  `json:"next"` // number of the next piece
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and strings always can
	}
	return b
}

// Prepare ends the transaction. See sensors.Transactional.
func (w *TransactionalWriter) Prepare(id dataflow.CheckpointID, full bool, emit func(sensors.Pending) error) error {
	if w.count > 0 {
		w.endPiece()
	}
	own := record{Version: recordVersion, Client: w.id, Next: w.trans.Next()}
	if err := w.trans.Prepare(id, full, w.id, mustJSON(own), w.data, w.queue.First(), emit); err != nil {
		return fmt.Errorf("mqtt: pending rows of %q: %w", w.id, err)
	}
	return nil
}

// data is a piece as a checkpoint holds it: a line that names it, then its
// rows. It is valid until the next call.
func (w *TransactionalWriter) data(p pending.Piece, begin int64) ([]byte, error) {
	w.piece = append(append(w.piece[:0], mustJSON(keyOf(p.ID, p.Number))...), '\n')
	head := len(w.piece)
	w.piece = append(w.piece, make([]byte, p.End-begin)...)
	return w.piece, w.queue.Read(w.piece[head:], begin)
}

// CommitThrough publishes the transactions up to id's. See
// sensors.Transactional.
func (w *TransactionalWriter) CommitThrough(ctx context.Context, id dataflow.CheckpointID) error {
	if w.closed {
		return fmt.Errorf("%w: the writer to %s", ErrClosed, w.o.Broker)
	}
	if w.courier == nil {
		return fmt.Errorf("mqtt: %q: Recover was not called", w.id)
	}
	for {
		pieces := w.trans.Through(id)
		if len(pieces) == 0 {
			if w.through.Less(id) {
				w.through = id
			}
			return nil
		}
		p := pieces[0]
		var next *pieceKey
		if len(pieces) > 1 {
			k := keyOf(pieces[1].ID, pieces[1].Number)
			next = &k
		}
		rows := make([]byte, p.End-w.queue.First())
		if err := w.queue.Read(rows, w.queue.First()); err != nil {
			return roomFault("pending rows", err)
		}
		if err := w.courier.deliver(ctx, &held{key: keyOf(p.ID, p.Number), rows: rows}, next); err != nil {
			return err
		}
		w.queue.Drop(p.End)
		w.trans.Commit(w.id, 1)
	}
}

// Commits is how far the client id's rows are published, and those of ids that
// nobody has any more. See sensors.Recorder.
func (w *TransactionalWriter) Commits() []sensors.Commit {
	return append([]sensors.Commit{{Target: w.id, Through: w.through}}, w.adopted...)
}

// Commit publishes what was written so far, in a job without checkpoints.
func (w *TransactionalWriter) Commit(ctx context.Context) error {
	if w.courier == nil && !w.closed {
		if err := w.Recover(ctx, nil, func(string) bool { return false }); err != nil {
			return err
		}
	}
	w.last.Counter++
	if err := w.Prepare(w.last, false, func(sensors.Pending) error { return nil }); err != nil {
		return err
	}
	return w.CommitThrough(ctx, w.last)
}

// Stats is a snapshot of the counters. The goroutine that writes calls it.
func (w *TransactionalWriter) Stats() WriterStats {
	if w.courier == nil {
		return WriterStats{}
	}
	c := w.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.InFlight, s.Connected = len(c.parcels), c.conn != nil
	return s
}

// Close gives up what was not committed and waits for all goroutines.
func (w *TransactionalWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.queue.Close()
	if w.courier != nil {
		err = errors.Join(err, w.courier.close())
	}
	return err
}

// roomFault says what failed, and wraps ErrFull where there is no room.
func roomFault(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("mqtt: %s: %w; the folder of the state must be writable", what, err)
	case disk.IsFull(err):
		return fmt.Errorf("mqtt: %s: %w; rows wait until there is room", what, sensors.Full(err))
	}
	return fmt.Errorf("mqtt: %s: %w", what, err)
}
