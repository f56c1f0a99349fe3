//go:build hosts

package hosts

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// crashJob has every kind of state that lives between rows: windows, sessions,
// running aggregates, devices' watermarks, positions, pending rows of sinks.
func crashJob(broker string, qos byte) string {
	return fmt.Sprintf(`
name: crash
parallelism: 3
checkpoint: {interval: 150ms}
sources:
  readings:
    mqtt: {broker: "%s", topics: [plant/+/telemetry], qos: %d, lanes: 3}
    format: json
    fields:
      device: {type: string, topic: 1}
      id:     bigint
      try:    bigint
      ts:     {type: timestamp, unit: ms}
      v:      bigint
      kind:   string
    event_time: ts
    watermark:
      punctuated: {when: "kind = 'flush'", at: ts}
      per: device
steps:
  - {id: data, from: readings, where: kind = 'reading'}
  - id: windows
    from: data
    key_by: [device]
    window: {tumbling: 10s}
    select: {n: count(*), ids: count(distinct id), total: sum(v)}
  - id: sessions
    from: data
    key_by: [device]
    window: {session: 1s}
    select: {n: count(*), total: sum(v)}
  - id: running
    from: data
    key_by: [device]
    select: {n: count(*), total: sum(v)}
sinks:
  - {id: out,      from: windows,      file: {path: windows.jsonl, timestamps: ms}}
  - {id: late,     from: windows.late, file: {path: late.jsonl, timestamps: ms}}
  - {id: sessions_out, from: sessions, file: {path: sessions.jsonl, timestamps: ms}}
  - {id: running_out,  from: running,  file: {path: running.jsonl, timestamps: ms}}
  - {id: raw,      from: readings,     file: {path: raw.jsonl, timestamps: ms}}
`, broker, qos)
}

// kills is how often a job is killed. TIDEMARK_KILLS is the long tier's.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TIDEMARK_KILLS")
	if text == "" {
		return 30
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("TIDEMARK_KILLS=%s is no number of kills", text)
	}
	return n
}

// seed is what random tests begin with: another for each number of kills, so that
// the long tier is not the short one again. TIDEMARK_SEED repeats one.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("TIDEMARK_SEED")
	if text == "" {
		return uint64(kills(t))
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("TIDEMARK_SEED=%s is no number", text)
	}
	return n
}

func TestHostsCrashOracleQoS1(t *testing.T) { crashOracle(t, 1) }

func TestHostsCrashOracleQoS2(t *testing.T) { crashOracle(t, 2) }

// crashOracle kills a durable job with -9 at random moments, while publishers
// that know nothing of it go on. Each message reached the broker once, so
// everything that the job wrote must be there once: what it copied, what it
// counted in windows and sessions, and each running total, in order.
func crashOracle(t *testing.T, qos byte) {
	t.Parallel()
	n := kills(t)
	// Fewer messages than there are packet ids, whatever waits in the broker while
	// the job is away: docs/MQTT.md says what Mosquitto makes of more.
	s := scale{publishers: 4, devices: 5, intervals: max(200, 3*n), readings: 11}
	m := startMosquitto(t, raised)
	f := newFleet(s, m.url(), qos)
	rng := rand.New(rand.NewPCG(seed(t), uint64(qos)))
	dir := t.TempDir()
	start := func() *running { return runIn(t, dir, nil, crashJob(m.url(), qos), "--state", "state") }

	r := start()
	r.says(t, "subscribed") // from here on the broker keeps what the job is not there for
	f.hello(t, s)
	total := s.messages() / s.publishers
	for k := range n {
		wait := f.sending(max(s.devices, total*(k+1)/(n+1)))
		<-time.After(time.Duration(rng.IntN(700)) * time.Millisecond) // the moment is what is random here; nothing is expected of it
		r.signal(t, syscall.SIGKILL)
		r.exit(t)
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		r = start()
	}
	f.send(t, total)
	r.lastWindows(t, s)
	r.signal(t, syscall.SIGTERM)
	if code := r.exit(t); code != 0 {
		t.Fatalf("after SIGTERM: exit code %d\n%s", code, tail(r.output()))
	}
	f.compareAll(t, r, s)
	t.Logf("%d messages, killed %d times, state folder %d bytes", s.messages(), n, stateSize(t, filepath.Join(dir, "state")))
}

// compareAll compares all that a crashJob wrote with what was published.
func (f *fleet) compareAll(t *testing.T, r files, s scale) {
	t.Helper()
	if late := r.file(t, "late.jsonl"); len(late) > 0 {
		t.Errorf("rows were late:\n%s", tail(string(late)))
	}
	copies := make(map[int]int)
	for _, a := range rows[arrival](t, r, "raw.jsonl") {
		copies[a.ID]++
	}
	wrong := 0
	f.each(func(m *message) {
		if len(m.tries) != 1 {
			t.Errorf("message %d was published %d times: the test's own connection failed", m.id, len(m.tries))
		}
		if copies[m.id] != 1 {
			if wrong++; wrong <= 10 {
				t.Errorf("message %d (%s, marker %v) was copied %d times", m.id, m.device, m.marker, copies[m.id])
			}
		}
	})
	sameWindows(t, r, f.windows(func(*message) bool { return true }), true)
	f.compareSessions(t, r, s)
	f.compareRunning(t, r)
}

type session struct {
	Device string `json:"device"`
	Start  int64  `json:"window_start"`
	End    int64  `json:"window_end"`
	N      int64  `json:"n"`
	Total  int64  `json:"total"`
}

// compareSessions: sorted by time, readings at most a second apart are one
// session; those that end by the last marker have fired.
func (f *fleet) compareSessions(t *testing.T, r files, s scale) {
	t.Helper()
	const gap = 1000
	last := int64(firstTime + s.intervals*interval)
	perDevice := make(map[string][]*message)
	f.each(func(m *message) {
		if !m.marker && !m.late {
			perDevice[m.device] = append(perDevice[m.device], m)
		}
	})
	want := make(map[session]int)
	for device, all := range perDevice {
		slices.SortFunc(all, func(a, b *message) int { return cmp.Compare(a.ts, b.ts) })
		var open session
		for i, m := range all {
			if i == 0 || m.ts > open.End {
				if i > 0 && open.End <= last {
					want[open]++
				}
				open = session{Device: device, Start: m.ts}
			}
			open.End = m.ts + gap
			open.N++
			open.Total += m.v
		}
		if open.End <= last {
			want[open]++
		}
	}
	compareCounts(t, "sessions.jsonl", want, rows[session](t, r, "sessions.jsonl"))
}

// compareCounts compares rows as multisets.
func compareCounts[T comparable](t *testing.T, file string, want map[T]int, got []T) {
	t.Helper()
	wrong := 0
	for _, row := range got {
		if want[row]--; want[row] < 0 {
			if wrong++; wrong <= 10 {
				t.Errorf("%s: %+v is wrong, or there once too often", file, row)
			}
		}
	}
	for row, n := range want {
		if n > 0 {
			if wrong++; wrong <= 20 {
				t.Errorf("%s: %+v is missing, %d times", file, row, n)
			}
		}
	}
}

type runningTotal struct {
	Device string `json:"device"`
	N      int64  `json:"n"`
	Total  int64  `json:"total"`
}

// compareRunning: a device's totals are those after each of its readings, in
// the order in which they were published.
//
// In a site they may be in several agents' files, whose order among each other
// is nobody's; then each total must be there once.
func (f *fleet) compareRunning(t *testing.T, r files) {
	t.Helper()
	want := make(map[string][]runningTotal)
	f.each(func(m *message) {
		if m.marker || m.late {
			return
		}
		all := want[m.device]
		next := runningTotal{Device: m.device, N: 1, Total: m.v}
		if n := len(all); n > 0 {
			next.N, next.Total = all[n-1].N+1, all[n-1].Total+m.v
		}
		want[m.device] = append(all, next)
	})
	got := make(map[string][]runningTotal)
	for _, row := range rows[runningTotal](t, r, "running.jsonl") {
		got[row.Device] = append(got[row.Device], row)
	}
	_, several := r.(*site)
	for device, w := range want {
		g := got[device]
		if several {
			slices.SortFunc(g, func(a, b runningTotal) int { return cmp.Compare(a.N, b.N) })
		}
		if !slices.Equal(w, g) {
			i := 0
			for i < min(len(w), len(g)) && w[i] == g[i] {
				i++
			}
			t.Errorf("running.jsonl, %s: %d totals, want %d; they differ from the %dth on", device, len(g), len(w), i)
		}
	}
}

// stateSize is what a state folder holds.
func stateSize(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}
