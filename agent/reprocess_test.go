package agent_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/durable"
)

// version is a job's text: its source, its one step and where it writes.
const version = `name: %[1]s
checkpoint: {interval: 2ms}
restart: {strategy: none}
sources:
  in:
    %[2]s
    format: json
    fields: {device: {type: string, topic: 1}, id: bigint, ts: {type: timestamp, unit: us}, v: bigint}
    event_time: ts
    watermark: {bounded: 1us}
steps:
  - {id: %[3]s, from: in, key_by: [device], window: {tumbling: %[4]dus}, select: {n: count(*), total: sum(v)}}
sinks:
  - {id: out, from: %[3]s, file: {path: '%[5]s/out.jsonl', timestamps: us}}
  - {id: raw, from: in, file: {path: '%[5]s/raw.jsonl', timestamps: us}}
`

// windowTotal is a row that a version puts out.
type windowTotal struct {
	Device string `json:"device"`
	Start  int64  `json:"window_start"`
	N      int64  `json:"n"`
	Total  int64  `json:"total"`
}

func windowTotals(t *testing.T, path string) (all []string) {
	t.Helper()
	for _, l := range read(t, path) {
		var w windowTotal
		if err := json.Unmarshal([]byte(l), &w); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		all = append(all, fmt.Sprint(w))
	}
	slices.Sort(all)
	return all
}

// oracle is what windows of a size make of the messages from one on: message i
// is of device i mod 4, and has the time and value i.
func oracle(from, to int, size int64) (all []string) {
	sums := make(map[[2]int64]*windowTotal)
	for i := int64(from); i < int64(to); i++ {
		at := [2]int64{i % 4, i / size * size}
		if sums[at] == nil {
			sums[at] = &windowTotal{Device: fmt.Sprint(at[0]), Start: at[1]}
		}
		sums[at].N++
		sums[at].Total += i
	}
	for _, w := range sums {
		all = append(all, fmt.Sprint(*w))
	}
	slices.Sort(all)
	return all
}

// A savepoint of a while ago and the feed's retention: a new version of a job
// begins at the savepoint's positions, reads the log from there on, comes to the
// present and goes on with what arrives. So does the version as it was, with its
// state. Each is what an oracle says, whatever their parallelism, and the job that
// goes on beside them has not lost or repeated anything.
func TestNewLogicOverTheSameInput(t *testing.T) {
	const messages, then, now = 400, 105, 270
	w := &wire{now: 1_000_000_000_000_000}
	for i := range messages {
		w.acts = append(w.acts, act{after: 3, topic: fmt.Sprintf("t/%d", i%4), message: fmt.Sprintf(`{"id":%d,"ts":%d,"v":%d}`, i, i, i)})
	}
	// The last message closes all windows but its own.
	w.acts = append(w.acts, act{after: 3, topic: "t/0", message: fmt.Sprintf(`{"id":%d,"ts":100000,"v":0}`, lastID)})
	home := t.TempDir()
	state := filepath.Join(home, "state")
	out := func(job string) string { return filepath.Join(home, job) }
	first := fmt.Sprintf(version, "first", `mqtt: {broker: "mqtt://127.0.0.1:1", topics: [t/+], retention: {age: 1d}}`, "sums", 20, out("first"))
	stop := logLife{setting: setting{parallelism: 2, batchRows: 5}, quota: then, after: 1, stop: true}
	stop.live(t, w, state, out("first"), first)
	savepoint := onlySavepoint(t, state)
	before := windowTotals(t, filepath.Join(out("first"), "out.jsonl"))

	stop.quota = now // the present, from which on versions run live
	stop.live(t, w, state, out("first"), first)
	for _, v := range []struct {
		name, step  string
		size        int64
		parallelism int
	}{{"wider", "minutes", 30, 3}, {"again", "minutes", 30, 1}, {"same", "sums", 20, 4}} {
		text := fmt.Sprintf(version, v.name, "feed: first.in", v.step, v.size, out(v.name))
		l := logLife{setting: setting{parallelism: v.parallelism, batchRows: 7}, quota: len(w.acts), stop: true, from: savepoint, drop: v.step != "sums"}
		totals := l.live(t, w, state, out(v.name), text)
		if want := int64(len(w.acts) - then); totals.In != want {
			t.Errorf("%s read %d messages, want the %d since the savepoint", v.name, totals.In, want)
		}
		got, want := windowTotals(t, filepath.Join(out(v.name), "out.jsonl")), oracle(then, messages, v.size)
		if v.step == "sums" { // it has the state, too
			got, want = append(got, before...), oracle(0, messages, v.size)
			slices.Sort(got)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%q\nwant\n%q", v.name, got, want)
		}
	}
	stop.quota = len(w.acts)
	stop.live(t, w, state, out("first"), first)
	if got, want := windowTotals(t, filepath.Join(out("first"), "out.jsonl")), oracle(0, messages, 20); !slices.Equal(got, want) {
		t.Errorf("the first:\n%q\nwant\n%q", got, want)
	}
}

func onlySavepoint(t *testing.T, dir string) string {
	t.Helper()
	view, err := durable.View(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := view.Savepoints()
	if err != nil || len(list) != 1 {
		t.Fatalf("savepoints %v (%v)", list, err)
	}
	return list[0].Name
}
