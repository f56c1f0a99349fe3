package task

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

var numbers = batch.MustSchema(batch.Field{Name: "v", Type: batch.Bigint})

// sum adds up a column; its state is the total.
type sum struct {
	operator.OneShot
	pool  *batch.Pool
	total int64
}

type sumFactory struct{ made *[]*sum }

func (f sumFactory) Output() *batch.Schema            { return numbers }
func (f sumFactory) Side(operator.Side) *batch.Schema { return nil }
func (f sumFactory) New() operator.Operator           { s := &sum{}; *f.made = append(*f.made, s); return s }
func (s *sum) Open(ctx *operator.Context) error       { s.pool = ctx.Pool; return nil }
func (s *sum) StateTables() []operator.StateTable {
	return []operator.StateTable{{Name: "total", Schema: numbers}}
}
func (s *sum) Restore(_ int, b *batch.Batch) error { s.total = b.Cols[0].Ints[0]; return nil }
func (s *sum) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	for k := range b.Len() {
		s.total += b.Cols[0].Ints[b.Position(k)]
	}
	out.Emit(b)
	return operator.Done, nil
}

func (s *sum) Snapshot(_ bool, emit func(int, *batch.Batch) error) error {
	bl := batch.NewBuilder(s.pool, numbers)
	bl.SetInt(0, s.total)
	bl.EndRow(0)
	b := bl.Take()
	defer b.Release()
	return emit(0, b)
}

// network holds what is on its way to a task, channel by channel, and delivers
// in a given order: what is sent on a blocked channel waits, and goes first
// when the channel opens.
type network struct {
	t        *testing.T
	task     *Task
	pool     *batch.Pool
	blocked  map[int]bool
	waiting  map[int][]Input
	snapshot map[uint64]int64
	log      strings.Builder
}

func newNetwork(t *testing.T, channels int, atLeastOnce bool, restored int64) (*network, *sum) {
	pool := batch.NewPool(0, nil)
	var made []*sum
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "sum"}, Parallelism: 1, MaxParallelism: 128, Pool: pool, Channels: channels, AtLeastOnce: atLeastOnce,
		Links: []LinkConfig{{ID: "sum", Factory: sumFactory{&made}, Parent: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, task: task, pool: pool, blocked: map[int]bool{}, waiting: map[int][]Input{}, snapshot: map[uint64]int64{}}
	if restored != 0 {
		b := n.number(restored)
		if err := task.Restore("sum", "total", b); err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	return n, made[0]
}

func (n *network) number(v int64) *batch.Batch {
	bl := batch.NewBuilder(n.pool, numbers)
	bl.SetInt(0, v)
	bl.EndRow(0)
	return bl.Take()
}

// send is "A1", "B|" (a barrier of checkpoint 1) or "A." (the end).
func (n *network) send(what string) {
	c := int(what[0] - 'A')
	in := Input{Channel: c}
	switch what[1:] {
	case "|":
		in.Kind, in.Barrier = Barrier, barrier(1)
	case ".":
		in.Kind = End
	default:
		var v int64
		if _, err := fmt.Sscan(what[1:], &v); err != nil {
			n.t.Fatal(err)
		}
		in.Kind, in.Batch = Data, n.number(v)
	}
	n.waiting[c] = append(n.waiting[c], in)
	n.deliver(c)
}

func (n *network) deliver(c int) {
	for len(n.waiting[c]) > 0 && !n.blocked[c] {
		in := n.waiting[c][0]
		n.waiting[c] = n.waiting[c][1:]
		n.perform(n.task.Step(in))
	}
}

func (n *network) perform(effects []Effect) {
	var open []int
	for _, e := range effects {
		switch e.Kind {
		case Block:
			n.blocked[e.Channel] = true
		case Unblock:
			n.blocked[e.Channel] = false
			open = append(open, e.Channel)
		case Snapshot:
			n.snapshot[e.Barrier.ID.Counter] = total(e.State)
		case Fail:
			n.t.Fatal(e.Err)
		}
		if e.Kind != Send && e.Kind != Write {
			fmt.Fprintf(&n.log, "%v ", e.Kind)
		}
	}
	for _, c := range open {
		n.deliver(c)
	}
}

func TestE49_AlignmentOfTwoInputs(t *testing.T) {
	arrivals := strings.Fields("A1 B10 A| A2 B20 A3 B| B30")
	for _, c := range []struct {
		name        string
		atLeastOnce bool
		snapshot    int64
		final       int64
		effects     string
	}{
		{"aligned exactly-once", false, 31, 66, "block snapshot barrier unblock "},
		{"at-least-once", true, 36, 71, "snapshot barrier "},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, before := newNetwork(t, 2, c.atLeastOnce, 0)
			for _, a := range arrivals {
				n.send(a)
			}
			if got := n.snapshot[1]; got != c.snapshot {
				t.Errorf("snapshot holds %d, want %d", got, c.snapshot)
			}
			if before.total != 66 {
				t.Errorf("without a crash the sum is %d, want 66", before.total)
			}
			if got := n.log.String(); got != c.effects {
				t.Errorf("effects %q, want %q", got, c.effects)
			}
			// After a crash A is read again from 2, B from 30.
			n, after := newNetwork(t, 2, c.atLeastOnce, c.snapshot)
			for _, a := range strings.Fields("A2 A3 B30 A. B.") {
				n.send(a)
			}
			if after.total != c.final {
				t.Errorf("after the crash the sum is %d, want %d", after.total, c.final)
			}
			if got := n.log.String(); got != "end finished " {
				t.Errorf("effects after the restart %q", got)
			}
		})
	}
}

// total is the sum's state; what else is in a snapshot is released.
func total(rows []StateRows) (v int64) {
	for _, s := range rows {
		if s.Table == "total" {
			v = s.Batch.Cols[0].Ints[0]
		}
		s.Batch.Release()
	}
	return v
}
