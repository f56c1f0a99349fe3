package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

const tapJob = `
name: tapped
sources:
  in:
    file: {path: %s}
    format: csv
    header: true
    fields: {sensor: string, ts: {type: timestamp, unit: ms}, temp: double}
    event_time: ts
    arrival: arr
    watermark: {ascending: true}
sinks: [{id: out, from: in, blackhole: {}}]
`

// A tap shows rows with event time and lag, and why payloads are rejected.
func TestTapShowsRowsAndRejections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.csv")
	text := "sensor,ts,temp,arr\na,1000,1.5,1250\nb,,2,1300\nc,3000,warm,3000\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf(tapJob, path)
	j, err := job.Load("tap", []byte(yaml), job.Options{Set: []string{"sources.in.fields.arr={type: timestamp, unit: ms}"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	show := func(v *agent.Tapped) bool {
		if v.Row == nil {
			got = append(got, fmt.Sprintf("rejected %s: %s", v.Payload, v.Reason))
		} else {
			got = append(got, fmt.Sprintf("%s event %v arrival %v", v.Row, v.Event, v.Arrival))
		}
		return true
	}
	if err := agent.Tap(t.Context(), j, "", "tap", agent.LocalOptions{}, show); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"sensor":"a","ts":"1970-01-01T00:00:01Z","temp":1.5,"arr":"1970-01-01T00:00:01.25Z"} event 1970-01-01T00:00:01Z arrival 1970-01-01T00:00:01.25Z`,
		`{"sensor":"b","ts":null,"temp":2,"arr":"1970-01-01T00:00:01.3Z"} event -inf arrival 1970-01-01T00:00:01.3Z`,
		`rejected c,3000,warm,3000: decode: field temp: not a double`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = nil
	if err := agent.Tap(t.Context(), j, "in", "tap", agent.LocalOptions{}, func(v *agent.Tapped) bool { show(v); return false }); err != nil || len(got) != 1 {
		t.Errorf("a tap that has seen enough: %v, %d rows", err, len(got))
	}
	if err := agent.Tap(t.Context(), j, "inn", "tap", agent.LocalOptions{}, show); err == nil {
		t.Error("a source that does not exist was tapped")
	}
}
