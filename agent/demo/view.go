package demo

import (
	"cmp"
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
	barWidth   = 20
	leastWidth = 60
)

// Escape sequences of the picture.
const (
	bold, dim, red, green, yellow, plain = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
)

func newView(d *demo) *view { return &view{d: d} }

func (v *view) intro() {
	o := v.d.opt
	fmt.Fprintf(o.Out, `Tidemark demo: %d simulated cold-chain sensors send to an embedded broker.
Some are late, send twice, fall silent or have a wrong clock. Three agents of
site %s and one of site %s, each a process with a folder of its own, run
one job: readings above %v °C, by sensor, in windows of %v of event time that
the sensors' own markers close. An agent is killed, then the leader; both come
back. Then the job moves to the other site. No reading may be lost, or come
twice. Broker: %s, folder: %s

`, o.Sensors, home, away, simulate.Limit, window, v.d.broker.Addr(), v.d.site.folder)
}

// start draws until the returned function is called, which waits for the last
// drawing.
func (v *view) start(ctx context.Context) (stop func()) {
	every := plainEvery
	if v.d.opt.Size != nil {
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
	p := painting{view: v, width: leastWidth, on: d.output.on()}
	notes := 0
	if d.opt.Size != nil {
		width, height := d.opt.Size()
		p.width = max(leastWidth, width)
		free := max(4, height-fixedLines-1) // the cursor stands on the last line
		notes = (free + 1) / 2
		p.windows = d.output.last(free - notes)
		p.room = free - notes
	}
	p.c.windows, _ = d.output.windows.count()
	p.c.readings, _ = d.output.readings.count()
	p.c.late, _ = d.output.late.count()
	p.c.rejected, _ = d.output.rejected.count()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opt.Size == nil {
		v.plain(p.c)
		return
	}
	p.notes = d.notes[max(0, len(d.notes)-notes):]
	text := strings.ReplaceAll(fit(p.picture(), p.width), "\n", "\x1b[K\n")
	if v.lines > 0 {
		fmt.Fprintf(d.opt.Out, "\x1b[%dA\r", v.lines)
	}
	fmt.Fprint(d.opt.Out, text, "\x1b[J")
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
	fmt.Fprintf(d.opt.Out, "%5.1f s  sent %d  written %d  windows %d  late %d  rejected %d  lag %s  job %s at %s, attempt %d  leader %s\n",
		time.Since(d.began).Seconds(), d.sent, c.readings, c.windows, c.late, c.rejected, d.lag(), d.now.job.Status, d.now.job.Site, d.now.job.Attempt, d.now.leader(cmp.Or(d.now.job.Site, home)))
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
	n := min(24, max(0, int((temp-simulate.Limit)*2)))
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
