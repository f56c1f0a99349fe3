package consensus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The kinds of errors of a proposal.
var (
	// ErrNotLeader: another node leads, or none. Nothing was done. The error is a
	// NotLeader.
	ErrNotLeader = errors.New("consensus: not the leader")
	// ErrUnknown: it may be applied yet, or not: this node stopped leading, or ctx
	// ended, before it was known.
	ErrUnknown = errors.New("consensus: it is not known whether it was applied")
	// ErrTooLarge: a command has more than codec.MaxCommand bytes.
	ErrTooLarge = errors.New("consensus: the command is too large")
)

// NotLeader is an ErrNotLeader.
type NotLeader struct{ Leader mesh.NodeID } // empty: none is known

func (e *NotLeader) Error() string {
	if e.Leader == "" {
		return ErrNotLeader.Error() + ": none is known now, try again"
	}
	return fmt.Sprintf("%v: ask %s", ErrNotLeader, e.Leader)
}

// Unwrap makes it an ErrNotLeader.
func (e *NotLeader) Unwrap() error { return ErrNotLeader }

// Propose has a command committed and applied, and says where in the log it is
// and what Machine.Apply made of it. ErrNotLeader, ErrNoRoom, ErrTooLarge,
// ErrUnknown, ErrClosed.
func (n *Node) Propose(ctx context.Context, command []byte) (index uint64, result any, err error) {
	return n.Enter(command)(ctx)
}

// Enter is Propose in two steps: commands enter the log in the order of the
// calls, and the function, called once, waits for what becomes of one. Enter may
// block while the library writes to disk.
func (n *Node) Enter(command []byte) func(ctx context.Context) (index uint64, result any, err error) {
	if len(command) > codec.MaxCommand {
		return refused(fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(command), codec.MaxCommand))
	}
	if err := n.leads(); err != nil {
		return refused(err)
	}
	began := time.Now()
	f := n.raft.Apply(command, 0)
	return func(ctx context.Context) (uint64, any, error) {
		if err := n.wait(ctx, f); err != nil {
			return 0, nil, err
		}
		n.commands.Add(1)
		n.waited.Add(int64(time.Since(began)))
		return f.Index(), f.Response(), nil
	}
}

func refused(err error) func(context.Context) (uint64, any, error) {
	return func(context.Context) (uint64, any, error) { return 0, nil, err }
}

// Barrier returns when all that was committed before is applied here. Leader only.
func (n *Node) Barrier(ctx context.Context) error {
	if err := n.leads(); err != nil {
		return err
	}
	return n.wait(ctx, n.raft.Barrier(0))
}

// Verify asks a majority whether this node still leads: what is read here
// after Verify is at least as new as when it was called, once a leadership was
// told. Leader only.
func (n *Node) Verify(ctx context.Context) error {
	if err := n.leads(); err != nil {
		return err
	}
	return n.wait(ctx, n.raft.VerifyLeader())
}

// AddNonvoter makes a node a member, without a vote. One that is a member stays
// what it is. Leader only.
func (n *Node) AddNonvoter(ctx context.Context, node mesh.NodeID) error {
	if err := n.leads(); err != nil {
		return err
	}
	return n.wait(ctx, n.raft.AddNonvoter(raft.ServerID(node), raft.ServerAddress(node), 0, bound(ctx)))
}

// Transfer has another voter lead: to, or, if that is empty, the one that answers
// and is furthest. Leader only.
func (n *Node) Transfer(ctx context.Context, to mesh.NodeID) error {
	if err := n.leads(); err != nil {
		return err
	}
	if to == "" {
		to = n.heir()
	}
	if to == "" {
		return n.wait(ctx, n.raft.LeadershipTransfer())
	}
	return n.wait(ctx, n.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)))
}

// Snapshot writes a snapshot now, if there is anything new.
func (n *Node) Snapshot(ctx context.Context) error {
	if n.raft.Stats()["last_snapshot_index"] == strconv.FormatUint(n.raft.AppliedIndex(), 10) {
		return nil
	}
	n.log.appended.Store(0)
	done := make(chan error, 1)
	go func() { done <- n.raft.Snapshot().Error() }()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return fmt.Errorf("consensus: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("consensus: a snapshot is still being written: %w", ctx.Err())
	case <-n.ctx.Done():
		return ErrClosed
	}
}

// leads is nil on a leader.
func (n *Node) leads() error {
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	if n.raft.State() != raft.Leader {
		return n.notLeader()
	}
	return nil
}

func (n *Node) notLeader() error {
	leader, _ := n.Leader()
	if leader == n.o.Self {
		leader = ""
	}
	return &NotLeader{leader}
}

// wait waits for what the library does. Its goroutine ends when the library is
// done, which it is at the latest when this node stops leading.
func (n *Node) wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return n.kind(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	case <-n.ctx.Done():
		return fmt.Errorf("%w: %w", ErrClosed, ErrUnknown)
	}
}

// kind makes the package's errors of the library's.
func (n *Node) kind(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNoRoom):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return n.notLeader()
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrClosed, ErrUnknown)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// bound is the library's time limit for the beginning of a change of members.
func bound(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(end), time.Millisecond)
}
