package api_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// scraped is what the library of Prometheus reads: type and labels by name.
func scraped(t *testing.T, text string) map[string]string {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for name, f := range families {
		all[name] = f.GetType().String()
		seen := make(map[string]bool)
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += l.GetName() + "=" + l.GetValue() + " "
			}
			if seen[labels] {
				t.Errorf("%s{%s} is there twice", name, labels)
			}
			seen[labels] = true
			if n := len(m.GetSummary().GetQuantile()); n > 0 {
				all[name] += " of " + strings.Repeat("q", n)
			}
		}
	}
	return all
}

// What GET /metrics says is in order for Prometheus, and has all that its
// library for Go would say of the process.
func TestMetricsReadByPrometheus(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	s.deploy(t, submit(t, a.url, generated))
	runtime.GC()
	text := send(t, a.url, "GET", "/metrics", nil).want(t, 200).body
	got := scraped(t, text)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "tidemark_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil || len(families) < 30 {
		t.Fatalf("%d families: %v", len(families), err)
	}
	for _, f := range families {
		want := f.GetType().String()
		if n := len(f.GetMetric()[0].GetSummary().GetQuantile()); n > 0 {
			want += " of " + strings.Repeat("q", n)
		}
		if runtime.GOOS != "linux" && strings.HasPrefix(f.GetName(), "process_") {
			continue
		}
		if got[f.GetName()] != want {
			t.Errorf("%s is %q, want %q", f.GetName(), got[f.GetName()], want)
		}
	}
}

func TestMetricsCompressed(t *testing.T) {
	a := newSite(t).agent(t, "n1", "")
	for accept, packed := range map[string]bool{"gzip": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "br": false, "": false} {
		q, err := http.NewRequest(http.MethodGet, a.url+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Accept-Encoding", accept) // so that the transport does not unpack
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get("Content-Encoding") == "gzip"; got != packed {
			t.Errorf("asked with %q: gzip %t", accept, got)
		}
		if packed {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if got := scraped(t, string(body)); got["tidemark_ready"] != "GAUGE" {
			t.Errorf("asked with %q: %v", accept, got)
		}
	}
}

func TestExposition(t *testing.T) {
	values := map[string]float64{"plain": 1.5, "a \"b\" \\ c\nd": math.Inf(1), "\xff": math.NaN(), "": 1e21, "z": -0.25}
	got := string(api.Expose("n", "of \"x\"\nand \\y", "l", values))
	want := "# HELP n of \"x\"\\nand \\\\y\n# TYPE n gauge\n" + `n{l=""} 1e+21
n{l="a \"b\" \\ c\nd"} +Inf
n{l="plain"} 1.5
n{l="z"} -0.25
n{l="` + "\ufffd" + `"} NaN
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	f, err := p.TextToMetricFamilies(strings.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range f["n"].GetMetric() {
		l := m.GetLabel()[0].GetValue()
		v, ok := values[l]
		if l == "\ufffd" {
			v, ok = math.NaN(), true
		}
		if g := m.GetGauge().GetValue(); !ok || g != v && !(math.IsNaN(g) && math.IsNaN(v)) {
			t.Errorf("%q is read as %v, want %v", l, g, v)
		}
	}
	if f["n"].GetHelp() != "of \"x\"\nand \\y" || len(f["n"].GetMetric()) != len(values) {
		t.Errorf("read: %v", f["n"])
	}
}
