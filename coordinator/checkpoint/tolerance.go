package checkpoint

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// tolerance counts consecutive failures: one id counts once, and an id that is
// not newer than the last success counts no more.
type tolerance struct {
	most    int
	n       int
	success uint64 // counter of the last that completed
	counted uint64 // counter of the last that was counted
}

func (t *tolerance) completed(id dataflow.CheckpointID) {
	t.n, t.success = 0, max(t.success, id.Counter)
}

// failed returns the reason for the job to fail, or nil.
func (t *tolerance) failed(id dataflow.CheckpointID, f Failure, cause error) error {
	if !f.Counts() || id.Counter <= t.success || id.Counter <= t.counted {
		return nil
	}
	t.counted = id.Counter
	if t.n++; t.n <= t.most {
		return nil
	}
	return fmt.Errorf("%d checkpoints in a row did not complete, and checkpoint.tolerable_failures is %d; the last, %s: %s: %w", t.n, t.most, Name(id), f.Words(), cause)
}
