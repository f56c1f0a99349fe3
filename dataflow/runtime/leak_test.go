package runtime

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// No goroutine outlives a job.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ckpt(n uint64) dataflow.CheckpointID { return dataflow.CheckpointID{Counter: n} }
