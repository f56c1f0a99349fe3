package executor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// OpenPart reads a part from the disk here, or fetches it from an agent that has
// it, if it is not here, or damaged. store.ErrMissing if nobody has it who can be
// reached, store.ErrCorrupt if it is here and nobody has a better one.
func (x *Executor) OpenPart(ctx context.Context, p store.Part, copies []coordinator.PartCopies) (io.ReadCloser, error) {
	parts := x.o.State.Parts()
	here := parts.Verify(p)
	if errors.Is(here, store.ErrMissing) || errors.Is(here, store.ErrCorrupt) {
		var from []mesh.NodeID
		for _, c := range copies {
			if c.Part == p.Digest {
				from = c.Nodes
			}
		}
		if err := x.peers.Replace(ctx, from, p); err != nil {
			return nil, errors.Join(here, err)
		}
		if errors.Is(here, store.ErrCorrupt) {
			x.o.Tell(fmt.Sprintf("a part was damaged here, and was fetched anew: %v", here))
		}
		defer parts.Unpin(p) // an open file outlives its name
	}
	return parts.Open(p)
}

// imported is the job under which parts are held that belong to none: those of
// savepoints that were brought in. Each part has an id of its own there, that no
// other process gives: so it can be let go by its age.
const imported = "imported"

func newHolds(s *durable.State) *part.Holds { return part.NewHolds(s.Parts(), imported) }

// PutPart stores a part here and on another agent, if there is one, and says
// where it is. It is kept for Options.Hold: a savepoint that names it must be in
// the state by then.
func (x *Executor) PutPart(ctx context.Context, write func(io.Writer) error) (store.Part, []mesh.NodeID, error) {
	p, err := x.o.State.Parts().Put(write)
	if err != nil {
		return p, nil, err
	}
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // it never fails
	id := dataflow.CheckpointID{Token: dataflow.FencingToken{Site: string(x.o.Node)}, Counter: binary.BigEndian.Uint64(serial[:])}
	x.holds.Take(imported, id, p)
	nodes := []mesh.NodeID{x.o.Node}
	var errs []error
	var peers []mesh.NodeID
	if x.o.Peers != nil {
		peers = x.o.Peers(p.Digest.String(), nil)
	}
	for _, to := range peers {
		if _, err := x.peers.Push(ctx, to, imported, id, []store.Part{p}); err != nil {
			errs = append(errs, err)
			continue
		}
		return p, append(nodes, to), nil
	}
	if len(peers) > 0 {
		return p, nil, errors.Join(errs...)
	}
	return p, nodes, nil
}
