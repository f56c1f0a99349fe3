package sensortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
)

// Table is a transactional sink in memory, for tests of what is around sinks: a
// real one, which passes the Transactional suite. What is committed to it
// outlives its writers, as a file does. Any goroutine may call it; a writer
// belongs to one.
type Table struct {
	name   string
	encode func(dst []byte, b *batch.Batch, pos int) []byte

	mu      sync.Mutex // guards what follows
	targets map[string][]string
	commits int
	fail    func(op string) error
}

// NewTable makes an empty one whose rows are what encode makes of them.
func NewTable(name string, encode func(dst []byte, b *batch.Batch, pos int) []byte) *Table {
	return &Table{name: name, encode: encode, targets: make(map[string][]string)}
}

// Rows is what is committed: target by target, each in order.
func (t *Table) Rows() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, len(t.targets))
	for n := range t.targets {
		names = append(names, n)
	}
	slices.Sort(names)
	var out []string
	for _, n := range names {
		out = append(out, t.targets[n]...)
	}
	return out
}

// Commits counts those that made rows visible.
func (t *Table) Commits() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.commits
}

// Fail sets what each later "write", "prepare", "commit" and "recover" asks
// first: an error stops it before it has done anything. nil: nothing fails.
func (t *Table) Fail(f func(op string) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fail = f
}

func (t *Table) ask(op string) error {
	t.mu.Lock()
	f := t.fail
	t.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op)
}

// replace makes the rows of a target from at on be rows; fewer than at: error.
func (t *Table) replace(target string, at int64, rows []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := t.targets[target]
	if int64(len(have)) < at {
		return fmt.Errorf("table %s has %d rows, but %d were committed", target, len(have), at)
	}
	if len(rows) > 0 {
		t.commits++
	}
	t.targets[target] = append(have[:at:at], rows...)
	return nil
}

// Writer makes the writer of a subtask. A new process would make a new one.
func (t *Table) Writer(subtask, parallelism int) sensors.Transactional {
	return &tableWriter{t: t, target: t.target(subtask, parallelism), subtask: subtask, parallelism: parallelism, trans: pending.NewTransactions(1)}
}

func (t *Table) target(subtask, parallelism int) string {
	if parallelism == 1 {
		return t.name
	}
	return fmt.Sprintf("%s-%d", t.name, subtask)
}

type tableWriter struct {
	t                    *Table
	target               string
	subtask, parallelism int
	recovered, closed    bool

	trans     *pending.Transactions
	committed int64
	rows      []string // behind committed
	buf       []byte
	carried   map[string]tableRecord // targets that nobody writes any more
}

type tableRecord struct {
	Length int64 `json:"length"`
	Next   int64 `json:"next"`
}

func (w *tableWriter) usable(ctx context.Context, op string) error {
	if w.closed {
		return errors.New("table: closed")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.t.ask(op)
}

func (w *tableWriter) Write(ctx context.Context, b *batch.Batch) error {
	if err := w.usable(ctx, "write"); err != nil {
		return err
	}
	for k := range b.Len() {
		w.buf = w.t.encode(w.buf[:0], b, b.Position(k))
		w.rows = append(w.rows, string(w.buf))
	}
	return nil
}

func (w *tableWriter) Prepare(id dataflow.CheckpointID, full bool, emit func(sensors.Pending) error) error {
	if err := w.usable(context.Background(), "prepare"); err != nil {
		return err
	}
	names := make([]string, 0, len(w.carried))
	for n := range w.carried {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := emit(sensors.Pending{Target: n, Data: encodeJSON(w.carried[n])}); err != nil {
			return err
		}
	}
	end := w.committed + int64(len(w.rows))
	if w.trans.End(w.committed) < end {
		w.trans.Add(end, 0)
	}
	own := encodeJSON(tableRecord{Length: w.committed, Next: w.trans.Next()})
	return w.trans.Prepare(id, full, w.target, own, func(p pending.Piece, begin int64) ([]byte, error) {
		return encodeJSON(w.rows[begin-w.committed : p.End-w.committed]), nil
	}, w.committed, emit)
}

func (w *tableWriter) CommitThrough(ctx context.Context, id dataflow.CheckpointID) error {
	if err := w.usable(ctx, "commit"); err != nil {
		return err
	}
	done := w.trans.Through(id)
	if len(done) == 0 {
		return nil
	}
	return w.commit(done[len(done)-1].End, len(done))
}

func (w *tableWriter) commit(to int64, pieces int) error {
	n := to - w.committed
	if err := w.t.replace(w.target, w.committed, w.rows[:n]); err != nil {
		return err
	}
	w.committed, w.rows = to, w.rows[n:]
	w.trans.Commit(w.target, pieces)
	return nil
}

func (w *tableWriter) Commit(ctx context.Context) error {
	if err := w.usable(ctx, "commit"); err != nil {
		return err
	}
	return w.commit(w.committed+int64(len(w.rows)), 0)
}

func (w *tableWriter) Recover(ctx context.Context, held []sensors.Pending, owns func(string) bool) error {
	if err := w.usable(ctx, "recover"); err != nil {
		return err
	}
	if w.recovered || len(w.rows) > 0 {
		return errors.New("table: Recover comes once, before the first Write")
	}
	w.recovered, w.carried = true, make(map[string]tableRecord)
	current := make(map[string]bool)
	for i := range w.parallelism {
		current[w.t.target(i, w.parallelism)] = true
	}
	for i := 0; i < len(held); {
		target := held[i].Target
		var r tableRecord
		if err := json.Unmarshal(held[i].Data, &r); err != nil || held[i].Piece != 0 {
			return fmt.Errorf("table %s: no record: %w", target, err)
		}
		var rows []string
		mine := target == w.target || !current[target] && owns(target)
		if target == w.target {
			w.trans = pending.NewTransactions(r.Next)
		}
		for i++; i < len(held) && held[i].Target == target; i++ {
			var more []string
			if err := json.Unmarshal(held[i].Data, &more); err != nil {
				return fmt.Errorf("table %s: piece %d: %w", target, held[i].Piece, err)
			}
			rows = append(rows, more...)
			if mine {
				w.trans.Gone(target, held[i].Piece)
			}
		}
		if !mine {
			continue
		}
		if err := w.t.replace(target, r.Length, rows); err != nil {
			return err
		}
		if target == w.target {
			w.committed = r.Length + int64(len(rows))
		} else {
			w.carried[target] = tableRecord{Length: r.Length + int64(len(rows)), Next: r.Next}
		}
	}
	if w.committed == 0 { // begun anew
		return w.t.replace(w.target, 0, nil)
	}
	return nil
}

func (w *tableWriter) Close() error {
	w.closed = true
	return nil
}

func encodeJSON(v any) []byte {
	var s strings.Builder
	if err := json.NewEncoder(&s).Encode(v); err != nil {
		panic(err) // numbers and strings always can
	}
	return []byte(s.String())
}
