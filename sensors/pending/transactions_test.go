package pending_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
)

// TestTransactions: what is gone is told once, and what was not prepared is in
// no transaction.
func TestTransactions(t *testing.T) {
	tr := pending.NewTransactions(1)
	prepare := func(n uint64) (pieces, gone int) {
		t.Helper()
		err := tr.Prepare(dataflow.CheckpointID{Counter: n}, false, "t", nil, func(pending.Piece, int64) ([]byte, error) { return nil, nil }, 0, func(p sensors.Pending) error {
			if p.Gone {
				gone++
			} else if p.Piece > 0 {
				pieces++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return pieces, gone
	}
	tr.Add(5, 0)
	tr.Add(9, 0)
	if p, g := prepare(1); p != 2 || g != 0 {
		t.Errorf("%d pieces, %d gone", p, g)
	}
	tr.Add(12, 0)
	done := tr.Through(dataflow.CheckpointID{Counter: 7})
	if len(done) != 2 {
		t.Errorf("%d pieces are prepared", len(done))
	}
	tr.Commit("t", 2)
	if p, g := prepare(8); p != 1 || g != 2 {
		t.Errorf("%d pieces, %d gone", p, g)
	}
	if p, g := prepare(9); p != 0 || g != 0 {
		t.Errorf("%d pieces, %d gone", p, g)
	}
}
