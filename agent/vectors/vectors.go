// Package vectors turns the numbered examples of the event-time semantics into
// whole jobs: the YAML, the input as JSON lines, and the rows that must come
// out, so that the engine and the command line are held against the same
// expectations. It helps tests.
//
// It runs nothing and knows nothing of the engine. The examples are in
// dataflow/window/testdata; the tests that run them in agent and cmd/tidemark.
package vectors

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Case is one example as a job. Its unit of time is one microsecond.
type Case struct {
	ID       string
	Skip     string   // why no job can say it; empty: one can
	Input    string   // JSON lines
	Out      []string // what the job must write, in the order of the example
	Late     []string // the late rows, in order
	NoWindow int64    // rows that no window covers
	Rows     int64    // of Input, pure markers included
	Markers  int64    // pure markers

	watermark string // the source's `watermark:`, or empty
	window    string // the step's `window:`
}

// example is one entry of the file.
type example struct {
	ID, Kind string
	Assigner struct {
		Type                     string
		Size, Slide, Offset, Gap int64
	}
	Lateness int64 `json:"allowed_lateness"`
	Purging  bool
	Steps    []step
	Expected []struct {
		Element *string
		Outputs []output
	}
	Late  [][]any
	Open  [][2]int64 `json:"open_windows_at_end"`
	Cases []struct {
		Ts      int64
		Windows [][2]int64
	}
}

type step struct {
	E, V, Wm *int64
	K        string
}

type output struct {
	Key    string
	Window [2]int64
	Sum    int64
}

// Parse reads the examples of windows and of the assignment to them; the other
// kinds are about parts of the engine that no job shows by itself.
func Parse(text []byte) ([]Case, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("vectors: %w", err)
	}
	var cases []Case
	for _, r := range raw {
		var head struct{ Kind string }
		if err := json.Unmarshal(r, &head); err != nil {
			return nil, fmt.Errorf("vectors: %w", err)
		}
		if head.Kind != "window" && head.Kind != "assign" {
			continue
		}
		var e example
		if err := json.Unmarshal(r, &e); err != nil {
			return nil, fmt.Errorf("vectors: %w", err)
		}
		c, err := e.job()
		if err != nil {
			return nil, fmt.Errorf("vectors: %s: %w", e.ID, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func (e *example) job() (Case, error) {
	c := Case{ID: e.ID, window: e.window()}
	switch {
	case e.Purging:
		c.Skip = "it empties the window at each firing, and no form of window: says that"
	case e.Kind == "assign":
		e.assign(&c)
	default:
		return c, e.steps(&c)
	}
	return c, nil
}

// window is the step's `window:`.
func (e *example) window() string {
	a := e.Assigner
	var parts []string
	switch a.Type {
	case "tumbling":
		parts = append(parts, fmt.Sprintf("tumbling: %dus", a.Size))
	case "sliding":
		parts = append(parts, fmt.Sprintf("sliding: {size: %dus, slide: %dus}", a.Size, a.Slide))
	case "session":
		parts = append(parts, fmt.Sprintf("session: %dus", a.Gap))
	}
	if a.Offset != 0 {
		parts = append(parts, fmt.Sprintf("offset: %dus", a.Offset))
	}
	if e.Lateness != 0 {
		parts = append(parts, fmt.Sprintf("allowed_lateness: %dus", e.Lateness))
	}
	return strings.Join(parts, ", ")
}

// assign makes a row of each time, with a key of its own, and lets the end of
// the input fire.
func (e *example) assign(c *Case) {
	for _, x := range e.Cases {
		key := fmt.Sprintf("at %d", x.Ts)
		c.add(key, &x.Ts, 1, nil)
		for i := len(x.Windows) - 1; i >= 0; i-- { // listed from the last, fired from the first
			c.Out = append(c.Out, row(output{Key: key, Window: x.Windows[i], Sum: 1}))
		}
		if len(x.Windows) == 0 {
			c.NoWindow++
		}
	}
}

// steps makes a row of each step. A watermark beside an element is a marker on
// the row itself, one alone a row that is no data.
func (e *example) steps(c *Case) error {
	onRows, pure := false, false
	var counted []step
	fired := make(map[string]bool)
	for i, s := range e.Steps {
		onRows, pure = onRows || s.E != nil && s.Wm != nil, pure || s.E == nil
		if s.K == "" {
			s.K = "k"
		}
		if s.V == nil {
			s.V = s.E
		}
		switch {
		case s.E == nil:
			c.marker(*s.Wm)
		case *e.Expected[i].Element == "late":
			c.add(s.K, s.E, *s.V, s.Wm)
			c.Late = append(c.Late, data(s.K, *s.E, *s.V, s.Wm))
		default:
			c.add(s.K, s.E, *s.V, s.Wm)
			counted = append(counted, s)
		}
		for _, o := range e.Expected[i].Outputs {
			c.Out = append(c.Out, row(o))
			fired[fmt.Sprint(o.Window)] = true
		}
	}
	if onRows && pure {
		return fmt.Errorf("markers both on rows and alone: a source either keeps its markers or drops them")
	}
	if len(c.Late) != len(e.Late) {
		return fmt.Errorf("%d late rows among the steps, %d listed", len(c.Late), len(e.Late))
	}
	c.watermark = fmt.Sprintf("{punctuated: {when: wm is not null, at: wm, emit: %t}}", onRows)
	for _, w := range e.Open {
		if fired[fmt.Sprint(w)] {
			continue // it stays for late rows only
		}
		o := output{Key: "k", Window: w}
		for _, s := range counted {
			if w[0] <= *s.E && *s.E < w[1] {
				o.Sum += *s.V
			}
		}
		c.Out = append(c.Out, row(o)) // the end of the input fires it
	}
	return nil
}

func (c *Case) add(key string, ts *int64, v int64, wm *int64) {
	c.Input += data(key, *ts, v, wm) + "\n"
	c.Rows++
}

func (c *Case) marker(wm int64) {
	c.Input += fmt.Sprintf(`{"wm":%d}`, wm) + "\n"
	c.Rows++
	c.Markers++
}

func data(key string, ts, v int64, wm *int64) string {
	mark := "null"
	if wm != nil {
		mark = fmt.Sprint(*wm)
	}
	return fmt.Sprintf(`{"k":%q,"v":%d,"ts":%d,"wm":%s}`, key, v, ts, mark)
}

func row(o output) string {
	return fmt.Sprintf(`{"k":%q,"window_start":%d,"window_end":%d,"s":%d}`, o.Key, o.Window[0], o.Window[1], o.Sum)
}

// YAML is the job. It reads the file, and writes results and late rows to the
// connectors, which are YAML like "stdout: {timestamps: us}".
func (c *Case) YAML(file, out, late string) string {
	watermark := ""
	if c.watermark != "" {
		watermark = "    watermark: " + c.watermark + "\n"
	}
	return fmt.Sprintf(`name: vector-%s
sources:
  in:
    file: {path: %q}
    format: json
    fields: {k: string, v: bigint, ts: {type: timestamp, unit: us}, wm: {type: timestamp, unit: us}}
    event_time: ts
%ssteps:
  - {id: w, from: in, key_by: [k], window: {%s}, select: {s: sum(v)}}
sinks:
  - {id: out, from: w, %s}
  - {id: late, from: w.late, %s}
`, c.ID, file, watermark, c.window, out, late)
}

// Check compares what the job wrote, line by line: the same rows for each key,
// in the same order.
func (c *Case) Check(out, late []string) error {
	if err := sameByKey("results", out, c.Out); err != nil {
		return err
	}
	return sameByKey("late rows", late, c.Late)
}

// sameByKey compares lines that begin with their key.
func sameByKey(what string, got, want []string) error {
	g, w := byKey(got), byKey(want)
	for _, line := range append(append([]string(nil), want...), got...) {
		k := keyOf(line)
		if strings.Join(g[k], "\n") != strings.Join(w[k], "\n") {
			return fmt.Errorf("%s of %s:\n got %s\nwant %s", what, k, strings.Join(g[k], "\n     "), strings.Join(w[k], "\n     "))
		}
	}
	return nil
}

func byKey(lines []string) map[string][]string {
	m := make(map[string][]string)
	for _, l := range lines {
		m[keyOf(l)] = append(m[keyOf(l)], l)
	}
	return m
}

func keyOf(line string) string {
	key, _, _ := strings.Cut(line, ",")
	return key
}
