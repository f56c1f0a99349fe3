package runtime

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// pendingName is the table of what a sink has not committed: the pieces of its
// transactional writer.
const pendingName = "task.pending"

// Its columns.
const (
	pendingTarget = iota
	pendingPiece
	pendingData
)

func pendingTable() operator.StateTable {
	return operator.StateTable{Name: pendingName, Spread: operator.Union, Identity: 2, Schema: batch.MustSchema(
		batch.Field{Name: "target", Type: batch.String},
		batch.Field{Name: "piece", Type: batch.Bigint},
		batch.Field{Name: "data", Type: batch.Bytes},
	)}
}

// Tables are the tables of all operators of the job, in the order in which they
// are restored. It may be asked before the job runs.
func (j *Job) Tables() []TableOf {
	var all []TableOf
	for i := range j.plan.Subtasks {
		if cfg := &j.plan.Subtasks[i].Config; cfg.ID.Index == 0 {
			all = append(all, task.TablesOf(cfg)...)
			for _, l := range cfg.Links {
				if l.Sink {
					all = append(all, TableOf{Operator: l.ID, StateTable: pendingTable()})
				}
			}
		}
	}
	return all
}

// restore gives the task its state, the reader its positions and the sinks what
// they had not committed.
func (d *driver) restore(ctx context.Context) error {
	var pending map[dataflow.OperatorID][]sensors.Pending
	if d.job.opt.Restore != nil {
		pending = make(map[dataflow.OperatorID][]sensors.Pending)
		err := d.job.opt.Restore(d.sub.Config.ID, Restored{Expect: d.task.Expect, Give: func(op dataflow.OperatorID, table string, b *batch.Batch) error {
			if table == pendingName {
				pending[op] = appendPending(pending[op], b)
				return nil
			}
			return d.task.Restore(op, table, b)
		}})
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		if err := d.seek(); err != nil {
			return err
		}
	}
	if d.job.opt.Restore == nil && d.job.opt.Collector == nil {
		return nil
	}
	for i, w := range d.writers {
		t, ok := w.(sensors.Transactional)
		if !ok {
			continue
		}
		id := d.sub.Config.Links[i].ID
		p := pending[id]
		sort.Slice(p, func(i, j int) bool {
			return cmp.Or(cmp.Compare(p[i].Target, p[j].Target), cmp.Compare(p[i].Piece, p[j].Piece)) < 0
		})
		d.calling = id
		if err := d.whileFull(ctx, i, func() error { return t.Recover(ctx, p, d.owns) }); err != nil {
			return fmt.Errorf("sink %q: recover: %w", id, err)
		}
	}
	d.calling = ""
	return nil
}

// appendPending copies rows of the table of pending pieces.
func appendPending(dst []sensors.Pending, b *batch.Batch) []sensors.Pending {
	for k := range b.Len() {
		i := b.Position(k)
		dst = append(dst, sensors.Pending{
			Target: string(b.Cols[pendingTarget].At(i)), Piece: b.Cols[pendingPiece].Ints[i], Data: slices.Clone(b.Cols[pendingData].At(i)),
		})
	}
	return dst
}

// owns tells whether this subtask is the one that takes a target that no subtask
// has any more.
func (d *driver) owns(target string) bool {
	h := fnv.New64a()
	h.Write([]byte(target))
	return int(h.Sum64()%uint64(d.sub.Config.Parallelism)) == d.sub.Config.ID.Index
}

// seek sets the reader to where the restored splits go on.
func (d *driver) seek() error {
	for _, p := range d.task.Positions() {
		var err error
		switch {
		case d.reader != nil:
			err = d.reader.Seek(p)
		case d.columns != nil:
			err = d.columns.Seek(p)
		}
		if err != nil {
			return fmt.Errorf("source %q: %w", d.sub.Config.Links[0].ID, err)
		}
	}
	return nil
}

// pieces makes rows of what a transactional writer says of its transactions. What a
// checkpoint had of them is committed when the job is restored (Recover): nothing
// goes on from it, and the sink's operator is one of SnapshotTaken.Whole as its task
// says, so that the parts with it go.
func (d *driver) pieces(link int, t sensors.Transactional, b dataflow.Barrier, dst []task.StateRows) ([]task.StateRows, error) {
	id := d.sub.Config.Links[link].ID
	bl := batch.NewBuilder(d.job.pool, d.pending)
	flush := func() {
		if b := bl.Take(); b != nil {
			dst = append(dst, task.StateRows{Operator: id, Table: pendingName, Batch: b})
		}
	}
	d.calling = id
	err := t.Prepare(b.ID, b.Full || !d.prepared[link], func(p sensors.Pending) error {
		bl.SetString(pendingTarget, p.Target)
		bl.SetInt(pendingPiece, p.Piece)
		if !p.Gone {
			bl.SetBytes(pendingData, p.Data)
		}
		bl.EndRow(0)
		if p.Gone {
			bl.Kind(batch.Delete)
		}
		if bl.Full() {
			flush()
		}
		return nil
	})
	d.calling = ""
	flush()
	if err != nil {
		return dst, fmt.Errorf("sink %q: prepare: %w", id, err)
	}
	d.prepared[link] = true
	return dst, nil
}
