package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// Figure is one line of the report.
type Figure struct {
	ID     string   `json:"id"`
	Value  float64  `json:"value"`  // what was measured, in Unit
	Limit  *float64 `json:"limit"`  // what it was measured beside, in Unit; nil: nothing
	Ratio  *float64 `json:"ratio"`  // value / limit; nil where the bar has a unit
	Unit   string   `json:"unit"`   // "ns/row", "ms", …
	Bar    *float64 `json:"bar"`    // what must be reached; nil: reported only
	Better string   `json:"better"` // "lower" or "higher"
	OK     bool     `json:"ok"`     // the bar is reached

	Note        string  `json:"note,omitempty"`
	AllocsARow  float64 `json:"allocs_per_row"`
	BarHasAUnit bool    `json:"-"`
}

// ratio makes a figure whose bar is a ratio to the limit.
func ratio(id string, value, limit float64, unit string, bar float64) Figure {
	r := value / limit
	return Figure{ID: id, Value: value, Limit: &limit, Ratio: &r, Unit: unit, Bar: &bar, Better: "lower", OK: r <= bar}
}

// absolute makes a figure whose bar is in the figure's unit.
func absolute(id string, value float64, limit *float64, unit string, bar float64) Figure {
	return Figure{ID: id, Value: value, Limit: limit, Unit: unit, Bar: &bar, Better: "lower", OK: value <= bar, BarHasAUnit: true}
}

// Benchmark is one id of `tidemark bench`; it may report several figures.
type Benchmark struct {
	ID   string
	What string
	Run  func(ctx context.Context, o Options) ([]Figure, error)
}

// Options are what all benchmarks share.
type Options struct {
	Rounds   int          // how often each side runs, in turn; 0: 5
	Progress func(string) // what is being measured now
}

func (o Options) rounds() int {
	if o.Rounds <= 0 {
		return 5
	}
	return o.Rounds
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// side is one of the things that are compared. run does its work once and
// returns how long the measured part took.
type side struct {
	name string
	rows int // of one run
	run  func() (time.Duration, error)
}

// measured is the median of a side's runs.
type measured struct {
	nsARow     float64
	allocsARow float64
}

// inTurn runs the sides A B A B …, the first round not counted, and returns
// the medians in the order of the sides.
func inTurn(ctx context.Context, o Options, id string, sides ...side) ([]measured, error) {
	times := make([][]float64, len(sides))
	allocs := make([][]float64, len(sides))
	for round := range o.rounds() + 1 {
		for i, s := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			o.progress("%s: %s, round %d of %d", id, s.name, round, o.rounds())
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, err := s.run()
			if err != nil {
				return nil, fmt.Errorf("bench %s: %s: %w", id, s.name, err)
			}
			runtime.ReadMemStats(&after)
			if round > 0 {
				times[i] = append(times[i], float64(d.Nanoseconds())/float64(s.rows))
				allocs[i] = append(allocs[i], float64(after.Mallocs-before.Mallocs)/float64(s.rows))
			}
		}
	}
	out := make([]measured, len(sides))
	for i := range sides {
		out[i] = measured{nsARow: median(times[i]), allocsARow: median(allocs[i])}
	}
	return out, nil
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// onOneCore runs f with GOMAXPROCS=1.
func onOneCore(f func() (time.Duration, error)) (time.Duration, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	return f()
}
