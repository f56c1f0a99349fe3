package executor

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// A failure is laid to a peer only if its channels broke first: those that break
// because the attempt has failed here say nothing of it.
func TestFailureNamesPeer(t *testing.T) {
	a := &attempt{peer: "b"}
	if f := a.failure(errors.New("panic")); f.Peer != "" {
		t.Errorf("%+v", f)
	}
	if f := a.failure(fmt.Errorf("job: %w", brokenChannels{"b", io.ErrUnexpectedEOF})); f.Peer != "b" || f.Final {
		t.Errorf("%+v", f)
	}
}
