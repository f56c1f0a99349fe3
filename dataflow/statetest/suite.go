package statetest

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// suite is one run: stores of one operator, and the model of all of them.
type suite struct {
	t     *rapid.T
	open  []Open // one is drawn for each store
	units []*unit
	model map[key]*content
	saved [][]table // by unit: what its snapshots have made
	has   bool
	now   int64
	wm    int64
}

// table is what a checkpoint store has of a table: rows by identity.
type table map[string]*batch.Batch

// Check runs random operations, snapshots, restores and changes of parallelism
// on stores with any of the backings, and compares all that can be read with a
// model.
func Check(t *rapid.T, open ...Open) {
	s := &suite{t: t, open: open, model: map[key]*content{}, now: 0, wm: math.MinInt64}
	s.start(rapid.IntRange(1, 3).Draw(t, "parallelism"), nil)
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		switch rapid.IntRange(0, 11).Draw(t, "step") {
		case 0, 1:
			s.advance()
		case 2:
			s.snapshot(s.has)
		case 3:
			s.snapshot(false)
		case 4:
			s.restore()
		default:
			s.runs()
		}
	}
	for k := range key(keys) {
		s.compare(k)
	}
	for i := range s.units {
		s.release(i)
	}
	s.stop()
}

func (s *suite) start(p int, saved []table) {
	s.units = nil
	for i := range p {
		u := newUnit(s.t, s.open[rapid.IntRange(0, len(s.open)-1).Draw(s.t, "backing")], i, p)
		s.units = append(s.units, u)
		s.give(u, saved)
		u.s.SetClock(dataflow.Time(s.wm), dataflow.Time(s.now))
	}
	s.saved, s.has = make([][]table, p), false
}

func (s *suite) stop() {
	for _, u := range s.units {
		if n := u.pool.Out(); n != 0 {
			s.t.Fatalf("%d batches were not released", n)
		}
		if err := u.s.Err(); err != nil {
			s.t.Fatal(err)
		}
		if u.b != nil {
			if err := u.b.Close(); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *suite) unitOf(k key) *unit {
	return s.units[dataflow.SubtaskOf(k.group(s.units[0]), len(s.units), maxParallelism)]
}

func (s *suite) content(k key) *content {
	c := s.model[k]
	if c == nil {
		c = newContent()
		s.model[k] = c
	}
	c.expire(s.now)
	return c
}

// runs gives some keys a turn each.
func (s *suite) runs() {
	for range rapid.IntRange(1, 8).Draw(s.t, "runs") {
		k := key(rapid.IntRange(0, keys-1).Draw(s.t, "key"))
		u, c := s.unitOf(k), s.content(k)
		was := c.clone()
		u.s.SetKey(u.ids(s.t, []key{k})[0])
		for range rapid.IntRange(1, 6).Draw(s.t, "ops") {
			s.op(u, c)
		}
		if rapid.IntRange(0, 3).Draw(s.t, "fails") == 0 {
			u.s.Undo()
			s.model[k] = was
		} else {
			u.s.Commit()
		}
		s.compare(k)
	}
}

func (s *suite) compare(k key) {
	u, c := s.unitOf(k), s.content(k)
	u.s.SetKey(u.ids(s.t, []key{k})[0])
	if got, want := u.read(), c.read(s.now); got != want {
		s.t.Fatalf("key %d at %d:\n got %s\nwant %s", k, s.now, got, want)
	}
	u.s.Commit()
	u.s.NoKey()
}

func (s *suite) op(u *unit, c *content) {
	if n := rapid.IntRange(0, 18).Draw(s.t, "op"); n < 9 {
		s.opValue(u, c, n)
	} else {
		s.opMap(u, c, n)
	}
}

func words() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"", "x", "yy", "some longer text that is not short", "z\x00"})
}

func (s *suite) opValue(u *unit, c *content, op int) {
	t, word, n := s.t, words(), rapid.Int64Range(-3, 3)
	switch op {
	case 0:
		v := n.Draw(t, "i")
		u.rec.SetInt(0, v)
		c.record().i = &v
	case 1:
		v := word.Draw(t, "s")
		u.rec.SetBytes(1, []byte(v))
		c.record().s = &v
	case 2:
		u.rec.SetNull(0)
		c.record().i = nil
	case 3:
		u.rec.Clear()
		c.rec = nil
	case 4:
		v := float64(n.Draw(t, "d")) / 2
		u.ttl.SetDouble(0, v)
		c.ttl = &touched[float64]{v, s.now}
	case 5, 6:
		v := word.Draw(t, "element")
		u.list.Add().SetBytes(0, []byte(v))
		c.list = append(c.list, touched[string]{v, s.now})
	case 7:
		if r, ok := u.list.First(); ok {
			u.list.Remove(r)
			c.list = c.list[1:]
		} else if len(c.list) > 0 {
			t.Fatalf("the list is empty, want %v", c.list)
		}
	case 8:
		u.list.Clear()
		c.list = nil
	}
}

func (s *suite) opMap(u *unit, c *content, op int) {
	t, word, n := s.t, words(), rapid.Int64Range(-3, 3)
	at := func() int64 { return max(s.now, s.wm, -1000) + rapid.Int64Range(-5, 150).Draw(t, "at") }
	clock := func() (state.Domain, map[int64]bool) {
		i := rapid.IntRange(0, 1).Draw(t, "clock")
		return state.Domain(i + 1), c.timers[i]
	}
	switch op {
	case 9:
		k, v := word.Draw(t, "what"), n.Draw(t, "i")
		u.seen.PutBytes([]byte(k)).SetInt(0, v)
		c.seen[k] = touched[int64]{v, s.now}
	case 10:
		k := word.Draw(t, "what")
		if r, ok := u.seen.GetBytes([]byte(k)); ok {
			u.seen.Remove(r)
		}
		delete(c.seen, k)
	case 11:
		k := float64(n.Draw(t, "n"))
		u.marks.PutDouble(eitherZero(k, rapid.Bool().Draw(t, "minus"))).SetBool(0, k > 0)
		c.marks[k] = k > 0
	case 12:
		u.marks.Clear()
		clear(c.marks)
	case 13, 14, 15, 16:
		d, m := clock()
		v := at()
		u.s.SetTimer(d, dataflow.Time(v))
		m[v] = true
	default:
		d, m := clock()
		v := at()
		if all := slices.Sorted(maps.Keys(m)); len(all) > 0 {
			v = all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
		}
		u.s.DeleteTimer(d, dataflow.Time(v))
		delete(m, v)
	}
}

// eitherZero gives a zero a sign.
func eitherZero(k float64, minus bool) float64 {
	if k == 0 && minus {
		return math.Copysign(0, -1)
	}
	return k
}

func (c *content) record() *record {
	if c.rec == nil {
		c.rec = &record{}
	}
	return c.rec
}

// advance lets time pass; timers fire.
func (s *suite) advance() {
	s.now += rapid.Int64Range(0, 60).Draw(s.t, "pass")
	s.wm = max(s.wm, s.now-rapid.Int64Range(0, 60).Draw(s.t, "behind"))
	for _, u := range s.units {
		u.s.SetClock(dataflow.Time(s.wm), dataflow.Time(s.now))
		for u.s.Expire() == state.Wait {
			u.arrive(s.t)
		}
		s.fire(u, state.EventTime, s.wm)
		s.fire(u, state.ArrivalTime, s.now)
	}
	for _, c := range s.model {
		for i, until := range []int64{s.wm, s.now} {
			for at := range c.timers[i] {
				if at <= until {
					s.t.Fatalf("a timer of clock %d at %d did not fire at %d", i+1, at, until)
				}
			}
		}
	}
}

func (s *suite) fire(u *unit, d state.Domain, until int64) {
	last := int64(math.MinInt64)
	for {
		id, at, step := u.s.NextTimer(d, dataflow.Time(until))
		switch step {
		case state.None:
			return
		case state.Wait:
			u.arrive(s.t)
			continue
		}
		if int64(at) < last || int64(at) > until {
			s.t.Fatalf("a timer at %d fires after %d, at %d", at, last, until)
		}
		last = int64(at)
		k := key(u.s.KeyColumns(id)[1].Ints[0] + 20)
		c := s.content(k)
		if !c.timers[d-1][int64(at)] {
			s.t.Fatalf("key %d has no timer of clock %d at %d", k, d, at)
		}
		delete(c.timers[d-1], int64(at))
		u.s.SetKey(id)
		u.s.DeleteTimer(d, at)
		if rapid.Bool().Draw(s.t, "another") {
			u.s.SetTimer(d, at+1)
			c.timers[d-1][int64(at)+1] = true
		}
		u.s.Commit()
		u.s.NoKey()
	}
}

// snapshot takes one of every store.
func (s *suite) snapshot(delta bool) {
	for i, u := range s.units {
		tables := u.s.StateTables()
		if !delta {
			s.release(i)
			s.saved[i] = make([]table, len(tables))
		}
		seen := map[string]bool{}
		err := u.s.Snapshot(delta, func(n int, b *batch.Batch) error {
			if err := b.Check(); err != nil {
				return err
			}
			if !b.Schema.Equal(tables[n].Schema) {
				return fmt.Errorf("table %s: schema %v", tables[n].Name, b.Schema)
			}
			s.merge(i, n, b, seen)
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.has = true
	s.whole()
}

func (s *suite) merge(i, n int, b *batch.Batch, seen map[string]bool) {
	u, t := s.units[i], s.units[i].s.StateTables()[n]
	if s.saved[i][n] == nil {
		s.saved[i][n] = table{}
	}
	for k := range b.Len() {
		p := b.Position(k)
		if t.Keyed {
			if g := dataflow.KeyGroupOf(b.Hashes[p], maxParallelism); dataflow.SubtaskOf(g, u.p, maxParallelism) != u.i {
				s.t.Fatalf("table %s: a row of key group %d", t.Name, g)
			}
		}
		id := identity(b, p, t.Identity)
		if full := fmt.Sprint(n, id); seen[full] {
			s.t.Fatalf("table %s: %q twice in a snapshot", t.Name, id)
		} else {
			seen[full] = true
		}
		if old := s.saved[i][n][id]; old != nil {
			old.Release()
		}
		if b.Kinds != nil && b.Kinds[p] == batch.Delete {
			delete(s.saved[i][n], id)
			continue
		}
		s.saved[i][n][id] = b.Gather([]int32{int32(p)}, nil)
	}
}

func identity(b *batch.Batch, p, n int) string {
	s := ""
	for _, c := range b.Cols[:n] {
		switch {
		case c.IsNull(p):
			s += "null|"
		case c.Type.Variable():
			s += fmt.Sprintf("%q|", c.At(p))
		case c.Type == batch.Double:
			s += fmt.Sprintf("%v|", c.Doubles[p])
		default:
			s += fmt.Sprintf("%d|", c.Ints[p])
		}
	}
	return s
}

// whole checks that deltas on a base are all rows that the model has: as many,
// for what they hold is read after a restore.
func (s *suite) whole() {
	rows, want := map[string]int{}, map[string]int{}
	for i := range s.units {
		for n, t := range s.saved[i] {
			rows[s.units[i].s.StateTables()[n].Name] += len(t)
		}
	}
	for _, c := range s.model {
		if c.rec != nil {
			want["rec"]++
		}
		want["marks"] += len(c.marks)
		want["timers.event"] += len(c.timers[0])
		want["timers.arrival"] += len(c.timers[1])
	}
	for name, n := range want {
		if rows[name] != n {
			s.t.Fatalf("table %s: snapshots have %d rows, the model %d", name, rows[name], n)
		}
	}
}

// restore stops all stores and goes on with others, of any parallelism.
func (s *suite) restore() {
	s.snapshot(s.has && rapid.Bool().Draw(s.t, "delta"))
	var all []table
	for i := range s.units {
		for n, t := range s.saved[i] {
			if n == len(all) {
				all = append(all, table{})
			}
			for id, b := range t {
				all[n][fmt.Sprint(i, id)] = b
			}
		}
	}
	old := s.units
	kept := s.saved
	s.start(rapid.IntRange(1, 3).Draw(s.t, "parallelism"), all)
	if len(s.units) == len(old) && rapid.Bool().Draw(s.t, "goes on") {
		s.goOn(kept)
	}
	for _, t := range all {
		for _, b := range t {
			b.Release()
		}
	}
	live := s.units
	s.units = old
	s.stop()
	s.units = live
}

// goOn keeps what the stores were restored from: their next snapshots may be deltas on
// it.
func (s *suite) goOn(kept [][]table) {
	for i, tables := range kept {
		s.saved[i] = make([]table, len(tables))
		for n, t := range tables {
			s.saved[i][n] = table{}
			for id, b := range t {
				bl := batch.NewBuilder(s.units[i].pool, b.Schema)
				bl.Append(b, []int32{int32(b.Position(0))})
				c := bl.Take()
				if b.Hashes != nil {
					c.OwnHashes(1)[0] = b.Hashes[b.Position(0)]
				}
				s.saved[i][n][id] = c
			}
		}
	}
	s.has = true
}

func (s *suite) release(i int) {
	for _, t := range s.saved[i] {
		for _, b := range t {
			b.Release()
		}
	}
}

// amendGone removes a row.
func (s *suite) amendGone(u *unit, table int, b *batch.Batch) error {
	bl := batch.NewBuilder(u.pool, b.Schema)
	bl.Append(b, []int32{int32(b.Position(0))})
	gone := bl.Take()
	defer gone.Release()
	gone.OwnKinds(1)[0] = batch.Delete
	return u.s.Amend(table, gone)
}

func (s *suite) giveRow(u *unit, table int, b *batch.Batch, pass, how int) error {
	switch amends := u.s.Amends(table); {
	case pass == 0 && (how != 1 || !amends):
		return u.s.Restore(table, b)
	case !amends:
	case pass == 0, pass == 1 && how == 2, pass == 2 && how == 3:
		return u.s.Amend(table, b)
	case pass == 1 && how == 3:
		return s.amendGone(u, table, b)
	}
	return nil
}

// give restores a store. Some rows come twice, or go and come again, where the store
// takes that.
func (s *suite) give(u *unit, saved []table) {
	for n, t := range saved {
		for pass := range 3 {
			for k, id := range slices.Sorted(maps.Keys(t)) {
				b := t[id]
				if u.s.StateTables()[n].Keyed {
					if g := dataflow.KeyGroupOf(b.Hashes[0], maxParallelism); dataflow.SubtaskOf(g, u.p, maxParallelism) != u.i {
						continue
					}
				}
				if err := s.giveRow(u, n, b, pass, k%4); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
	if w, a := u.s.Clock(); saved != nil && (int64(w) != s.wm || int64(a) != s.now) {
		s.t.Fatalf("clocks restored as %v, %v", w, a)
	}
}
