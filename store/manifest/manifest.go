// Package manifest owns what a checkpoint or savepoint is: the list of parts
// that hold a job's state at one barrier, with what a reader must know of each.
// It encodes and decodes manifests, says which parts are needed by those that
// are kept, and which manifests to let go. It is pure: whoever keeps them on
// disk is store/part.
//
// docs/MANIFEST_FORMAT.md has the bytes.
package manifest

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// Kind tells checkpoints from savepoints. Both have one format.
type Kind uint8

// The kinds.
const (
	Checkpoint Kind = iota + 1 // the job's own, for recovery; retention lets it go
	Savepoint                  // a person's: it stands alone, and only a person deletes it. But for that of a move it has whole parts only
)

// CheckpointPrefix is what the names of a job's own checkpoints begin with, and no
// savepoint's.
const CheckpointPrefix = "chk-"

// Manifest is a completed checkpoint or savepoint.
//
// Invariants: every subtask of every operator with state has its shard in each
// of the operator's tables, also an empty one.
type Manifest struct {
	Kind           Kind
	Name           string // unique in its store: "chk-3-17" (attempt, counter), "sp-2f9c41d0"
	Job            string
	ID             dataflow.CheckpointID
	Created        dataflow.Time     // of the wall clock, for people; nothing is decided by it
	Took           dataflow.Duration // from its trigger until all its parts were there; for people
	MaxParallelism int
	Mode           string // "exactly-once" or "at-least-once"
	Drained        bool   // the input was ended before it: no job begins with it
	Finished       bool   // all input was read to its end: there is nothing left to do
	Operators      []Operator
}

// Operator is the state of one operator.
type Operator struct {
	ID          dataflow.OperatorID
	Parallelism int
	Positions   []Position // of a source, by split name
	Tables      []Table
}

// Position is where a split of a source goes on.
type Position struct {
	Split  string
	Offset int64
	Ended  bool
}

// Table is one table of an operator's state. Schema, Keyed, Spread and Identity
// are operator.StateTable's.
type Table struct {
	Name     string
	Schema   string // Avro, canonical; columns and their types follow from it
	Keyed    bool
	Spread   uint8
	Identity int
	Shards   []Shard // by subtask
}

// Shard is one subtask's rows of a table: the first part, then what changed.
type Shard struct {
	Subtask int
	Parts   []PartUse
}

// PartUse is a part in its place.
type PartUse struct {
	store.Part
	Rows  int64
	Delta bool           // rows replace and remove those of the parts before it
	From  []store.Digest // it was merged from these, byte for byte reproducibly; nil: it was written by a task
}
