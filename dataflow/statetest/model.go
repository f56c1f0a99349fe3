package statetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

const maxParallelism = 16

// Open makes a Backing that allows so many bytes in memory; nil: all state
// stays in memory.
type Open func(t *rapid.T, memory int64) Backing

// unit is a store under test, with its states.
type unit struct {
	s     *state.Store
	b     Backing
	rec   *state.Value
	ttl   *state.Value
	list  *state.List
	seen  *state.Map
	marks *state.Map
	pool  *batch.Pool
	i, p  int
}

func keyFields() []batch.Field {
	return []batch.Field{{Name: "site", Type: batch.String}, {Name: "n", Type: batch.Bigint}}
}

var (
	onWrite = state.TTL{After: 100}
	onRead  = state.TTL{After: 70, OnRead: true}
)

func newUnit(t *rapid.T, open Open, i, p int) *unit {
	s := state.NewStore(keyFields())
	u := &unit{s: s, i: i, p: p, pool: batch.NewPool(0, nil)}
	u.rec = s.Value("rec", state.TTL{}, batch.Field{Name: "i", Type: batch.Bigint}, batch.Field{Name: "s", Type: batch.String})
	u.ttl = s.Value("ttl", onRead, batch.Field{Name: "d", Type: batch.Double})
	u.list = s.List("list", onWrite, batch.Field{Name: "s", Type: batch.String})
	u.seen = s.Map("seen", batch.Field{Name: "what", Type: batch.String}, onWrite, batch.Field{Name: "i", Type: batch.Bigint})
	u.marks = s.Map("marks", batch.Field{Name: "n", Type: batch.Double}, state.TTL{}, batch.Field{Name: "b", Type: batch.Boolean})
	if open != nil {
		u.b = open(t, 3000)
	}
	var b operator.Backing
	if u.b != nil {
		b = u.b
	}
	if err := s.Open(u.pool, b); err != nil {
		t.Fatal(err)
	}
	return u
}

// key is a key of the model: small numbers, some with a null or a zero byte.
type key int

const keys = 60

func (k key) site() (string, bool) {
	return [...]string{"", "a", "a\x00", "a longer name of a site", "b"}[int(k)%5], k%11 == 10
}

func (u *unit) batch(ks []key) *batch.Batch {
	bl := batch.NewBuilder(u.pool, batch.MustSchema(keyFields()...))
	for _, k := range ks {
		if v, null := k.site(); !null {
			bl.SetString(0, v)
		}
		bl.SetInt(1, int64(k)-20)
		bl.EndRow(0)
	}
	return bl.Take()
}

// ids are the keys' ids, with their state in memory.
func (u *unit) ids(t *rapid.T, ks []key) []int32 {
	b := u.batch(ks)
	defer b.Release()
	rows, hashes, ids := make([]int32, len(ks)), make([]uint64, len(ks)), make([]int32, len(ks))
	for i := range rows {
		rows[i] = int32(i)
	}
	state.HashRows(b, []int{0, 1}, rows, hashes)
	u.s.Lookup(b.Cols, rows, hashes, ids)
	for n := 0; !u.s.Fetch(ids); n++ {
		u.arrive(t)
		if n > 3 {
			t.Fatalf("still waiting after %d times", n)
		}
	}
	u.s.Unpin(ids)
	return ids
}

func (u *unit) arrive(t *rapid.T) {
	if err := u.b.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := u.s.Arrived(); err != nil {
		t.Fatal(err)
	}
}

func (k key) group(u *unit) dataflow.KeyGroup {
	b := u.batch([]key{k})
	defer b.Release()
	var h [1]uint64
	state.HashRows(b, []int{0, 1}, []int32{0}, h[:])
	return dataflow.KeyGroupOf(h[0], maxParallelism)
}

// content is what the model knows of a key.
type content struct {
	rec    *record
	ttl    *touched[float64]
	list   []touched[string]
	seen   map[string]touched[int64]
	marks  map[float64]bool
	timers [2]map[int64]bool
}

type record struct {
	i *int64
	s *string
}

type touched[T any] struct {
	v  T
	at int64
}

func (c *content) clone() *content {
	d := *c
	if c.rec != nil {
		r := *c.rec
		d.rec = &r
	}
	if c.ttl != nil {
		v := *c.ttl
		d.ttl = &v
	}
	d.list = slices.Clone(c.list)
	d.seen, d.marks = maps.Clone(c.seen), maps.Clone(c.marks)
	for i := range c.timers {
		d.timers[i] = maps.Clone(c.timers[i])
	}
	return &d
}

func newContent() *content {
	return &content{seen: map[string]touched[int64]{}, marks: map[float64]bool{}, timers: [2]map[int64]bool{{}, {}}}
}

// expire drops what has expired at now.
func (c *content) expire(now int64) {
	if c.ttl != nil && c.ttl.at+int64(onRead.After) <= now {
		c.ttl = nil
	}
	c.list = slices.DeleteFunc(c.list, func(e touched[string]) bool { return e.at+int64(onWrite.After) <= now })
	maps.DeleteFunc(c.seen, func(_ string, e touched[int64]) bool { return e.at+int64(onWrite.After) <= now })
}

// String is all that a reader sees; reading touches.
func (c *content) read(now int64) string {
	var s strings.Builder
	if c.rec != nil {
		s.WriteString("rec")
		if c.rec.i != nil {
			fmt.Fprintf(&s, " %d", *c.rec.i)
		}
		if c.rec.s != nil {
			fmt.Fprintf(&s, " %q", *c.rec.s)
		}
	}
	if c.ttl != nil {
		fmt.Fprintf(&s, " ttl %v", c.ttl.v)
		c.ttl.at = now
	}
	for _, e := range c.list {
		fmt.Fprintf(&s, " [%s]", e.v)
	}
	for _, k := range slices.Sorted(maps.Keys(c.seen)) {
		fmt.Fprintf(&s, " %s=%d", k, c.seen[k].v)
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.marks), cmp.Compare) {
		fmt.Fprintf(&s, " %v=%v", k+0, c.marks[k])
	}
	fmt.Fprintf(&s, " timers %d %d", len(c.timers[0]), len(c.timers[1]))
	return s.String()
}

func (u *unit) read() string {
	var s strings.Builder
	if u.rec.Exists() {
		s.WriteString("rec")
		if !u.rec.Null(0) {
			fmt.Fprintf(&s, " %d", u.rec.Int(0))
		}
		if !u.rec.Null(1) {
			fmt.Fprintf(&s, " %q", u.rec.Bytes(1))
		}
	}
	if u.ttl.Exists() {
		fmt.Fprintf(&s, " ttl %v", u.ttl.Double(0))
	}
	u.list.Each(func(r state.Cursor) bool { fmt.Fprintf(&s, " [%s]", r.Bytes(0)); return true })
	u.seen.Each(func(r state.Cursor) bool { fmt.Fprintf(&s, " %s=%d", r.KeyBytes(), r.Int(0)); return true })
	u.marks.Each(func(r state.Cursor) bool { fmt.Fprintf(&s, " %v=%v", r.KeyDouble(), r.Bool(0)); return true })
	fmt.Fprintf(&s, " timers %d %d", u.s.Timers(state.EventTime), u.s.Timers(state.ArrivalTime))
	return s.String()
}
