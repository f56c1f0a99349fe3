package restore

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// keyed: a key group goes to the subtask that owns it now, from the one that
// owned it.
func (o *OperatorPlan) keyed(t *TablePlan, subtask int) (shares []Share) {
	own := dataflow.RangeOf(subtask, o.To, o.max)
	for _, sh := range t.Saved.Shards {
		old := dataflow.RangeOf(sh.Subtask, o.From, o.max)
		r := dataflow.KeyGroupRange{First: max(own.First, old.First), Last: min(own.Last, old.Last)}
		if r.First <= r.Last {
			shares = append(shares, Share{Old: sh.Subtask, Parts: sh.Parts, Groups: &r, End: -1, max: o.max, of: int(old.Last-old.First) + 1, whole: r == old})
		}
	}
	return shares
}

// union: everything to everybody, also where the parallelism is as it was.
func (o *OperatorPlan) union(t *TablePlan) (shares []Share) {
	for _, sh := range t.Saved.Shards {
		shares = append(shares, Share{Old: sh.Subtask, Parts: sh.Parts, End: -1})
	}
	return shares
}

// broadcast: subtask i gets the copy of old subtask i mod p.
func (o *OperatorPlan) broadcast(t *TablePlan, subtask int) []Share {
	for _, sh := range t.Saved.Shards {
		if sh.Subtask == subtask%o.From {
			return []Share{{Old: sh.Subtask, Parts: sh.Parts, End: -1}}
		}
	}
	return nil
}

// split: with another parallelism the lists of all old subtasks, one after the
// other, are cut into equal pieces; those that get one row more begin, in each
// further table of the operator, where the last table's ended.
func (o *OperatorPlan) split(table, subtask int, rows Counts) (shares []Share) {
	t := &o.Tables[table]
	if o.From == o.To {
		for _, sh := range t.Saved.Shards {
			if sh.Subtask == subtask {
				shares = append(shares, Share{Old: sh.Subtask, Parts: sh.Parts, End: -1})
			}
		}
		return shares
	}
	start := 0
	for i := range table {
		if b := &o.Tables[i]; !b.Table.Keyed && b.Table.Spread == operator.Split {
			_, start = Cut(total(&b.Saved, rows), o.To, start)
		}
	}
	pieces, _ := Cut(total(&t.Saved, rows), o.To, start)
	mine, at := pieces[subtask], int64(0)
	for _, sh := range t.Saved.Shards {
		n := count(&t.Saved, sh, rows)
		first, end := max(mine.First, at), min(mine.End, at+n)
		if first < end {
			shares = append(shares, Share{Old: sh.Subtask, Parts: sh.Parts, First: first - at, End: end - at})
		}
		at += n
	}
	return shares
}

// Piece is a run of rows, First up to but without End.
type Piece struct{ First, End int64 }

// Cut deals n rows out to p subtasks, in order, as evenly as it goes, beginning
// with subtask start. One row more go to start and those after it, around the
// end; next is the first that got none more.
func Cut(n int64, p, start int) (pieces []Piece, next int) {
	pieces = make([]Piece, p)
	each, more := n/int64(p), int(n%int64(p))
	at := int64(0)
	for i := range p {
		k := each
		if i < more {
			k++
		}
		pieces[(start+i)%p] = Piece{First: at, End: at + k}
		at += k
	}
	return pieces, (start + more) % p
}

func total(t *manifest.Table, rows Counts) (n int64) {
	for _, sh := range t.Shards {
		n += count(t, sh, rows)
	}
	return n
}

func count(t *manifest.Table, sh manifest.Shard, rows Counts) int64 {
	if rows != nil {
		return rows(t.Name, sh.Subtask)
	}
	n := int64(0)
	for _, p := range sh.Parts {
		n += p.Rows
	}
	return n
}
