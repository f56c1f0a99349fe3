package api

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"maps"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// metricKind is the type of a metric, as the text format names it.
type metricKind string

const (
	gauge   metricKind = "gauge"
	counter metricKind = "counter"
	summary metricKind = "summary"
)

// metric is what is said once of all samples of a name.
type metric struct {
	help   string
	labels []string
}

// exposition is Prometheus' text format, version 0.0.4, in the making. The
// library of Prometheus would bring protocol buffers with it, a twelfth of the
// program; the tests read with the library what is written here.
type exposition struct {
	metrics map[string]metric
	samples map[string]*samples
	quoted  *strings.Replacer // of a label's value
	plain   *strings.Replacer // of a help text
}

type samples struct {
	kind  metricKind
	lines []sample
}

type sample struct {
	suffix string // _sum, _count or nothing
	labels string // {…} or nothing
	value  float64
}

func newExposition(metrics map[string]metric) *exposition {
	return &exposition{
		metrics: metrics, samples: make(map[string]*samples),
		quoted: strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`), plain: strings.NewReplacer(`\`, `\\`, "\n", `\n`),
	}
}

// send takes a number; labels are the values of the metric's labels.
func (e *exposition) send(name string, kind metricKind, v float64, labels ...string) {
	e.add(name, "", kind, v, e.metrics[name].labels, labels)
}

func (e *exposition) add(name, suffix string, kind metricKind, v float64, names, values []string) {
	s := e.samples[name]
	if s == nil {
		s = &samples{kind: kind}
		e.samples[name] = s
	}
	pairs := make([]string, len(names))
	for i, l := range names {
		pairs[i] = l + `="` + e.quoted.Replace(strings.ToValidUTF8(values[i], "\ufffd")) + `"`
	}
	slices.Sort(pairs)
	text := ""
	if len(pairs) > 0 {
		text = "{" + strings.Join(pairs, ",") + "}"
	}
	s.lines = append(s.lines, sample{suffix, text, v})
}

// text is everything, by name and then by labels.
func (e *exposition) text() []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(e.samples)) {
		s := e.samples[name]
		b.WriteString("# HELP " + name + " " + e.plain.Replace(e.metrics[name].help) + "\n# TYPE " + name + " " + string(s.kind) + "\n")
		sort.SliceStable(s.lines, func(i, j int) bool {
			x, y := &s.lines[i], &s.lines[j]
			return cmp.Or(cmp.Compare(x.suffix, y.suffix), cmp.Compare(x.labels, y.labels)) < 0
		})
		for _, l := range s.lines {
			b.WriteString(name + l.suffix + l.labels + " ")
			b.Write(strconv.AppendFloat(b.AvailableBuffer(), l.value, 'g', -1, 64)) // NaN and ±Inf are the format's, too
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// answer writes everything, compressed for those who take that.
func (e *exposition) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Vary", "Accept-Encoding")
	if !takesGzip(r.Header.Values("Accept-Encoding")) {
		_, _ = w.Write(e.text()) // who asked has gone away
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write(e.text())
	_ = z.Close()
}

// takesGzip reads Accept-Encoding (RFC 9110, 12.5.3).
func takesGzip(accept []string) bool {
	for _, one := range strings.Split(strings.Join(accept, ","), ",") {
		coding, weight, _ := strings.Cut(one, ";")
		if strings.TrimSpace(coding) != "gzip" {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
		return err != nil || q > 0 // without a weight it is taken
	}
	return false
}
