package runtime

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// A job that is ended while its state comes back says what ended it, not where
// that met it; an error of another kind stays what it is.
func TestEndedWhileStateComesBack(t *testing.T) {
	broken := errors.New("broken")
	for _, broke := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		j, _ := durableJob(t, newLanes(1, 1), &world{}, layout{"in": 1, "pass": 1, "out": 1}, Options{
			Memory: 1 << 20, Restore: func(dataflow.SubtaskID, Restored) error {
				cancel(errCrash)
				if broke {
					return broken
				}
				return fmt.Errorf("reading it back: %w", ctx.Err())
			},
		})
		if err := j.Run(ctx); broke && !errors.Is(err, broken) || !broke && !errors.Is(err, errCrash) {
			t.Errorf("broken %t: it ended with %v", broke, err)
		}
	}
}
