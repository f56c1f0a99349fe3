package agent_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// recording is a file of the folder that TIDEMARK_DATA names.
func recording(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("TIDEMARK_DATA")
	if dir == "" {
		t.Skip("TIDEMARK_DATA does not name the folder with the recordings")
	}
	return filepath.Join(dir, name)
}

// sample is a job of configs/ whose files are elsewhere.
func sample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "configs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// record is a row of a recording: its device, when it came, what it is about.
// Times are µs.
type record struct {
	device         string
	arrival, event int64
	value          float64
}

func records(t *testing.T, path string, parse func(row []string) (record, error)) []record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []record
	for _, row := range all[1:] {
		r, err := parse(row)
		if err != nil {
			t.Fatalf("%v: %v", row, err)
		}
		out = append(out, r)
	}
	return out
}

func quakes(t *testing.T, path string) []record {
	return records(t, path, func(row []string) (r record, err error) {
		r.device = row[2]
		if r.arrival, err = strconv.ParseInt(row[0], 10, 64); err != nil {
			return r, err
		}
		if r.event, err = strconv.ParseInt(row[1], 10, 64); err != nil {
			return r, err
		}
		r.arrival, r.event = r.arrival*1000, r.event*1000
		r.value, err = strconv.ParseFloat(row[4], 64)
		return r, err
	})
}

func stations(t *testing.T, path string) []record {
	return records(t, path, func(row []string) (r record, err error) {
		day, err := time.Parse(time.DateOnly, row[0])
		if err != nil {
			return r, err
		}
		r.device, r.arrival, r.event = row[1], day.UnixMicro(), day.UnixMicro()
		r.value, err = strconv.ParseFloat(row[2], 64)
		return r, err
	})
}

// clock predicts the watermark of a source, row by row, as docs say it.
type clock interface {
	before(r record) int64 // when the row comes
	after(r record)        // what it changes
}

// oneClock is `bounded: D` for all rows.
type oneClock struct{ bound, wm int64 }

func (c *oneClock) before(record) int64 { return c.wm }
func (c *oneClock) after(r record)      { c.wm = max(c.wm, r.event-c.bound-1) }

// deviceClock is `bounded: D` with `per:` and `idle_after:`.
type deviceClock struct {
	bound, idle, now, wm int64
	devices              map[string]*deviceState
}

type deviceState struct {
	wm, last, joined int64
	fresh            bool // it has not moved past where it joined
	waived           bool // and nobody waits for that any more
}

// lowest lifts the watermark to the least of the devices that count.
func (c *deviceClock) lowest() {
	least := int64(math.MaxInt64)
	for _, d := range c.devices {
		if !d.waived {
			least = min(least, d.wm)
		}
	}
	if least < math.MaxInt64 {
		c.wm = max(c.wm, least)
	}
}

// before lets the time pass up to the row's arrival: silence and waiting end
// when they have lasted longer than idle, the earliest first.
func (c *deviceClock) before(r record) int64 {
	c.now = max(c.now, r.arrival)
	for {
		due := int64(math.MaxInt64)
		for _, d := range c.devices {
			due = min(due, d.last)
			if d.fresh && !d.waived {
				due = min(due, d.joined)
			}
		}
		if due >= c.now-c.idle {
			break
		}
		for name, d := range c.devices {
			if d.fresh && d.joined == due {
				d.waived = true
			}
			if d.last == due {
				delete(c.devices, name)
			}
		}
		c.lowest()
	}
	if c.devices[r.device] == nil {
		c.devices[r.device] = &deviceState{wm: c.wm, joined: c.now, fresh: true}
	}
	c.devices[r.device].last = c.now
	c.lowest()
	return c.wm
}

func (c *deviceClock) after(r record) {
	d, w := c.devices[r.device], r.event-c.bound-1
	switch {
	case !d.fresh:
		d.wm = max(d.wm, w)
	case d.waived && w > c.wm, !d.waived && w > d.wm:
		d.wm, d.fresh, d.waived = max(w, c.wm), false, false
	}
	c.lowest()
}

// newDeviceClock starts before the first row.
func newDeviceClock(bound, idle int64) *deviceClock {
	return &deviceClock{bound: bound, idle: idle, now: math.MinInt64 / 2, wm: math.MinInt64, devices: make(map[string]*deviceState)}
}

// group is what a window holds.
type group struct {
	n        int64
	sum, max float64
}

// hold is what tumbling windows make of rows: what they hold, and the rows that
// come after theirs has fired.
func hold(rows []record, c clock, size int64) (groups map[string]group, late []record) {
	groups = make(map[string]group)
	for _, r := range rows {
		wm := c.before(r)
		start := r.event - ((r.event%size)+size)%size
		if start+size-1 <= wm {
			late = append(late, r)
		} else {
			key := fmt.Sprintf("%s %d", r.device, start)
			g, ok := groups[key]
			if !ok {
				g.max = math.Inf(-1)
			}
			groups[key] = group{g.n + 1, g.sum + r.value, max(g.max, r.value)}
		}
		c.after(r)
	}
	return groups, late
}

// fired are the windows in a file of JSON lines, by the names of their columns.
func fired(t *testing.T, path, device, n, largest, mean string) map[string]group {
	t.Helper()
	got := make(map[string]group)
	for _, l := range read(t, path) {
		var row map[string]any
		if err := json.Unmarshal([]byte(l), &row); err != nil {
			t.Fatal(err)
		}
		g := group{n: int64(row[n].(float64)), max: row[largest].(float64)}
		if mean != "" {
			g.sum = row[mean].(float64) * float64(g.n)
		}
		start, err := time.Parse(time.RFC3339, row["window_start"].(string))
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("%s %d", row[device], start.UnixMicro())
		if _, twice := got[key]; twice {
			t.Errorf("%s fired twice", key)
		}
		got[key] = g
	}
	return got
}

// sameGroups compares windows; sums within the rounding of their order.
func sameGroups(t *testing.T, what string, got, want map[string]group) {
	t.Helper()
	for key, w := range want {
		if g, ok := got[key]; !ok || g.n != w.n || g.max != w.max || math.Abs(g.sum-w.sum) > 1e-9*max(1, math.Abs(w.sum)) {
			t.Errorf("%s: window %s: got %+v, want %+v", what, key, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d windows, want %d", what, len(got), len(want))
	}
}

// TestQuakes runs the sample over a week of earthquakes in the order in which
// they were reported, with one watermark and with one a network, and predicts
// every window and every late row.
func TestQuakes(t *testing.T) {
	checkQuakes(t, recording(t, "usgs_quakes_week_arrival_order.csv"))
}

// TestQuakesMadeUp is the same over catalogues that are made up: networks fall
// silent for days, come back, come late, and report the past.
func TestQuakesMadeUp(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 1))
		var text strings.Builder
		text.WriteString("arrival_ms,event_ms,network,id,mag,depth_km,lon,lat,type\n")
		silent := make([]int64, 9) // until when
		at := int64(1_500_000_000_000)
		for i := range 1500 {
			at += r.Int64N(1_500_000)
			n := r.IntN(len(silent))
			if silent[n] > at {
				n = 0
			}
			if n > 0 && r.IntN(20) == 0 {
				silent[n] = at + r.Int64N(4*24*3_600_000)
			}
			delay := r.Int64N(1 + int64(n)*5_000_000)
			fmt.Fprintf(&text, "%d,%d,n%d,q%d,%d.%d,%d,1.5,-2.5,earthquake\n", at, at-delay, n, i, r.IntN(6)-1, r.IntN(10), r.IntN(99))
		}
		checkQuakes(t, write(t, "quakes.csv", text.String()))
	}
}

func checkQuakes(t *testing.T, path string) {
	t.Helper()
	rows := quakes(t, path)
	const hour = 3_600_000_000
	all, allLate := hold(rows, &oneClock{hour, math.MinInt64}, hour)
	networks, networksLate := hold(rows, newDeviceClock(hour, 12*hour), hour)
	if len(allLate) == 0 || len(networksLate) == 0 || len(networksLate) >= len(allLate) {
		t.Fatalf("%d late rows with one watermark, %d with one a network: the recording shows nothing", len(allLate), len(networksLate))
	}
	t.Logf("%d rows; late: %d with one watermark, %d with one a network", len(rows), len(allLate), len(networksLate))
	for _, s := range []setting{{parallelism: 1}, {parallelism: 2}, {parallelism: 5, batchRows: 7}, {parallelism: 2, batchRows: 1}} {
		dir := t.TempDir()
		s.set = []string{"sources.all.file.path=" + path, "sources.networks.file.path=" + path}
		for _, sink := range []string{"out", "late", "out_by_network", "late_by_network"} {
			s.set = append(s.set, fmt.Sprintf("sinks.%s.file.path=%s", sink, filepath.Join(dir, sink+".jsonl")))
		}
		r := run(t, sample(t, "quakes.yaml"), s)
		for _, b := range []struct {
			step, out, late string
			want            map[string]group
			wantLate        []record
		}{{"hourly", "out", "late", all, allLate}, {"hourly_by_network", "out_by_network", "late_by_network", networks, networksLate}} {
			what := fmt.Sprintf("%s at %v", b.step, s)
			got := fired(t, filepath.Join(dir, b.out+".jsonl"), "network", "quakes", "max_mag", "")
			for k, g := range got {
				g.sum = b.want[k].sum // the sample has no mean
				got[k] = g
			}
			sameGroups(t, what, got, b.want)
			sameLate(t, what, read(t, filepath.Join(dir, b.late+".jsonl")), b.wantLate)
			counted := int64(0)
			for _, g := range got {
				counted += g.n
			}
			o := r.operators[b.step]
			if o.Late != int64(len(b.wantLate)) || o.In != int64(len(rows)) || counted+o.Late+o.NoWindow != o.In {
				t.Errorf("%s: %d rows in, %d counted, %d late, %d in no window; want %d late", what, o.In, counted, o.Late, o.NoWindow, len(b.wantLate))
			}
		}
		if got := r.totals; got.In != 2*int64(len(rows)) || got.Rejected != 0 || got.Filtered != 0 || got.Markers != 0 {
			t.Errorf("%v: totals %+v", s, got)
		}
	}
}

// sameLate compares late rows: the same ones for each network, in order.
func sameLate(t *testing.T, what string, got []string, want []record) {
	t.Helper()
	type row struct {
		Network string
		Event   time.Time
		Mag     float64
	}
	g, w := make(map[string][]row), make(map[string][]row)
	for _, l := range got {
		var r row
		if err := json.Unmarshal([]byte(l), &r); err != nil {
			t.Fatal(err)
		}
		g[r.Network] = append(g[r.Network], r)
	}
	for _, r := range want {
		w[r.device] = append(w[r.device], row{r.device, time.UnixMicro(r.event).UTC(), r.value})
	}
	for network := range w {
		if !slices.Equal(g[network], w[network]) {
			t.Errorf("%s: late rows of %s: got %v, want %v", what, network, g[network], w[network])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d late rows, want %d", what, len(got), len(want))
	}
}

const day = 24 * 3_600_000_000

// TestSilentStations runs the sample over twelve years of fine dust: every week
// of every station.
func TestSilentStations(t *testing.T) {
	checkStations(t, recording(t, "pm10_germany_daily.csv"))
}

// TestSilentStationsMadeUp is the same over stations that are made up.
func TestSilentStationsMadeUp(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	var text strings.Builder
	text.WriteString("date,station,pm10_ug_m3\n")
	silent := make([]int, 12) // until which day
	for d := range 700 {
		for s := range silent {
			if d < silent[s] {
				continue
			}
			if r.IntN(100) == 0 {
				silent[s] = d + r.IntN(200)
			}
			fmt.Fprintf(&text, "%s,S%d,%d.%d\n", time.Unix(0, 0).UTC().AddDate(30, 0, d).Format(time.DateOnly), s, r.IntN(90), r.IntN(1000))
		}
	}
	checkStations(t, write(t, "stations.csv", text.String()))
}

func checkStations(t *testing.T, path string) {
	t.Helper()
	rows := stations(t, path)
	weekly, late := hold(rows, newDeviceClock(0, 30*day), 7*day)
	for _, s := range []setting{{parallelism: 1}, {parallelism: 2}} {
		dir := t.TempDir()
		out, bad := filepath.Join(dir, "out.jsonl"), filepath.Join(dir, "bad.csv")
		s.set = []string{"sources.stations.file.path=" + path, "sinks.out.file.path=" + out, "sinks.bad.file.path=" + bad, "sinks.late.file.path=" + filepath.Join(dir, "late.jsonl")}
		r := run(t, sample(t, "silent-stations.yaml"), s)
		sameGroups(t, s.String(), fired(t, out, "station", "days", "worst", "mean"), weekly)
		if r.operators["weekly"].Late != int64(len(late)) || r.totals.In != int64(len(rows)) {
			t.Errorf("%v: %d late of %d, want %d of %d", s, r.operators["weekly"].Late, r.totals.In, len(late), len(rows))
		}
		badDays := int64(0)
		for _, l := range read(t, bad)[1:] {
			n, err := strconv.ParseInt(strings.Split(l, ",")[3], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			badDays += n
		}
		above := int64(0)
		for _, r := range rows {
			if r.value > 50 {
				above++
			}
		}
		if badDays+r.operators["bad_per_year"].Late != above {
			t.Errorf("%v: %d bad days and %d late, want %d", s, badDays, r.operators["bad_per_year"].Late, above)
		}
	}
}

// TestSilentStationsHoldNobodyUp looks at the watermark while the recording
// comes in: stations that have fallen silent do not hold the others back, and
// without idle_after they would.
func TestSilentStationsHoldNobodyUp(t *testing.T) {
	path := recording(t, "pm10_germany_daily.csv")
	rows := stations(t, path)
	text := strings.Split(strings.TrimSpace(strings.Join(read(t, path), "\n")), "\n")
	for _, idle := range []int64{30 * day, 1 << 60} {
		set := []string{"sources.stations.file.path=-"}
		if idle != 30*day {
			set = append(set, "sources.stations.watermark={ascending: true, per: station}")
		}
		for _, sink := range []string{"out", "bad", "late"} {
			set = append(set, fmt.Sprintf("sinks.%s={id: %[1]s, from: weekly, blackhole: {}}", sink))
		}
		in, w := io.Pipe()
		local, err := agent.NewLocal(load(t, sample(t, "silent-stations.yaml"), setting{parallelism: 2, set: set}), agent.LocalOptions{Stdin: in, BatchRows: batch.MaxRows})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- local.Run(t.Context()) }()
		c := newDeviceClock(0, idle)
		taken := 0
		if _, err := io.WriteString(w, text[0]+"\n"); err != nil {
			t.Fatal(err)
		}
		for _, upTo := range []int{1, 1000, 20_000, 70_001, 120_000, len(rows)} {
			for ; taken < upTo; taken++ {
				c.before(rows[taken])
				c.after(rows[taken])
			}
			if _, err := io.WriteString(w, strings.Join(text[1+int(local.Totals().In):1+upTo], "\n")+"\n"); err != nil {
				t.Fatal(err)
			}
			var got agent.Totals
			until(t.Context(), t, "rows", func() bool { // and the subtask that reads nothing has said so: until then it holds all back
				got = local.Totals()
				return got.In == int64(upTo) && got.Watermark != dataflow.MinTime
			})
			if got.Watermark != dataflow.Time(c.wm) {
				t.Errorf("after %d rows: watermark %v, want %v", upTo, got.Watermark, dataflow.Time(c.wm))
			}
		}
		local.Stop()
		w.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		behind := (rows[len(rows)-1].arrival - c.wm) / day
		if held := idle != 30*day; held != (behind > 365) || !held && behind > 31 {
			t.Errorf("idle after %d days: the watermark is %d days behind", idle/day, behind)
		}
	}
}
