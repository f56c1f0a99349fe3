package demo

import (
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// painting is one drawing of the view. Whoever draws holds the demo's lock.
type painting struct {
	*view
	width   int
	c       counts
	on      map[*process]int // rows in each agent's files
	windows []simulate.Result
	room    int // lines for them
	notes   []string
}

// fixedLines are those of a picture but for windows and notes.
const fixedLines = 17

// picture is the whole view.
func (p *painting) picture() string {
	d := p.d
	var b strings.Builder
	elapsed := dataflow.Duration(d.clock - d.config.Start).Go()
	part := min(barWidth, int(float64(barWidth)*elapsed.Seconds()/d.opt.For.Seconds()))
	fmt.Fprintf(&b, "%stidemark%s %s%s%s%s%s %2.0f of %.0f s   %s\n\n", bold, plain, green, strings.Repeat("█", part), dim, strings.Repeat("░", barWidth-part), plain,
		elapsed.Seconds(), d.opt.For.Seconds(), d.phase)
	fmt.Fprintf(&b, "  %s%-12s%-10s%-10s%-14s%9s%s\n", dim, "agent", "raft", "subtasks", "watermark", "rows", plain)
	for _, name := range []string{home, away} {
		p.site(&b, name)
		for _, a := range d.site.of(name) {
			p.agent(&b, a)
		}
	}
	p.totals(&b)
	fmt.Fprintf(&b, "\n  %snewest of %d windows%s\n", bold, p.c.windows, plain)
	for i := range p.room {
		if i < len(p.windows) {
			p.window(&b, &p.windows[i])
		} else {
			b.WriteString("\n")
		}
	}
	b.WriteString("\n")
	for i, n := range p.notes {
		color := dim
		if i == len(p.notes)-1 {
			color = ""
		}
		fmt.Fprintf(&b, "  %s%s%s\n", color, cut(n, p.width-3), plain)
	}
	return b.String()
}

// site is the line of a site.
func (p *painting) site(b *strings.Builder, name string) {
	d, rows := p.d, 0
	for a, n := range p.on {
		if a.at == name {
			rows += n
		}
	}
	has := ""
	switch m := d.moved; {
	case d.now.job.Site == name:
		has = green + "◀ the job" + plain
	case m != nil && m.took == 0 && name == away:
		has = yellow + "◁ the job comes" + plain
	}
	fmt.Fprintf(b, " %s%-38s%s%18d  %s\n", bold, name, plain, rows, has)
}

// agent is the line of one agent.
func (p *painting) agent(b *strings.Builder, a *process) {
	d := p.d
	role, state := d.now.role(a)
	color := green
	switch {
	case !a.runs():
		role, state, color = "", "killed", red
	case state != "alive":
		color = yellow
	}
	subtasks, mark, session := "", "", ""
	if n := d.now.runs(a.name); n > 0 && a.runs() {
		subtasks, mark = fmt.Sprint(n), clock(d.now.least(a.name))
		if d.now.owner() == a.name {
			session = "broker session"
		}
	}
	fmt.Fprintf(b, "  %-3s%s%-9s%s%-10s%-10s%-14s%9d  %s\n", a.name, color, state, plain, role, subtasks, mark, p.on[a], session)
}

// totals are the lines about job and fleet.
func (p *painting) totals(b *strings.Builder) {
	d, c := p.d, p.c
	j := &d.now.job
	color := green
	if !d.now.running() {
		color = yellow
	}
	fmt.Fprintf(b, "\n  %sjob%s        %s%s%s at %s, attempt %d, checkpoints %d, restarts %d\n", bold, plain, color, j.Status, plain, j.Site, j.Attempt, j.Checkpoints.Completed, d.restarts)
	fmt.Fprintf(b, "  %sfleet%s      sent %s%d%s; held back %d, twice %d, clock ahead %d\n", bold, plain, bold, d.sent, plain, d.faults[0], d.faults[1], d.faults[2])
	fmt.Fprintf(b, "  %swritten%s    readings %s%d%s, windows %d, %slate %d%s, %srejected %d%s\n", bold, plain, bold, c.readings, plain, c.windows, yellow, c.late, plain, red, c.rejected, plain)
	fmt.Fprintf(b, "  %swatermark%s  %s, %s behind the fleet's clock\n", bold, plain, clock(d.watermark), d.lag())
}

// window is the line of one result.
func (p *painting) window(b *strings.Builder, r *simulate.Result) {
	fmt.Fprintf(b, "  %s  %s–%s  %2d hot  avg %5.2f  max %s%5.2f °C%s %s\n", r.Sensor, r.Start.GoTime().Format("15:04:05"),
		r.Start.Add(window).GoTime().Format("05"), r.Count, r.Avg, heat(r.Max), r.Max, plain, thermometer(r.Max))
}

func clock(t dataflow.Time) string {
	if t == dataflow.MinTime {
		return "–"
	}
	return t.GoTime().Format("15:04:05.000")
}
