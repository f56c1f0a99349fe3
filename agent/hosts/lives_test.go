//go:build hosts

package hosts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// livesJob is a crashJob with all that makes going on harder: ids that come
// twice, rows that are late, state that grows with every message, sinks of
// several subtasks, and rows that are published when their checkpoint is done.
func livesJob(broker string, qos byte, sinks int) string {
	return fmt.Sprintf(`
name: lives
checkpoint: {interval: 100ms}
sources:
  readings:
    mqtt: {broker: "%[1]s", topics: [plant/+/telemetry], qos: %[2]d, lanes: 3}
    format: json
    fields:
      device: {type: string, topic: 1}
      id:     bigint
      try:    bigint
      ts:     {type: timestamp, unit: ms}
      v:      bigint
      kind:   string
    dedupe: {by: [id], within: 1h}
    event_time: ts
    watermark:
      punctuated: {when: "kind = 'flush'", at: ts}
      per: device
steps:
  - {id: data, from: readings, where: kind <> 'flush'}
  - {id: timely, from: data, where: kind = 'reading'}
  - id: windows
    from: data
    key_by: [device]
    window: {tumbling: 10s}
    select: {n: count(*), ids: count(distinct id), total: sum(v)}
  - id: sessions
    from: timely
    key_by: [device]
    window: {session: 1s}
    select: {n: count(*), total: sum(v)}
  - id: running
    from: timely
    key_by: [device]
    select: {n: count(*), total: sum(v)}
  - {id: each, from: readings, key_by: [id], select: {n: count(*)}}
  - {id: twice, from: each, where: n > 1}
sinks:
  - {id: out,      from: windows,      parallelism: %[3]d, file: {path: windows.jsonl, timestamps: ms}}
  - {id: late,     from: windows.late, file: {path: late.jsonl, timestamps: ms}}
  - {id: sessions_out, from: sessions, file: {path: sessions.jsonl, timestamps: ms}}
  - {id: running_out,  from: running,  file: {path: running.jsonl, timestamps: ms}}
  - {id: raw,      from: readings,     parallelism: %[4]d, file: {path: raw.jsonl, timestamps: ms}}
  - {id: twice_out, from: twice,       file: {path: twice.jsonl}}
  - {id: told,     from: windows,      mqtt: {broker: "%[1]s", topic: "told/{device}", qos: 2, delivery: transactional}}
`, broker, qos, sinks, 4-sinks)
}

func TestHostsManyLivesQoS1(t *testing.T) { manyLives(t, 1) }

func TestHostsManyLivesQoS2(t *testing.T) { manyLives(t, 2) }

// manyLives ends a job again and again, in every way: killed as it starts, as
// it restores, as it writes, as it stops; stopped by a signal, by the verb, with
// savepoints taken before; and starts it with another parallelism, other batches,
// and other sinks each time. What it wrote and published is what the publishers'
// record says, each row once.
func manyLives(t *testing.T, qos byte) {
	t.Parallel()
	n := max(1, kills(t)/2)
	s := scale{publishers: 4, devices: 5, intervals: 10 * n, readings: 11}
	m := startMosquitto(t, raised)
	told := subscribe(t, m.addr(), "told/#")
	f := newFleet(s, m.url(), qos)
	rng := rand.New(rand.NewPCG(seed(t), uint64(qos)))
	f.repeat(rng, s, 20)
	late := &publisher{fleet: f, name: "late", addr: m.addr(), qos: qos}
	dir := t.TempDir()
	start := func() *running {
		args := []string{"--state", "state", "--parallelism", fmt.Sprint(1 + rng.IntN(5)), "--batch-rows", fmt.Sprint([]int{0, 0, 1, 7, 300}[rng.IntN(5)])}
		return runIn(t, dir, nil, livesJob(m.url(), qos, 1+rng.IntN(3)), args...)
	}

	r := start()
	r.says(t, "subscribed")
	f.hello(t, s)
	var count lived
	visible := make(map[string][]byte)
	for k := range n {
		wait := f.sendingPart(s, k+1, n+1)
		for again := true; again; again = rng.IntN(3) == 0 {
			how := moment(rng.IntN(int(moments)))
			count[how]++
			how.end(t, rng, r, "lives")
			r.onlyGrow(t, visible)
			r = start()
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		late.tooLate(t, r)
	}
	if err := f.sendingPart(s, 1, 1)(); err != nil {
		t.Fatal(err)
	}
	r.lastWindowsOf(t, s)
	r.signal(t, syscall.SIGTERM)
	if code := r.exit(t); code != 0 {
		t.Fatalf("after SIGTERM: exit code %d\n%s", code, tail(r.output()))
	}
	f.publishers = append(f.publishers, late)
	f.compareLives(t, r, s)
	f.compareTold(t, told)
	t.Logf("%d messages, %d late; ended: %v; state folder %d bytes", s.messages(), len(late.messages), count, stateSize(t, filepath.Join(dir, "state")))
}

// onlyGrow: what was visible in the output stays.
func (r *running) onlyGrow(t *testing.T, visible map[string][]byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		name = filepath.Base(name)
		now := r.file(t, name)
		if !bytes.HasPrefix(now, visible[name]) {
			t.Errorf("%s had %d bytes, and has %d: what could be seen is not there any more, or is another", name, len(visible[name]), len(now))
		}
		visible[name] = now
	}
}

// sendingPart brings the k-th of n parts of each publisher's messages to the
// broker.
func (f *fleet) sendingPart(s scale, k, n int) func() error {
	waits := make([]func() error, 0, len(f.publishers))
	for _, p := range f.publishers {
		one := &fleet{publishers: []*publisher{p}}
		waits = append(waits, one.sending(max(s.devices, len(p.messages)*k/n)))
	}
	return func() error {
		var first error
		for _, w := range waits {
			if err := w(); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
}

// tooLate sends a row for a window that is in the output: nothing that happens
// can make it count any more.
func (p *publisher) tooLate(t *testing.T, r *running) {
	t.Helper()
	fired := everyRow[window](t, r, "windows")
	if len(fired) == 0 {
		return
	}
	for _, w := range []window{fired[0], fired[len(fired)-1]} {
		p.messages = append(p.messages, message{device: w.Device, id: 1<<40 + len(p.messages), ts: w.End - 1, v: 1, late: true})
	}
	if err := p.send(len(p.messages)); err != nil {
		t.Fatal(err)
	}
}

// everyRow are the rows of all files of a sink; a job that runs may be about to
// commit: what is not a whole line yet is left out.
func everyRow[T any](t *testing.T, r *running, sink string) (all []T) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, sink+"*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b := r.file(t, filepath.Base(name))
		d := json.NewDecoder(bytes.NewReader(b[:bytes.LastIndexByte(b, '\n')+1]))
		d.DisallowUnknownFields()
		for d.More() {
			var row T
			if err := d.Decode(&row); err != nil {
				t.Fatalf("%s, row %d: %v", name, len(all), err)
			}
			all = append(all, row)
		}
	}
	return all
}

// lastWindowsOf is lastWindows of sinks with several files.
func (r *running) lastWindowsOf(t *testing.T, s scale) {
	t.Helper()
	last := fmt.Appendf(nil, `"window_start":%d,`, firstTime+(s.intervals-1)*interval)
	got := 0
	await(t, "the last windows", func() bool {
		select {
		case <-r.exited:
			t.Fatalf("it ended:\n%s", tail(r.output()))
		default:
		}
		names, _ := filepath.Glob(filepath.Join(r.dir, "windows*.jsonl"))
		got = 0
		for _, name := range names {
			got += bytes.Count(r.file(t, filepath.Base(name)), last)
		}
		return got == s.publishers*s.devices
	}, func() string { return fmt.Sprintf("%d of %d\n%s", got, s.publishers*s.devices, tail(r.output())) })
}

// compareLives compares all that a livesJob wrote with what was published.
func (f *fleet) compareLives(t *testing.T, r *running, s scale) {
	t.Helper()
	copies, late := make(map[int]int), make(map[int]int)
	f.each(func(m *message) {
		if len(m.tries) != 1 {
			t.Errorf("message %d was published %d times: the test's own connection failed", m.id, len(m.tries))
		}
		copies[m.id]++
		if m.late {
			late[m.id]++
		}
	})
	ids := func(rows []arrival) (all []int) {
		for _, a := range rows {
			all = append(all, a.ID)
		}
		return all
	}
	compareCounts(t, "raw", copies, ids(everyRow[arrival](t, r, "raw")))
	compareCounts(t, "late", late, ids(everyRow[arrival](t, r, "late")))
	want := make(map[window]int)
	for _, w := range f.windows(func(*message) bool { return true }) {
		want[w]++
	}
	compareCounts(t, "windows", want, everyRow[window](t, r, "windows"))
	if twice := r.file(t, "twice.jsonl"); len(twice) > 0 {
		t.Errorf("ids were counted twice:\n%s", tail(string(twice)))
	}
	f.compareSessions(t, r, s)
	f.compareRunning(t, r)
}

// compareTold compares what was published with the windows.
func (f *fleet) compareTold(t *testing.T, told *subscriber) {
	t.Helper()
	want := make(map[window]int)
	for _, w := range f.windows(func(*message) bool { return true }) {
		want[w]++
	}
	await(t, "all windows to be told", func() bool { return len(told.heard()) >= len(want) }, func() string { return fmt.Sprint(len(told.heard())) })
	var got []window
	for _, text := range told.heard() {
		var row struct {
			Device        string
			Start         time.Time `json:"window_start"`
			End           time.Time `json:"window_end"`
			N, IDs, Total int64
		}
		if err := json.NewDecoder(strings.NewReader(text)).Decode(&row); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		got = append(got, window{row.Device, row.Start.UnixMilli(), row.End.UnixMilli(), row.N, row.IDs, row.Total})
	}
	slices.SortFunc(got, func(a, b window) int { return strings.Compare(a.Device, b.Device) })
	compareCounts(t, "told", want, got)
}
