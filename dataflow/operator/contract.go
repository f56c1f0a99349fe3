package operator

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Progress is what an operator says when it returns to the task.
type Progress uint8

const (
	// Done: the batch is consumed, all its output was emitted.
	Done Progress = iota
	// More: Emit returned false and there is more to emit. The task calls
	// Resume, and nothing else, until it returns Done.
	More
	// Need: the operator has asked its Context's Backing for rows of its state
	// that are on disk, and cannot go on without them. The task has them read and
	// calls Resume, and nothing else; the operator finds them in the Backing.
	Need
)

// Operator is one link of a chain in one subtask. The task calls Open once,
// then Restore for each saved batch of state, then Process for each batch of
// input; all from one goroutine.
//
// Process borrows b. If it returns More and still needs b, it keeps it (Retain)
// until the Resume that returns Done. Rows that belong before a mark are emitted
// before it, and each mark of b goes on downstream, at its place among the
// output's rows, unless the operator's comment says how it changes marks. The
// end of input is a mark with watermark MaxTime; there is no other call for it.
//
// An error is final for the subtask: it means that the job must fail. It need
// not name the operator, the task does. Rows that cannot be processed are not
// errors; they go to the side stream Rejected, or the operator's comment says
// what becomes of them.
type Operator interface {
	Open(ctx *Context) error
	Process(b *batch.Batch, out Output) (Progress, error)
	Resume(out Output) (Progress, error)
	Stateful
}

// Stateful is what an operator does so that its state can be taken and given
// back. State is rows: each of its tables has a schema, and a snapshot is a
// set of batches of it. Operators without state embed Stateless.
//
// A restored operator must go on exactly where the old one stood. The task does
// not repeat marks for it: an operator to which the watermark matters keeps it
// in a table of its own (Union; restored from several, the least counts).
type Stateful interface {
	// StateTables names the tables, in a fixed order. It is constant.
	StateTables() []StateTable
	// Snapshot emits the rows of all tables as they are now: all of them, or
	// (delta) those that changed since the last Snapshot, or since Restore if there
	// was none, a deleted row as one with kind Delete. Both kinds of snapshot count as the last one. Batches
	// carry the key hash of their rows if the table is keyed. The callee of emit
	// borrows the batch. Snapshot is called only between batches, never after
	// More.
	Snapshot(delta bool, emit func(table int, b *batch.Batch) error) error
	// Restore takes back rows of a table; those of key groups that the subtask
	// does not own have been removed, and deltas have been merged into the full
	// snapshot before them: no row has kind Delete, none is there twice. It is
	// called before the first Process, any number of times, tables in order.
	Restore(table int, b *batch.Batch) error
}

// Amender is a Stateful of which tables can be restored before it is known how
// they end, as where a job is restored from a checkpoint and goes on from a later
// one.
type Amender interface {
	// Amends tells whether a table can be amended. It is constant once Open has been
	// called.
	Amends(table int) bool
	// Amend takes rows of a delta on what Restore and Amend have taken of a table: one
	// takes the place of that with the same identity, or is new; one of kind Delete
	// removes it. Otherwise it is as Restore: before the first Process, and before
	// Restore is given the tables behind this one. After an error the operator is of
	// no use.
	Amend(table int, b *batch.Batch) error
}

// Expecter is a Stateful that makes room for what it is going to be given.
type Expecter interface {
	// Expect says about how many rows of a table Restore is going to be given,
	// before the first of them. More or fewer may come.
	Expect(table int, rows int64)
}

// StateTable describes one table of an operator's state.
type StateTable struct {
	Name   string
	Schema *batch.Schema
	Keyed  bool // rows follow their key group; otherwise see Spread
	Spread Spread

	// Identity: the first so many columns tell the rows apart. In a delta a row
	// replaces the older one with the same identity, or, with kind Delete,
	// removes it. 0: every snapshot, a delta too, holds the whole table.
	Identity int
}

// Spread says how the rows of a table that is not keyed are dealt out when the
// parallelism changes.
type Spread uint8

// The ways of operator state.
const (
	Split     Spread = iota // evenly, in order
	Union                   // everything to everybody
	Broadcast               // old subtask i mod p's copy to subtask i
)

// Stateless is embedded by operators that keep nothing between batches.
type Stateless struct{}

// StateTables is empty.
func (Stateless) StateTables() []StateTable { return nil }

// Snapshot emits nothing.
func (Stateless) Snapshot(bool, func(int, *batch.Batch) error) error { return nil }

// Restore is never called, as there are no tables.
func (Stateless) Restore(int, *batch.Batch) error { return nil }

// OneShot is embedded by operators that emit at most one batch for one batch,
// as the last thing they do, and so are never resumed.
type OneShot struct{}

// Resume is never called, because Process never returns More.
func (OneShot) Resume(Output) (Progress, error) { return Done, nil }

// Context is what an operator knows of its place. It is the same for its life.
type Context struct {
	Operator       dataflow.OperatorID
	Subtask        int // 0..Parallelism-1
	Parallelism    int
	MaxParallelism int
	KeyGroups      dataflow.KeyGroupRange // owned, for keyed operators
	Pool           *batch.Pool
	Counters       *Counters
	Backing        Backing // nil: all state stays in memory

	// Large is told of large memory that was just made and is going to be read at
	// random, so that the system can be asked for large pages. It neither reads
	// nor keeps it. Nil: nobody wants to know.
	Large func(memory []byte)
}

// Backing keeps entries of one operator's state that its memory has no room
// for. Get and Scan read the disk, once what was put is written there, and only
// Snapshot and Restore call them; the rest notes wishes that the driver performs when Process has returned Need, or
// between batches. The operator owns no memory that it gets from here after its
// next call.
type Backing interface {
	// Want asks for an entry of a table.
	Want(table int, key []byte)
	// Take hands over each entry wanted and read since the last Take; an entry
	// that is not there has a nil value.
	Take(f func(table int, key, value []byte))
	// Put replaces an entry; a nil value removes it. A Want after it sees it, and
	// so do Get and Scan.
	Put(table int, key, value []byte)
	// Clear removes all entries of a table.
	Clear(table int)
	// Get reads an entry, nil if it is not there.
	Get(table int, key []byte) ([]byte, error)
	// Scan calls f with all entries of a table in order of their keys. f calls
	// nothing of the Backing but Get.
	Scan(table int, f func(key, value []byte) error) error
	// Memory is about how many bytes of its state the operator may keep itself.
	Memory() int64
}

// Side names a side stream of an operator.
type Side uint8

// The side streams.
const (
	Late     Side = iota // rows that came after their windows were gone
	Rejected             // rows or payloads that could not be processed, with the reason
)

// String is the suffix a job uses: STEP.late, STEP.rejected.
func (s Side) String() string { return [...]string{"late", "rejected"}[s] }

// Output takes what an operator emits.
type Output interface {
	// Emit takes a batch of the operator's output schema; the caller still owns
	// its reference and releases it. False means: taken, but the outputs are
	// full: the operator emits nothing more in this call, on the main stream or
	// a side stream; if it has more to emit for this input it returns More.
	Emit(b *batch.Batch) bool
	// EmitSide is Emit for a side stream. Its rows stand among the marks that they
	// came among; behind them the task gives a side stream the last mark of the
	// input, so that one without rows goes on too. When nobody reads the side stream, the rows are dropped here (the
	// operator counts them).
	EmitSide(s Side, b *batch.Batch) bool
	// Wanted tells whether anybody reads the side stream, so that an operator
	// need not build batches for nobody.
	Wanted(s Side) bool
}

// Counters is where rows go that do not go on, by invariant: every row that
// enters a job is counted exactly once, here or by a sink. One subtask writes,
// others read; the task publishes a copy after every step. The task counts In
// and Out, the operator everything else.
type Counters struct {
	In          int64 // rows that entered the operator
	Out         int64 // rows it emitted, without side streams
	Filtered    int64 // rows that a where took out
	Late        int64 // rows that came too late for all their windows
	NoWindow    int64 // rows that no window covers (sliding with gaps)
	Duplicates  int64 // rows that dedupe had seen before
	Forgotten   int64 // ids that dedupe had no room to remember for as long as it should: not rows
	Rejected    int64 // rows or payloads that could not be processed
	Markers     int64 // marker rows that carried a watermark and are not data
	DivByZero   int64 // integer divisions by zero: null
	Overflow    int64 // integer overflows: null
	Fired       int64 // windows fired, re-firings included
	OpenWindows int64 // windows or sessions open now
	KeysLive    int64 // keys with state now
	StateBytes  int64 // memory of the state now, about

	FirstRejected string // why the first of Rejected was; empty: none was
}

// Factory makes the operators of one step, one for each subtask. It is
// immutable and safe to use from several goroutines.
type Factory interface {
	// Output is the schema of the step's main stream.
	Output() *batch.Schema
	// Side is the schema of a side stream of the step, nil if it has none.
	Side(s Side) *batch.Schema
	New() Operator
}

// Backed is a Factory whose operators can keep their state in a Backing.
type Backed interface {
	// Backed tells whether those of this step do.
	Backed() bool
}
