package optest

import (
	"fmt"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// stateStore is a checkpoint store in small: it keeps the rows of every table
// and merges deltas into them by identity.
type stateStore struct {
	pool   *batch.Pool
	has    bool
	tables [][]stateRow
	taken  [][][]stateRow // by table: the last full snapshot, and the deltas since

	stepwise bool // how what is amended was given last
}

type stateRow struct {
	Row
	hash uint64
}

func newStateStore(p *batch.Pool) stateStore { return stateStore{pool: p} }

// take replaces what is kept by a snapshot of op, or merges a delta into it.
func (s *stateStore) take(tables []operator.StateTable, op operator.Operator, delta bool, ctx *operator.Context) error {
	got, err := snapshot(tables, op, delta, ctx)
	if err != nil {
		return err
	}
	if !delta {
		s.tables, s.has, s.taken = got, true, make([][][]stateRow, len(tables))
		for i := range tables {
			s.taken[i] = [][]stateRow{slices.Clone(got[i])}
		}
		return nil
	}
	for i, t := range tables {
		s.taken[i] = append(s.taken[i], got[i])
		if t.Identity == 0 {
			s.tables[i] = got[i]
			continue
		}
		s.tables[i] = merge(s.tables[i], got[i], t.Identity)
	}
	return nil
}

// snapshot copies the rows of all tables and checks them against the contract.
func snapshot(tables []operator.StateTable, op operator.Operator, delta bool, ctx *operator.Context) ([][]stateRow, error) {
	rows := make([][]stateRow, len(tables))
	seen := make([]map[string]bool, len(tables))
	err := op.Snapshot(delta, func(table int, b *batch.Batch) error {
		if table < 0 || table >= len(tables) {
			return fmt.Errorf("snapshot of table %d of %d", table, len(tables))
		}
		t := tables[table]
		if err := b.Check(); err != nil {
			return fmt.Errorf("snapshot of %q: %w", t.Name, err)
		}
		if !b.Schema.Equal(t.Schema) {
			return fmt.Errorf("snapshot of %q: a batch of (%v), the table is (%v)", t.Name, b.Schema, t.Schema)
		}
		if t.Keyed && b.Hashes == nil && b.Len() > 0 {
			return fmt.Errorf("snapshot of keyed table %q: no hashes", t.Name)
		}
		if seen[table] == nil {
			seen[table] = make(map[string]bool)
		}
		for k := range b.Len() {
			p := b.Position(k)
			r := stateRow{Row: *rowAt(b, p)}
			if b.Hashes != nil {
				r.hash = b.Hashes[p]
			}
			if err := checkStateRow(t, r, delta, ctx, seen[table]); err != nil {
				return fmt.Errorf("snapshot of %q: %s: %w", t.Name, formatElement(t.Schema, Element{Row: &r.Row}), err)
			}
			rows[table] = append(rows[table], r)
		}
		return nil
	})
	return rows, err
}

func checkStateRow(t operator.StateTable, r stateRow, delta bool, ctx *operator.Context, seen map[string]bool) error {
	if g := dataflow.KeyGroupOf(r.hash, ctx.MaxParallelism); t.Keyed && !ctx.KeyGroups.Contains(g) {
		return fmt.Errorf("key group %d is not in %v", g, ctx.KeyGroups)
	}
	if r.Kind == batch.Delete && (!delta || t.Identity == 0) {
		return fmt.Errorf("a deleted row in a full snapshot")
	}
	if t.Identity == 0 {
		return nil
	}
	id := identity(r, t.Identity)
	if seen[id] {
		return fmt.Errorf("a second row with the same identity (first %d columns)", t.Identity)
	}
	seen[id] = true
	return nil
}

func identity(r stateRow, n int) string {
	cols := make([]int, n)
	for i := range cols {
		cols[i] = i
	}
	return rowKey(&r.Row, cols)
}

// merge applies a delta to the rows of a table.
func merge(base, delta []stateRow, n int) []stateRow {
	at := make(map[string]int, len(base))
	for i, r := range base {
		at[identity(r, n)] = i
	}
	dead := make(map[int]bool)
	for _, r := range delta {
		id := identity(r, n)
		i, ok := at[id]
		switch {
		case r.Kind == batch.Delete && ok:
			dead[i] = true
		case r.Kind == batch.Delete:
		case ok:
			base[i] = r
		default:
			base = append(base, r)
		}
	}
	out := make([]stateRow, 0, len(base))
	for i, r := range base {
		if !dead[i] {
			out = append(out, r)
		}
	}
	return out
}

// compareWithFull takes a full snapshot and compares it with what the deltas
// made: they must be the same rows.
func (s *stateStore) compareWithFull(tables []operator.StateTable, op operator.Operator, ctx *operator.Context) error {
	full, err := snapshot(tables, op, false, ctx)
	if err != nil {
		return err
	}
	for i, t := range tables {
		a, b := lines(t, full[i]), lines(t, s.tables[i])
		for k := range max(len(a), len(b)) {
			if k >= len(a) || k >= len(b) || a[k] != b[k] {
				return fmt.Errorf("table %q: deltas on a base give %d rows\n%v\nthe full snapshot %d\n%v", t.Name, len(b), b, len(a), a)
			}
		}
	}
	return nil
}

func lines(t operator.StateTable, rows []stateRow) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		r.Kind = batch.Insert
		out[i] = fmt.Sprintf("%s #%x", formatElement(t.Schema, Element{Row: &r.Row}), r.hash)
	}
	sort.Strings(out)
	return out
}

// give restores what is kept into op: what can be amended as it was taken, the
// rest merged. Every other time all tables are amended as of one snapshot after the
// other, else each in one go.
func (s *stateStore) give(tables []operator.StateTable, op operator.Operator) error {
	if e, is := op.(operator.Expecter); is && s.has {
		for i := range tables { // more and fewer than come
			e.Expect(i, []int64{0, 5000, 1}[len(s.tables[i])%3])
		}
	}
	am, _ := op.(operator.Amender)
	amends := func(i int) bool { return am != nil && am.Amends(i) }
	s.stepwise = !s.stepwise
	for n := 0; s.stepwise && len(tables) > 0 && n < len(s.taken[0]); n++ {
		for i := range tables {
			if amends(i) {
				if err := s.giveTaken(tables[i], i, n, op); err != nil {
					return err
				}
			}
		}
	}
	for i, t := range tables {
		if !amends(i) {
			if err := s.giveRows(t, s.tables[i], func(b *batch.Batch) error { return op.Restore(i, b) }); err != nil {
				return err
			}
			continue
		}
		if t.Identity == 0 {
			return fmt.Errorf("table %q can be amended, and nothing tells its rows apart", t.Name)
		}
		for n := range s.taken[i] {
			if s.stepwise {
				break
			}
			if err := s.giveTaken(t, i, n, op); err != nil {
				return err
			}
		}
	}
	return nil
}

// giveTaken gives a table what the n-th snapshot had of it.
func (s *stateStore) giveTaken(t operator.StateTable, table, n int, op operator.Operator) error {
	return s.giveRows(t, s.taken[table][n], func(b *batch.Batch) error {
		if n == 0 {
			return op.Restore(table, b)
		}
		return op.(operator.Amender).Amend(table, b)
	})
}

// giveRows calls give with the rows in batches of a few.
func (s *stateStore) giveRows(t operator.StateTable, rows []stateRow, give func(*batch.Batch) error) error {
	for len(rows) > 0 {
		n := min(len(rows), 5)
		bl := batch.NewBuilder(s.pool, t.Schema)
		for k := range n {
			row := rows[k].Row
			if row.Kind != batch.Delete {
				row.Kind = batch.Insert
			}
			appendRow(bl, &row)
		}
		b := bl.Take()
		if t.Keyed {
			h := b.OwnHashes(n)
			for k := range n {
				h[k] = rows[k].hash
			}
		}
		rows = rows[n:]
		before := fingerprint(b)
		err := give(b)
		if fingerprint(b) != before {
			err = fmt.Errorf("table %q: the operator wrote into the rows it was restored from", t.Name)
		}
		b.Release()
		if err != nil {
			return err
		}
	}
	return nil
}
