package exchange_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/exchange"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

func schema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "v", Type: batch.Bigint})
}

func poisoned() *batch.Pool {
	p := batch.NewPool(0, nil)
	p.PoisonReleased()
	return p
}

// split deals the batches out and returns what each channel got; hashes are
// checked on the way.
func split(t optest.TB, cfg exchange.Config, in []*batch.Batch) []optest.Stream {
	t.Helper()
	out := make([]optest.Stream, cfg.Channels)
	for c := range out {
		out[c].Schema = cfg.Schema
	}
	p := exchange.New(cfg)
	for _, b := range in {
		before := look(b)
		p.Split(b, func(c int, got *batch.Batch) {
			if err := got.Check(); err != nil {
				t.Fatalf("channel %d: %v", c, err)
			}
			if got.Len() == 0 && len(got.Marks) == 0 {
				t.Fatalf("channel %d got an empty batch", c)
			}
			checkHashes(t, cfg, got)
			out[c].Flatten(got)
			got.Release()
		})
		if look(b) != before {
			t.Fatalf("Split wrote into its input:\n%s\nwas\n%s", look(b), before)
		}
	}
	return out
}

func look(b *batch.Batch) string {
	s := fmt.Sprintln(b.Rows, b.Times, b.Sel, b.Marks, b.Kinds, b.Hashes)
	for _, c := range b.Cols {
		s += fmt.Sprintln(c.Valid, c.Ints, c.Offsets, c.Data)
	}
	return s
}

// checkHashes: on a hash exchange with several channels every row travels with
// the hash of its key, on all others with none.
func checkHashes(t optest.TB, cfg exchange.Config, b *batch.Batch) {
	t.Helper()
	if cfg.Exchange != graph.Hash || cfg.Channels == 1 || b.Len() == 0 {
		if b.Hashes != nil {
			t.Fatalf("hashes %v travel on this exchange", b.Hashes)
		}
		return
	}
	c := b.Compact()
	defer c.Release()
	fresh := b.Pool().DeriveAll(c)
	defer fresh.Release()
	fresh.Hashes = nil
	state.HashKeys(fresh, cfg.Keys)
	if !slices.Equal(c.Hashes, fresh.Hashes) {
		t.Fatalf("hashes %x, want %x", c.Hashes, fresh.Hashes)
	}
}

// rows makes n rows with values 0..n-1 and 7 keys, in batches of size.
func rows(p *batch.Pool, n, size int) []*batch.Batch {
	s := optest.Stream{Schema: schema()}
	for i := range n {
		s.Elements = append(s.Elements, optest.Element{Row: &optest.Row{Time: dataflow.Time(i), Values: []any{fmt.Sprint("k", i%7), int64(i)}}})
	}
	return s.Batches(p, size)
}

func release(in []*batch.Batch) {
	for _, b := range in {
		b.Release()
	}
}

func counts(out []optest.Stream) []int {
	n := make([]int, len(out))
	for c := range out {
		n[c] = len(out[c].Rows())
	}
	return n
}

// TestRebalanceFloorOrCeil: N records to P targets, each gets floor or ceil of
// N/P, whatever the batches and wherever it begins.
func TestRebalanceFloorOrCeil(t *testing.T) {
	p := poisoned()
	for _, n := range []int{1, 5, 10, 97, 5000} {
		for _, channels := range []int{1, 2, 3, 4, 7} {
			for _, size := range []int{1, 3, 4096} {
				for subtask := range 3 {
					in := rows(p, n, size)
					cfg := exchange.Config{Exchange: graph.Rebalance, Channels: channels, Schema: in[0].Schema, Subtask: subtask}
					for c, got := range counts(split(t, cfg, in)) {
						if got != n/channels && got != (n+channels-1)/channels {
							t.Errorf("%d rows in batches of %d: channel %d of %d got %d", n, size, c, channels, got)
						}
					}
					release(in)
				}
			}
		}
	}
	if p.Out() != 0 {
		t.Errorf("%d batches leaked", p.Out())
	}
}

// TestRescaleFixedSubset: 2 -> 6 means 0 feeds 0,1,2 and 1 feeds 3,4,5; 6 -> 2
// means 0,1,2 -> 0 and 3,4,5 -> 1; inside the subset it is round robin.
func TestRescaleFixedSubset(t *testing.T) {
	cases := []struct {
		up, down int
		feeds    [][]int
	}{
		{2, 6, [][]int{{0, 1, 2}, {3, 4, 5}}},
		{6, 2, [][]int{{0}, {0}, {0}, {1}, {1}, {1}}},
	}
	p := poisoned()
	for _, c := range cases {
		conn := graph.Connection{Exchange: graph.Rescale, From: &graph.Task{Parallelism: c.up}, To: &graph.Task{Parallelism: c.down}}
		for from, feeds := range c.feeds {
			first, n := conn.Targets(from)
			in := rows(p, 12, 5)
			got := counts(split(t, exchange.Config{Exchange: graph.Rescale, Channels: n, Schema: in[0].Schema, Subtask: from}, in))
			release(in)
			want := make([]int, c.down)
			all := make([]int, c.down)
			for _, f := range feeds {
				want[f] = 12 / len(feeds)
			}
			copy(all[first:], got)
			if !slices.Equal(all, want) {
				t.Errorf("%d -> %d: subtask %d feeds %v, want %v", c.up, c.down, from, all, want)
			}
		}
	}
}

// TestHashSameKeySameSubtask: on every sender, in every batch, with any
// selection, a key goes to the subtask that owns its key group.
func TestHashSameKeySameSubtask(t *testing.T) {
	p := poisoned()
	for _, maxP := range []int{1, 7, 128, 100} {
		for _, channels := range []int{2, 3, 5} {
			if channels > maxP && maxP > 1 {
				continue
			}
			seen := map[string]int{}
			for subtask := range 2 {
				in := rows(p, 1000, 64+subtask)
				cfg := exchange.Config{Exchange: graph.Hash, Channels: channels, Schema: in[0].Schema, Keys: []int{0}, MaxParallelism: maxP, Subtask: subtask}
				for c, s := range split(t, cfg, in) {
					for _, r := range s.Rows() {
						k := r.Values[0].(string)
						if was, ok := seen[k]; ok && was != c {
							t.Errorf("max %d: key %s goes to %d and %d of %d", maxP, k, was, c, channels)
						}
						seen[k] = c
					}
				}
				release(in)
			}
			for k, c := range seen {
				b := optest.MustParse(t, schema(), k+"@0").Batches(p, 1)[0]
				state.HashKeys(b, []int{0})
				g := dataflow.KeyGroupOf(b.Hashes[0], maxP)
				if !dataflow.RangeOf(c, channels, maxP).Contains(g) {
					t.Errorf("key %s of group %d went to subtask %d of %d, which owns %v", k, g, c, channels, dataflow.RangeOf(c, channels, maxP))
				}
				b.Release()
			}
		}
	}
	if p.Out() != 0 {
		t.Errorf("%d batches leaked", p.Out())
	}
}

// TestHashesOfAnotherKeyAreNotUsed: a batch may still carry the hashes of the
// exchange before.
func TestHashesOfAnotherKeyAreNotUsed(t *testing.T) {
	p := poisoned()
	for _, channels := range []int{1, 3} {
		for _, x := range []graph.Exchange{graph.Hash, graph.Rebalance, graph.BroadcastAll} {
			in := rows(p, 20, 20)
			for i := range in[0].OwnHashes(20) {
				in[0].Hashes[i] = uint64(i)
			}
			split(t, exchange.Config{Exchange: x, Channels: channels, Schema: in[0].Schema, Keys: []int{0}, MaxParallelism: 128}, in)
			release(in)
		}
	}
}

func TestMarksGoToAllChannelsInPlace(t *testing.T) {
	s := schema()
	in := `a@0 v=0; a@1 v=1; wm 1; a@2 v=2; wm 2; wm 3 arrival 7; a@3 v=3; a@4 v=4; wm 4 arrival 8 idle`
	cases := []struct {
		x    graph.Exchange
		want []string
	}{
		{graph.Rebalance, []string{
			`a@0 v=0; wm 1 arrival min; a@2 v=2; wm 3 arrival 7; a@4 v=4; wm 4 arrival 8 idle`,
			`a@1 v=1; wm 3 arrival 7; a@3 v=3; wm 4 arrival 8 idle`}},
		{graph.Global, []string{in, `wm 4 arrival 8 idle`}},
		{graph.BroadcastAll, []string{in, in}},
	}
	for _, c := range cases {
		p := poisoned()
		b := optest.MustParse(t, s, in).Batches(p, 4096)
		out := split(t, exchange.Config{Exchange: c.x, Channels: 2, Schema: s}, b)
		for i := range out {
			if got, want := out[i].Coalesced().String(), optest.MustParse(t, s, c.want[i]).Coalesced().String(); got != want {
				t.Errorf("exchange %d, channel %d:\n%swant\n%s", c.x, i, got, want)
			}
		}
		release(b)
		if p.Out() != 0 {
			t.Errorf("%d batches leaked", p.Out())
		}
	}
}

// TestOneChannelGetsTheBatchItself: nothing is copied where there is nothing to
// deal out.
func TestOneChannelGetsTheBatchItself(t *testing.T) {
	p := poisoned()
	in := rows(p, 10, 10)
	for _, x := range []graph.Exchange{graph.Forward, graph.Hash, graph.Rebalance, graph.Rescale, graph.Shuffle, graph.BroadcastAll, graph.Global} {
		exchange.New(exchange.Config{Exchange: x, Channels: 1, Schema: in[0].Schema, Keys: []int{0}, MaxParallelism: 128}).Split(in[0], func(_ int, b *batch.Batch) {
			if b != in[0] {
				t.Errorf("exchange %d copied", x)
			}
			b.Release()
		})
	}
	release(in)
	if p.Out() != 0 {
		t.Errorf("%d batches leaked", p.Out())
	}
}

func TestShuffleIsSeededAndEven(t *testing.T) {
	p := poisoned()
	in := rows(p, 20_000, 4096)
	cfg := exchange.Config{Exchange: graph.Shuffle, Channels: 4, Schema: in[0].Schema, Seed: 3}
	a, again := split(t, cfg, in), split(t, cfg, in)
	cfg.Subtask = 1
	other := split(t, cfg, in)
	for c := range a {
		if a[c].String() != again[c].String() {
			t.Errorf("channel %d: the same seed gives another deal", c)
		}
		if a[c].String() == other[c].String() {
			t.Errorf("channel %d: two senders deal alike", c)
		}
		if n := len(a[c].Rows()); n < 4700 || n > 5300 {
			t.Errorf("channel %d got %d of 20000 rows", c, n)
		}
	}
	release(in)
}

// TestPartitionerProperty: for any stream, cut and selection, the channels
// together have the rows of the input; each has them in the input's order, and
// each row stands behind exactly the marks it stood behind before.
func TestPartitionerProperty(t *testing.T) {
	s := schema()
	exchanges := []graph.Exchange{graph.Hash, graph.Rebalance, graph.Rescale, graph.Shuffle, graph.BroadcastAll, graph.Global}
	rapid.Check(t, func(t *rapid.T) {
		p := poisoned()
		in := drawStream(t, s)
		batches := cut(t, p, in)
		x := rapid.SampledFrom(exchanges).Draw(t, "exchange")
		cfg := exchange.Config{Exchange: x, Channels: rapid.IntRange(1, 5).Draw(t, "channels"), Schema: s, Keys: []int{0}, MaxParallelism: 128}
		out := split(t, cfg, batches)
		release(batches)
		if p.Out() != 0 {
			t.Fatalf("%d batches leaked", p.Out())
		}
		got := make(map[string]int)
		total := 0
		for c := range out {
			last := int64(-1)
			for _, e := range behindMarks(out[c]) {
				v := e.row.Values[1].(int64)
				if v <= last {
					t.Fatalf("channel %d: row %d after %d", c, v, last)
				}
				last = v
				got[e.text]++
				total++
			}
			if len(in.Elements) > 0 {
				checkLastMark(t, in, out[c])
			}
		}
		copies := 1
		if x == graph.BroadcastAll {
			copies = cfg.Channels
		}
		for _, e := range behindMarks(in) {
			if got[e.text] != copies {
				t.Fatalf("row with its mark %q came %d times, want %d", e.text, got[e.text], copies)
			}
			total -= copies
		}
		if total != 0 {
			t.Fatalf("%d rows too many", total)
		}
	})
}

// rowBehind is a row with the last mark before it.
type rowBehind struct {
	row  *optest.Row
	text string
}

func behindMarks(s optest.Stream) []rowBehind {
	var out []rowBehind
	m := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	for _, e := range s.Elements {
		if e.Row == nil {
			m = e.Mark
			continue
		}
		out = append(out, rowBehind{e.Row, fmt.Sprint(m, e.Row.Time, e.Row.Kind, e.Row.Values)})
	}
	return out
}

// checkLastMark: every channel ends knowing what the input knew at its end.
func checkLastMark(t optest.TB, in, out optest.Stream) {
	t.Helper()
	last := func(s optest.Stream) batch.Mark {
		m := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
		for _, e := range s.Elements {
			if e.Row == nil {
				m = e.Mark
			}
		}
		return m
	}
	if got, want := last(out), last(in); got != want {
		t.Fatalf("last mark %v, want %v", got, want)
	}
}

func drawStream(t *rapid.T, s *batch.Schema) optest.Stream {
	in := optest.Stream{Schema: s}
	m := batch.Mark{Watermark: 0, Arrival: dataflow.MinTime}
	every := rapid.IntRange(1, 6).Draw(t, "marks")
	for i := range rapid.IntRange(0, 120).Draw(t, "rows") {
		r := &optest.Row{Time: dataflow.Time(i), Values: []any{nil, int64(i)}}
		if k := rapid.IntRange(0, 5).Draw(t, "key"); k > 0 {
			r.Values[0] = fmt.Sprint("k", k)
		}
		if k := rapid.IntRange(0, 9).Draw(t, "kind"); k < 3 {
			r.Kind = batch.Kind(k)
		}
		in.Elements = append(in.Elements, optest.Element{Row: r})
		if rapid.IntRange(1, every).Draw(t, "mark") == 1 {
			m.Watermark = m.Watermark.Add(dataflow.Duration(rapid.IntRange(0, 9).Draw(t, "later")))
			m.Idle = rapid.IntRange(0, 9).Draw(t, "idle") == 0
			in.Elements = append(in.Elements, optest.Element{Mark: m})
		}
	}
	return in
}

// cut makes batches of any size of s, with positions that are not there.
func cut(t *rapid.T, p *batch.Pool, s optest.Stream) []*batch.Batch {
	var out []*batch.Batch
	for rest := s.Elements; len(rest) > 0; {
		n := rapid.IntRange(1, min(len(rest), 40)).Draw(t, "size")
		bl := batch.NewBuilder(p, s.Schema)
		var sel []int32
		for _, e := range rest[:n] {
			for rapid.IntRange(0, 2).Draw(t, "dead") == 0 {
				bl.SetInt(1, -9)
				bl.EndRow(0)
			}
			if e.Row == nil {
				bl.Mark(e.Mark)
				continue
			}
			sel = append(sel, int32(bl.Len()))
			if k, ok := e.Row.Values[0].(string); ok {
				bl.SetString(0, k)
			}
			bl.SetInt(1, e.Row.Values[1].(int64))
			bl.EndRow(e.Row.Time)
			if e.Row.Kind != batch.Insert {
				bl.Kind(e.Row.Kind)
			}
		}
		b := bl.Take()
		if len(sel) < b.Rows {
			b.Sel = append(b.OwnSel(len(sel)), sel...)
		}
		out = append(out, b)
		rest = rest[n:]
	}
	return out
}

// bench is 4096 rows of 1,000 keys, two doubles and a bigint; a mark after
// every so many rows (0: none).
func bench(p *batch.Pool, every int) *batch.Batch {
	s := batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "a", Type: batch.Double},
		batch.Field{Name: "b", Type: batch.Double}, batch.Field{Name: "n", Type: batch.Bigint})
	bl := batch.NewBuilder(p, s)
	for i := range batch.MaxRows {
		bl.SetString(0, fmt.Sprintf("s-%03d", i*7919%1000))
		bl.SetDouble(1, float64(i))
		bl.SetDouble(2, float64(i))
		bl.SetInt(3, int64(i))
		bl.EndRow(dataflow.Time(i))
		if every > 0 && i%every == every-1 {
			bl.Mark(batch.Mark{Watermark: dataflow.Time(i), Arrival: dataflow.Time(i)})
		}
	}
	return bl.Take()
}

func benchmark(b *testing.B, x graph.Exchange, channels, every int) {
	pool := batch.NewPool(0, nil)
	src := bench(pool, every)
	p := exchange.New(exchange.Config{Exchange: x, Channels: channels, Schema: src.Schema, Keys: []int{0}, MaxParallelism: 128})
	emit := func(_ int, b *batch.Batch) { b.Release() }
	p.Split(src, emit)
	b.ReportAllocs()
	for b.Loop() {
		p.Split(src, emit)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch.MaxRows, "ns/row")
}

func BenchmarkHash4(b *testing.B)           { benchmark(b, graph.Hash, 4, 0) }
func BenchmarkHash4Punctuated(b *testing.B) { benchmark(b, graph.Hash, 4, 1) }
func BenchmarkHash1(b *testing.B)           { benchmark(b, graph.Hash, 1, 0) }
func BenchmarkRebalance4(b *testing.B)      { benchmark(b, graph.Rebalance, 4, 0) }
func BenchmarkBroadcast4(b *testing.B)      { benchmark(b, graph.BroadcastAll, 4, 0) }

func TestSplitAllocatesNothing(t *testing.T) {
	for _, x := range []graph.Exchange{graph.Hash, graph.Rebalance, graph.Shuffle, graph.BroadcastAll, graph.Global} {
		pool := batch.NewPool(0, nil)
		src := bench(pool, 3)
		p := exchange.New(exchange.Config{Exchange: x, Channels: 4, Schema: src.Schema, Keys: []int{0}, MaxParallelism: 128})
		emit := func(_ int, b *batch.Batch) { b.Release() }
		p.Split(src, emit)
		if n := testing.AllocsPerRun(10, func() { p.Split(src, emit) }); n != 0 {
			t.Errorf("exchange %d: %v allocations a batch, want none", x, n)
		}
	}
}
