package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// runCheckpointSome and runCheckpointAll dirty 1 % and all of the keys between
// checkpoints.
func runCheckpointSome(ctx context.Context, o Options) ([]Figure, error) {
	f, err := runCheckpoint(ctx, o, "1", 100, 3)
	if err != nil {
		return nil, err
	}
	limit := func(f *Figure, bar float64, ok bool) { f.Bar, f.OK = &bar, ok }
	limit(&f[0], 20, f[0].Value <= 20)
	limit(&f[1], 90, f[1].Value >= 90)
	return f, nil
}

func runCheckpointAll(ctx context.Context, o Options) ([]Figure, error) {
	return runCheckpoint(ctx, o, "100", 1, 3)
}

// runCheckpoint runs a job with a million keys, in turn with checkpoints and
// without. Its window never ends, and its rows go round one of so many sets of
// keys between two checkpoints.
func runCheckpoint(ctx context.Context, o Options, id string, sets, intervals int) (figures []Figure, err error) {
	keys := o.scaled(1_000_000, 3*batch.MaxRows) * 20 / 19 // a twentieth never passes the filter
	in := makeInput(shape{rows: keys, keys: keys, perSecond: 1_000_000, draw: inTurn})
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	perSet := max(1, (len(in.batches)+sets-1)/sets)
	j := &job{window: tumbling(dataflow.Day), time: punctuatedTime()}
	e, err := openEndless(j, in, perSet, dir, dataflow.Duration(o.scaled(int(dataflow.Second), int(20*dataflow.Millisecond))))
	if err != nil {
		return nil, fmt.Errorf("bench checkpoint: %w", err)
	}
	defer func() { err = errors.Join(err, e.close()) }()
	o.progress("checkpoint/%s: making %d keys", id, keys)
	if err := e.load(ctx, len(in.batches)/perSet); err != nil {
		return nil, fmt.Errorf("bench checkpoint: %w", err)
	}
	var m checkpointed
	rounds := o.rounds(3)
	for round := range rounds {
		o.progress("checkpoint/%s: round %d of %d", id, round+1, rounds)
		if err := m.round(ctx, e, intervals); err != nil {
			return nil, fmt.Errorf("bench checkpoint: %w", err)
		}
	}
	return m.figures(id), nil
}

// checkpointed is what the rounds measured.
type checkpointed struct {
	with, without, longest []float64 // by round: ns of processor a row, ms
	pauses, took, size     []float64 // by checkpoint: ms, ms, MB
}

// round is one of each side, after a checkpoint that takes in what changed
// before it.
func (m *checkpointed) round(ctx context.Context, e *endless, intervals int) error {
	if _, _, _, err := e.stretch(ctx, 1, 0); err != nil {
		return err
	}
	w, rows, taken, err := e.stretch(ctx, intervals, 0)
	if err != nil {
		return err
	}
	none, noneRows, _, err := e.stretch(ctx, 0, intervals)
	if err != nil {
		return err
	}
	m.with = append(m.with, float64(w.cpu.Nanoseconds())/float64(rows))
	m.without = append(m.without, float64(none.cpu.Nanoseconds())/float64(noneRows))
	longest := 0.0
	for _, c := range taken {
		ms := float64(c.Pause) / float64(time.Millisecond)
		m.pauses, longest = append(m.pauses, ms), max(longest, ms)
		m.took, m.size = append(m.took, float64(c.Took.Go())/float64(time.Millisecond)), append(m.size, float64(c.Bytes)/(1<<20))
	}
	m.longest = append(m.longest, longest)
	return nil
}

func (m *checkpointed) figures(id string) []Figure {
	pause := Figure{ID: "checkpoint/pause-" + id, Value: median(m.longest), Unit: "ms", Better: "lower", OK: true}
	pause.Note = fmt.Sprintf("of %d checkpoints in %d rounds: longest %.1f ms, median %.1f ms; one took %.0f ms and wrote %.1f MB",
		len(m.pauses), len(m.longest), slices.Max(m.pauses), median(m.pauses), median(m.took), median(m.size))
	with, without := median(m.with), median(m.without)
	rate := Figure{ID: "checkpoint/rate-" + id, Value: 100 * without / with, Unit: "%", Better: "higher", OK: true}
	rate.Note = fmt.Sprintf("%.1f ns of processor a row with a checkpoint a second, %.1f without", with, without)
	return []Figure{pause, rate}
}
