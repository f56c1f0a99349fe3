package demo

import (
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// judgement is what came out in the end.
type judgement struct {
	interrupted bool
	verdict     simulate.Verdict
	expect      simulate.Totals
	readings    tally
	late        int64
	rejected    int64
	files       int // agents that have files of the job
	outages     []*outage
	moved       *move // nil: it was interrupted before
	restarts    int
	took        time.Duration
	err         error // of a file that cannot be read
}

// moves is how often the job has moved.
func (j *judgement) moves() int {
	if j.moved == nil || j.moved.took == 0 {
		return 0
	}
	return 1
}

// tally compares readings one by one.
type tally struct {
	right, missing, twice, strange int
	details                        []string
}

func (t *tally) good() bool { return t.right > 0 && t.missing+t.twice+t.strange == 0 }

const maxDetails = 10

func (t *tally) detail(format string, args ...any) {
	if len(t.details) < maxDetails {
		t.details = append(t.details, fmt.Sprintf(format, args...))
	}
}

// compare looks for every reading that was sent among those that came out.
func compare(sent map[reading]int, came [][]byte) (t tally, err error) {
	got := make(map[reading]int, len(came))
	for _, row := range came {
		r, err := parseReading(row)
		if err != nil {
			return t, err
		}
		got[r]++
	}
	for r, n := range sent {
		have := got[r]
		t.right += min(n, have)
		if have != n {
			t.missing += max(0, n-have)
			t.twice += max(0, have-n)
			t.detail("%s number %d: sent %d times, came out %d times", r.Sensor, r.Seq, n, have)
		}
		delete(got, r)
	}
	for r, n := range got {
		t.strange += n
		t.detail("%s number %d: never sent, came out %d times", r.Sensor, r.Seq, n)
	}
	return t, nil
}

// judge compares every reading, window and count with what was sent. The job has
// stopped.
func (d *demo) judge(interrupted bool) (j judgement) {
	for _, l := range []*lines{&d.output.windows, &d.output.readings, &d.output.late, &d.output.rejected} {
		if j.err = l.again(); j.err != nil {
			return j
		}
	}
	var results []simulate.Result
	for _, row := range d.output.windows.all() {
		r, err := parseWindow(row)
		if err != nil {
			j.err = err
			return j
		}
		results = append(results, r)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if j.readings, j.err = compare(d.readings, d.output.readings.all()); j.err != nil {
		return j
	}
	until := d.watermark
	if until == dataflow.MinTime {
		until = d.config.Start
	}
	j.interrupted, j.verdict, j.expect = interrupted, d.oracle.Compare(results, until), d.oracle.Totals()
	j.late, j.rejected = int64(len(d.output.late.all())), int64(len(d.output.rejected.all()))
	j.files = len(d.output.on())
	j.moved, j.outages, j.restarts, j.took = d.moved, d.outages, d.restarts, time.Since(d.began)
	return j
}

// report says what was checked and how it came out.
func (v *view) report(j judgement) error {
	w := v.d.opt.Out
	if j.err != nil {
		return j.err
	}
	n := &j.verdict
	if j.interrupted && n.Right+n.Wrong+n.Missing+n.Surplus == 0 {
		fmt.Fprintln(w, "Stopped before any window was complete: nothing to check.")
		return nil
	}
	v.kills(j)
	v.move(j)
	e := j.expect
	t := &j.readings
	fmt.Fprintf(w, "\nChecked against what the fleet really sent:\n")
	good := n.Good() && t.good()
	fmt.Fprintf(w, "  %-4s %-34s %8d of %d, each looked for by its number; %d missing, %d twice, %d never sent\n", okay(t.good()),
		"readings", t.right, t.right+t.missing, t.missing, t.twice, t.strange)
	for _, c := range []struct {
		what      string
		got, want int64
		unsure    int64 // how much the two may differ, because the fleet cannot know
	}{
		{"late readings", j.late, e.Late, e.Unsure},
		{"rejected: clock too far ahead", j.rejected, e.Refused + e.RefusedM, e.Unsure + e.UnsureM},
	} {
		ok := c.got-c.want <= c.unsure && c.want-c.got <= c.unsure
		good = good && ok
		fmt.Fprintf(w, "  %-4s %-34s %8d of %d\n", okay(ok), c.what, c.got, c.want)
	}
	fmt.Fprintf(w, "  %-4s %-34s %8d of %d right; %d wrong, %d missing, %d that should not be\n", okay(n.Good()), "windows (count, average, maximum)", n.Right, n.Right+n.Wrong+n.Missing, n.Wrong, n.Missing, n.Surplus)
	if n.Unsure > 0 {
		fmt.Fprintf(w, "       %d windows were not judged: the fleet cannot know whether a reading in them was late\n", n.Unsure)
	}
	for _, d := range append(append([]string(nil), n.Details...), t.details...) {
		fmt.Fprintf(w, "       %s\n", d)
	}
	if !good {
		return ErrMismatch
	}
	fmt.Fprintf(w, "Every window is right, and every reading is there once: in files on %s, after %s and %s. (%s)\n", count(j.files, "agent"), count(j.restarts, "restart"), count(j.moves(), "move"), seconds(j.took))
	return nil
}

// kills says what was done to the site, and how long the job felt it.
func (v *view) kills(j judgement) {
	w := v.d.opt.Out
	if len(j.outages) == 0 {
		return
	}
	fmt.Fprintf(w, "\nKilled (kill -9), and what became of it:\n")
	for _, o := range j.outages {
		fmt.Fprintf(w, "  %s %s\n", seconds(o.at.Sub(v.d.began)), o.who())
		if o.elected > 0 {
			fmt.Fprintf(w, "      %-34s %8s   (%s)\n", "another agent leads after", measured(o.elected), o.leader)
		}
		switch {
		case o.running > 0:
			fmt.Fprintf(w, "      %-34s %8s   (attempt %d)\n", "the job runs again after", measured(o.running), o.next)
		case o.ran == 0:
			fmt.Fprintf(w, "      %-34s %8s\n", "the job went on", "")
		}
		fmt.Fprintf(w, "      %-34s %8s\n", "new windows after", measured(o.rows))
		fmt.Fprintf(w, "      %-34s %8s\n", "the agent is back after", measured(o.back))
	}
}

// move says how the job came to the other site.
func (v *view) move(j judgement) {
	if m := j.moved; j.moves() > 0 {
		fmt.Fprintf(v.d.opt.Out, "\nMoved, while the fleet sent:\n  %s %s\n", seconds(m.at.Sub(v.d.began)), m)
		for _, s := range m.steps {
			fmt.Fprintf(v.d.opt.Out, "      %s\n", s.Text)
		}
	}
}

func measured(t time.Duration) string {
	if t == 0 {
		return "not seen"
	}
	return seconds(t)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func okay(ok bool) string {
	if ok {
		return "ok"
	}
	return "BAD"
}
