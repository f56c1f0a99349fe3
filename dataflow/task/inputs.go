package task

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// inputsName is the table of what the merge of the inputs knows: a row for each
// channel that rows may come on. With it a restored watermark never goes back.
const inputsName = "task.inputs"

// Its columns.
const (
	inputEdge    = iota // the stream
	inputFrom           // the upstream subtask
	inputOf             // the upstream parallelism
	inputSubtask        // whose channel it is
	inputAmong          // of how many
	inputWatermark
	inputArrival
	inputIdle
	inputEnded
	inputOut // what the subtask had made of all its inputs
	inputOutArrival
	inputOutIdle
)

func inputsTable() operator.StateTable {
	return operator.StateTable{Name: inputsName, Spread: operator.Union, Schema: batch.MustSchema(
		batch.Field{Name: "edge", Type: batch.String},
		batch.Field{Name: "upstream", Type: batch.Bigint},
		batch.Field{Name: "upstream_parallelism", Type: batch.Bigint},
		batch.Field{Name: "subtask", Type: batch.Bigint},
		batch.Field{Name: "parallelism", Type: batch.Bigint},
		batch.Field{Name: "watermark", Type: batch.Timestamp},
		batch.Field{Name: "arrival", Type: batch.Timestamp},
		batch.Field{Name: "idle", Type: batch.Boolean},
		batch.Field{Name: "ended", Type: batch.Boolean},
		batch.Field{Name: "out_watermark", Type: batch.Timestamp},
		batch.Field{Name: "out_arrival", Type: batch.Timestamp},
		batch.Field{Name: "out_idle", Type: batch.Boolean},
	)}
}

// savedInput is a row of the table.
type savedInput struct {
	edge           string
	from, of       int
	subtask, among int
	in             eventtime.Input
	out            batch.Mark
}

// edges are the configured ones, or the one that stands for all channels.
func (t *Task) edges() []Edge {
	if len(t.cfg.Edges) == 0 {
		return []Edge{{Channels: t.cfg.Channels, Of: t.cfg.Channels}}
	}
	return t.cfg.Edges
}

// checkEdges tells whether the edges are those of the channels.
func (t *Task) checkEdges() {
	n := 0
	for _, e := range t.edges() {
		n += e.Channels
	}
	if n != t.cfg.Channels {
		panic(fmt.Sprintf("task %s: %d channels, its edges have %d", t.cfg.ID, t.cfg.Channels, n))
	}
}

// newMerge makes the merge of the inputs as if the job were new.
func (t *Task) newMerge() {
	t.merge = eventtime.NewMerge(t.cfg.Channels)
	t.endEmpty()
}

// SetEmpty says, before the first Step, on which channels no row will come, where
// Config.Empty could not: what the whole job reads is known only when the tasks
// of all its agents are restored.
func (t *Task) SetEmpty(channels []int) {
	t.cfg.Empty = channels
	t.endEmpty()
}

func (t *Task) endEmpty() {
	for _, c := range t.cfg.Empty {
		t.merge.End(c)
	}
}

// saveInputs emits the table of inputs. Channels on which no row comes are left
// out: if rows come on them another time they go on where the edge stands.
func (t *Task) saveInputs(emit func(*batch.Batch) error) error {
	empty := make([]bool, t.cfg.Channels)
	for _, c := range t.cfg.Empty {
		empty[c] = true
	}
	w := tableWriter{bl: batch.NewBuilder(t.cfg.Pool, t.inputs.Schema), emit: emit}
	out, c := t.merge.Out(), 0
	for _, e := range t.edges() {
		for k := range e.Channels {
			if !empty[c] {
				in := t.merge.Input(c)
				w.bl.SetBytes(inputEdge, []byte(e.Stream))
				w.bl.SetInt(inputFrom, int64(e.First+k))
				w.bl.SetInt(inputOf, int64(e.Of))
				w.bl.SetInt(inputSubtask, int64(t.cfg.ID.Index))
				w.bl.SetInt(inputAmong, int64(t.cfg.Parallelism))
				w.bl.SetInt(inputWatermark, int64(in.Watermark))
				w.bl.SetInt(inputArrival, int64(in.Arrival))
				w.bl.SetBool(inputIdle, in.Idle)
				w.bl.SetBool(inputEnded, in.Ended)
				w.bl.SetInt(inputOut, int64(out.Watermark))
				w.bl.SetInt(inputOutArrival, int64(out.Arrival))
				w.bl.SetBool(inputOutIdle, out.Idle)
				if err := w.next(); err != nil {
					return err
				}
			}
			c++
		}
	}
	return w.flush()
}

// restoreInputs takes rows of the table of inputs back.
func (t *Task) restoreInputs(b *batch.Batch) {
	for k := range b.Len() {
		i := b.Position(k)
		num := func(c int) int { return int(b.Cols[c].Ints[i]) }
		at := func(c int) dataflow.Time { return dataflow.Time(b.Cols[c].Ints[i]) }
		is := func(c int) bool { return b.Cols[c].Bits.Get(i) }
		t.saved = append(t.saved, savedInput{
			edge: string(b.Cols[inputEdge].At(i)), from: num(inputFrom), of: num(inputOf), subtask: num(inputSubtask), among: num(inputAmong),
			in:  eventtime.Input{Watermark: at(inputWatermark), Arrival: at(inputArrival), Idle: is(inputIdle), Ended: is(inputEnded)},
			out: batch.Mark{Watermark: at(inputOut), Arrival: at(inputOutArrival), Idle: is(inputOutIdle)},
		})
	}
}

// ready puts the restored merge together, once, before the first Step.
func (t *Task) ready() {
	saved := t.saved
	t.saved = nil
	out, in := t.savedOut(saved), make([]eventtime.Input, 0, t.cfg.Channels)
	for _, e := range t.edges() {
		for k := range e.Channels {
			in = append(in, t.descended(saved, e, e.First+k))
		}
	}
	t.merge = eventtime.RestoreMerge(out, in)
	t.endEmpty()
}

// mine tells whether a row was this subtask's own, and what it says still holds.
func (t *Task) mine(s *savedInput) bool {
	return !t.moved && s.subtask == t.cfg.ID.Index && s.among == t.cfg.Parallelism
}

// savedOut is the mark that the task goes on from: its own, or the least of all
// subtasks'.
func (t *Task) savedOut(saved []savedInput) (out batch.Mark) {
	first := true
	for i := range saved {
		s := &saved[i]
		switch {
		case t.mine(s):
			return s.out
		case first:
			out, first = s.out, false
		default:
			out.Watermark, out.Arrival = min(out.Watermark, s.out.Watermark), min(out.Arrival, s.out.Arrival)
			out.Idle = out.Idle && s.out.Idle
		}
	}
	return out
}

// Moved tells whether a restored task is fed in another way than before: it is a
// source that reads splits that another of its subtasks read, or none; or it has
// another parallelism, or an upstream operator has.
func (t *Task) Moved() bool {
	if t.source != nil {
		return t.source.moved || t.source.unknown > 0
	}
	for i := range t.saved {
		s := &t.saved[i]
		if s.among != t.cfg.Parallelism {
			return true
		}
		for _, e := range t.edges() {
			if e.Stream == s.edge && e.Of != s.of {
				return true
			}
		}
	}
	return false
}

// SplitsMoved says, before the first Step of a restored task, that some task of
// the job has Moved: then a channel may bring what another one brought, also
// further down, and none goes on from further than all of its edge had come.
func (t *Task) SplitsMoved() { t.moved = true }

// descended is what is known of the channel from an upstream subtask: what its
// own row says; or the least that any subtask knew of that upstream subtask; or,
// when the upstream parallelism has changed or rows come on it for the first
// time or splits have moved, the least of the edge. An edge that is new starts
// at MinTime.
func (t *Task) descended(saved []savedInput, e Edge, from int) eventtime.Input {
	const (
		none = iota
		ofEdge
		ofSubtask
		own
	)
	in, best := eventtime.Input{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}, none
	for i := range saved {
		s := &saved[i]
		if s.edge != e.Stream {
			continue
		}
		level := ofEdge
		if s.of == e.Of && s.from == from && !t.moved {
			level = ofSubtask
			if t.mine(s) {
				level = own
			}
		}
		switch {
		case level > best:
			in, best = s.in, level
		case level == best:
			in = least(in, s.in)
		}
	}
	return in
}

// least is the input that is behind both. One that has ended holds nobody back.
func least(a, b eventtime.Input) eventtime.Input {
	if a.Ended != b.Ended {
		if a.Ended {
			return b
		}
		return a
	}
	return eventtime.Input{Watermark: min(a.Watermark, b.Watermark), Arrival: min(a.Arrival, b.Arrival), Idle: a.Idle && b.Idle, Ended: a.Ended}
}

// tableWriter cuts a table into batches.
type tableWriter struct {
	bl   *batch.Builder
	emit func(*batch.Batch) error
}

func (w *tableWriter) next() error {
	w.bl.EndRow(0)
	if w.bl.Full() {
		return w.flush()
	}
	return nil
}

func (w *tableWriter) flush() error {
	b := w.bl.Take()
	if b == nil {
		return nil
	}
	defer b.Release()
	return w.emit(b)
}
