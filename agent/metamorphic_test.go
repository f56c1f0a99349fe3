package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// TestMetamorphic runs random jobs on random input, each in several ways, and
// the model: rows, their order where it is promised, side streams, and the
// counters of every operator, so that no row is unaccounted for.
func TestMetamorphic(t *testing.T) { metamorphic(t, false) }

// TestMetamorphicDevices is the same for one window behind a source whose
// devices fall silent, come back and lag behind.
func TestMetamorphicDevices(t *testing.T) { metamorphic(t, true) }

func metamorphic(t *testing.T, devices bool) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t, filepath.Join(dir, "*.jsonl"), devices)
		files := j.drawInput()
		text := strings.Replace(j.yaml.String(), "BOUND", fmt.Sprint(j.source.bound), 1)
		store(t, dir, files)
		j.model(files)
		t.Logf("strict %t\n%s\n%s", j.strict, text, strings.Join(inputText(files), "---\n"))
		for range 3 {
			s := setting{
				parallelism: rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "parallelism"),
				batchRows:   rapid.SampledFrom([]int{1, 2, 7, 64, batch.MaxRows}).Draw(t, "batch"),
				memory:      rapid.SampledFrom([]int64{0, 1 << 14, 1 << 20}).Draw(t, "memory"),
			}
			j.check(t, s, run(t, text, s))
		}
	})
}

// store puts the input's files in place of those before.
func store(t *rapid.T, dir string, files [][]mline) {
	t.Helper()
	old, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range inputText(files) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.jsonl", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func inputText(files [][]mline) (texts []string) {
	for _, lines := range files {
		var b strings.Builder
		for _, l := range lines {
			b.WriteString(l.text + "\n")
		}
		texts = append(texts, b.String())
	}
	return texts
}

// drawInput draws the files: one for a strict job, several for a loose one.
func (j *randomJob) drawInput() (files [][]mline) {
	n := 1
	if !j.strict {
		n = j.int("files", 1, 3)
	}
	for range n {
		files = append(files, j.drawFile())
	}
	if !j.strict {
		j.source.bound += disorder(files) + 1
	}
	return files
}

// disorder is how far any row of a file is behind one before it.
func disorder(files [][]mline) (most int64) {
	for _, lines := range files {
		greatest := minTime
		for _, l := range lines {
			if ts, ok := l.v["ts"].(int64); ok {
				greatest = max(greatest, ts)
				most = max(most, greatest-ts)
			}
		}
	}
	return most
}

var texts = []string{"", "a", "b", "b c", "7", "-3", " 12 ", "x  y z", "ä"}

func (j *randomJob) drawFile() (lines []mline) {
	at, came := int64(j.int("begin", -20, 20)), int64(j.int("first arrival", 0, 5))
	pace := j.int("pace", 0, 4)
	for range j.int("lines", 0, 50) {
		if j.chance("garbage", 15) {
			lines = append(lines, mline{text: rapid.SampledFrom([]string{"nonsense", `{"k":5}`, `{"v":"x","ts":1}`, `[1]`, `{"g":1.5,"ts":3}`, `{"ts":1`, "\x00"}).Draw(j.t, "what")})
			continue
		}
		at += int64(j.int("step", 0, pace))
		came += int64(max(0, j.int("waited", -6, 8)))
		if j.chance("silence", 20) {
			at, came = at+int64(j.int("jump", 0, 50)), came+int64(j.int("for", 0, 80))
		}
		lines = append(lines, j.drawRow(at, came))
	}
	if j.strict || j.source.strategy != "punctuated" {
		return lines
	}
	// A marker of a loose job makes nothing late that comes after it, and leaves a
	// microsecond: a row right at the end of a session touches it, unless the
	// watermark has closed it just before.
	least := maxTime
	for i := len(lines) - 1; i >= 0; i-- {
		l := &lines[i]
		if l.v == nil {
			continue
		}
		if ts, ok := l.v["ts"].(int64); ok && (j.source.keep || l.v["m"] != true) {
			least = min(least, ts)
		}
		if wm, ok := l.v["wm"].(int64); ok && least != maxTime && wm >= least-1 {
			l.v["wm"] = least - 2
		}
		l.write()
	}
	return lines
}

func (j *randomJob) drawRow(at, came int64) mline {
	l := mline{v: make(map[string]any)}
	value := func(name string, none int, v any) {
		if !j.chance(name+" null", none) {
			l.v[name] = v
		}
	}
	value("k", 12, rapid.SampledFrom(texts[:5]).Draw(j.t, "k"))
	value("g", 12, int64(j.int("g", 0, 3)))
	value("v", 8, int64(j.int("v", -5, 9)))
	value("d", 8, float64(j.int("d", -8, 20))/4)
	value("s", 8, rapid.SampledFrom(texts).Draw(j.t, "s"))
	value("m", 4, j.chance("marker", 4))
	value("ts", 25, at-int64(max(0, j.int("disorder", -12, 16))))
	value("wm", 8, at-int64(j.int("behind", -6, 12)))
	l.v["at"] = came + int64(max(0, j.int("skew", -9, 3)))
	l.write()
	return l
}

// write makes the text of a row: fields in order, nulls left out or written.
func (l *mline) write() {
	var fields []string
	for _, c := range sourceColumns {
		switch v := l.v[c.name].(type) {
		case nil:
			if c.typ == "bigint" {
				fields = append(fields, fmt.Sprintf("%q:null", c.name))
			}
		case string:
			fields = append(fields, fmt.Sprintf("%q:%q", c.name, v))
		default:
			fields = append(fields, fmt.Sprintf("%q:%v", c.name, v))
		}
	}
	l.text = "{" + strings.Join(fields, ",") + "}"
}

// model pushes the input through the model.
func (j *randomJob) model(files [][]mline) {
	s := &j.source
	s.start()
	s.still = !j.strict // when a loose job's windows fire makes no difference
	for _, lines := range files {
		for _, l := range lines {
			s.line(l)
		}
	}
	s.end()
}

// check compares a run with the model.
func (j *randomJob) check(t *rapid.T, s setting, r *ran) {
	t.Helper()
	j.checkRows(t, s, r)
	for _, n := range j.nodes {
		g := r.operators[n.id]
		if c := (mcounts{g.In, g.Out, g.Filtered, g.Late, g.NoWindow, g.Rejected, g.Markers}); c != n.count {
			t.Errorf("%v: operator %s counts %+v, want %+v", s, n.id, c, n.count)
		}
	}
	conserved(t, s, j, r)
}

// checkRows compares what came out with the model.
func (j *randomJob) checkRows(t *rapid.T, s setting, r *ran) {
	t.Helper()
	got := make(map[string][]map[string]any)
	for _, l := range r.lines {
		d := json.NewDecoder(strings.NewReader(l))
		d.UseNumber()
		var v map[string]any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		tag, _ := v["tag"].(string)
		got[tag] = append(got[tag], v)
	}
	for _, o := range j.outputs {
		var lines []string
		for _, v := range got[o.tag] {
			lines = append(lines, o.line(v))
		}
		o.compare(t, s, lines)
	}
}

// conserved is invariant 1: what comes in is taken out by name, or goes on.
func conserved(t *rapid.T, s setting, j *randomJob, r *ran) {
	t.Helper()
	c := func(id string) operator.Counters { return r.operators[id] }
	if in := c("in"); in.In != in.Markers+in.Rejected+in.Out {
		t.Errorf("%v: source: %d rows in, %d markers + %d rejected + %d out", s, in.In, in.Markers, in.Rejected, in.Out)
	}
	for _, n := range j.nodes {
		if o := c(n.id); n.id != "in" && n.onMark == nil && o.Filtered+o.Rejected > o.In {
			t.Errorf("%v: operator %s takes out more than comes in: %+v", s, n.id, o)
		}
	}
}

// line is a row of the output as the model writes it.
func (o *output) line(v map[string]any) string {
	var values []string
	for _, c := range o.columns {
		x := v[c.name]
		if n, ok := x.(json.Number); ok {
			x = n.String()
			if f, err := strconv.ParseFloat(n.String(), 64); (c.typ == "double" || c.typ == inexact) && err == nil {
				x = show(c.typ, f)
			}
			values = append(values, x.(string))
			continue
		}
		if c.typ == "bytes" {
			values = append(values, fmt.Sprint(x))
			continue
		}
		values = append(values, show(c.typ, x))
	}
	return strings.Join(values, "|")
}

// compare compares the rows: the same ones, and in the same order for each key.
func (o *output) compare(t *rapid.T, s setting, got []string) {
	t.Helper()
	want := o.node.lines
	if o.ordered {
		key := func(line string) string {
			var k []string
			for _, i := range o.orderBy {
				k = append(k, strings.Split(line, "|")[i])
			}
			return strings.Join(k, "|")
		}
		byKey := func(a, b string) int { return strings.Compare(key(a), key(b)) }
		got, want = slices.Clone(got), slices.Clone(want)
		slices.SortStableFunc(got, byKey)
		slices.SortStableFunc(want, byKey)
	} else {
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v: sink %s, columns %v, ordered %t by %v: got\n%s\nwant\n%s", s, o.tag, names(o.columns), o.ordered, o.orderBy,
			strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
