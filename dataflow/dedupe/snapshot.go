package dedupe

import (
	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// The columns of the table.
const (
	colSplit = iota
	colHigh
	colLow
	colSeq
	colArrival
)

// StateTables names the one table; see operator.Stateful for what it, Snapshot
// and Restore promise. It goes to every subtask, which takes the rows of its own
// splits.
func (f *Filter) StateTables() []operator.StateTable { return f.tables }

// Snapshot emits what is remembered, or what has come and gone since the last
// one.
func (f *Filter) Snapshot(delta bool, emit func(table int, b *batch.Batch) error) error {
	w := writer{bl: batch.NewBuilder(f.pool, f.tables[0].Schema), emit: emit}
	for i := range f.splits {
		m := &f.splits[i]
		m.ready(f.cfg.Entries)
		from := m.head
		if delta {
			from = max(m.saved, m.head)
			for _, id := range m.graves {
				if m.find(id) {
					continue // it has come back: its new row replaces the old one
				}
				w.id(m, id)
				w.bl.EndRow(0)
				w.bl.Kind(batch.Delete)
				if err := w.full(); err != nil {
					return err
				}
			}
		}
		for q := from; q < m.tail; q++ {
			e := m.at(q)
			w.id(m, e.id)
			w.bl.SetInt(colSeq, q)
			w.bl.SetInt(colArrival, int64(e.at))
			w.bl.EndRow(0)
			if err := w.full(); err != nil {
				return err
			}
		}
		m.saved, m.graves = m.tail, nil
	}
	return w.flush()
}

// writer cuts the table into batches.
type writer struct {
	bl   *batch.Builder
	emit func(int, *batch.Batch) error
}

func (w *writer) id(m *memory, id xxh3.Uint128) {
	w.bl.SetInt(colSplit, m.number)
	w.bl.SetInt(colHigh, int64(id.Hi))
	w.bl.SetInt(colLow, int64(id.Lo))
}

func (w *writer) full() error {
	if w.bl.Full() {
		return w.flush()
	}
	return nil
}

func (w *writer) flush() error {
	b := w.bl.Take()
	if b == nil {
		return nil
	}
	defer b.Release()
	return w.emit(0, b)
}

// Restore takes back rows; those of other subtasks' splits are passed over.
func (f *Filter) Restore(_ int, b *batch.Batch) error {
	for i := range f.splits {
		m := &f.splits[i]
		for k := range b.Len() {
			r := b.Position(k)
			if b.Cols[colSplit].Ints[r] != m.number {
				continue
			}
			m.loose = append(m.loose, loose{seq: b.Cols[colSeq].Ints[r], entry: entry{
				id: xxh3.Uint128{Hi: uint64(b.Cols[colHigh].Ints[r]), Lo: uint64(b.Cols[colLow].Ints[r])},
				at: dataflow.Time(b.Cols[colArrival].Ints[r]),
			}})
		}
	}
	return nil
}
