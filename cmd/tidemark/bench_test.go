package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/bench"
)

func TestBenchJSON(t *testing.T) {
	var out, errw bytes.Buffer
	code := run([]string{"bench", "json", "punctuated/1", "--json", "--scale", "0.001", "--rounds", "1"}, nil, &out, &errw)
	if code != exitDone && code != exitFailed { // so little input says nothing of the bars
		t.Fatalf("exit code %d: %s", code, errw.String())
	}
	var ids []string
	missed := false
	for line := range strings.Lines(out.String()) {
		var f map[string]any
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err, line)
		}
		delete(f, "note")
		delete(f, "allocs_per_row")
		want := []string{"bar", "better", "id", "limit", "ok", "ratio", "unit", "value"}
		if got := slices.Sorted(maps.Keys(f)); !slices.Equal(got, want) {
			t.Errorf("fields %v", got)
		}
		ids = append(ids, f["id"].(string))
		missed = missed || !f["ok"].(bool)
	}
	if got := strings.Join(ids, " "); got != "punctuated/1 json/ns json/ratio" {
		t.Errorf("ids %s", got)
	}
	if missed != (code == exitFailed) {
		t.Errorf("exit code %d with a bar missed: %v", code, missed)
	}
}

func TestBenchTable(t *testing.T) {
	var out, errw bytes.Buffer
	term := &terminal{out: &out, err: &errw, output: "table"}
	limit, r, bar, allocs := 20.0, 1.5, 2.5, 0.001
	good := bench.Figure{ID: "engine", Value: 30, Limit: &limit, Ratio: &r, Unit: "ns/row", Bar: &bar, Better: "lower", OK: true, Allocs: &allocs}
	bad := bench.Figure{ID: "latency/qos0", Value: 3, Limit: &limit, Unit: "ms", Bar: &bar, Better: "lower", Note: "Mosquitto"}
	b := newBenchReport(term)
	if err := b.add(good); err != nil {
		t.Fatal(err)
	}
	if err := b.finish(); err != nil {
		t.Errorf("%v, though no bar was missed", err)
	}
	if err := b.add(bad); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := b.finish(); err != errReported {
		t.Errorf("%v, though a bar was missed", err)
	}
	for _, want := range []string{"engine", "30 ns/row", "1.5 ×", "≤ 2.5 ×", "ok", "0.0010", "latency/qos0", "≤ 2.5 ms", "MISSED", "Mosquitto"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if !strings.Contains(errw.String(), "bars missed: latency/qos0") {
		t.Errorf("%q does not say which bar was missed", errw.String())
	}
}

func TestBenchWrongID(t *testing.T) {
	var out, errw bytes.Buffer
	if code := run([]string{"bench", "engines"}, nil, &out, &errw); code != exitUsage || !strings.Contains(errw.String(), `"engines"`) {
		t.Errorf("exit code %d: %s", code, errw.String())
	}
}
