package generate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

const start = dataflow.Time(1_700_000_000_000_000)

// row is a generated row with its arrival.
type row struct {
	key     string
	seq     int64
	value   float64
	ts      int64
	arrival int64
}

func open(t rapid.TB, c Config, clock sensors.Clock) *Source {
	t.Helper()
	s, err := New(c, wholeSchema(), batch.NewPool(0, nil), clock)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// take reads at least n rows, or to the end, and checks batches and positions.
func take(t rapid.TB, s *Source, max, n int) []row {
	t.Helper()
	var out []row
	from := s.next[0]
	for len(out) < n {
		b, arrivals, p, err := s.ReadBatch(context.Background(), max)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		if b.Rows == 0 || b.Rows > max || len(arrivals) != b.Rows || p != (sensors.Position{Offset: from + int64(len(out)+b.Rows)}) {
			t.Fatalf("%d rows, %d arrivals, position %+v", b.Rows, len(arrivals), p)
		}
		for i := range b.Rows {
			if b.Times[i] != b.Cols[3].Ints[i] {
				t.Fatal("the event time is not ts")
			}
			out = append(out, row{string(b.Cols[0].At(i)), b.Cols[1].Ints[i], b.Cols[2].Doubles[i], b.Cols[3].Ints[i], arrivals[i]})
		}
		b.Release()
	}
	return out
}

// TestRowsDependOnSeedAndNumberAlone: not on the parallelism, the batches, or
// where reading began.
func TestRowsDependOnSeedAndNumberAlone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := Config{
			Seed: rapid.Uint64().Draw(rt, "seed"), Rate: rapid.SampledFrom([]int64{0, 1, 3, 1000, 7_000_000}).Draw(rt, "rate"),
			Keys: rapid.Int64Range(0, 50).Draw(rt, "keys"), Rows: rapid.Int64Range(1, 300).Draw(rt, "rows"),
			Start: start, Disorder: dataflow.Duration(rapid.Int64Range(0, 5000).Draw(rt, "disorder")), Parallelism: 1,
		}
		want := take(rt, open(rt, c, nil), 4096, 1000)
		if int64(len(want)) != c.Rows {
			rt.Fatalf("%d rows of %d", len(want), c.Rows)
		}
		rate := c.Rate
		if rate == 0 {
			rate = 1_000_000
		}
		for i, r := range want {
			if at := int64(start) + int64(i)*1_000_000/rate; r.seq != int64(i) || r.arrival != at || r.ts > at || r.ts < at-int64(c.Disorder) || !(r.value >= 0 && r.value < 100) {
				rt.Fatalf("row %d is %+v, arrives at %d", i, r, at)
			}
		}
		p := rapid.IntRange(1, 7).Draw(rt, "parallelism")
		max := rapid.SampledFrom([]int{1, 7, 4096}).Draw(rt, "max")
		for sub := range p {
			c.Subtask, c.Parallelism = sub, p
			var own []row
			for i := sub; i < len(want); i += p {
				own = append(own, want[i])
			}
			if got := take(rt, open(rt, c, nil), max, 1000); fmt.Sprint(got) != fmt.Sprint(own) {
				rt.Fatalf("subtask %d of %d: %v, want %v", sub, p, got, own)
			}
			from := rapid.IntRange(0, len(own)).Draw(rt, "from")
			s := open(rt, c, nil)
			if err := s.Seek(sensors.Position{Offset: int64(from)}); err != nil {
				rt.Fatal(err)
			}
			if got := take(rt, s, max, 1000); fmt.Sprint(got) != fmt.Sprint(own[from:]) {
				rt.Fatalf("subtask %d of %d from %d: %v, want %v", sub, p, from, got, own[from:])
			}
		}
	})
}

// TestRowsAreSpread: keys, values and disorder use all of their range.
func TestRowsAreSpread(t *testing.T) {
	const n, keys, disorder = 20_000, 10, 1000
	rows := take(t, open(t, Config{Seed: 5, Keys: keys, Rows: n, Rate: 1000, Start: start, Disorder: disorder, Parallelism: 1}, nil), 4096, n)
	count, tens, back, jumps := map[string]int{}, [10]int{}, [10]int{}, 0
	for i, r := range rows {
		count[r.key]++
		tens[int(r.value/10)]++
		back[min(9, (r.arrival-r.ts)*10/disorder)]++
		if i > 0 && r.ts < rows[i-1].ts {
			jumps++
		}
	}
	for _, k := range count {
		if len(count) != keys || k < n/keys*8/10 {
			t.Fatalf("keys: %v", count)
		}
	}
	for i := range tens {
		if tens[i] < n/10*8/10 || back[i] < n/10*8/10 {
			t.Fatalf("values %v, disorder %v", tens, back)
		}
	}
	other := take(t, open(t, Config{Seed: 6, Keys: keys, Rows: n, Rate: 1000, Start: start, Disorder: disorder, Parallelism: 1}, nil), 4096, n)
	if fmt.Sprint(rows) == fmt.Sprint(other) {
		t.Error("the seed changes nothing")
	}
	if jumps != 0 {
		t.Errorf("%d jumps back within rows 1 ms apart and 1 ms of disorder", jumps)
	}
}

// TestPacing: rows come when they are due, counted from the first read, and
// what they hold is what they hold unpaced.
func TestPacing(t *testing.T) {
	c := Config{Seed: 1, Rate: 10, Keys: 3, Start: start, Parallelism: 2, Subtask: 1, Rows: 1000}
	want := take(t, open(t, c, nil), 4096, 500)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, c, sensors.Wall{})
		time.Sleep(time.Hour) // making it early costs nothing
		begin := time.Now()
		got := take(t, s, 4096, 1)
		if len(got) != 1 || time.Since(begin) != 0 {
			t.Fatalf("%d rows after %v", len(got), time.Since(begin))
		}
		for i := 1; i < 20; i++ { // a row each 200 ms for this subtask
			got = append(got, take(t, s, 4096, 1)...)
			if len(got) != i+1 || time.Since(begin) != time.Duration(i)*200*time.Millisecond {
				t.Fatalf("row %d after %v", len(got), time.Since(begin))
			}
		}
		time.Sleep(10 * time.Second)
		got = append(got, take(t, s, 4096, 1)...) // one batch of all that became due
		if len(got) != 20+50 {
			t.Fatalf("%d rows after a pause", len(got))
		}
		if err := s.Seek(sensors.Position{Offset: 400}); err != nil {
			t.Fatal(err)
		}
		begin = time.Now()
		got = append(got, take(t, s, 4096, 2)...)
		if len(got) != 72 || time.Since(begin) != 200*time.Millisecond {
			t.Fatalf("%d rows, %v after a seek", len(got), time.Since(begin))
		}
		if fmt.Sprint(got) != fmt.Sprint(append(want[:70:70], want[400:402]...)) {
			t.Error("pacing changes the rows")
		}
	})
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Rate: 1, Start: start, Parallelism: 1}, sensors.Wall{})
		take(t, s, 10, 1)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		for range 2 {
			if b, _, _, err := s.ReadBatch(ctx, 10); b != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(b, err)
			}
		}
		if got := take(t, s, 10, 1); got[0].seq != 1 {
			t.Errorf("a row was lost: %v", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatCannotBeGenerated(t *testing.T) {
	for _, c := range []Config{
		{Rate: -1, Parallelism: 1}, {Rate: maxRate + 1, Parallelism: 1}, {Keys: -1, Parallelism: 1}, {Keys: maxKeys + 1, Parallelism: 1},
		{Rows: -1, Parallelism: 1}, {Disorder: -1, Parallelism: 1}, {}, {Subtask: 1, Parallelism: 1}, {Subtask: -1, Parallelism: 1},
	} {
		if _, err := New(c, wholeSchema(), batch.NewPool(0, nil), nil); err == nil {
			t.Errorf("%+v", c)
		}
	}
	s := open(t, Config{Parallelism: 1}, nil)
	if s.Seek(sensors.Position{Split: 1}) == nil || s.Seek(sensors.Position{Offset: -1}) == nil {
		t.Error("positions that are none")
	}
}

func TestReadBatchAllocatesNothing(t *testing.T) {
	s := open(t, Config{Keys: 1000, Start: start, Disorder: 1000, Parallelism: 1}, nil)
	read := func() {
		b, _, _, err := s.ReadBatch(context.Background(), batch.MaxRows)
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	read()
	if n := testing.AllocsPerRun(50, read); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkReadBatch(b *testing.B) {
	s := open(b, Config{Keys: 1000, Start: start, Disorder: 1000, Parallelism: 1}, nil)
	b.ReportAllocs()
	for b.Loop() {
		x, _, _, err := s.ReadBatch(context.Background(), batch.MaxRows)
		if err != nil {
			b.Fatal(err)
		}
		x.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch.MaxRows, "ns/row")
}

// TestRowsSurviveAnotherParallelism: the splits stay, whoever reads them.
func TestRowsSurviveAnotherParallelism(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := Config{Seed: 3, Keys: 9, Rows: rapid.Int64Range(1, 200).Draw(rt, "rows"), Start: start, Parallelism: rapid.IntRange(1, 5).Draw(rt, "parallelism")}
		seen := map[int64]int{}
		positions := map[string]int64{}
		splits := 0
		for left := true; left; {
			left = rapid.IntRange(0, 3).Draw(rt, "goes on") > 0
			n := 0
			for c.Subtask = range c.Parallelism {
				c.Splits = splits
				s := open(rt, c, nil)
				for k := range s.Splits() {
					if err := s.Seek(sensors.Position{Split: k, Offset: positions[s.SplitName(k)]}); err != nil {
						rt.Fatal(err)
					}
				}
				most := 1000
				if left {
					most = rapid.IntRange(0, 30).Draw(rt, "reads")
				}
				for range most {
					b, _, p, err := s.ReadBatch(context.Background(), 7)
					if err == io.EOF {
						break
					}
					if err != nil {
						rt.Fatal(err)
					}
					for _, seq := range b.Cols[1].Ints[:b.Rows] {
						seen[seq]++
					}
					b.Release()
					positions[s.SplitName(p.Split)] = p.Offset
				}
				for k := range s.Splits() {
					positions[s.SplitName(k)] += 0
					n++
				}
			}
			var names []string
			for name := range positions {
				names = append(names, name)
			}
			var err error
			if splits, err = SplitsOf(names); err != nil || splits != len(names) || n != splits {
				rt.Fatalf("%d splits of %v, %d read: %v", splits, names, n, err)
			}
			c.Parallelism = rapid.IntRange(1, 6).Draw(rt, "next parallelism")
		}
		for i := range c.Rows {
			if seen[i] != 1 {
				rt.Fatalf("row %d came %d times", i, seen[i])
			}
		}
		if int64(len(seen)) != c.Rows {
			rt.Fatalf("%d rows of %d", len(seen), c.Rows)
		}
	})
}

func TestSplitsOfOthersAreRefused(t *testing.T) {
	for _, names := range [][]string{{"0"}, {"out.csv"}, {"0 of 2", "1 of 3"}, {"2 of 2"}, {"-1 of 2"}, {"0 of 2x"}, {"00 of 2"}} {
		if n, err := SplitsOf(names); err == nil {
			t.Errorf("%q: %d", names, n)
		}
	}
	if n, err := SplitsOf(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// wholeSchema is all columns that there are.
func wholeSchema() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "key", Type: batch.String},
		batch.Field{Name: "seq", Type: batch.Bigint},
		batch.Field{Name: "value", Type: batch.Double},
		batch.Field{Name: "ts", Type: batch.Timestamp},
	)
}
