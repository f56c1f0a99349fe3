package dedupe

import (
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// How many ids are remembered of a split. One takes 32 to 64 bytes.
const (
	DefaultEntries = 1_000_000
	MaxEntries     = 10_000_000
)

// Config says what makes two rows the same reading.
type Config struct {
	By      []int             // columns; a row in which one of them is null is never a duplicate
	Within  dataflow.Duration // of the arrival of the first
	Entries int               // ids remembered of each split; when there are so many the oldest is forgotten
}

// Filter remembers the ids that the splits of one source subtask have shown.
//
// An id is the 128-bit hash (xxh3) of the columns' values, encoded as the key of
// several columns is (state.AppendKeyPart); encoding and hash are part of the
// state format and never change. Two ids of a million having one hash is as
// likely as 10^-27.
//
// A Filter belongs to one goroutine.
type Filter struct {
	cfg       Config
	pool      *batch.Pool
	splits    []memory
	tables    []operator.StateTable
	forgotten int64
	sel       []int32
	buf       []byte
}

// New makes the filter of a source subtask whose rows have this schema and that
// reads the splits with these numbers, which are the job's. Calls name a split
// by its place in the list. pool is for snapshots.
func New(cfg Config, schema *batch.Schema, splits []int, pool *batch.Pool) *Filter {
	f := &Filter{cfg: cfg, pool: pool, splits: make([]memory, len(splits)), tables: Tables(cfg, schema)}
	for i, n := range splits {
		f.splits[i].number = int64(n)
	}
	return f
}

// Fresh is the positions of b, rows of one split in the order of their arrival,
// that are no duplicates; all tells that there is none. arrivals are those of
// the positions, nil where the split has no arrival clock: then ids are never
// too old. The slice is valid until the next call.
func (f *Filter) Fresh(split int, b *batch.Batch, arrivals []int64) (rows []int32, all bool) {
	m := &f.splits[split]
	m.ready(f.cfg.Entries)
	f.sel = f.sel[:0]
	for i := range b.Rows {
		now := dataflow.MinTime
		if arrivals != nil {
			now = dataflow.Time(arrivals[i])
		}
		if id, ok := f.id(b, i); !ok || f.isNew(m, id, now) {
			f.sel = append(f.sel, int32(i))
		}
	}
	return f.sel, len(f.sel) == b.Rows
}

// id is the id of a row; false: one of its columns is null.
func (f *Filter) id(b *batch.Batch, row int) (xxh3.Uint128, bool) {
	f.buf = f.buf[:0]
	for _, c := range f.cfg.By {
		if b.Cols[c].IsNull(row) {
			return xxh3.Uint128{}, false
		}
		f.buf = state.AppendKeyPart(f.buf, b.Cols[c], row)
	}
	return xxh3.Hash128(f.buf), true
}

func (f *Filter) isNew(m *memory, id xxh3.Uint128, now dataflow.Time) bool {
	now = max(now, m.latest())
	for m.head < m.tail && m.at(m.head).at.Add(f.cfg.Within) <= now {
		m.drop()
	}
	if m.find(id) {
		return false
	}
	if m.tail-m.head >= int64(f.cfg.Entries) {
		m.drop()
		f.forgotten++
	}
	m.add(entry{id: id, at: now})
	return true
}

// Forgotten is how many ids were dropped before their time because there was no
// room: duplicates of them pass.
func (f *Filter) Forgotten() int64 { return f.forgotten }

// Bytes is the memory held, about.
func (f *Filter) Bytes() (n int64) {
	for i := range f.splits {
		n += f.splits[i].bytes()
	}
	return n
}

// Tables is what StateTables of a Filter is. The columns are named after what
// the ids are made of: with other columns they are other ids.
func Tables(cfg Config, schema *batch.Schema) []operator.StateTable {
	names := make([]string, len(cfg.By))
	for i, c := range cfg.By {
		names[i] = schema.Field(c).Name
	}
	id := "id_" + strings.Join(names, "_")
	return []operator.StateTable{{Name: "dedupe", Spread: operator.Union, Identity: 3, Schema: batch.MustSchema(
		batch.Field{Name: "split", Type: batch.Bigint},
		batch.Field{Name: id + "_high", Type: batch.Bigint},
		batch.Field{Name: id + "_low", Type: batch.Bigint},
		batch.Field{Name: "seq", Type: batch.Bigint},
		batch.Field{Name: "arrival", Type: batch.Timestamp},
	)}}
}
