package batch_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// TestBuilderModel compares the builder with a list of rows under any order of
// its calls.
func TestBuilderModel(t *testing.T) {
	s := allTypes()
	rapid.Check(t, func(t *rapid.T) {
		p := poisoned()
		bl := batch.NewBuilder(p, s)
		src := drawBatch(t, p, s)
		var model optest.Stream
		model.Schema = s
		m := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
		taken := 0
		take := func() {
			b := bl.Take()
			if b == nil {
				if len(model.Elements) > 0 {
					t.Fatalf("nothing taken, want\n%s", model)
				}
				return
			}
			taken++
			mustCheck(t, b)
			if got, want := flat(b), model.Coalesced().String(); got != want {
				t.Fatalf("got\n%s\nwant\n%s", got, want)
			}
			b.Release()
			model.Elements = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"row": func(t *rapid.T) {
				r := drawRow(t, s)
				setRow(t, bl, r)
				bl.EndRow(r.Time)
				if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
					r.Kind = batch.Delete
					bl.Kind(batch.Delete)
				}
				model.Elements = append(model.Elements, optest.Element{Row: &r})
			},
			"abort": func(t *rapid.T) {
				setRow(t, bl, drawRow(t, s))
				bl.AbortRow()
			},
			"mark": func(t *rapid.T) {
				if n := drawMark(t, bl, m); n != m {
					m = n
					model.Elements = append(model.Elements, optest.Element{Mark: n})
				} else {
					m = n // it may have marked the same again
					bl.Mark(n)
					model.Elements = append(model.Elements, optest.Element{Mark: n})
				}
			},
			"append": func(t *rapid.T) {
				var at []int32
				for k := range src.Len() {
					if rapid.IntRange(0, 9).Draw(t, "copy") == 0 {
						at = append(at, int32(src.Position(k)))
					}
				}
				bl.Append(src, at)
				one := optest.Stream{Schema: s}
				one.Flatten(src)
				rows := one.Rows()
				for k := range src.Len() {
					if len(at) > 0 && at[0] == int32(src.Position(k)) {
						at = at[1:]
						model.Elements = append(model.Elements, optest.Element{Row: &rows[k]})
					}
				}
			},
			"truncate": func(t *rapid.T) {
				n := rapid.IntRange(0, bl.Len()).Draw(t, "n")
				bl.Truncate(n)
				model.Elements = truncated(model.Elements, n)
			},
			"take": func(t *rapid.T) { take() },
		})
		take()
		src.Release()
		// A builder that holds an unfinished row may hold a batch.
		if bl.Empty() && p.Out() > 1 {
			t.Fatalf("%d batches out", p.Out())
		}
	})
}

// truncated keeps n rows and the marks up to there.
func truncated(e []optest.Element, n int) []optest.Element {
	for i := range e {
		if e[i].Row == nil {
			continue
		}
		if n == 0 {
			return e[:i]
		}
		n--
	}
	return e
}

func TestBuilderHashes(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
	p := poisoned()
	hashed := func(h ...uint64) *batch.Batch {
		bl := batch.NewBuilder(p, s)
		for i := range h {
			bl.SetInt(0, int64(i))
			bl.EndRow(0)
		}
		b := bl.Take()
		copy(b.OwnHashes(len(h)), h)
		return b
	}
	a, plain := hashed(7, 8, 9), hashed(1)
	plain.Hashes = nil
	all := []int32{0, 1, 2}
	cases := []struct {
		name  string
		build func(bl *batch.Builder)
		want  []uint64
	}{
		{"all rows have one", func(bl *batch.Builder) { bl.Append(a, all); bl.Append(a, all[1:2]) }, []uint64{7, 8, 9, 8}},
		{"a row without in front", func(bl *batch.Builder) { bl.EndRow(0); bl.Append(a, all) }, nil},
		{"a row without in front, the rest cut off", func(bl *batch.Builder) { bl.EndRow(0); bl.Append(a, all[:1]); bl.Truncate(1) }, nil},
		{"a row without behind", func(bl *batch.Builder) { bl.Append(a, all); bl.EndRow(0) }, nil},
		{"a batch without between", func(bl *batch.Builder) { bl.Append(a, all); bl.Append(plain, all[:1]); bl.Append(a, all) }, nil},
		{"the row without is cut off", func(bl *batch.Builder) { bl.Append(a, all); bl.EndRow(0); bl.Truncate(2) }, []uint64{7, 8}},
		{"cut and filled up with a row without", func(bl *batch.Builder) { bl.Append(a, all); bl.Truncate(1); bl.EndRow(0); bl.EndRow(0) }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bl := batch.NewBuilder(p, s)
			c.build(bl)
			b := bl.Take()
			mustCheck(t, b)
			sameHashes(t, b.Hashes, c.want)
			b.Release()
		})
	}
	a.Release()
	plain.Release()
	noneOut(t, p)
}

func TestBuilderFull(t *testing.T) {
	p := poisoned()
	bl := batch.NewBuilder(p, allTypes())
	for i := range batch.MaxRows {
		if bl.Full() {
			t.Fatalf("full with %d rows", i)
		}
		bl.EndRow(0)
	}
	if !bl.Full() {
		t.Error("not full with MaxRows")
	}
	bl.Take().Release()
	big := strings.Repeat("x", 1<<20)
	for range 64 {
		if bl.Full() {
			t.Fatalf("full with %d MiB", bl.Len())
		}
		bl.SetString(0, big)
		bl.EndRow(0)
	}
	if !bl.Full() {
		t.Error("64 MiB in a column are not full: offsets could overflow")
	}
	bl.Take().Release()
	if bl.Full() {
		t.Error("full after Take")
	}
	noneOut(t, p)
}

// TestBuilderReuse: a recycled batch brings nothing of its former life.
func TestBuilderReuse(t *testing.T) {
	s := allTypes()
	p := poisoned()
	bl := batch.NewBuilder(p, s)
	for range 3 {
		bl.SetString(0, "old")
		bl.EndRow(1)
		bl.Kind(batch.Delete)
	}
	bl.Mark(batch.Mark{Watermark: 3, Arrival: 3})
	b := bl.Take()
	b.OwnHashes(3)
	b.Sel = append(b.OwnSel(1), 1)
	b.Release()

	bl.SetInt(1, 5)
	bl.EndRow(2)
	n := bl.Take()
	if n != b {
		t.Fatal("the batch was not recycled")
	}
	mustCheck(t, n)
	if n.Sel != nil || n.Kinds != nil || n.Hashes != nil || len(n.Marks) != 0 || n.Rows != 1 {
		t.Errorf("something was left: %+v", n)
	}
	if got, want := flat(n), "@2 s=null n=5 d=null f=null y=null t=null\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	n.Release()
	noneOut(t, p)
}

func TestBuilderAllocatesNothing(t *testing.T) {
	s := allTypes()
	p := batch.NewPool(0, nil)
	bl := batch.NewBuilder(p, s)
	fill := func() {
		for i := range 100 {
			bl.SetString(0, "sensor")
			bl.SetInt(1, int64(i))
			bl.SetDouble(2, 1)
			bl.EndRow(5)
		}
		bl.Mark(batch.Mark{})
		bl.Take().Release()
	}
	fill()
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("%v allocations for 100 rows, want none", n)
	}
}

func ExampleBuilder() {
	s := batch.MustSchema(batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "temp", Type: batch.Double})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	bl.SetString(0, "door")
	bl.SetDouble(1, 8.5)
	bl.EndRow(10)
	bl.Mark(batch.Mark{Watermark: 9, Arrival: 12})
	b := bl.Take()
	fmt.Println(b.Len(), b.Schema, b.Cols[1].Doubles, b.Marks[0].Row)
	b.Release()
	// Output: 1 sensor string, temp double [8.5] 1
}

// A builder that has nothing to hand out holds no memory of the budget either:
// sources wait while it is used up, and would wait for themselves.
func TestBuilderWithoutRowsHoldsNoBatch(t *testing.T) {
	woken := 0
	p := batch.NewPool(1, func() { woken++ })
	s := batch.MustSchema(batch.Field{Name: "v", Type: batch.Bigint})
	bl := batch.NewBuilder(p, s)
	bl.SetInt(0, 1)
	bl.EndRow(0)
	bl.Take().Release() // the next one has memory already
	woken = 0
	bl.SetInt(0, 2)
	if !p.Full() {
		t.Fatal("a row that was begun holds no memory: the test shows nothing")
	}
	if b := bl.Take(); b != nil || p.Out() != 0 || p.Used() != 0 || p.Full() || woken != 1 {
		t.Errorf("took %v; %d batches out, %d bytes, woken %d times", b, p.Out(), p.Used(), woken)
	}
	bl.SetInt(0, 3)
	bl.EndRow(5)
	b := bl.Take()
	if b == nil || b.Rows != 1 || b.Cols[0].Ints[0] != 3 || b.Times[0] != 5 {
		t.Errorf("the next batch is %v", b)
	}
}
