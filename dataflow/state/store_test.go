package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

func text(name string) batch.Field   { return batch.Field{Name: name, Type: batch.String} }
func number(name string) batch.Field { return batch.Field{Name: name, Type: batch.Bigint} }

// fixture is a store with keys of one string.
type fixture struct {
	*state.Store
	t    *testing.T
	pool *batch.Pool
}

// newStore makes a store and has declare declare its states.
func newStore(t *testing.T, backing operator.Backing, declare func(*state.Store)) fixture {
	t.Helper()
	f := fixture{state.NewStore([]batch.Field{text("k")}), t, batch.NewPool(0, nil)}
	declare(f.Store)
	if err := f.Open(f.pool, backing); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := f.pool.Out(); n != 0 {
			t.Errorf("%d batches were not released", n)
		}
	})
	return f
}

func (f fixture) id(key string) int32 {
	bl := batch.NewBuilder(f.pool, batch.MustSchema(text("k")))
	bl.SetString(0, key)
	bl.EndRow(0)
	b := bl.Take()
	defer b.Release()
	var h [1]uint64
	var id [1]int32
	state.HashColumn(b.Cols[0], []int32{0}, h[:])
	f.Lookup(b.Cols, []int32{0}, h[:], id[:])
	return id[0]
}

// key gives a key its turn at an arrival time.
func (f fixture) key(key string, now int64, do func()) {
	f.SetClock(dataflow.MinTime, dataflow.Time(now))
	f.SetKey(f.id(key))
	do()
	f.Commit()
	f.NoKey()
}

// saved are the rows of a snapshot, by table.
type saved map[int][]*batch.Batch

func (f fixture) snapshot(delta bool) saved {
	f.t.Helper()
	rows := saved{}
	if err := f.Snapshot(delta, func(table int, b *batch.Batch) error {
		for k := range b.Len() {
			g := b.Gather([]int32{int32(b.Position(k))}, nil)
			rows[table] = append(rows[table], g)
		}
		return nil
	}); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {})
	return rows
}

func (s saved) release() {
	for _, rows := range s {
		for _, b := range rows {
			b.Release()
		}
	}
}

func (f fixture) restore(s saved) {
	f.t.Helper()
	for table := range f.StateTables() {
		for _, b := range s[table] {
			if err := f.Restore(table, b); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	s.release()
}

func (f fixture) table(name string) (int, operator.StateTable) {
	i := slices.IndexFunc(f.StateTables(), func(t operator.StateTable) bool { return t.Name == name })
	return i, f.StateTables()[i]
}

func texts(l *state.List) (all []string) {
	l.Each(func(r state.Cursor) bool { all = append(all, string(r.Bytes(0))); return true })
	return all
}

// TestE61_OperatorList: the state side of an even split: the rows of a table are
// the elements in order, and what is dealt out comes back in order.
func TestE61_OperatorList(t *testing.T) {
	old := [][]string{{"a", "b", "c"}, {"d", "e"}}
	for p, want := range map[int]string{1: "[[a b c d e]]", 3: "[[a b] [c d] [e]]", 4: "[[a b] [c] [d] [e]]", 7: "[[a] [b] [c] [d] [e] [] []]"} {
		rows, table := operatorRows(t, old, false)
		if table.Keyed || table.Identity != 0 || table.Spread != operator.Split {
			t.Errorf("table %+v", table)
		}
		pieces, _ := restore.Cut(int64(len(rows)), p, 0)
		var got [][]string
		for _, piece := range pieces {
			var l *state.List
			f := newStore(t, nil, func(s *state.Store) { l = s.OperatorList("elements", false, text("e")) })
			f.restore(saved{0: rows[piece.First:piece.End]})
			got = append(got, texts(l))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("to %d: %v, want %s", p, got, want)
		}
	}
}

// operatorRows are the rows of the lists' snapshots, one after the other.
func operatorRows(t *testing.T, lists [][]string, union bool) (rows []*batch.Batch, table operator.StateTable) {
	for _, elements := range lists {
		var l *state.List
		f := newStore(t, nil, func(s *state.Store) { l = s.OperatorList("elements", union, text("e")) })
		for _, e := range elements {
			l.Add().SetBytes(0, []byte(e))
		}
		f.Commit()
		s := f.snapshot(false)
		_, table = f.table("elements")
		rows = append(rows, s[0]...)
		s[0] = nil
		s.release()
	}
	return rows, table
}

// TestE62_UnionList: everything to everybody.
func TestE62_UnionList(t *testing.T) {
	rows, table := operatorRows(t, [][]string{{"a", "b", "c"}, {"d", "e"}}, true)
	if table.Keyed || table.Spread != operator.Union {
		t.Errorf("table %+v", table)
	}
	var l *state.List
	f := newStore(t, nil, func(s *state.Store) { l = s.OperatorList("elements", true, text("e")) })
	f.restore(saved{0: rows})
	if got := fmt.Sprint(texts(l)); got != "[a b c d e]" {
		t.Errorf("got %s", got)
	}
}

// TestE63_Broadcast: a copy goes on where it stood, and is written whole each
// time.
func TestE63_Broadcast(t *testing.T) {
	declare := func(m **state.Map) func(*state.Store) {
		return func(s *state.Store) { *m = s.Broadcast("limits", text("unit"), number("most")) }
	}
	var m, n *state.Map
	f := newStore(t, nil, declare(&m))
	for i, unit := range []string{"bar", "°C"} {
		m.PutBytes([]byte(unit)).SetInt(0, int64(i))
	}
	f.Commit()
	f.snapshot(false).release()
	_, table := f.table("limits")
	if table.Keyed || table.Spread != operator.Broadcast {
		t.Errorf("table %+v", table)
	}
	s := f.snapshot(true)
	if len(s[0]) != 2 {
		t.Errorf("a delta has %d rows, want all 2", len(s[0]))
	}
	g := newStore(t, nil, declare(&n))
	g.restore(s)
	if r, ok := n.GetBytes([]byte("°C")); !ok || r.Int(0) != 1 || n.Len() != 2 {
		t.Errorf("restored %v %d", ok, n.Len())
	}
}

// TestE64_TimersMove: timers are rows of their key's group, and fire where the
// group goes, in order of time, once for each time.
func TestE64_TimersMove(t *testing.T) {
	f := newStore(t, nil, func(*state.Store) {})
	for _, at := range []int64{30, 10, 20, 10, 20} {
		for _, k := range []string{"a", "b"} {
			f.key(k, 0, func() { f.SetTimer(state.EventTime, dataflow.Time(at)) })
		}
	}
	f.key("b", 0, func() { f.DeleteTimer(state.EventTime, 20); f.SetTimer(state.ArrivalTime, 5) })
	event, table := f.table("timers.event")
	if !table.Keyed || table.Identity != 2 {
		t.Errorf("table %+v", table)
	}
	s := f.snapshot(false)
	moved := saved{}
	for n, rows := range s {
		for _, b := range rows {
			if n == event && b.Hashes[0]%128 != hashOf("b")%128 {
				b.Release()
				continue
			}
			moved[n] = append(moved[n], b)
		}
	}
	g := newStore(t, nil, func(*state.Store) {})
	g.restore(moved)
	if got := fired(g, state.EventTime, 25); got != "b@10" {
		t.Errorf("fired %s", got)
	}
	if got := fired(g, state.EventTime, 30) + "," + fired(g, state.ArrivalTime, 5); got != "b@30,b@5" {
		t.Errorf("fired %s", got)
	}
}

func hashOf(k string) uint64 {
	c := &batch.Column{Type: batch.String}
	c.Resize(1)
	c.AppendBytes([]byte(k))
	var h [1]uint64
	state.HashColumn(c, []int32{0}, h[:])
	return h[0]
}

func fired(f fixture, d state.Domain, until dataflow.Time) string {
	var all []string
	for {
		id, at, step := f.NextTimer(d, until)
		if step != state.Got {
			return strings.Join(all, " ")
		}
		all = append(all, fmt.Sprintf("%s@%d", f.KeyColumns(id)[0].At(0), at))
		f.SetKey(id)
		f.DeleteTimer(d, at)
		f.Commit()
	}
}

// TestE71_TTL has the example's numbers: written at 0 with 1000 to live, a value
// is there at 999 and not at 1000; where reading counts, it is there until 1999
// after it was read at 999; of a map's entries each has its own time.
func TestE71_TTL(t *testing.T) {
	const ttl = 1000
	var written, read *state.Value
	var m *state.Map
	var l *state.List
	f := newStore(t, nil, func(s *state.Store) {
		written = s.Value("written", state.TTL{After: ttl}, number("v"))
		read = s.Value("read", state.TTL{After: ttl, OnRead: true}, number("v"))
		m = s.Map("map", text("k"), state.TTL{After: ttl}, number("v"))
		l = s.List("list", state.TTL{After: ttl}, text("v"))
	})
	f.key("k", 0, func() {
		written.SetInt(0, 1)
		read.SetInt(0, 1)
		m.PutBytes([]byte("a")).SetInt(0, 1)
		l.Add().SetBytes(0, []byte("a"))
	})
	f.key("k", 500, func() {
		m.PutBytes([]byte("b")).SetInt(0, 1)
		l.Add().SetBytes(0, []byte("b"))
	})
	f.key("k", 999, func() {
		if !written.Exists() || written.Int(0) != 1 || read.Int(0) != 1 {
			t.Error("at 999 a value is missing")
		}
	})
	f.key("k", 1000, func() {
		if written.Exists() || !read.Exists() || written.Int(0) != 0 {
			t.Error("at 1000: the value written is gone, the one read is there")
		}
	})
	f.key("k", 1200, func() {
		if _, ok := m.GetBytes([]byte("a")); ok || m.Len() != 1 || fmt.Sprint(texts(l)) != "[b]" {
			t.Errorf("at 1200 map %d, list %v: only b is there", m.Len(), texts(l))
		}
	})
	f.SetClock(dataflow.MinTime, 1998)
	if step := f.Expire(); step != state.None {
		t.Errorf("step %d", step)
	}
	if f.KeysLive() != 1 {
		t.Errorf("at 1998 %d keys live", f.KeysLive())
	}
	f.key("k", 1998, func() {
		if l.Len() != 0 {
			t.Error("an element of the list is left")
		}
		read.Int(0)
	})
	f.SetClock(dataflow.MinTime, 2998)
	if f.Expire(); f.KeysLive() != 0 {
		t.Errorf("at 2998 %d keys live: nobody asked, and yet it goes", f.KeysLive())
	}
}

// TestE71_TTLIsNotSaved: what was written without a time to live does not expire
// under one before it is written again; and the other way round.
func TestE71_TTLIsNotSaved(t *testing.T) {
	var v *state.Value
	with := func(after dataflow.Duration) func(*state.Store) {
		return func(s *state.Store) { v = s.Value("v", state.TTL{After: after}, number("v")) }
	}
	f := newStore(t, nil, with(0))
	f.key("k", 0, func() { v.SetInt(0, 1) })
	g := newStore(t, nil, with(100))
	g.restore(f.snapshot(false))
	g.key("k", 5000, func() {
		if v.Int(0) != 1 {
			t.Error("a restored value has expired though it was never touched")
		}
		v.SetInt(0, 2)
	})
	h := newStore(t, nil, with(100))
	h.restore(g.snapshot(false))
	h.key("k", 5099, func() {
		if v.Int(0) != 2 {
			t.Error("expired too early")
		}
	})
	h.SetClock(dataflow.MinTime, 5100)
	if h.Expire(); h.KeysLive() != 0 {
		t.Error("a restored value did not expire")
	}
}

// TestWithoutAKey: each access to keyed state without a key is an error, and
// does no harm; operator state needs none.
func TestWithoutAKey(t *testing.T) {
	var v *state.Value
	var l, op *state.List
	var m *state.Map
	declare := func(s *state.Store) {
		v = s.Value("v", state.TTL{}, number("v"))
		l = s.List("l", state.TTL{}, text("v"))
		m = s.Map("m", text("k"), state.TTL{}, number("v"))
		op = s.OperatorList("op", false, text("v"))
	}
	for name, access := range map[string]func(state.Store){
		"get": func(state.Store) { v.Int(0) }, "set": func(state.Store) { v.SetInt(0, 1) }, "clear": func(state.Store) { v.Clear() },
		"add": func(state.Store) { l.Add().SetBytes(0, nil) }, "len": func(state.Store) { l.Len() }, "each": func(state.Store) { l.Each(nil) },
		"put": func(state.Store) { m.PutBytes(nil).SetInt(0, 1) }, "map get": func(state.Store) { m.GetBytes(nil) }, "map clear": func(state.Store) { m.Clear() },
		"map len": func(state.Store) { m.Len() }, "map each": func(state.Store) { m.Each(nil) },
	} {
		f := newStore(t, nil, declare)
		op.Add().SetBytes(0, nil)
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		if access(state.Store{}); !errors.Is(f.Err(), state.ErrNoKey) || !strings.Contains(fmt.Sprint(f.Err()), "state") {
			t.Errorf("%s: %v", name, f.Err())
		}
	}
}

// TestDeclarations: mistakes are said when the declarations end.
func TestDeclarations(t *testing.T) {
	for want, declare := range map[string]func(*state.Store){
		"no name":         func(s *state.Store) { s.Value("", state.TTL{}, number("v")) },
		"task.":           func(s *state.Store) { s.Value("task.x", state.TTL{}, number("v")) },
		"`clock`":         func(s *state.Store) { s.Value("clock", state.TTL{}, number("v")) },
		"no column":       func(s *state.Store) { s.List("l", state.TTL{}) },
		"positive":        func(s *state.Store) { s.List("l", state.TTL{After: -1}, number("v")) },
		"two states have": func(s *state.Store) { s.List("l", state.TTL{}, number("v")); s.Value("l", state.TTL{}, number("v")) },
	} {
		s := state.NewStore(nil)
		declare(s)
		if err := s.Open(batch.NewPool(0, nil), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestListRestoredInAnyOrder: the numbers say the order, not the rows.
func TestListRestoredInAnyOrder(t *testing.T) {
	var l *state.List
	declare := func(s *state.Store) { l = s.List("l", state.TTL{}, text("v")) }
	f := newStore(t, nil, declare)
	f.key("k", 0, func() {
		for _, e := range strings.Split("a b c d e f g", " ") {
			l.Add().SetBytes(0, []byte(e))
		}
	})
	s := f.snapshot(false)
	for i, j := range []int{3, 0, 6, 1, 5, 2, 4} {
		if i < j {
			s[0][i], s[0][j] = s[0][j], s[0][i]
		}
	}
	slices.Reverse(s[0])
	g := newStore(t, nil, declare)
	g.restore(s)
	g.key("k", 0, func() {
		if got := fmt.Sprint(texts(l)); got != "[a b c d e f g]" {
			t.Errorf("got %s", got)
		}
		l.Add().SetBytes(0, []byte("h"))
		if got := fmt.Sprint(texts(l)); got != "[a b c d e f g h]" {
			t.Errorf("got %s", got)
		}
	})
}

// TestReducingAndAggregating fold values of each type.
func TestReducingAndAggregating(t *testing.T) {
	var most, words *state.Reducing
	var mean *state.Aggregating
	f := newStore(t, nil, func(s *state.Store) {
		most = s.Reducing("most", state.TTL{}, batch.Field{Name: "v", Type: batch.Double}, state.Reduce{Doubles: func(a, b float64) float64 { return max(a, b) }})
		words = s.Reducing("words", state.TTL{}, text("v"), state.Reduce{Bytes: func(dst, a, b []byte) []byte { return append(append(append(dst, a...), ' '), b...) }})
		mean = s.Aggregating("mean", state.TTL{}, state.Aggregate{Accumulator: []batch.Field{number("n"), {Name: "sum", Type: batch.Double}},
			Add: func(acc *state.Value, c *batch.Column, row int) {
				acc.SetInt(0, acc.Int(0)+1)
				acc.SetDouble(1, acc.Double(1)+c.Doubles[row])
			},
			Result: func(acc *state.Value, to *batch.Builder, col int) {
				to.SetDouble(col, acc.Double(1)/float64(acc.Int(0)))
			}})
	})
	values := &batch.Column{Type: batch.Double, Doubles: []float64{1.5, 4.5, 3}}
	bl := batch.NewBuilder(f.pool, batch.MustSchema(batch.Field{Name: "mean", Type: batch.Double}))
	f.key("k", 0, func() {
		if mean.Get(bl, 0) {
			t.Error("a mean of nothing")
		}
		for i, v := range values.Doubles {
			most.AddDouble(v)
			words.AddBytes(fmt.Append(nil, v))
			mean.Add(values, i)
		}
		mean.Get(bl, 0)
		bl.EndRow(0)
		if most.Double(0) != 4.5 || string(words.Bytes(0)) != "1.5 4.5 3" {
			t.Errorf("most %v, words %q", most.Double(0), words.Bytes(0))
		}
		mean.Clear()
	})
	b := bl.Take()
	if b.Cols[0].Doubles[0] != 3 {
		t.Errorf("mean %v", b.Cols[0].Doubles[0])
	}
	b.Release()
}
