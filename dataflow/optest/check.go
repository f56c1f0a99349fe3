package optest

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Case is one operator on one input.
type Case struct {
	Factory operator.Factory
	Input   Stream

	// Want is what the main stream must be, in the notation of Parse. Empty:
	// only that all ways agree. "none": nothing at all.
	Want string
	// WantSide is the same for side streams; marks do not travel there.
	WantSide map[operator.Side]string
	// WantErr is a part of the error that every way must end with.
	WantErr string
	// WantCounters, if not nil, looks at the counters of each way.
	WantCounters func(operator.Counters) error

	// OrderBy names the columns of the output that make its key: between two
	// marks, rows with equal keys must come in the same order, others need not.
	// Empty: all rows must. Side streams: compared as multisets between runs.
	OrderBy []string
	// HashBy are the columns of the input by which it was partitioned; some ways
	// then give the batches their key hashes, as an exchange does.
	HashBy []int
	// Context, if not nil, is the operator's context; pool and counters are set
	// by the harness.
	Context *operator.Context
	// Backing, if not nil, makes the disk of each operator; the harness has it
	// read when the operator says Need.
	Backing func() Backing
	// Seed varies the random cuts, selections and restores.
	Seed uint64
}

// Backing is an operator's disk and what its driver does with it.
type Backing interface {
	operator.Backing
	Sync(ctx context.Context) error
	Close() error
}

// Result is what an operator made of the input in full batches, for checks of
// the caller's own.
type Result struct {
	Main     Stream
	Sides    [2]Stream
	Counters operator.Counters
	Err      error
}

// A way is one manner of running the same input.
type way struct {
	name    string
	size    int  // elements in a batch; 0: random cuts
	restore int  // snapshot and restore into a fresh operator after so many batches; 0: never
	delta   bool // snapshots are deltas on a base; the operator is replaced only now and then
	refuse  bool // the output refuses every other Emit
	dead    bool // batches have positions that the selection leaves out
	hashed  bool // batches carry key hashes
	deaf    bool // nobody reads the side streams
	keep    bool // keep every emitted batch, and look at the end whether it was changed
}

func ways() []way {
	return []way{
		{name: "in full batches", size: batch.MaxRows, keep: true},
		{name: "row by row", size: 1},
		{name: "row by row, restored after every element", size: 1, restore: 1},
		{name: "by twos, restored from deltas", size: 2, restore: 1, delta: true, hashed: true},
		{name: "with an output that refuses every other batch", size: batch.MaxRows, refuse: true, dead: true},
		{name: "with random cuts, selections and refusals", refuse: true, dead: true, hashed: true},
		{name: "with random cuts, restored, side streams unread", restore: 2, delta: true, dead: true, deaf: true},
	}
}

// Check runs the case in every way and fails the test where the ways differ
// from each other or from what is wanted, where a watermark goes back, where a
// batch is leaked, written to after it was handed on, or emitted after a
// refusal, and where a snapshot is not what the contract says.
func Check(t TB, c Case) Result {
	t.Helper()
	var first Result
	for i, w := range ways() {
		r := run(t, c, w)
		c.compareWanted(t, w, r)
		if i == 0 {
			first = r
			continue
		}
		c.compareRuns(t, w, first, r)
	}
	return first
}

func (c Case) compareWanted(t TB, w way, r Result) {
	t.Helper()
	switch {
	case c.WantErr == "" && r.Err != nil:
		t.Fatalf("%s: %v", w.name, r.Err)
	case c.WantErr != "" && r.Err == nil:
		t.Fatalf("%s: no error, want one with %q", w.name, c.WantErr)
	case c.WantErr != "" && !strings.Contains(r.Err.Error(), c.WantErr):
		t.Fatalf("%s: error %q, want one with %q", w.name, r.Err, c.WantErr)
	}
	if r.Err != nil {
		return
	}
	if c.Want != "" {
		var want Stream
		if c.Want == "none" {
			want.Schema = r.Main.Schema
		} else {
			want = MustParse(t, r.Main.Schema, c.Want)
		}
		if d := diff(want, r.Main, c.keyColumns(t)); d != "" {
			t.Fatalf("%s: main stream: %s", w.name, d)
		}
	}
	for s, text := range c.WantSide {
		schema := c.Factory.Side(s)
		if schema == nil {
			t.Fatalf("the operator has no side stream %v", s)
		}
		if w.deaf {
			continue
		}
		if d := diff(MustParse(t, schema, text), r.Sides[s], nil); d != "" {
			t.Fatalf("%s: side stream %v: %s", w.name, s, d)
		}
	}
	if c.WantCounters != nil {
		if err := c.WantCounters(r.Counters); err != nil {
			t.Fatalf("%s: counters: %v", w.name, err)
		}
	}
}

func (c Case) compareRuns(t TB, w way, a, b Result) {
	t.Helper()
	if a.Err != nil || b.Err != nil {
		return // rows before the error are not delivered exactly; both were compared with WantErr
	}
	if d := diff(a.Main, b.Main, c.keyColumns(t)); d != "" {
		t.Fatalf("%s, main stream differs from that in full batches: %s", w.name, d)
	}
	for s := range a.Sides {
		if a.Sides[s].Schema == nil || w.deaf {
			continue
		}
		all := make([]int, a.Sides[s].Schema.Len())
		for i := range all {
			all[i] = i
		}
		if d := diff(a.Sides[s], b.Sides[s], all); d != "" {
			t.Fatalf("%s, side stream %v differs from that in full batches: %s", w.name, operator.Side(s), d)
		}
	}
	x, y := a.Counters, b.Counters
	x.StateBytes, y.StateBytes = 0, 0
	if x != y {
		t.Fatalf("%s, counters differ from those in full batches:\n got %+v\nwant %+v", w.name, y, x)
	}
}

func (c Case) keyColumns(t TB) []int {
	t.Helper()
	var cols []int
	for _, name := range c.OrderBy {
		i := c.Factory.Output().Index(name)
		if i < 0 {
			t.Fatalf("OrderBy: no column %q in (%v)", name, c.Factory.Output())
		}
		cols = append(cols, i)
	}
	return cols
}

// diff says how got differs from want, or "". Rows with different values in
// the key columns may stand in another order between two marks; nil: none may.
func diff(want, got Stream, keys []int) string {
	a, b := canonical(want, keys), canonical(got, keys)
	n := min(len(a.Elements), len(b.Elements))
	at := -1
	for i := range n {
		if !sameElement(a.Elements[i], b.Elements[i]) {
			at = i
			break
		}
	}
	if at < 0 && len(a.Elements) == len(b.Elements) {
		return ""
	}
	if at < 0 {
		at = n
	}
	return fmt.Sprintf("first difference at element %d\n got %s\nwant %s\n--- got (%d)\n%s--- want (%d)\n%s",
		at, elementAt(b, at), elementAt(a, at), len(b.Elements), clip(b.String()), len(a.Elements), clip(a.String()))
}

func elementAt(s Stream, i int) string {
	if i >= len(s.Elements) {
		return "(nothing)"
	}
	return formatElement(s.Schema, s.Elements[i])
}

// clip keeps failures readable.
func clip(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return s[:most] + "\n…\n"
}

// canonical coalesces the marks of s and sorts the rows between two marks by
// key, stably.
func canonical(s Stream, keys []int) Stream {
	out := s.Coalesced()
	if len(keys) == 0 {
		return out
	}
	for from := 0; from < len(out.Elements); {
		to := from
		for to < len(out.Elements) && out.Elements[to].Row != nil {
			to++
		}
		rows := out.Elements[from:to]
		sort.SliceStable(rows, func(i, j int) bool { return rowKey(rows[i].Row, keys) < rowKey(rows[j].Row, keys) })
		from = to + 1
	}
	return out
}

func rowKey(r *Row, keys []int) string {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(formatValue(r.Values[k]))
		b.WriteByte(0)
	}
	return b.String()
}

func sameElement(a, b Element) bool {
	if a.Row == nil || b.Row == nil {
		return a.Row == nil && b.Row == nil && a.Mark == b.Mark
	}
	if a.Row.Time != b.Row.Time || a.Row.Kind != b.Row.Kind {
		return false
	}
	for i, v := range a.Row.Values {
		if !sameValue(v, b.Row.Values[i]) {
			return false
		}
	}
	return true
}

// sameValue compares doubles within 1e-9 of their size: sums may be formed in
// another order.
func sameValue(a, b any) bool {
	x, ok := a.(float64)
	if !ok {
		return a == b
	}
	y, ok := b.(float64)
	if !ok {
		return false
	}
	if x == y || math.IsNaN(x) && math.IsNaN(y) {
		return true
	}
	return math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y), 1)
}
