package restore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// events has one column, the key.
func events() *batch.Schema { return batch.MustSchema(batch.Field{Name: "k", Type: batch.String}) }

// counts is a running count by key.
func counts(t *testing.T) *window.Factory {
	t.Helper()
	f, err := window.NewFactory(window.Spec{Form: window.Running, Keys: []int{0}, Input: events(),
		Aggregates: []window.Aggregate{{Name: "n", Func: window.CountRows}}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// stage is one operator in all its subtasks, fed by key.
type stage struct {
	t    *testing.T
	pool *batch.Pool
	max  int
	ops  []operator.Operator
	out  last
}

func newStage(t *testing.T, f operator.Factory, parallelism, max int) *stage {
	s := &stage{t: t, pool: batch.NewPool(0, nil), max: max}
	for i := range parallelism {
		op := f.New()
		err := op.Open(&operator.Context{Operator: "c", Subtask: i, Parallelism: parallelism, MaxParallelism: max,
			KeyGroups: dataflow.RangeOf(i, parallelism, max), Pool: s.pool, Counters: &operator.Counters{}})
		if err != nil {
			t.Fatal(err)
		}
		s.ops = append(s.ops, op)
	}
	return s
}

// last keeps the last row of a stage's output.
type last struct{ n int64 }

func (l *last) Emit(b *batch.Batch) bool {
	for k := range b.Len() {
		l.n = b.Cols[1].Ints[b.Position(k)]
	}
	return true
}
func (l *last) EmitSide(operator.Side, *batch.Batch) bool { return true }
func (l *last) Wanted(operator.Side) bool                 { return false }

// next is the count that one more event of the key makes.
func (s *stage) next(key string) int64 {
	bl := batch.NewBuilder(s.pool, events())
	bl.SetBytes(0, []byte(key))
	bl.EndRow(0)
	b := bl.Take()
	defer b.Release()
	state.HashKeys(b, []int{0})
	op := s.ops[dataflow.SubtaskOf(dataflow.KeyGroupOf(b.Hashes[0], s.max), len(s.ops), s.max)]
	p, err := op.Process(b, &s.out)
	for err == nil && p == operator.More {
		p, err = op.Resume(&s.out)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return s.out.n
}

// shelf holds parts by their place.
type shelf map[store.Digest][]byte

// save is the stage's state as one operator of a manifest.
func (s *stage) save(id dataflow.OperatorID, parts shelf) manifest.Operator {
	m := manifest.Operator{ID: id, Parallelism: len(s.ops)}
	for i, tab := range s.ops[0].StateTables() {
		m.Tables = append(m.Tables, manifest.Table{Name: tab.Name, Schema: avro.SchemaOf(tab.Name, tab.Schema, tab.Keyed), Keyed: tab.Keyed, Spread: uint8(tab.Spread), Identity: tab.Identity})
		for sub, op := range s.ops {
			var part bytes.Buffer
			w := avro.NewWriter(&part, avro.Header{Table: tab.Name, Schema: tab.Schema, Keyed: tab.Keyed})
			err := op.Snapshot(false, func(table int, b *batch.Batch) error {
				if table == i {
					return w.Append(b)
				}
				return nil
			})
			if err = errors.Join(err, w.Close()); err != nil {
				s.t.Fatal(err)
			}
			use := manifest.PartUse{Rows: w.Rows()}
			use.Digest[0], use.Digest[1] = byte(i), byte(sub)
			parts[use.Digest] = part.Bytes()
			m.Tables[i].Shards = append(m.Tables[i].Shards, manifest.Shard{Subtask: sub, Parts: []manifest.PartUse{use}})
		}
	}
	return m
}

// restore gives the stage what the plan says.
func (s *stage) restore(o *restore.OperatorPlan, parts shelf) {
	for i, tab := range s.ops[0].StateTables() {
		for sub, op := range s.ops {
			for _, share := range o.Shares(tab.Name, sub, nil) {
				rd, err := avro.NewReader(bytes.NewReader(parts[share.Parts[0].Digest]), s.pool)
				if err == nil {
					err = rd.ResolveTo(o.Tables[i].Reader, tab.Schema)
				}
				for first := int64(0); err == nil; {
					var b *batch.Batch
					if b, err = rd.Next(); err != nil {
						break
					}
					rows := int64(b.Len())
					if share.Filter(b, first) > 0 {
						err = op.Restore(i, b)
					}
					first += rows
					b.Release()
				}
				if !errors.Is(err, io.EOF) {
					s.t.Fatal(err)
				}
			}
		}
	}
}

// restarted is a count of five events of each key, saved as operator "c" and
// restored by a job in which the counter is o; nil if that is refused.
func restarted(t *testing.T, from int, o restore.Operator, allow bool) *stage {
	t.Helper()
	old := newStage(t, counts(t), from, 128)
	for range 5 {
		for k := range 40 {
			old.next(fmt.Sprint("a", k))
		}
	}
	parts := shelf{}
	m := &manifest.Manifest{Kind: manifest.Savepoint, Name: "sp-1", Job: "j", MaxParallelism: 128, Operators: []manifest.Operator{old.save("c", parts)}}
	now := newStage(t, counts(t), o.Parallelism, 128)
	o.Role = graph.StepNode
	for _, tab := range now.ops[0].StateTables() {
		o.Tables = append(o.Tables, restore.Table{StateTable: tab})
	}
	ops := []restore.Operator{{ID: "in", Role: graph.SourceNode, Parallelism: 1}, {ID: "map", Role: graph.StepNode, Parallelism: 1}, o}
	if o.ID == "" {
		ops = ops[:2]
	}
	r := restore.Check(m, restore.Job{Name: "j", MaxParallelism: 128, Operators: ops}, restore.Options{AllowNonRestored: allow})
	if !r.OK {
		return nil
	}
	if plan := r.Plan().Operator(o.ID); plan != nil {
		now.restore(plan, parts)
	}
	return now
}

func TestE56_RenamedOperator(t *testing.T) {
	if restarted(t, 1, restore.Operator{ID: "c2", Parallelism: 1}, false) != nil {
		t.Error("state without an operator was let go")
	}
	if n := restarted(t, 1, restore.Operator{ID: "c2", Parallelism: 1}, true).next("a7"); n != 1 {
		t.Errorf("allowed: the next event gives %d, want 1", n)
	}
	if n := restarted(t, 1, restore.Operator{ID: "c2", Was: "c", Parallelism: 1}, false).next("a7"); n != 6 {
		t.Errorf("was: c: the next event gives %d, want 6", n)
	}
}

// The map in front is stateless and new.
func TestE57_StatelessStepInFront(t *testing.T) {
	if n := restarted(t, 1, restore.Operator{ID: "c", Parallelism: 1}, false).next("a7"); n != 6 {
		t.Errorf("the next event gives %d, want 6", n)
	}
}

func TestE58_DeletedOperator(t *testing.T) {
	if restarted(t, 1, restore.Operator{Parallelism: 1}, false) != nil {
		t.Error("state without an operator was let go")
	}
	if restarted(t, 1, restore.Operator{Parallelism: 1}, true) == nil {
		t.Error("refused, though allowed")
	}
}

// Counts go on with another parallelism, for each key.
func TestE59_E60_OtherParallelism(t *testing.T) {
	for _, p := range [][2]int{{1, 3}, {2, 3}, {3, 1}, {2, 64}, {2, 2}} {
		s := restarted(t, p[0], restore.Operator{ID: "c", Parallelism: p[1]}, false)
		for k := range 40 {
			if n := s.next(fmt.Sprint("a", k)); n != 6 {
				t.Errorf("%d -> %d: the next event of a%d gives %d, want 6", p[0], p[1], k, n)
			}
		}
	}
	if restarted(t, 2, restore.Operator{ID: "c", Parallelism: 129}, false) != nil {
		t.Error("129 subtasks of 128 key groups")
	}
}
