package task

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
)

// duplicates takes rows out of a source's batches whose ids came before.
type duplicates struct {
	*dedupe.Filter
	rows  *batch.Builder // those that stay, where some do not
	kept  []int64        // their arrivals
	table int            // the first of the filter's among the source's state tables
}

func (s *source) newDuplicates() *duplicates {
	if s.cfg.Dedupe == nil {
		return nil
	}
	d := &duplicates{Filter: dedupe.New(*s.cfg.Dedupe, s.cfg.Schema, s.cfg.Splits, s.task.cfg.Pool), table: len(s.tables)}
	d.rows = batch.NewBuilder(s.task.cfg.Pool, s.cfg.Schema)
	s.tables = append(s.tables, d.StateTables()...)
	return d
}

// assignFresh is assign for the rows of b that are no duplicates. Those that are
// move the arrival clock and are not there otherwise.
func (s *source) assignFresh(split int, b *batch.Batch, arrivals []int64) {
	d, n := s.dups, b.Rows
	clock := arrivals
	if s.cfg.Arrival >= 0 {
		clock = s.recordedArrivals(b.Cols[s.cfg.Arrival], n)
	}
	rows, all := d.Fresh(split, b, clock)
	c := &s.link.counters
	c.Forgotten, c.StateBytes = d.Forgotten(), d.Bytes()
	if all {
		s.assign(split, b, arrivals, dataflow.MinTime)
		return
	}
	c.In += int64(n - len(rows))
	c.Duplicates += int64(n - len(rows))
	latest := dataflow.MinTime
	for _, at := range clock {
		latest = max(latest, dataflow.Time(at))
	}
	if len(rows) == 0 {
		if latest != dataflow.MinTime {
			s.emitMark(s.time.Tick(split, latest))
		}
		return
	}
	if arrivals != nil {
		d.kept = d.kept[:0]
		for _, r := range rows {
			d.kept = append(d.kept, arrivals[r])
		}
		arrivals = d.kept
	}
	if len(s.from) > 0 {
		for i, r := range rows {
			s.from[i] = s.from[r]
		}
		s.from = s.from[:len(rows)]
	}
	d.rows.Append(b, rows)
	fresh := d.rows.Take()
	s.assign(split, fresh, arrivals, latest)
	fresh.Release()
}
