package node

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
)

// Who wishes for something while the leader changes is told to ask again.
func TestWishWhileTheLeaderChanges(t *testing.T) {
	other := errors.New("no such job")
	for _, err := range []error{ErrOver, leader.ErrEarly} {
		if got := wished(err); !errors.Is(got, api.ErrNotLeader) || !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if wished(other) != other || wished(nil) != nil {
		t.Error("another answer was changed")
	}
}
