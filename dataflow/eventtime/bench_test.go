package eventtime

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// load is full batches that are assigned again and again, each time a little
// later: event and arrival time go on by a millisecond each 100 rows.
type load struct {
	batches []*batch.Batch
	rows    []Rows
	n       int
}

// devicesLoad makes a load over n devices, of which one in ten never comes
// again after the first round. Random order, or each in turn.
func devicesLoad(n int, random bool) (first, rest *load) {
	rng := rand.New(rand.NewPCG(1, 2))
	return makeLoad((n+batch.MaxRows-1)/batch.MaxRows, func(k int) int { return k % n }),
		makeLoad(max(4, 2*n/batch.MaxRows), func(k int) int {
			if random {
				k = rng.IntN(n)
			}
			if k%10 == 9 {
				k-- // its neighbour comes instead
			}
			return k % n
		})
}

func makeLoad(batches int, device func(k int) int) *load {
	pool := batch.NewPool(0, nil)
	schema := deviceSchema()
	l := &load{}
	k := 0
	for range batches {
		bl := batch.NewBuilder(pool, schema)
		for range batch.MaxRows {
			bl.SetString(0, fmt.Sprintf("sensor-%06d", device(k)))
			bl.SetInt(1, int64(k))
			bl.EndRow(0)
			k++
		}
		b := bl.Take()
		state.HashKeys(b, []int{0})
		l.batches = append(l.batches, b)
		l.rows = append(l.rows, Rows{Device: b.Cols[0], DeviceHash: b.Hashes,
			Arrivals: make([]int64, batch.MaxRows), MarkerAt: make([]int64, batch.MaxRows)})
	}
	return l
}

// markers makes every n-th row a marker.
func (l *load) markers(n int) *load {
	for i := range l.rows {
		l.rows[i].Marker = make(batch.Bitmap, batch.Words(batch.MaxRows))
		for k := n - 1; k < batch.MaxRows; k += n {
			l.rows[i].Marker.Set(k)
		}
	}
	return l
}

// next is the next batch, its times set.
func (l *load) next(from *int64) (*batch.Batch, Rows) {
	b, in := l.batches[l.n%len(l.batches)], l.rows[l.n%len(l.batches)]
	l.n++
	b.OwnMarks()
	b.Sel = nil
	at := *from
	for i := range b.Times {
		b.Times[i] = (at + int64(i)) / 100 * 1000
		in.Arrivals[i] = b.Times[i]
		in.MarkerAt[i] = b.Times[i]
	}
	*from = at + int64(len(b.Times))
	return b, in
}

func BenchmarkAssign(b *testing.B) {
	idle := 30 * dataflow.Second
	for _, c := range []struct {
		name string
		cfg  Config
		load func() (first, rest *load)
	}{
		{"times only", Config{}, nil},
		{"bounded", Config{Strategy: Bounded, Bound: 5000}, one(0)},
		{"bounded idle", Config{Strategy: Bounded, Bound: 5000, IdleAfter: idle}, one(0)},
		{"bounded arrivals", Config{Strategy: Bounded, Bound: 5000, IdleAfter: idle, MarkArrivals: true}, one(0)},
		{"markers 1", Config{Strategy: Punctuated, KeepMarker: true, IdleAfter: idle}, one(1)},
		{"markers 100", Config{Strategy: Punctuated, KeepMarker: true, IdleAfter: idle}, one(100)},
		{"devices 1k in turn", Config{Strategy: Bounded, Bound: 5000, PerDevice: true, IdleAfter: idle}, many(1000, false, 0)},
		{"devices 1k random", Config{Strategy: Bounded, Bound: 5000, PerDevice: true, IdleAfter: idle}, many(1000, true, 0)},
		{"devices 1k markers 1", Config{Strategy: Punctuated, KeepMarker: true, PerDevice: true, IdleAfter: idle}, many(1000, true, 1)},
		{"devices 100k in turn", Config{Strategy: Bounded, Bound: 5000, PerDevice: true, IdleAfter: idle}, many(100_000, false, 0)},
		{"devices 100k random", Config{Strategy: Bounded, Bound: 5000, PerDevice: true, IdleAfter: idle}, many(100_000, true, 0)},
		{"devices 100k markers 1", Config{Strategy: Punctuated, KeepMarker: true, PerDevice: true, IdleAfter: idle}, many(100_000, true, 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.load == nil {
				c.load = one(0)
			}
			first, rest := c.load()
			var at int64
			s := NewSource(c.cfg, []int{0}, batch.NewPool(0, nil))
			for range 2 * len(first.batches) { // twice: the index and the queues have their size
				x, in := first.next(&at)
				s.Assign(0, x, in)
			}
			for range len(rest.batches) {
				x, in := rest.next(&at)
				s.Assign(0, x, in)
			}
			marks, n := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				x, in := rest.next(&at)
				s.Assign(0, x, in)
				marks += len(x.Marks)
				n += x.Rows
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
			b.ReportMetric(float64(marks)/float64(n), "marks/row")
			b.ReportMetric(float64(s.Devices()), "devices")
		})
	}
}

func one(markers int) func() (first, rest *load) { return many(1, false, markers) }

func many(n int, random bool, markers int) func() (first, rest *load) {
	return func() (first, rest *load) {
		first, rest = devicesLoad(n, random)
		if markers > 0 {
			first.markers(markers)
			rest.markers(markers)
		}
		return first, rest
	}
}

func BenchmarkMerge(b *testing.B) {
	for _, n := range []int{2, 8, 64, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := NewMerge(n)
			at := dataflow.Time(0)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				at++
				m.Mark(i%n, batch.Mark{Watermark: at, Arrival: at})
				i++
			}
		})
	}
}
