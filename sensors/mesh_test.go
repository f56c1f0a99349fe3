package sensors

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

type refusing struct{ why error }

func (r refusing) Err() error { return r.why }

func TestPermitted(t *testing.T) {
	why := errors.New("the lease is over")
	if err := Permitted(nil); err != nil {
		t.Errorf("no permit to ask: %v", err)
	}
	if err := Permitted(refusing{}); err != nil {
		t.Errorf("a permit: %v", err)
	}
	err := Permitted(refusing{why})
	if !errors.Is(err, ErrNotPermitted) || !errors.Is(err, why) {
		t.Errorf("refused: %v", err)
	}
	if again := Permitted(refusing{err}); again != err {
		t.Errorf("it says so twice: %v", again)
	}
}

// A client id may be on record of several agents: the latest counts.
func TestLatestRecordCounts(t *testing.T) {
	id := func(attempt, n uint64) dataflow.CheckpointID {
		return dataflow.CheckpointID{Token: dataflow.FencingToken{Attempt: attempt}, Counter: n}
	}
	p := Placed{Commits: []Commit{{Target: "x", Through: id(2, 3)}, {Target: "y", Through: id(9, 9)}, {Target: "x", Through: id(3, 1)}, {Target: "x", Through: id(3, 0)}}}
	if c, known := p.Recorded("x"); !known || c.Through != id(3, 1) {
		t.Errorf("%v, %t", c, known)
	}
	if _, known := p.Recorded("z"); known {
		t.Error("something is known of what is not on record")
	}
}
