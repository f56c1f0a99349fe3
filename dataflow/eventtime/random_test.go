package eventtime

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

func deviceSchema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "device", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint})
}

// rig drives a Source with events, in batches of at most size rows, and keeps
// what comes out in the model's words.
type rig struct {
	cfg    Config
	size   int
	hash   bool // give the hashes
	src    *Source
	pool   *batch.Pool
	schema *batch.Schema
	stream []string
	rows   []string
	last   batch.Mark
	held   []event // rows of one split, not yet in a batch
}

func newRig(cfg Config, splits []int, size int) *rig {
	r := &rig{cfg: cfg, size: size, pool: batch.NewPool(0, nil), schema: deviceSchema(), last: batch.Mark{Watermark: minT, Arrival: minT}}
	r.src = NewSource(cfg, splits, r.pool)
	return r
}

func (r *rig) do(e event) error {
	if len(r.held) > 0 && (e.kind != "row" || e.split != r.held[0].split) {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if r.src.splits[e.split].ended {
		return nil
	}
	switch e.kind {
	case "row":
		r.held = append(r.held, e)
		if len(r.held) == r.size {
			return r.flush()
		}
		return nil
	case "tick":
		return r.told(r.src.Tick(e.split, e.arrival))
	case "deaf":
		return r.told(r.src.Deaf(e.split, e.arrival))
	case "hearing":
		return r.told(r.src.Hearing(e.split, e.arrival))
	}
	if err := r.told(r.src.Tick(e.split, e.arrival)); err != nil {
		return err
	}
	return r.told(r.src.End(e.split))
}

func (r *rig) told(m batch.Mark, changed bool) error {
	if m != r.src.Now() || m.Row != 0 {
		return fmt.Errorf("told %+v, now is %+v", m, r.src.Now())
	}
	if m.Watermark < r.last.Watermark || m.Arrival < r.last.Arrival {
		return fmt.Errorf("from %+v back to %+v", r.last, m)
	}
	if changed == (m == r.last) {
		return fmt.Errorf("changed=%v from %+v to %+v", changed, r.last, m)
	}
	r.note(m)
	return nil
}

func (r *rig) note(m batch.Mark) {
	m.Row = 0
	if m.Watermark != r.last.Watermark || m.Idle != r.last.Idle || r.cfg.MarkArrivals && m.Arrival != r.last.Arrival {
		r.stream = append(r.stream, markName(m, r.cfg.MarkArrivals))
	}
	r.last = m
}

// flush makes a batch of the held rows and assigns it.
func (r *rig) flush() error {
	if len(r.held) == 0 {
		return nil
	}
	b, in := r.batch()
	defer b.Release()
	before := r.last
	res := r.src.Assign(r.held[0].split, b, in)
	if err := b.Check(); err != nil {
		return err
	}
	for i, m := range b.Marks {
		if m.Watermark < before.Watermark || m.Arrival < before.Arrival {
			return fmt.Errorf("mark %d goes from %+v back to %+v", i, before, m)
		}
		before = m
	}
	r.read(b)
	if now := r.src.Now(); r.last != now {
		return fmt.Errorf("after the batch the stream knows %+v, but it is %+v", r.last, now)
	}
	r.count(b, res)
	r.held = r.held[:0]
	return nil
}

func (r *rig) batch() (*batch.Batch, Rows) {
	bl := batch.NewBuilder(r.pool, r.schema)
	n := len(r.held)
	in := Rows{Marker: make(batch.Bitmap, batch.Words(n)), MarkerAt: make([]int64, n)}
	valid := make(batch.Bitmap, batch.Words(n))
	atValid := make(batch.Bitmap, batch.Words(n))
	arrivals := make([]int64, n)
	for i, e := range r.held {
		if e.device != "" {
			bl.SetString(0, e.device)
		}
		bl.SetInt(1, int64(e.name))
		bl.EndRow(e.time)
		in.Marker.Put(i, e.marker)
		in.MarkerAt[i] = int64(e.at)
		valid.Put(i, !e.timeless)
		atValid.Put(i, !e.atNull)
		arrivals[i] = int64(e.arrival)
		if e.arrival != minT {
			in.Arrivals = arrivals
		}
		if e.timeless {
			in.TimeValid = valid
		}
		if e.atNull {
			in.MarkerValid = atValid
		}
	}
	if in.Marker.Count(n) == 0 {
		in.Marker = nil
	}
	b := bl.Take()
	in.Device = b.Cols[0]
	if r.hash {
		state.HashKeys(b, []int{0})
		in.DeviceHash = append([]uint64(nil), b.Hashes...)
		b.Hashes = nil
	}
	return b, in
}

// read notes marks and rows of a batch in order.
func (r *rig) read(b *batch.Batch) {
	marks := b.Marks
	upTo := func(row int) {
		for len(marks) > 0 && int(marks[0].Row) <= row {
			r.note(marks[0])
			marks = marks[1:]
		}
	}
	for k := range b.Len() {
		i := b.Position(k)
		upTo(i)
		r.stream = append(r.stream, fmt.Sprintf("row %d at %d", r.held[i].name, b.Times[i]))
	}
	upTo(b.Rows)
}

// count notes what is not in the batch: refused, or else a marker.
func (r *rig) count(b *batch.Batch, res Result) {
	there := map[int]bool{}
	for k := range b.Len() {
		there[b.Position(k)] = true
	}
	refused := map[int]string{}
	for _, f := range res.Refused {
		refused[int(f.Row)] = f.Reason.String()
	}
	markers := 0
	for i, e := range r.held {
		switch {
		case refused[i] != "":
			r.rows = append(r.rows, fmt.Sprintf("%d %s", e.name, refused[i]))
		case !there[i]:
			r.rows = append(r.rows, fmt.Sprintf("%d marker", e.name))
			markers++
		}
	}
	if markers != res.Markers {
		r.rows = append(r.rows, fmt.Sprintf("%d markers counted, %d left out", res.Markers, markers))
	}
}

// restore replaces the source by one that was given its state. A delta is
// merged into the full snapshot before it.
func (r *rig) restore(splits []int, kept *savedState, delta bool) error {
	if err := r.flush(); err != nil {
		return err
	}
	if err := kept.take(r.src, delta); err != nil {
		return err
	}
	fresh := NewSource(r.cfg, splits, r.pool)
	if err := kept.give(fresh, r.pool); err != nil {
		return err
	}
	if fresh.Now() != r.src.Now() {
		return fmt.Errorf("restored %+v, was %+v", fresh.Now(), r.src.Now())
	}
	r.src = fresh
	return nil
}

// savedState keeps the rows of snapshots by identity, as text.
type savedState struct {
	splits  map[string][]any
	devices map[string][]any
}

func (s *savedState) take(src *Source, delta bool) error {
	tables := src.StateTables()
	s.splits = map[string][]any{}
	if !delta || s.devices == nil {
		s.devices = map[string][]any{}
	}
	return src.Snapshot(delta, func(table int, b *batch.Batch) error {
		if err := b.Check(); err != nil {
			return err
		}
		if b.Schema != tables[table].Schema {
			return fmt.Errorf("table %d: foreign schema", table)
		}
		for i := range b.Rows {
			var row []any
			for _, c := range b.Cols {
				row = append(row, valueAt(c, i))
			}
			into, id := s.splits, fmt.Sprint(row[:1])
			if table == deviceTable {
				into, id = s.devices, fmt.Sprintf("%q", row[:2])
			}
			if b.Kinds != nil && b.Kinds[i] == batch.Delete {
				if _, there := into[id]; !there {
					return fmt.Errorf("deletes %s, which no snapshot holds", id)
				}
				delete(into, id)
				continue
			}
			into[id] = row
		}
		return nil
	})
}

func (s *savedState) give(src *Source, pool *batch.Pool) error {
	for table, rows := range []map[string][]any{s.splits, s.devices} {
		bl := batch.NewBuilder(pool, src.StateTables()[table].Schema)
		for _, row := range rows {
			for c, v := range row {
				switch v := v.(type) {
				case int64:
					bl.SetInt(c, v)
				case bool:
					bl.SetBool(c, v)
				case string:
					bl.SetString(c, v)
				}
			}
			bl.EndRow(0)
		}
		if b := bl.Take(); b != nil {
			err := src.Restore(table, b)
			b.Release()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func valueAt(c *batch.Column, i int) any {
	if c.IsNull(i) {
		return nil
	}
	switch c.Type {
	case batch.Boolean:
		return c.Bits.Get(i)
	case batch.Bytes, batch.String:
		return string(c.At(i))
	}
	return c.Ints[i]
}

func drawConfig(t *rapid.T) Config {
	return Config{
		Strategy:     rapid.SampledFrom([]Strategy{Punctuated, Punctuated, Punctuated, Bounded, Bounded, Ascending, Ingestion, None}).Draw(t, "strategy"),
		Bound:        dataflow.Duration(rapid.IntRange(0, 5).Draw(t, "bound")),
		KeepMarker:   rapid.Bool().Draw(t, "keep"),
		PerDevice:    rapid.Bool().Draw(t, "per"),
		Per:          rapid.SampledFrom([]string{"", "d string"}).Draw(t, "by"),
		IdleAfter:    dataflow.Duration(rapid.SampledFrom([]int{3, 10, 0}).Draw(t, "idle")),
		MaxAhead:     dataflow.Duration(rapid.SampledFrom([]int{0, 0, 8}).Draw(t, "ahead")),
		MarkArrivals: rapid.Bool().Draw(t, "arrivals"),
	}
}

// drawEvents makes the history of some splits, some of which have a clock.
func drawEvents(t *rapid.T, splits int) []event {
	clocks := make([]dataflow.Time, splits)
	for i := range clocks {
		if rapid.IntRange(0, 4).Draw(t, "no clock") == 0 {
			clocks[i] = minT
		}
	}
	names := []string{"", "a", "b", "c", "d", "from eight on", strings.Repeat("a long name ", 4), strings.Repeat("a long name ", 4) + "2"}
	var events []event
	for i := range rapid.IntRange(1, 200).Draw(t, "events") {
		e := event{kind: "row", split: rapid.IntRange(0, splits-1).Draw(t, "split"), name: i}
		if c := &clocks[e.split]; *c != minT {
			*c += dataflow.Time(rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 4, 12}).Draw(t, "step"))
			e.arrival = *c
			if rapid.IntRange(0, 15).Draw(t, "odd") == 0 {
				e.arrival = max(0, e.arrival-3) // the clock may not go back
			}
		} else {
			e.arrival = minT
			if rapid.IntRange(0, 60).Draw(t, "starts") == 0 {
				*c = 0
			}
		}
		switch k := rapid.IntRange(0, 39).Draw(t, "kind"); {
		case k < 6:
			e.kind = "tick"
		case k == 6:
			e.kind = "deaf"
		case k < 9:
			e.kind = "hearing"
		case k == 9 && rapid.IntRange(0, 3).Draw(t, "end") == 0:
			e.kind = "end"
		default:
			near := max(0, e.arrival)
			e.time = near + dataflow.Time(rapid.IntRange(-10, 12).Draw(t, "time"))
			e.timeless = rapid.IntRange(0, 20).Draw(t, "timeless") == 0
			e.marker = rapid.IntRange(0, 2).Draw(t, "marker") == 0
			e.at = near + dataflow.Time(rapid.IntRange(-10, 12).Draw(t, "at"))
			if rapid.IntRange(0, 50).Draw(t, "never") == 0 {
				e.at = maxT
			}
			e.atNull = rapid.IntRange(0, 20).Draw(t, "at null") == 0
			e.device = rapid.SampledFrom(names).Draw(t, "device")
		}
		events = append(events, e)
	}
	return events
}

// TestSourceIsTheModel: whatever the batch size, and wherever it is cut and
// restored, a source says what the model says.
func TestSourceIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		splits := rapid.SampledFrom([][]int{{4}, {4}, {7, 2}, {1, 0, 9}}).Draw(t, "splits")
		events := drawEvents(t, len(splits))
		m := newModel(cfg, len(splits))
		for _, e := range events {
			m.do(e)
		}
		want := tidy(m.stream, cfg.MarkArrivals)
		for _, size := range []int{1, 7, batch.MaxRows} {
			r := newRig(cfg, splits, size)
			r.hash = rapid.Bool().Draw(t, "hash")
			cuts := rapid.SampledFrom([]int{0, 0, 5, 20}).Draw(t, "cuts")
			kept, taken := &savedState{}, 0
			for i, e := range events {
				if cuts > 0 && i%cuts == cuts-1 {
					if err := r.restore(splits, kept, taken%3 != 0); err != nil {
						t.Fatalf("size %d, event %d: %v", size, i, err)
					}
					taken++
				}
				if err := r.do(e); err != nil {
					t.Fatalf("size %d, event %d: %v", size, i, err)
				}
			}
			if err := r.flush(); err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			if got := tidy(r.stream, cfg.MarkArrivals); !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v size %d cuts %d\ngot  %q\nwant %q\n%s", cfg, size, cuts, got, want, history(events))
			}
			if !reflect.DeepEqual(r.rows, m.rows) {
				t.Fatalf("size %d\ngot  %q\nwant %q", size, r.rows, m.rows)
			}
			if r.src.Now() != m.now() {
				t.Fatalf("size %d: now %+v, model %+v", size, r.src.Now(), m.now())
			}
			checkBooks(t, r.src, m)
		}
	})
}

// history prints events one a line.
func history(events []event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%+v\n", e)
	}
	return b.String()
}

// checkBooks: what is kept is bounded by the devices that are there.
func checkBooks(t *rapid.T, s *Source, m *model) {
	live := 0
	for _, sp := range m.splits {
		live += len(sp.devices)
	}
	if s.devices == nil {
		return
	}
	if s.Devices() != live {
		t.Fatalf("%d devices, model %d", s.Devices(), live)
	}
	if l := s.devices.counted.levels; len(l) > 0 && len(l[0])*fan >= len(s.devices.slots)+fan {
		t.Fatalf("%d groups for %d slots", len(l[0]), len(s.devices.slots))
	}
}

// TestStateNeedsItsOwnSplitsOnly: a subtask that is given everybody's rows takes
// those of its splits, and the watermark that its stream had least reached.
func TestStateNeedsItsOwnSplitsOnly(t *testing.T) {
	pool := batch.NewPool(0, nil)
	cfg := Config{Strategy: Ascending}
	one, two := NewSource(cfg, []int{0, 1}, pool), NewSource(cfg, []int{2}, pool)
	for split, at := range []dataflow.Time{11, 21} {
		assignTimes(one, split, pool, at)
	}
	assignTimes(two, 0, pool, 31)
	wider := NewSource(cfg, []int{1, 2, 3}, pool)
	for _, src := range []*Source{two, one} {
		err := src.Snapshot(false, func(table int, b *batch.Batch) error { return wider.Restore(table, b) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if w := wider.Now().Watermark; w != 10 {
		t.Errorf("restored at %d, want 10, the least of 10 and 30", w)
	}
	// Split 3 is new: it starts at 10 and holds there.
	assignTimes(wider, 0, pool, 41)
	if w := wider.Now().Watermark; w != 10 {
		t.Errorf("after split 1 at 41: %d, want 10", w)
	}
	assignTimes(wider, 2, pool, 51)
	if w := wider.Now().Watermark; w != 30 {
		t.Errorf("after split 3 at 51: %d, want 30", w)
	}
}

func assignTimes(s *Source, split int, pool *batch.Pool, times ...dataflow.Time) {
	bl := batch.NewBuilder(pool, deviceSchema())
	for _, at := range times {
		bl.EndRow(at)
	}
	b := bl.Take()
	defer b.Release()
	s.Assign(split, b, Rows{})
}

var _ interface {
	StateTables() []operator.StateTable
	Snapshot(bool, func(int, *batch.Batch) error) error
	Restore(int, *batch.Batch) error
} = (*Source)(nil)
