package simulate

import (
	"fmt"
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Result is a window as the job fired it.
type Result struct {
	Sensor string
	Start  dataflow.Time
	Count  int64
	Avg    float64
	Max    float64
}

// Verdict is how results compare with the expected windows.
type Verdict struct {
	Right   int
	Wrong   int // another count, average or maximum
	Missing int // expected, not fired
	Surplus int // fired though nothing was sent, or fired twice
	Unsure  int // windows without a judgement
	Details []string
}

// Good tells whether nothing is wrong and something is right.
func (v *Verdict) Good() bool { return v.Right > 0 && v.Wrong+v.Missing+v.Surplus == 0 }

const maxDetails = 20

func (v *Verdict) detail(format string, args ...any) {
	if len(v.Details) < maxDetails {
		v.Details = append(v.Details, fmt.Sprintf(format, args...))
	}
}

// Compare judges the windows that the job fired, in any order. Windows that
// end at or before until must have fired; later ones may have. Averages may
// differ by 1e-9, because a sum of doubles depends on its order.
func (o *Oracle) Compare(results []Result, until dataflow.Time) Verdict {
	var v Verdict
	fired := make(map[windowKey]bool, len(results))
	for _, r := range results {
		sensor, known := o.names[r.Sensor]
		k := windowKey{sensor, int64(r.Start)}
		w := o.windows[k]
		switch {
		case !known || w == nil:
			v.Surplus++
			v.detail("%s %v: fired with %d readings, but nothing was sent for it", r.Sensor, r.Start, r.Count)
			continue
		case fired[k]:
			v.Surplus++
			v.detail("%s %v: fired twice", r.Sensor, r.Start)
			continue
		}
		fired[k] = true
		switch {
		case w.Unsure:
			v.Unsure++
		case r.Count != w.Count || !near(r.Avg, w.Avg()) || r.Max != w.Max:
			v.Wrong++
			v.detail("%s %v: %d readings, average %v, maximum %v; sent were %d, %v, %v", r.Sensor, r.Start, r.Count, r.Avg, r.Max, w.Count, w.Avg(), w.Max)
		default:
			v.Right++
		}
	}
	for _, w := range o.Windows() {
		if fired[windowKey{w.Sensor, int64(w.Start)}] || w.End > until {
			continue
		}
		if w.Unsure {
			v.Unsure++
			continue
		}
		v.Missing++
		v.detail("%s %v: %d readings were sent, but it did not fire", Name(w.Sensor), w.Start, w.Count)
	}
	return v
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }
