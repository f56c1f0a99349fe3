package runtime

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// readingsOf is ends whose connectors open: lines of several splits in, rows out.
type readingsOf struct {
	ends
	input map[dataflow.OperatorID]map[string][]string

	mu   sync.Mutex // guards rows
	rows []string
}

func (r *readingsOf) Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	cfg, _, _, err := r.ends.Source(n, subtask)
	return cfg, func() (sensors.Reader, error) {
		splits := r.input[n.ID]
		l := &lineReader{}
		for _, name := range splitsOf(splits, 0, subtask, n.Parallelism) {
			l.splits = append(l.splits, splits[name])
		}
		l.at = make([]int, len(l.splits))
		return l, nil
	}, nil, err
}

func (r *readingsOf) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return &rowWriter{r: r}, nil }, nil
}

// lineReader hands out a few lines of each split in turn.
type lineReader struct {
	splits [][]string
	at     []int
	turn   int
}

func (l *lineReader) Splits() int               { return len(l.splits) }
func (*lineReader) Ack(sensors.Position)        {}
func (*lineReader) Seek(sensors.Position) error { return nil }
func (*lineReader) Close() error                { return nil }

func (l *lineReader) Read(_ context.Context, recs *sensors.Records, _ int) error {
	for range l.splits {
		k := l.turn
		l.turn = (l.turn + 1) % len(l.splits)
		all := l.splits[k]
		if l.at[k] > len(all) {
			continue
		}
		recs.Reset(k)
		recs.First = int64(l.at[k])
		for ; recs.Len() < 3 && l.at[k] < len(all); l.at[k]++ {
			recs.Append([]byte(all[l.at[k]]))
		}
		recs.Next = int64(l.at[k])
		if l.at[k] == len(all) {
			recs.Done = true
			l.at[k]++
		}
		return nil
	}
	return io.EOF
}

type rowWriter struct {
	r    *readingsOf
	rows []string
}

func (w *rowWriter) Write(_ context.Context, b *batch.Batch) error {
	for k := range b.Len() {
		w.rows = append(w.rows, text(b, b.Position(k)))
	}
	return nil
}

func (w *rowWriter) Commit(context.Context) error {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.rows, w.rows = append(w.r.rows, w.rows...), nil
	return nil
}

func (w *rowWriter) Close() error { return nil }

// Whatever part a subtask is in, the windows of a job are those of one process.
func TestPartsMakeTheRowsOfOneProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		input := drawInput(rng)
		run := func(l layout, n int) []string {
			r := &readingsOf{input: input}
			chained, split := rng.IntN(2) == 0, rng.Uint64()
			p := newParts(func() Plan { return schedulePlanOf(t, r, l, chained) }, Options{Now: time.Now, CommitInterval: time.Hour, Memory: 1 << 20, BatchRows: 1 + rng.IntN(5)},
				n, func(id dataflow.SubtaskID) int { return scatter(split, id, n) })
			if err := p.Run(context.Background()); err != nil {
				t.Fatal(err)
			}
			if p.out() != 0 {
				t.Fatalf("%d batches were not released", p.out())
			}
			slices.Sort(r.rows)
			return r.rows
		}
		want := run(layout{"a": 1, "b": 1, "u": 1, "w": 1, "out": 1}, 1)
		l := drawLayout(rng)
		for n := 1; n <= 3; n++ {
			if got := run(l, n); !slices.Equal(got, want) {
				t.Fatalf("%v in %d parts: rows %q\nwant %q", l, n, got, want)
			}
		}
	})
}

// recorder is a chief that hears what commits made of the targets.
type recorder struct {
	*chief
	mu    sync.Mutex // guards heard
	heard []string
}

func (r *recorder) SinksCommitted(s dataflow.SubtaskID, id dataflow.CheckpointID, commits []SinkCommit) {
	r.mu.Lock()
	r.heard = append(r.heard, fmt.Sprint(s, " ", id.Counter, " ", commits[0].Operator, " ", commits[0].Target, " ", commits[0].Length))
	r.mu.Unlock()
	if id.Counter > 0 {
		r.chief.Committed(s, id)
	}
}

func (r *recorder) Taken(s SnapshotTaken) {
	r.mu.Lock()
	r.heard = append(r.heard, fmt.Sprint(s.Subtask, " taken ", s.Barrier.ID.Counter))
	r.mu.Unlock()
	r.chief.Taken(s)
}

// told is a table's writer that counts its commits.
type told struct {
	sensors.Transactional
	n int64
}

func (w *told) CommitThrough(ctx context.Context, id dataflow.CheckpointID) error {
	w.n++
	return w.Transactional.CommitThrough(ctx, id)
}

func (w *told) Commits() []sensors.Commit { return []sensors.Commit{{Target: "table", Length: w.n}} }

// What a sink's targets are is said before the first share of a checkpoint, and
// after each commit, before the share of the next.
func TestCommitsOnRecordComeInOrder(t *testing.T) {
	l := newLanes(1, 40)
	j, c := durableJob(t, l, &world{chains: map[shard][]delta{}}, single, Options{BatchRows: 7})
	r := &recorder{chief: c}
	j.opt.Collector = r
	for i := range j.plan.Subtasks {
		for k, open := range j.plan.Subtasks[i].Writers {
			if open != nil {
				j.plan.Subtasks[i].Writers[k] = func() (sensors.Writer, error) {
					return &told{Transactional: l.table.Writer(0, 1)}, nil
				}
			}
		}
	}
	c.goOn = func(done int) bool { return done < 2 }
	c.start()
	if err := j.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range r.heard {
		if h[:3] == "out" {
			out = append(out, h)
		}
	}
	want := []string{"out/0 0 out table 0"}
	for k := 1; k <= int(c.world.next); k++ {
		want = append(want, fmt.Sprint("out/0 taken ", k), fmt.Sprintf("out/0 %d out table %d", k, k))
	}
	if len(want) < 5 || !slices.Equal(out, want) {
		t.Errorf("heard %q, want %q", out, want)
	}
}
