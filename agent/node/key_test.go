package node

import "github.com/tidemark-mesh/tidemark/mesh/identity"

// Identity is the agent's identity.
func (n *Node) Identity() *identity.Identity { return n.id }
