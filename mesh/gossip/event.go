package gossip

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Kind says what happened.
type Kind uint8

// The kinds of events.
const (
	Joined    Kind = iota + 1 // it was not known before
	Changed                   // its addresses, labels, slots, version
	Suspected                 // somebody lost it: Pool.Suspect
	Failed                    // it does not answer: told in about 2 s on a quiet LAN
	Back                      // it was suspect, failed or had left, or has started anew
	Left                      // it said so
	// What follows is not about a member, but about what this agent does not take
	// or does not find: Why says it, and of the Member there is Gossip, if anything.
	Refused // what came from there: another key, another label, not understood
	Twin    // another process runs with this node's identity: of the Member there are Node, Boot and Link too, if they are known
	Alone   // nobody of those to begin with answers; told once, until somebody does
)

var kindNames = [...]string{
	Joined: "joined", Changed: "changed", Suspected: "suspect", Failed: "failed", Back: "back", Left: "left",
	Refused: "refused", Twin: "twin", Alone: "alone",
}

// String is the name that a user sees.
func (k Kind) String() string { return kindNames[k] }

// Event is what happened, and how the member is now. States in between that
// nobody had time to hear of are left out.
type Event struct {
	Kind   Kind
	Member mesh.Member
	Why    string // of Refused, Twin and Alone
}

// String is a line of a log.
func (e Event) String() string {
	switch e.Kind {
	case Refused, Twin:
		return fmt.Sprintf("gossip: %s at %s: %s", e.Kind, e.Member.Gossip, e.Why)
	case Alone:
		return "gossip: no other agent answers yet: " + e.Why
	}
	return fmt.Sprintf("agent %s (%s) %s", e.Member.Name, e.Member.Node, e.Kind)
}

// happened compares what listeners were told of a member last with what is. ok
// is false when there is nothing to tell.
func happened(told, now mesh.Member) (k Kind, ok bool) {
	switch {
	case told.Status == 0 && (now.Status == mesh.Alive || now.Status == mesh.Suspect):
		return Joined, true
	case told.Status == 0:
		return 0, false // it came and went
	case now.Status == mesh.Failed && told.Status != mesh.Failed:
		return Failed, true
	case now.Status == mesh.Left && told.Status != mesh.Left:
		return Left, true
	case now.Boot != told.Boot && now.Status == mesh.Alive:
		return Back, true
	case now.Status == mesh.Alive && told.Status != mesh.Alive:
		return Back, true
	case now.Status == mesh.Suspect && told.Status != mesh.Suspect:
		return Suspected, true
	}
	return Changed, !same(told, now)
}

// same compares all but the status.
func same(a, b mesh.Member) bool {
	if len(a.Labels) != len(b.Labels) {
		return false
	}
	for k, v := range a.Labels {
		if w, ok := b.Labels[k]; !ok || v != w {
			return false
		}
	}
	return a.Node == b.Node && a.Boot == b.Boot && a.Name == b.Name && a.Site == b.Site && a.Link == b.Link && a.Gossip == b.Gossip &&
		a.HTTP == b.HTTP && a.Host == b.Host && a.Slots == b.Slots && a.Version == b.Version && a.Level == b.Level
}
