package window

import (
	"math"
	"math/bits"
)

// grid is the arithmetic of tumbling and sliding windows; tumbling is sliding
// with slide = size. Window k is [k*slide+offset, k*slide+offset+size).
//
// Time is cut into slices so that every window is a run of whole slices. Two
// cuts a slide suffice whatever the sizes: where windows begin and where they
// end. If size is a multiple of slide the two fall together: one slice a slide,
// and slice k begins window k. Otherwise slice 2k begins window k, and slice
// 2k+1 begins where a window ends; with size < slide the odd slices are the
// gaps, which no window covers.
//
// Windows and slices are known by number, because their bounds may lie outside
// of time: a bound is cut to the ends of time only where it is shown. All rules
// are exact for every timestamp.
type grid struct {
	size, slide, offset int64
	lateness            int64
	cut                 int64 // size mod slide: where the odd slices begin
	per                 int64 // slices a slide: 1 or 2
	count               int64 // slices a window
}

func newGrid(size, slide, offset, lateness int64) grid {
	g := grid{size: size, slide: slide, offset: offset, lateness: lateness, cut: size % slide, per: 1, count: size / slide}
	if g.cut != 0 {
		g.per, g.count = 2, 2*(size/slide)+1
	}
	return g
}

// split is floor((t-offset)/slide) and the rest, whatever t is.
func (g *grid) split(t int64) (k, rest int64) {
	k, rest = t/g.slide, t%g.slide
	rest -= g.offset
	for rest < 0 {
		rest += g.slide
		k--
	}
	if rest >= g.slide {
		rest -= g.slide
		k++
	}
	return k, rest
}

// slice is the number of the slice that t lies in; in is false in a gap.
func (g *grid) slice(t int64) (n int64, in bool) {
	k, rest := g.split(t)
	if g.per == 1 {
		return k, true
	}
	if rest < g.cut {
		return 2 * k, true
	}
	return 2*k + 1, g.size > g.slide
}

// latest is the last window that covers slice n, if any does.
func (g *grid) latest(n int64) int64 {
	if g.per == 1 {
		return n
	}
	return n >> 1
}

// earliest is the first window that covers slice n.
func (g *grid) earliest(n int64) int64 {
	if g.per == 1 {
		return plus(n, 1-g.count)
	}
	// window k covers the slices 2k to 2k+count-1, and count is odd
	return (n - g.count + 2) >> 1
}

// span is the slices [from, to) of window k.
func (g *grid) span(k int64) (from, to int64) {
	if from = k; g.per == 2 {
		from = plus(k, k)
	}
	return from, plus(from, g.count)
}

// start is where window k begins, end where it ends, cut to the ends of time.
func (g *grid) start(k int64) int64 { return linear(k, g.slide, g.offset) }
func (g *grid) end(k int64) int64   { return linear(k, g.slide, g.offset+g.size) }

// bounds is the first and last instant of slice n within time.
func (g *grid) bounds(n int64) (lo, hi int64) {
	if g.per == 1 {
		return linear(n, g.slide, g.offset), linear(n, g.slide, g.offset+g.slide-1)
	}
	if n&1 == 0 {
		return linear(n>>1, g.slide, g.offset), linear(n>>1, g.slide, g.offset+g.cut-1)
	}
	return linear(n>>1, g.slide, g.offset+g.cut), linear(n>>1, g.slide, g.offset+g.slide-1)
}

// fired is the last window whose end-1 is at or before the watermark w.
func (g *grid) fired(w int64) int64 {
	if w == math.MaxInt64 { // an end past the end of time is the end
		return math.MaxInt64
	}
	return g.below(w, g.size-1)
}

// gone is the last window that is late at the watermark w: its cleanup time,
// end-1+lateness, is at or before it.
func (g *grid) gone(w int64) int64 {
	if w == math.MaxInt64 {
		return math.MaxInt64
	}
	return g.below(w, g.size-1+g.lateness)
}

// next is the least watermark above w at which another window fires or is
// gone.
func (g *grid) next(w int64) int64 {
	if w == math.MaxInt64 {
		return w
	}
	fire := linear(g.fired(w)+1, g.slide, g.offset+g.size-1)
	if g.lateness == 0 {
		return fire
	}
	return min(fire, linear(g.gone(w)+1, g.slide, g.offset+g.size-1+g.lateness))
}

// below is floor((w-d-offset)/slide): the last window k with
// k*slide+offset+d <= w.
func (g *grid) below(w, d int64) int64 {
	k, rest := g.split(w)
	k = plus(k, -(d / g.slide))
	if rest < d%g.slide {
		k = plus(k, -1)
	}
	return k
}

// linear is k*slide+c, cut to the ends of time.
func linear(k, slide, c int64) int64 {
	high, low := bits.Mul64(uint64(k), uint64(slide))
	if k < 0 {
		high -= uint64(slide)
	}
	low, carry := bits.Add64(low, uint64(c), 0)
	high += uint64(c>>63) + carry
	switch {
	case int64(high) == int64(low)>>63:
		return int64(low)
	case int64(high) < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}

// plus is a+b, cut to the ends of time.
func plus(a, b int64) int64 {
	s := a + b
	if b > 0 && s < a {
		return math.MaxInt64
	}
	if b < 0 && s > a {
		return math.MinInt64
	}
	return s
}
