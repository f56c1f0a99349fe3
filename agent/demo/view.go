package demo

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// view shows a demo: on a terminal a picture that is drawn again and again,
// elsewhere a line now and then.
type view struct {
	d     *demo
	lines int // height of the picture that stands on the terminal
}

const (
	redraw     = 250 * time.Millisecond
	plainEvery = 5 * time.Second
	recent     = 8 // windows shown
	barWidth   = 24
)

// Escape sequences of the picture.
const (
	bold, dim, red, green, yellow, plain = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
)

func newView(d *demo) *view { return &view{d: d} }

func (v *view) intro(addr string) {
	fmt.Fprintf(v.d.opt.Out, "Tidemark demo: %d simulated cold-chain sensors send to an embedded broker at %s for %v.\n", v.d.opt.Sensors, addr, v.d.opt.For)
	fmt.Fprintf(v.d.opt.Out, "Some are late, send twice, fall silent or have a wrong clock. One job watches them: readings above %v °C, by sensor,\n", simulate.Limit)
	fmt.Fprintf(v.d.opt.Out, "in %v windows of event time, closed by the sensors' own end-of-interval markers.\n\n", window)
}

// start draws until the returned function is called, which waits for the last
// drawing.
func (v *view) start() (stop func()) {
	every := plainEvery
	if v.d.opt.Live {
		every = redraw
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				v.draw()
			case <-done:
				v.draw()
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func (v *view) draw() {
	now := v.d.local.Totals()
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if !v.d.opt.Live {
		fmt.Fprintf(v.d.opt.Out, "%4.0f s  sent %d  taken %d  windows %d  late %d  rejected %d  watermark lag %s\n",
			time.Since(v.d.began).Seconds(), v.d.sent, now.In, len(v.d.results), now.Late, now.Rejected, lag(now))
		return
	}
	text := v.picture(now)
	if v.lines > 0 {
		fmt.Fprintf(v.d.opt.Out, "\x1b[%dA", v.lines)
	}
	fmt.Fprint(v.d.opt.Out, "\x1b[J", text)
	v.lines = strings.Count(text, "\n")
}

// picture is the whole view; the caller holds the demo's lock.
func (v *view) picture(now agent.Totals) string {
	d := v.d
	var b strings.Builder
	elapsed := min(time.Since(d.began), d.opt.For)
	part := int(float64(barWidth) * elapsed.Seconds() / d.opt.For.Seconds())
	fmt.Fprintf(&b, "%s%s%s%s%s %3.0f of %.0f s\n\n", green, strings.Repeat("█", part), dim, strings.Repeat("░", barWidth-part), plain, elapsed.Seconds(), d.opt.For.Seconds())
	fmt.Fprintf(&b, "  %sfleet%s      sent %s%7d%s   held back %d   twice %d   clock ahead %d   clock behind %d\n", bold, plain, bold, d.sent, plain, d.faults[0], d.faults[1], d.faults[2], d.faults[3])
	fmt.Fprintf(&b, "  %sjob%s       taken %s%7d%s   markers %d   cold (filtered) %d   %slate %d%s   %srejected %d%s\n", bold, plain, bold, now.In, plain, now.Markers, now.Filtered, yellow, now.Late, plain, red, now.Rejected, plain)
	fmt.Fprintf(&b, "  %swatermark%s %s   lag %s behind the fleet's clock\n\n", bold, plain, now.Watermark.GoTime().Format("15:04:05.000"), lag(now))
	fmt.Fprintf(&b, "  %slast of %d windows%s\n", bold, len(d.results), plain)
	rows := d.results[max(0, len(d.results)-recent):]
	for i := range recent {
		if i >= len(rows) {
			b.WriteString("\n")
			continue
		}
		r := rows[len(rows)-1-i]
		fmt.Fprintf(&b, "  %s  %s–%s  %3d readings  avg %5.2f °C  max %s%5.2f °C%s %s\n", r.Sensor, r.Start.GoTime().Format("15:04:05"),
			r.Start.Add(window).GoTime().Format("15:04:05"), r.Count, r.Avg, heat(r.Max), r.Max, plain, thermometer(r.Max))
	}
	for _, n := range d.notes {
		fmt.Fprintf(&b, "  %s%s%s\n", dim, cut(n, d.opt.Width-3), plain)
	}
	return b.String()
}

// lag is how far the watermark is behind the arrival clock.
func lag(t agent.Totals) string {
	if t.Arrival == dataflow.MinTime || t.Watermark == dataflow.MinTime || t.Watermark == dataflow.MaxTime {
		return "–"
	}
	return fmt.Sprintf("%.1f s", dataflow.Duration(t.Arrival-t.Watermark).Go().Seconds())
}

func heat(temp float64) string {
	if temp > simulate.Limit+4 {
		return red
	}
	return yellow
}

// thermometer is a bar of what is above the limit, a block each half degree.
func thermometer(temp float64) string {
	n := min(30, max(0, int((temp-simulate.Limit)*2)))
	return heat(temp) + strings.Repeat("▪", n) + plain
}

func cut(s string, width int) string {
	if r := []rune(s); width > 1 && len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

// report says what was checked and how it came out.
func (v *view) report(j judgement) error {
	w := v.d.opt.Out
	e, g := j.expect, j.got
	type check struct {
		what      string
		got, want int64
		unsure    int64 // how much the two may differ, because the fleet cannot know
	}
	checks := []check{
		{"messages sent and taken", g.In, e.Messages, 0},
		{"markers", g.Markers, e.Markers, e.UnsureM},
		{"cold readings filtered", g.Filtered, e.Filtered, e.Unsure},
		{"late readings", g.Late, e.Late, e.Unsure},
		{"rejected: clock too far ahead", g.Rejected, e.Refused + e.RefusedM, e.Unsure + e.UnsureM},
	}
	fmt.Fprintf(w, "\nChecked against what the fleet really sent:\n")
	good := j.verdict.Good()
	for _, c := range checks {
		ok := c.got-c.want <= c.unsure && c.want-c.got <= c.unsure
		good = good && ok
		fmt.Fprintf(w, "  %-4s %-32s %8d of %d\n", okay(ok), c.what, c.got, c.want)
	}
	n := j.verdict
	fmt.Fprintf(w, "  %-4s %-32s %8d of %d right; %d wrong, %d missing, %d that should not be\n", okay(n.Good()), "windows (count, average, maximum)", n.Right, n.Right+n.Wrong+n.Missing, n.Wrong, n.Missing, n.Surplus)
	if n.Unsure > 0 {
		fmt.Fprintf(w, "       %d windows were not judged: the fleet cannot know whether a reading in them was late\n", n.Unsure)
	}
	for _, d := range slices.Clone(n.Details) {
		fmt.Fprintf(w, "       %s\n", d)
	}
	if !good {
		return ErrMismatch
	}
	fmt.Fprintf(w, "Every window is right.\n")
	return nil
}

func okay(ok bool) string {
	if ok {
		return "ok"
	}
	return "BAD"
}
