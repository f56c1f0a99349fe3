package sensors

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Permit is the right to act on the world: to connect to a broker, to publish,
// to acknowledge, to make rows visible. Connectors ask right before each such
// act. Any goroutine may call it, often; it must not block.
type Permit interface {
	// Err is nil while its holder may act, and says why not otherwise.
	Err() error
}

// ErrNotPermitted is wrapped by the errors of connectors that had no permit: the
// agent's lease is over, and another one may be acting in its place.
var ErrNotPermitted = errors.New("not permitted now")

// Permitted asks a permit; nil is the permit to do everything at any time. Its
// error is an ErrNotPermitted.
func Permitted(p Permit) error {
	if p == nil {
		return nil
	}
	err := p.Err()
	if err == nil || errors.Is(err, ErrNotPermitted) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotPermitted, err)
}

// Commit is how far a target of a transactional sink is committed.
type Commit struct {
	Node    string                // whose target it is; empty: that of the agent which says so
	Target  string                // Pending's
	Through dataflow.CheckpointID // its transactions up to it are
	Length  int64                 // of a file: so many bytes count; what is behind them does not
}

// Recorder is a Transactional whose commits the site keeps on record, so that
// the next owner of its targets knows what need not be committed again. Without
// a site nobody asks.
type Recorder interface {
	Transactional
	// Commits is how far the writer's own targets are, after Recover and after each
	// CommitThrough. It is never empty after Recover, even if nothing was committed
	// yet: a target must be on record before its first commit, so that an agent
	// that loses it knows what to cut back. Of a target that is not the writer's own it
	// may say that less counts than is on record: Through is Placed.From then.
	Commits() []Commit
}

// Placed is what a sink's subtask must know of its job in a site. Every field is
// as of the deployment of the present attempt, the same for all subtasks.
type Placed struct {
	Node    string                // the agent it runs on; empty: there is no site, and nothing below is used
	Nodes   []string              // where each subtask of the sink runs
	Attempt dataflow.FencingToken // the present one
	From    dataflow.CheckpointID // that the attempt goes on from; zero: it begins afresh
	Commits []Commit              // what is on record of the sink's targets, of all agents
}

// Recorded is what is on record of a target: the latest, if several agents have
// had it.
func (p *Placed) Recorded(target string) (latest Commit, known bool) {
	for _, c := range p.Commits {
		if c.Target == target && (!known || latest.Through.Less(c.Through)) {
			latest, known = c, true
		}
	}
	return latest, known
}
