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

	Note   string   `json:"note,omitempty"`
	Allocs *float64 `json:"allocs_per_row,omitempty"` // nil: not counted
}

// ratio makes a figure whose bar is a ratio to the limit.
func ratio(id string, value, limit float64, unit string, bar float64) Figure {
	r := value / limit
	return Figure{ID: id, Value: value, Limit: &limit, Ratio: &r, Unit: unit, Bar: &bar, Better: "lower", OK: r <= bar}
}

// absolute makes a figure whose bar is in the figure's unit.
func absolute(id string, value float64, limit *float64, unit string, bar float64) Figure {
	return Figure{ID: id, Value: value, Limit: limit, Unit: unit, Bar: &bar, Better: "lower", OK: value <= bar}
}

// Benchmark measures what belongs together; it reports a figure for each of
// its ids.
type Benchmark struct {
	Name string
	What string
	IDs  []string
	Run  func(ctx context.Context, o Options) ([]Figure, error)
}

// Options are what all benchmarks share.
type Options struct {
	Rounds   int          // how often each side is measured, in turn; 0: as often as the benchmark likes
	Scale    float64      // of the input; 0: 1, the size that the figures are meant for
	Progress func(string) // what is being measured now; nil: nobody wants to know
}

func (o Options) rounds(usual int) int {
	if o.Rounds <= 0 {
		return usual
	}
	return o.Rounds
}

// scaled is n at the scale of the run, least at the least.
func (o Options) scaled(n, least int) int {
	if o.Scale <= 0 {
		return n
	}
	return max(least, int(float64(n)*o.Scale))
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// side is one of the things that are compared.
type side struct {
	name string
	// pass does the work once, over input that set has made ready.
	pass func() error
}

// course says how sides are compared: warm passes of each that do not count,
// then rounds of a few passes, A B A B …
type course struct {
	id     string
	rows   int // of one pass
	warm   int // passes
	passes int // in a round
	rounds int
	ready  func(pass int) // makes the input ready for a pass of all sides; not measured
}

// measured is the median of a side's rounds.
type measured struct {
	ns     float64 // of processor time a row
	allocs float64 // a row
	busy   float64 // wall time by processor time: how much this process had to wait for the machine
}

// run runs the sides in turn and returns the medians in their order.
func (c course) run(ctx context.Context, o Options, sides ...side) ([]measured, error) {
	rounds := o.rounds(c.rounds)
	samples := make([]samples, len(sides))
	for pass := range c.warm + rounds*c.passes {
		counts, first := pass >= c.warm, (pass-c.warm)%c.passes == 0
		if c.ready != nil {
			c.ready(pass)
		}
		for i, s := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if counts {
				o.progress("%s: %s, round %d of %d", c.id, s.name, (pass-c.warm)/c.passes+1, rounds)
			} else {
				o.progress("%s: %s, warming up, %d of %d", c.id, s.name, pass+1, c.warm)
			}
			if first {
				runtime.GC()
			}
			w, err := watch(s.pass)
			if err != nil {
				return nil, fmt.Errorf("bench %s: %s: %w", c.id, s.name, err)
			}
			if counts {
				samples[i].add(w, first, float64(c.rows*c.passes))
			}
		}
	}
	out := make([]measured, len(sides))
	for i := range samples {
		out[i] = samples[i].median()
	}
	return out, nil
}

// work is what one pass cost.
type work struct {
	cpu, wall time.Duration
	mallocs   uint64
}

// watch measures f.
func watch(f func() error) (work, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, began := processorTime(), time.Now()
	err := f()
	w := work{cpu: processorTime() - cpu, wall: time.Since(began)}
	runtime.ReadMemStats(&after)
	w.mallocs = after.Mallocs - before.Mallocs
	return w, err
}

// samples are a side's rounds, each a row's share.
type samples struct{ ns, allocs, busy []float64 }

// add adds a pass to the last round, or begins one with it.
func (s *samples) add(w work, first bool, rows float64) {
	if first {
		s.ns, s.allocs, s.busy = append(s.ns, 0), append(s.allocs, 0), append(s.busy, 0)
	}
	k := len(s.ns) - 1
	s.ns[k] += float64(w.cpu.Nanoseconds()) / rows
	s.allocs[k] += float64(w.mallocs) / rows
	s.busy[k] += float64(w.wall.Nanoseconds()) / rows
}

func (s *samples) median() measured {
	m := measured{ns: median(s.ns), allocs: median(s.allocs)}
	m.busy = median(s.busy) / m.ns
	return m
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// compare makes the figure of a side beside another one.
func compare(id string, value, limit measured, bar float64) Figure {
	f := ratio(id, value.ns, limit.ns, "ns/row", bar)
	f.Allocs = &value.allocs
	if b := max(value.busy, limit.busy); b > 1.5 {
		f.Note = fmt.Sprintf("the machine is shared: %.1f times as long by the wall clock", b)
	}
	return f
}

// oneCore sets GOMAXPROCS to 1 until the function it returns is called.
func oneCore() func() {
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}
