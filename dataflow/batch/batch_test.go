package batch_test

import (
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// TestCheckFindsBrokenInvariants breaks a good batch in one way after another.
func TestCheckFindsBrokenInvariants(t *testing.T) {
	s := allTypes()
	in := optest.MustParse(t, s, `a@1 n=1 d=2 f=true y=b t=3; wm 1; b@2; wm 2`)
	cases := []struct {
		name  string
		spoil func(b *batch.Batch)
		want  string
	}{
		{"nothing", func(b *batch.Batch) {}, ""},
		{"rows", func(b *batch.Batch) { b.Rows = batch.MaxRows + 1 }, "at most 4096"},
		{"negative rows", func(b *batch.Batch) { b.Rows = -1 }, "-1 rows"},
		{"columns", func(b *batch.Batch) { b.Cols = b.Cols[:5] }, "5 columns for a schema of 6"},
		{"column not set", func(b *batch.Batch) { b.Cols[3] = nil }, `"f" is not set`},
		{"times", func(b *batch.Batch) { b.Times = b.Times[:1] }, "1 times for 2 rows"},
		{"type", func(b *batch.Batch) { b.Cols[1], b.Cols[5] = b.Cols[5], b.Cols[1] }, `"n" is timestamp`},
		{"unknown type", func(b *batch.Batch) { b.Cols[1].Type = 99 }, "unknown type(99)"},
		{"short ints", func(b *batch.Batch) { b.Cols[1].Ints = b.Cols[1].Ints[:1] }, "1 values for 2 rows"},
		{"short doubles", func(b *batch.Batch) { b.Cols[2].Doubles = nil }, "0 values for 2 rows"},
		{"short bits", func(b *batch.Batch) { b.Cols[3].Bits = nil }, "0 values for 2 rows"},
		{"short validity", func(b *batch.Batch) { b.Cols[1].Valid = batch.Bitmap{} }, "0 validity words"},
		{"offsets", func(b *batch.Batch) { b.Cols[0].Offsets = b.Cols[0].Offsets[:2] }, "2 offsets"},
		{"offsets go back", func(b *batch.Batch) { b.Cols[0].Offsets[1] = 5 }, "offset 2 goes back"},
		{"offsets too far", func(b *batch.Batch) { b.Cols[0].Offsets[2] = 500 }, "end at 500"},
		{"selection", func(b *batch.Batch) { b.Sel = []int32{1, 1} }, "selection not ascending"},
		{"selection too far", func(b *batch.Batch) { b.Sel = []int32{2} }, "selection not ascending"},
		{"mark too far", func(b *batch.Batch) { b.Marks[1].Row = 3 }, "mark at row 3"},
		{"mark goes back", func(b *batch.Batch) { b.Marks[1].Watermark = 0 }, "mark 1 goes back"},
		{"kinds", func(b *batch.Batch) { b.Kinds = make([]batch.Kind, 1) }, "kinds or hashes"},
		{"hashes", func(b *batch.Batch) { b.Hashes = make([]uint64, 3) }, "kinds or hashes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := in.Batches(batch.NewPool(0, nil), batch.MaxRows)[0]
			c.spoil(b)
			err := b.Check()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("a good batch: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestDeriveSharesAndHolds(t *testing.T) {
	s := allTypes()
	p := poisoned()
	in := optest.MustParse(t, s, `a@1 n=1; b@2 n=2; wm 2`)
	b := in.Batches(p, batch.MaxRows)[0]
	want := flat(b)

	d := p.DeriveAll(b)
	b.Release() // the child holds it
	if b.LastReference() != true || p.Out() != 2 {
		t.Fatalf("parent has other references, or %d batches out", p.Out())
	}
	if flat(d) != want {
		t.Error("the derived batch reads otherwise")
	}
	d.Own(1, d.Rows).Ints[0] = 99
	d.OwnMarks()
	d.AddMark(batch.Mark{Row: 1, Watermark: 1})
	d.OwnTimes(2)[0] = 77
	if b.Cols[1].Ints[0] != 1 || b.Marks[0].Watermark != 2 || b.Times[0] != 1 {
		t.Error("writing to the child changed the parent")
	}
	dd := p.DeriveAll(d)
	d.Release()
	if p.Out() != 3 {
		t.Errorf("%d batches out, want 3", p.Out())
	}
	dd.Release()
	noneOut(t, p)
}

func TestMisusePanics(t *testing.T) {
	s := allTypes()
	p := batch.NewPool(0, nil)
	mark := batch.Mark{Watermark: 1}
	cases := map[string]func(){
		"released twice":                func() { b := p.MarksOnly(s, mark); b.Release(); b.Release() },
		"retained after release":        func() { b := p.MarksOnly(s, mark); b.Release(); b.Retain() },
		"mark added to parent's marks":  func() { p.DeriveAll(p.MarksOnly(s, mark)).AddMark(mark) },
		"derived from a released batch": func() { b := p.MarksOnly(s, mark); b.Release(); p.DeriveAll(b) },
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestEmptySelectionIsNotNil(t *testing.T) {
	p := batch.NewPool(0, nil)
	b := p.Get(allTypes())
	if b.OwnSel(0) == nil {
		t.Error("an empty selection is nil, which means all rows")
	}
	b.Release()
}

func TestPoolBudget(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
	notes := 0
	p := batch.NewPool(100_000, func() { notes++ })
	bl := batch.NewBuilder(p, s)
	var held []*batch.Batch
	for !p.Full() {
		for range 1000 {
			bl.SetInt(0, 1)
			bl.EndRow(0)
		}
		held = append(held, bl.Take())
	}
	if n := len(held); n < 4 || n > 8 {
		t.Errorf("full after %d batches of 16 kB, want about 7", n)
	}
	used := p.Used()
	held[0].Retain()
	held[0].Release()
	if p.Used() != used || notes != 0 {
		t.Error("a reference given up, not the last, freed memory")
	}
	for _, b := range held {
		b.Release()
	}
	if notes != 1 {
		t.Errorf("told %d times that there is room, want once", notes)
	}
	if p.Full() {
		t.Error("full with nothing out")
	}
	noneOut(t, p)
}

// TestPoolDerivedGrowth: what a derived batch grows by is counted when it is
// accounted, and given back in full.
func TestPoolDerivedGrowth(t *testing.T) {
	s := allTypes()
	p := batch.NewPool(0, nil)
	b := optest.MustParse(t, s, `a@1`).Batches(p, 10)[0]
	for range 3 {
		before := p.Used()
		d := p.DeriveAll(b)
		d.Own(1, batch.MaxRows)
		p.Account(d)
		if p.Used() < before+8*batch.MaxRows {
			t.Errorf("used %d after growing by 32 kB from %d", p.Used(), before)
		}
		d.Release()
		if p.Used() != before {
			t.Errorf("used %d, was %d", p.Used(), before)
		}
	}
	b.Release()
	noneOut(t, p)
}

// TestPoolKeepsLittle: what nobody uses any more is not kept for ever.
func TestPoolKeepsLittle(t *testing.T) {
	p := batch.NewPool(0, nil)
	for range 3 {
		var held []*batch.Batch
		s := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
		for range 300 {
			held = append(held, p.MarksOnly(s, batch.Mark{}))
		}
		for _, b := range held {
			b.Release()
		}
		seen := map[*batch.Batch]bool{}
		again := 0
		for _, b := range held {
			seen[b] = true
		}
		for range 300 {
			if seen[p.Get(s)] {
				again++
			}
		}
		if again == 0 || again > 100 {
			t.Errorf("%d of 300 batches were kept", again)
		}
	}
}

// TestPoolConcurrent releases on other goroutines than got; run with -race.
func TestPoolConcurrent(t *testing.T) {
	s := allTypes()
	p := batch.NewPool(1<<20, func() {})
	in := optest.MustParse(t, s, `a@1 n=1; wm 1; b@2 n=2; wm 2`)
	work := make(chan *batch.Batch, 64)
	var makers, users sync.WaitGroup
	for range 4 {
		makers.Go(func() {
			for range 300 {
				for _, b := range in.Batches(p, 2) {
					work <- b.Retain()
					d := p.DeriveAll(b)
					b.Release()
					d.Own(1, d.Rows).Ints[0] = 4
					work <- d
				}
			}
		})
		users.Go(func() {
			for b := range work {
				if b.Len() != 1 || b.Times[0] == 0 {
					t.Error("a batch changed on its way")
				}
				p.Full()
				b.Release()
			}
		})
	}
	makers.Wait()
	close(work)
	users.Wait()
	noneOut(t, p)
}

func TestRankAndPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := batch.NewPool(0, nil)
		b := drawBatch(t, p, allTypes())
		for row := range b.Rows + 1 {
			n := 0
			for k := range b.Len() {
				if b.Position(k) < row {
					n++
				}
			}
			if got := b.Rank(int32(row)); got != n {
				t.Fatalf("rank of %d is %d, want %d", row, got, n)
			}
		}
	})
}

// TestGatherAndCompact: a compacted batch reads like the one it was made from.
func TestGatherAndCompact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := poisoned()
		b := drawBatch(t, p, allTypes())
		want, hashes := flat(b), hashesOf(b)
		c := b.Compact()
		b.Release()
		mustCheck(t, c)
		if c.Sel != nil {
			t.Fatal("still selected")
		}
		if got := flat(c); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		sameHashes(t, hashesOf(c), hashes)
		for i, m := range c.Marks {
			if i > 0 && c.Marks[i-1].Row == m.Row && c != b {
				t.Fatalf("marks not coalesced: %v", c.Marks)
			}
		}
		c.Release()
		noneOut(t, p)
	})
}

func TestBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(t, "n")
		m := batch.Bitmap(nil).Fill(n, rapid.Bool().Draw(t, "fill"))
		model := make([]bool, n)
		for i := range model {
			model[i] = m.Get(i)
		}
		for range n {
			i := rapid.IntRange(0, n-1).Draw(t, "i")
			v := rapid.Bool().Draw(t, "v")
			m.Put(i, v)
			model[i] = v
		}
		for k := range n + 1 {
			ones := 0
			for i := range k {
				if model[i] != m.Get(i) {
					t.Fatalf("bit %d is %v", i, m.Get(i))
				}
				if model[i] {
					ones++
				}
			}
			if got := m.Count(k); got != ones {
				t.Fatalf("%d ones among %d, want %d", got, k, ones)
			}
		}
	})
}

func TestSchema(t *testing.T) {
	if _, err := batch.NewSchema(batch.Field{Name: "a", Type: batch.Bigint}, batch.Field{Name: "a", Type: batch.Double}); err == nil {
		t.Error("a name twice is no error")
	}
	s := allTypes()
	if !s.Equal(allTypes()) || s.Equal(batch.MustSchema(s.Fields()[:5]...)) || s.Index("f") != 3 || s.Index("x") != -1 {
		t.Error("schema comparison or look-up is wrong")
	}
	for _, typ := range batch.Types() {
		if got, ok := batch.TypeNamed(typ.String()); !ok || got != typ {
			t.Errorf("type %v is not found by its name", typ)
		}
	}
	if _, ok := batch.TypeNamed("varchar"); ok {
		t.Error("varchar is a type")
	}
}
