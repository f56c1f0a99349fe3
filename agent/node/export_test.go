package node

import (
	"context"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// AskOut asks an agent once to take this one out.
func (n *Node) AskOut(ctx context.Context, of mesh.NodeID) (again bool, err error) {
	return n.askOut(ctx, of)
}
