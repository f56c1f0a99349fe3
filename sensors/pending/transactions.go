package pending

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Piece is a run of a queue's bytes that checkpoints hold as one.
type Piece struct {
	Number int64                 // from 1; grows
	ID     dataflow.CheckpointID // its transaction's
	End    int64                 // behind its last byte; it begins where the piece before ends
	Count  int                   // of whatever the owner counts
}

// Transactions are the pieces of a queue that are not committed, in order, and
// those that were committed since the last Prepare. Its owner adds pieces,
// which belong to the present transaction until Prepare gives them its id.
//
// Invariants: numbers follow one another; the first told pieces were emitted by
// a Prepare that succeeded, and have an ID; ids never go back.
type Transactions struct {
	pieces []Piece
	told   int
	gone   []sensors.Pending // told pieces that were committed since
	next   int64             // number of the next piece
}

// NewTransactions makes one whose next piece has the number next.
func NewTransactions(next int64) *Transactions { return &Transactions{next: max(next, 1)} }

// Next is the number that the next piece will have.
func (t *Transactions) Next() int64 { return t.next }

// Add adds a piece that ends at end.
func (t *Transactions) Add(end int64, count int) {
	t.pieces = append(t.pieces, Piece{Number: t.next, End: end, Count: count})
	t.next++
}

// End is behind the last piece; first if there is none.
func (t *Transactions) End(first int64) int64 {
	if len(t.pieces) == 0 {
		return first
	}
	return t.pieces[len(t.pieces)-1].End
}

// Prepare ends the present transaction and emits, of target, its record as
// piece 0, then what changed since the last Prepare, or with full all that is
// not committed; data is asked for the bytes of a piece, which emit borrows.
// After an error nothing has changed, and its rows belong to the next
// transaction.
func (t *Transactions) Prepare(id dataflow.CheckpointID, full bool, target string, record []byte,
	data func(p Piece, begin int64) ([]byte, error), first int64, emit func(sensors.Pending) error) error {
	if t.told > 0 && !t.pieces[t.told-1].ID.Less(id) {
		return fmt.Errorf("transaction %v comes after %v", id, t.pieces[t.told-1].ID)
	}
	if err := emit(sensors.Pending{Target: target, Data: record}); err != nil {
		return err
	}
	if !full {
		for _, g := range t.gone {
			if err := emit(g); err != nil {
				return err
			}
		}
	}
	begin := first
	for i := range t.pieces {
		p := t.pieces[i]
		if i >= t.told {
			p.ID = id
		}
		if full || i >= t.told {
			b, err := data(p, begin)
			if err == nil {
				err = emit(sensors.Pending{Target: target, Piece: p.Number, Data: b})
			}
			if err != nil {
				return err
			}
		}
		begin = p.End
	}
	for i := t.told; i < len(t.pieces); i++ {
		t.pieces[i].ID = id
	}
	t.told, t.gone = len(t.pieces), t.gone[:0]
	return nil
}

// Through is the pieces of the transactions up to id's, which may be none.
func (t *Transactions) Through(id dataflow.CheckpointID) []Piece {
	n := 0
	for n < t.told && !id.Less(t.pieces[n].ID) {
		n++
	}
	return t.pieces[:n]
}

// Commit notes that the first n pieces of target were committed.
func (t *Transactions) Commit(target string, n int) {
	for _, p := range t.pieces[:n] {
		t.Gone(target, p.Number)
	}
	t.told -= n
	t.pieces = t.pieces[n:]
}

// Gone notes that checkpoints need not keep a piece any more.
func (t *Transactions) Gone(target string, number int64) {
	t.gone = append(t.gone, sensors.Pending{Target: target, Piece: number, Gone: true})
}
