package task

import (
	"strconv"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// splitsName is the table of a source's splits, a row for each. The tables of
// eventtime stand behind it: they know splits by number, and this one says which
// split that was.
const splitsName = "task.splits"

// Its columns.
const (
	splitNumber = iota
	splitName
	splitOffset // null: never read
	splitHeaded // its header has been seen
	splitHeader // null: none, or it was none that names columns
	splitDeaf
	splitEnded
)

func splitsTable() operator.StateTable {
	return operator.StateTable{Name: splitsName, Spread: operator.Union, Schema: batch.MustSchema(
		batch.Field{Name: "split", Type: batch.Bigint},
		batch.Field{Name: "name", Type: batch.String},
		batch.Field{Name: "offset", Type: batch.Bigint},
		batch.Field{Name: "headed", Type: batch.Boolean},
		batch.Field{Name: "header", Type: batch.Bytes},
		batch.Field{Name: "deaf", Type: batch.Boolean},
		batch.Field{Name: "ended", Type: batch.Boolean},
	)}
}

// split is what a source knows of one of its splits beside its time.
type split struct {
	name   string
	offset int64
	read   bool   // offset is known
	headed bool   // the header has been seen
	again  bool   // restored behind the header: a reader that hands it out first does so once more
	header []byte // the record that was it; nil: it was too long
	deaf   bool   // the last thing heard was that nothing can be heard
	ended  bool
}

// newSplits makes what is known of splits that were never read.
func newSplits(cfg *SourceConfig) []split {
	splits := make([]split, len(cfg.Splits))
	for i, n := range cfg.Splits {
		splits[i].name = strconv.Itoa(n)
		if cfg.Names != nil {
			splits[i].name = cfg.Names[i]
		}
	}
	return splits
}

// passed notes that everything before p was taken.
func (s *source) passed(p sensors.Position) {
	sp := &s.splits[p.Split]
	sp.offset, sp.read = p.Offset, true
}

// positions are those of the splits that were read.
func (s *source) positions() []SplitPosition {
	var all []SplitPosition
	for i := range s.splits {
		if sp := &s.splits[i]; sp.read {
			all = append(all, SplitPosition{Operator: s.link.id, Split: sp.name, Offset: sp.offset, Ended: sp.ended})
		}
	}
	return all
}

func (s *source) saveSplits(schema *batch.Schema, emit func(*batch.Batch) error) error {
	w := tableWriter{bl: batch.NewBuilder(s.task.cfg.Pool, schema), emit: emit}
	for i := range s.splits {
		sp := &s.splits[i]
		w.bl.SetInt(splitNumber, int64(s.cfg.Splits[i]))
		w.bl.SetString(splitName, sp.name)
		if sp.read {
			w.bl.SetInt(splitOffset, sp.offset)
		}
		w.bl.SetBool(splitHeaded, sp.headed)
		if sp.header != nil {
			w.bl.SetBytes(splitHeader, sp.header)
		}
		w.bl.SetBool(splitDeaf, sp.deaf)
		w.bl.SetBool(splitEnded, sp.ended)
		if err := w.next(); err != nil {
			return err
		}
	}
	return w.flush()
}

// restoreSplits takes back what is known of this subtask's splits, and learns
// the numbers that splits had.
func (s *source) restoreSplits(b *batch.Batch) {
	s.restored = true
	if s.renumber == nil {
		s.renumber, s.byName = make(map[int64]int64), make(map[string]int)
		s.unknown = len(s.splits)
		for i := range s.splits {
			s.byName[s.splits[i].name] = i
		}
	}
	for k := range b.Len() {
		row := b.Position(k)
		i, ok := s.byName[string(b.Cols[splitName].At(row))]
		if !ok {
			continue
		}
		before, now := b.Cols[splitNumber].Ints[row], int64(s.cfg.Splits[i])
		s.renumber[before] = now
		s.unknown--
		s.moved = s.moved || before != now
		sp := &s.splits[i]
		if !b.Cols[splitOffset].IsNull(row) {
			sp.offset, sp.read = b.Cols[splitOffset].Ints[row], true
		}
		sp.headed = b.Cols[splitHeaded].Bits.Get(row)
		sp.again = sp.headed && sp.offset > 0
		if !b.Cols[splitHeader].IsNull(row) && s.decoder != nil {
			sp.header = append([]byte{}, b.Cols[splitHeader].At(row)...)
			// A header that names the wrong columns was rejected when it was read;
			// the decoder knows again that this split has none.
			_ = s.decoder.Header(i, sp.header)
		}
		sp.deaf = b.Cols[splitDeaf].Bits.Get(row)
		if b.Cols[splitEnded].Bits.Get(row) {
			s.endSplit(i)
		}
	}
}

// renumbered is b, rows of a table of eventtime's, with the numbers that splits
// have now; those of others are left out. A negative number is no split's, and
// stays. The caller owns the reference.
func (s *source) renumbered(b *batch.Batch) *batch.Batch {
	d := b.Pool().DeriveAll(b)
	numbers := d.Own(0, b.Rows)
	sel := d.OwnSel(b.Len())
	for k := range b.Len() {
		row := b.Position(k)
		n := b.Cols[0].Ints[row]
		if now, ok := s.renumber[n]; ok {
			n = now
		} else if n >= 0 {
			continue
		}
		numbers.Ints[row] = n
		sel = append(sel, int32(row))
	}
	d.Sel = sel
	return d
}

// endSplit notes that nothing more comes from a split.
func (s *source) endSplit(i int) {
	if sp := &s.splits[i]; !sp.ended {
		sp.ended = true
		s.open--
		s.over = s.open == 0
	}
}

// begin says again where a restored source stands. Programs before this one noted
// of a drained split only in the tables of its time that it had ended.
func (s *source) begin() {
	for i := range s.splits {
		if s.time.Ended(i) {
			s.endSplit(i)
		}
	}
	m := s.time.Now()
	s.emitMark(m, said(m))
}

// StateTables are the splits', then those of the source's time.
func (s *source) StateTables() []operator.StateTable { return s.tables }

// Snapshot is operator.Stateful's.
func (s *source) Snapshot(delta bool, emit func(int, *batch.Batch) error) error {
	err := s.saveSplits(s.tables[0].Schema, func(b *batch.Batch) error { return emit(0, b) })
	if err != nil {
		return err
	}
	err = s.time.Snapshot(delta, func(table int, b *batch.Batch) error { return emit(table+1, b) })
	if err != nil || s.dups == nil {
		return err
	}
	return s.dups.Snapshot(delta, func(table int, b *batch.Batch) error { return emit(s.dups.table+table, b) })
}

// Restore is operator.Stateful's.
func (s *source) Restore(table int, b *batch.Batch) error {
	if table == 0 {
		s.restoreSplits(b)
		return nil
	}
	d := s.renumbered(b)
	defer d.Release()
	if s.dups != nil && table >= s.dups.table {
		return s.dups.Restore(table-s.dups.table, d)
	}
	return s.time.Restore(table-1, d)
}
