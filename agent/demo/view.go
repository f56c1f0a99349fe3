package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

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
	plainEvery = 2 * time.Second
	recent     = 6 // windows shown
	recently   = 4 // notes shown
	barWidth   = 24
)

// Escape sequences of the picture.
const (
	bold, dim, red, green, yellow, plain = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
)

func newView(d *demo) *view { return &view{d: d} }

func (v *view) intro() {
	o := v.d.opt
	fmt.Fprintf(o.Out, "Tidemark demo: %d simulated cold-chain sensors send to an embedded broker at %s for %v.\n", o.Sensors, v.d.broker.Addr(), o.For)
	fmt.Fprintf(o.Out, "Some are late, send twice, fall silent or have a wrong clock. Three agents, each a process with a folder of its own\n")
	fmt.Fprintf(o.Out, "in %s, run one job: readings above %v °C, by sensor, in %v windows of event time, closed by the\n", v.d.site.folder, simulate.Limit, window)
	fmt.Fprintf(o.Out, "sensors' own end-of-interval markers. An agent is killed, and then the leader; both come back.\n\n")
}

// start draws until the returned function is called, which waits for the last
// drawing.
func (v *view) start(ctx context.Context) (stop func()) {
	every := plainEvery
	if v.d.opt.Live {
		every = redraw
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				v.draw()
			case <-ctx.Done():
				v.draw()
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (v *view) draw() {
	d := v.d
	rows := d.output.last(recent)
	windows, _ := d.output.windows.count()
	readings, _ := d.output.readings.count()
	late, _ := d.output.late.count()
	rejected, _ := d.output.rejected.count()
	c := counts{windows, readings, late, rejected}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.opt.Live {
		v.plain(c)
		return
	}
	text := fit(v.picture(c, rows), d.opt.Width)
	if v.lines > 0 {
		fmt.Fprintf(d.opt.Out, "\x1b[%dA", v.lines)
	}
	fmt.Fprint(d.opt.Out, "\x1b[J", text)
	v.lines = strings.Count(text, "\n")
}

// counts are the rows that the job has written for good.
type counts struct{ windows, readings, late, rejected int }

// plain is a line, and what was noted since the last one. The caller holds the
// demo's lock.
func (v *view) plain(c counts) {
	d := v.d
	for _, n := range d.notes[d.printed:] {
		fmt.Fprintf(d.opt.Out, "%s\n", n)
	}
	d.printed = len(d.notes)
	fmt.Fprintf(d.opt.Out, "%5.1f s  sent %d  written %d  windows %d  late %d  rejected %d  lag %s  job %s, attempt %d  leader %s\n",
		time.Since(d.began).Seconds(), d.sent, c.readings, c.windows, c.late, c.rejected, d.lag(), d.now.job.Status, d.now.job.Attempt, d.now.leader())
}

// picture is the whole view; the caller holds the demo's lock.
func (v *view) picture(c counts, rows []simulate.Result) string {
	d := v.d
	var b strings.Builder
	elapsed := dataflow.Duration(d.clock - d.config.Start).Go()
	part := min(barWidth, int(float64(barWidth)*elapsed.Seconds()/d.opt.For.Seconds()))
	fmt.Fprintf(&b, "%s%s%s%s%s %3.0f of %.0f s  %s\n\n", green, strings.Repeat("█", part), dim, strings.Repeat("░", barWidth-part), plain, elapsed.Seconds(), d.opt.For.Seconds(), d.phase)
	for _, a := range d.site.agents {
		v.agent(&b, a)
	}
	j := &d.now.job
	color := green
	if !d.now.running() {
		color = yellow
	}
	fmt.Fprintf(&b, "\n  %sfleet%s      sent %s%7d%s   held back %d   twice %d   clock ahead %d, behind %d\n", bold, plain, bold, d.sent, plain, d.faults[0], d.faults[1], d.faults[2], d.faults[3])
	fmt.Fprintf(&b, "  %sjob%s        %s%s%s, attempt %d   checkpoints %d   restarts %d\n", bold, plain, color, j.Status, plain, j.Attempt, j.Checkpoints.Completed, j.Restarts)
	fmt.Fprintf(&b, "  %swritten%s    readings %s%7d%s   windows %d   %slate %d%s   %srejected %d%s\n", bold, plain, bold, c.readings, plain, c.windows, yellow, c.late, plain, red, c.rejected, plain)
	mark := "–"
	if d.watermark != dataflow.MinTime {
		mark = d.watermark.GoTime().Format("15:04:05.000")
	}
	fmt.Fprintf(&b, "  %swatermark%s  %s   lag %s behind the fleet's clock\n\n", bold, plain, mark, d.lag())
	fmt.Fprintf(&b, "  %slast of %d windows%s\n", bold, c.windows, plain)
	for i := range recent {
		if i >= len(rows) {
			b.WriteString("\n")
			continue
		}
		r := rows[i]
		fmt.Fprintf(&b, "  %s  %s–%s  %3d readings  avg %5.2f °C  max %s%5.2f °C%s %s\n", r.Sensor, r.Start.GoTime().Format("15:04:05"),
			r.Start.Add(window).GoTime().Format("15:04:05"), r.Count, r.Avg, heat(r.Max), r.Max, plain, thermometer(r.Max))
	}
	b.WriteString("\n")
	for _, n := range d.notes[max(0, len(d.notes)-recently):] {
		fmt.Fprintf(&b, "  %s%s%s\n", dim, cut(n, d.opt.Width-3), plain)
	}
	return b.String()
}

// agent is the line of one agent; the caller holds the demo's lock.
func (v *view) agent(b *strings.Builder, a *process) {
	d := v.d
	role, state := d.now.role(a.name)
	color := green
	switch {
	case !a.runs():
		role, state, color = "", "killed", red
	case state != "alive":
		color = yellow
	}
	does := fmt.Sprintf("%d subtasks", d.now.runs(a.name))
	if d.now.owner() == a.name {
		does += ", broker session"
	}
	if !a.runs() {
		does = ""
	}
	fmt.Fprintf(b, "  %s%s%s  %s%-7s%s %-8s %s\n", bold, a.name, plain, color, state, plain, role, does)
}

// lag is how far the watermark is behind the fleet's clock; the caller holds the
// lock.
func (d *demo) lag() string {
	if d.watermark == dataflow.MinTime {
		return "–"
	}
	return fmt.Sprintf("%.1f s", max(0, dataflow.Duration(d.clock-d.watermark).Go().Seconds()))
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

// fit cuts each line to a width: the picture is drawn over by counting its
// lines, and one that wraps is more than one. Escape sequences take no room.
func fit(text string, width int) string {
	if width <= 0 {
		return text
	}
	var b strings.Builder
	at, escape := 0, false
	for _, r := range text {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r == '[' || r == ';' || r >= '0' && r <= '9'
		case r == '\n':
			at = 0
		default:
			if at++; at > width {
				continue
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

func cut(s string, width int) string {
	if r := []rune(s); width > 1 && len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}
