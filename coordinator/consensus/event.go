package consensus

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Kind is what an Event tells.
type Kind uint8

// The kinds of events.
const (
	Founded  Kind = iota + 1 // this node began a site
	Led                      // another leader is known: Node, empty: none; Term
	Promoted                 // this leader gave Node a vote
	Demoted                  // this leader took it from Node
	Parted                   // this leader took Node out of the group
	Refused                  // this leader could not change the vote of Node, or take it out: Err
	Short                    // the disk is full: what is left is kept for term and vote: Err
	Room                     // there is room again
	Lost                     // a write failed: Err
	Library                  // what the Raft library warns of: Text
)

// Event is something worth telling. Only the fields that its kind names are set
// beside Kind.
type Event struct {
	Kind Kind
	Node mesh.NodeID
	Term uint64
	Err  error
	Text string
}

// String is one line for a log.
func (e Event) String() string {
	switch e.Kind {
	case Founded:
		return "consensus: this node founds its site"
	case Led:
		if e.Node == "" {
			return fmt.Sprintf("consensus: no leader is known in term %d", e.Term)
		}
		return fmt.Sprintf("consensus: %s leads in term %d", e.Node, e.Term)
	case Promoted:
		return fmt.Sprintf("consensus: %s votes from now on", e.Node)
	case Demoted:
		return fmt.Sprintf("consensus: %s does not vote any more", e.Node)
	case Parted:
		return fmt.Sprintf("consensus: %s is out of the group", e.Node)
	case Refused:
		return fmt.Sprintf("consensus: the vote of %s stays as it is: %v", e.Node, e.Err)
	case Short:
		return fmt.Sprintf("consensus: no room on disk, what is reserved is kept for term and vote: %v", e.Err)
	case Room:
		return "consensus: there is room on disk again"
	case Lost:
		return fmt.Sprintf("consensus: writing failed: %v", e.Err)
	case Library:
		return "consensus: " + e.Text
	}
	return fmt.Sprintf("consensus: kind(%d)", uint8(e.Kind))
}
