package runtime

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
)

// world is what outlives a crash: the input and the checkpoints.
type world struct {
	t      *rapid.T
	rng    *rand.Rand
	input  map[dataflow.OperatorID]map[string][]string // records of each split of each source
	next   uint64                                      // checkpoint counter
	done   dataflow.CheckpointID                       // the last that completed
	chains map[shard][]delta
	marks  map[channelName]dataflow.Time     // by channel: its watermark at the last completed checkpoint
	clocks map[dataflow.TaskID]dataflow.Time // the least watermark of each task's subtasks at it
	old    layout                            // of the life that it is of
	rows   []string                          // committed
}

// shard is a subtask's part of a table.
type shard struct {
	op    dataflow.OperatorID
	table string
	index int
}

// delta is what a snapshot added to a chain.
type delta struct {
	id   dataflow.CheckpointID
	full bool
	rows []savedRow
}

type savedRow struct {
	b   *batch.Batch
	pos int
}

// channelName is a channel of any life of the job.
type channelName struct {
	from dataflow.SubtaskID
	to   dataflow.SubtaskID
}

// layout is the parallelism of each operator.
type layout map[dataflow.OperatorID]int

// give hands a subtask its rows of the tables at the last completed checkpoint,
// a few at a time.
func (w *world) give(cfg *task.Config, tables []task.TableOf, to func(dataflow.OperatorID, string, *batch.Batch) error) error {
	pool := batch.NewPool(0, nil)
	for _, table := range tables {
		if !slices.ContainsFunc(cfg.Links, func(l task.LinkConfig) bool { return l.ID == table.Operator }) {
			continue
		}
		var rows []savedRow
		for old := range w.old[table.Operator] {
			for _, r := range w.merged(shard{table.Operator, table.Name, old}, table) {
				own := dataflow.RangeOf(cfg.ID.Index, cfg.Parallelism, cfg.MaxParallelism)
				if !table.Keyed || own.Contains(dataflow.KeyGroupOf(r.b.Hashes[r.pos], cfg.MaxParallelism)) {
					rows = append(rows, r)
				}
			}
		}
		if !table.Keyed && table.Spread != operator.Union {
			return fmt.Errorf("table %q is neither keyed nor a union", table.Name)
		}
		for len(rows) > 0 {
			n := min(len(rows), 3)
			bl := batch.NewBuilder(pool, rows[0].b.Schema)
			for _, r := range rows[:n] {
				bl.Append(r.b, []int32{int32(r.pos)})
			}
			rows = rows[n:]
			b := bl.Take()
			if err := to(table.Operator, table.Name, b); err != nil {
				return err
			}
			b.Release()
		}
	}
	return nil
}

// merged are the rows of a shard at the last completed checkpoint.
func (w *world) merged(s shard, table task.TableOf) []savedRow {
	var rows []savedRow
	for _, d := range w.chains[s] {
		if w.done.Less(d.id) {
			break
		}
		if d.full || table.Identity == 0 {
			rows = nil
		}
		for _, r := range d.rows {
			id := identityOf(r, table.Identity)
			rows = slices.DeleteFunc(rows, func(o savedRow) bool { return table.Identity > 0 && identityOf(o, table.Identity) == id })
			if r.b.Kinds == nil || r.b.Kinds[r.pos] != batch.Delete {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

func identityOf(r savedRow, n int) string {
	var s strings.Builder
	for i := range n {
		c := r.b.Cols[i]
		switch {
		case c.IsNull(r.pos):
			s.WriteString("null|")
		case c.Type.Variable():
			fmt.Fprintf(&s, "%q|", c.At(r.pos))
		default:
			fmt.Fprintf(&s, "%d|", c.Ints[r.pos])
		}
	}
	return s.String()
}

// keep adds a subtask's share of a checkpoint to its chains. whole are operators
// whose rows are all that they have, whatever the barrier says.
func (w *world) keep(index int, b dataflow.Barrier, tables []task.TableOf, state []task.StateRows, whole []dataflow.OperatorID) {
	for _, table := range tables {
		d := delta{id: b.ID, full: b.Full || slices.Contains(whole, table.Operator)}
		for _, s := range state {
			if s.Operator == table.Operator && s.Table == table.Name {
				for k := range s.Batch.Len() {
					d.rows = append(d.rows, savedRow{s.Batch, s.Batch.Position(k)})
				}
			}
		}
		at := shard{table.Operator, table.Name, index}
		w.chains[at] = append(w.chains[at], d)
	}
}

// crash forgets what no completed checkpoint holds.
func (w *world) crash() {
	for s, chain := range w.chains {
		w.chains[s] = slices.DeleteFunc(chain, func(d delta) bool { return w.done.Less(d.id) })
	}
}
