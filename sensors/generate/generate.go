// Package generate owns the seeded source: rows that are a pure function of
// (seed, row number), so that every run, every replay and every parallelism
// sees the same rows, and any position can be reached at once.
//
// It never reads a clock to decide what a row holds. A clock, if given, only
// decides when a row is handed out.
package generate

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// unpaced is the rate, rows/s, at which rows arrive that are handed out as fast
// as they can be: one each microsecond.
const unpaced = 1_000_000

// Bounds under which no arithmetic overflows.
const (
	maxKeys = 1 << 30
	maxRate = 1_000_000_000
)

// Config says what is generated. Row i of the whole source belongs to split
// i mod Splits, split k to subtask k mod Parallelism.
type Config struct {
	Seed        uint64
	Rate        int64             // rows/s of the whole source; 0: as fast as it can, and a row each microsecond in the rows' own time
	Keys        int64             // distinct keys; 0: 1
	Rows        int64             // of the whole source; 0: endless
	Start       dataflow.Time     // arrival of row 0; row i arrives at Start + i/Rate
	Disorder    dataflow.Duration // event times lie up to this long before the arrival
	Subtask     int
	Parallelism int
	// Splits stays what it was when the source began, whatever the parallelism
	// is later: SplitsOf finds it in the names of a checkpoint's splits. 0: the
	// parallelism.
	Splits int
}

// Source is one subtask's share: one split, or several after the parallelism
// was lowered, none for some subtasks after it was raised. Of several, the one
// whose next row arrives first is read next. A split's position is the number
// of its rows that were handed out.
type Source struct {
	cfg      Config
	schema   *batch.Schema
	pool     *batch.Pool
	clock    sensors.Clock // nil: not paced
	next     []int64       // of each split
	now      int           // the split that is being read
	begun    bool
	lead     int64 // the wall clock, minus the arrival time of rows handed out at that moment
	key      []byte
	arrivals []int64
}

var (
	_ sensors.BatchReader = (*Source)(nil)
	_ sensors.SplitNamer  = (*Source)(nil)
)

// New makes one subtask's source. schema is what Schema made. clock paces the
// rows by Rate, beginning with the first ReadBatch; with a nil clock, or Rate
// 0, nothing waits.
func New(cfg Config, schema *batch.Schema, pool *batch.Pool, clock sensors.Clock) (*Source, error) {
	if cfg.Keys == 0 {
		cfg.Keys = 1
	}
	if cfg.Rate == 0 {
		cfg.Rate = unpaced
		clock = nil
	}
	switch {
	case cfg.Rate < 0 || cfg.Rate > maxRate || cfg.Rows < 0 || cfg.Disorder < 0:
		return nil, fmt.Errorf("generate: rate, rows and disorder must not be negative, and the rate at most %d rows/s", int64(maxRate))
	case cfg.Keys < 0 || cfg.Keys > maxKeys:
		return nil, fmt.Errorf("generate: %d keys; at least 1 and at most %d", cfg.Keys, maxKeys)
	case cfg.Parallelism < 1 || cfg.Subtask < 0 || cfg.Subtask >= cfg.Parallelism || cfg.Splits < 0:
		return nil, fmt.Errorf("generate: subtask %d of %d, %d splits: that does not exist", cfg.Subtask, cfg.Parallelism, cfg.Splits)
	}
	if cfg.Splits == 0 {
		cfg.Splits = cfg.Parallelism
	}
	s := &Source{cfg: cfg, schema: schema, pool: pool, clock: clock}
	for k := cfg.Subtask; k < cfg.Splits; k += cfg.Parallelism {
		s.next = append(s.next, 0)
	}
	return s, nil
}

// Splits is the number of splits of this subtask.
func (s *Source) Splits() int { return len(s.next) }

// number is a split's number in the whole source.
func (s *Source) number(split int) int64 {
	return int64(s.cfg.Subtask) + int64(split)*int64(s.cfg.Parallelism)
}

// SplitName is "k of n": which rows belong to it does not depend on the
// parallelism. See sensors.SplitNamer.
func (s *Source) SplitName(split int) string {
	return fmt.Sprintf("%d of %d", s.number(split), s.cfg.Splits)
}

// SplitsOf is Config.Splits of the source whose splits a checkpoint names.
func SplitsOf(names []string) (int, error) {
	splits := 0
	for _, n := range names {
		k, of := 0, 0
		if c, err := fmt.Sscanf(n, "%d of %d", &k, &of); c != 2 || err != nil || k < 0 || k >= of || splits != 0 && of != splits || n != fmt.Sprintf("%d of %d", k, of) {
			return 0, fmt.Errorf("generate: the checkpoint names a split %q among %q; they are not those of one generate source", n, names)
		}
		splits = of
	}
	return splits, nil
}

// ReadBatch returns the rows that are due, at most max; it waits for the first
// of them. See sensors.BatchReader.
func (s *Source) ReadBatch(ctx context.Context, max int) (*batch.Batch, []int64, sensors.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, sensors.Position{}, err
	}
	n, err := s.due(ctx, min(max, batch.MaxRows))
	if err != nil {
		return nil, nil, sensors.Position{}, err
	}
	b := s.pool.Get(s.schema)
	b.Rows = n
	s.fill(b, n)
	s.pool.Account(b)
	s.next[s.now] += int64(n)
	return b, s.arrivals, sensors.Position{Split: s.now, Offset: s.next[s.now]}, nil
}

// choose finds the split with the earliest next row, and how many rows it
// still has; 0: none has any.
func (s *Source) choose() (left int64) {
	first := int64(math.MaxInt64)
	for k, next := range s.next {
		own := int64(math.MaxInt64)
		if s.cfg.Rows > 0 {
			n := int64(s.cfg.Splits)
			own = (s.cfg.Rows - s.number(k) + n - 1) / n
		}
		if row := next*int64(s.cfg.Splits) + s.number(k); next < own && row < first {
			first, left, s.now = row, own-next, k
		}
	}
	return left
}

// due is how many of the next max rows there are by now, at least one.
func (s *Source) due(ctx context.Context, max int) (int, error) {
	left := s.choose()
	if left == 0 {
		return 0, io.EOF
	}
	max = int(min(int64(max), left))
	if s.clock == nil {
		return max, nil
	}
	first := s.arrival(s.row(0))
	if !s.begun {
		s.begun, s.lead = true, int64(s.clock.Now())-first
	}
	for {
		now := int64(s.clock.Now()) - s.lead
		if wait := first - now; wait > 0 {
			select {
			case <-s.clock.After(dataflow.Duration(wait)):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
			continue
		}
		n := 1
		for n < max && s.arrival(s.row(n)) <= now {
			n++
		}
		return n, nil
	}
}

// row is the number, in the whole source, of the k-th row from now of the split
// that is being read.
func (s *Source) row(k int) int64 {
	return (s.next[s.now]+int64(k))*int64(s.cfg.Splits) + s.number(s.now)
}

// arrival is Start + i/Rate, in µs.
func (s *Source) arrival(i int64) int64 {
	return int64(s.cfg.Start) + i/s.cfg.Rate*int64(dataflow.Second) + i%s.cfg.Rate*int64(dataflow.Second)/s.cfg.Rate
}

func (s *Source) fill(b *batch.Batch, n int) {
	keys, seqs := b.Own(0, 0), b.Own(1, n).Ints
	values, stamps, times := b.Own(2, n).Doubles, b.Own(3, n).Ints, b.OwnTimes(n)
	if cap(s.arrivals) < n {
		s.arrivals = make([]int64, batch.MaxRows)
	}
	s.arrivals = s.arrivals[:n]
	for k := range n {
		i := s.row(k)
		r := mix(s.cfg.Seed ^ mix(uint64(i)))
		s.key = strconv.AppendUint(append(s.key[:0], "key-"...), below(r, uint64(s.cfg.Keys)), 10)
		keys.AppendBytes(s.key)
		seqs[k] = i
		r = mix(r)
		values[k] = float64(r>>11) * (100.0 / (1 << 53))
		at := s.arrival(i)
		s.arrivals[k] = at
		ts := at
		if s.cfg.Disorder > 0 {
			ts -= int64(below(mix(r), uint64(s.cfg.Disorder)+1))
		}
		stamps[k], times[k] = ts, ts
	}
}

// Seek goes to the row with which a position ended.
func (s *Source) Seek(p sensors.Position) error {
	if p.Split < 0 || p.Split >= len(s.next) || p.Offset < 0 {
		return fmt.Errorf("generate: no position %d in split %d of %d", p.Offset, p.Split, len(s.next))
	}
	s.next[p.Split], s.begun = p.Offset, false
	return nil
}

// Close does nothing.
func (s *Source) Close() error { return nil }

// mix is splitmix64's step: a bijection whose outputs look random.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below maps r evenly to 0..n-1 (Lemire's multiplication, bias under n/2^64).
func below(r, n uint64) uint64 {
	hi, _ := bits.Mul64(r, n)
	return hi
}
