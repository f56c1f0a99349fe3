package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// voting are the voters, as a box knows them.
func voting(b *box) map[mesh.NodeID]bool {
	all := make(map[mesh.NodeID]bool)
	for _, m := range b.Group() {
		if m.Voter {
			all[m.Node] = true
		}
	}
	return all
}

// TestRemovedVotersAreNotMissed: when an agent is out of the site, the group is
// without it already, and one that leads goes on when all others end at once.
func TestRemovedVotersAreNotMissed(t *testing.T) {
	all := site(t, 3)
	await(t, "three voters", func() bool { return len(voting(leading(t, all))) == 3 })
	lead := removeOne(t, all)
	if v := voting(lead); len(v) != 1 || !v[lead.Self()] || len(lead.Group()) != 2 {
		t.Errorf("one of three agents is out of the site; in the group are %+v", lead.Group())
	}
	for _, b := range all {
		if b != lead {
			b.ends = 1
			b.end()
		}
	}
	if _, err := lead.Propose(context.Background(), coordinator.Command{TokenRevoked: &coordinator.TokenRevoked{ID: "none"}}); err == nil || lead.Current(context.Background()) != nil {
		t.Errorf("it leads no more: %v", err)
	}
}

// removeOne takes out an agent that does not lead, and returns the one that did it.
func removeOne(t *testing.T, all []*box) (lead *box) {
	t.Helper()
	await(t, "a removal", func() bool {
		lead = leading(t, all)
		other := all[0]
		if other == lead {
			other = all[1]
		}
		return lead.Remove(context.Background(), other.Self()) == nil
	})
	return lead
}

// TestLeaderLeavesTheOther: the only voter of two agents leaves, and the other one
// goes on with all that is needed, the site's key too.
func TestLeaderLeavesTheOther(t *testing.T) {
	all := site(t, 2)
	if err := all[0].Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Wait(); err != nil {
		t.Error(err)
	}
	rest := all[1]
	await(t, "the other one to lead alone", func() bool { return len(rest.Group()) == 1 && rest.Current(context.Background()) == nil })
	rest.View(func(st *coordinator.State) {
		if len(st.Agents) != 1 || st.Agents[rest.Self()] == nil || !rest.Identity().CanIssue() {
			t.Errorf("agents %v, the key is there: %v", st.Agents, rest.Identity().CanIssue())
		}
	})
}

// TestRemovedVoterStillVotes: an agent is out of the site and has a vote still, as one
// that led and ended in between may leave it; and the group can elect nobody without
// it. It is let in to vote, whoever leads takes it out, and then it is let in no more.
func TestRemovedVoterStillVotes(t *testing.T) {
	all := site(t, 3)
	await(t, "three voters", func() bool { return len(voting(leading(t, all))) == 3 })
	lead, out, away := all[0], all[1], all[2]
	away.ends = 1
	away.end()
	removed := func(b *box) (yes bool) {
		b.View(func(st *coordinator.State) { yes = len(st.Agents) > 0 && st.Agents[out.Self()] == nil })
		return yes
	}
	await(t, "the state to be without it", func() bool {
		if leading(t, all[:2]) == out {
			_ = out.Resign(context.Background()) // it is asked again
			return false
		}
		_, err := lead.Propose(context.Background(), coordinator.Command{AgentLeft: &coordinator.AgentLeft{Node: out.Self()}})
		return err == nil || removed(lead)
	})
	out.ends = 1
	out.end() // before the group is without it, unless this is slow
	out.start("", "")
	await(t, "the group to be without it", func() bool {
		return len(lead.Group()) == 2 && len(voting(lead)) == 1 && voting(lead)[lead.Self()] && lead.Current(context.Background()) == nil
	})
	if !removed(lead) {
		t.Error("it is an agent of the site again")
	}
	await(t, "it to hear why", func() bool { return strings.Contains(out.said(), "was taken out of site plant") })
}

// TestRemovedWhileAway: an agent that was taken out while its process was down hears
// why when it is back, though nobody calls it any more.
func TestRemovedWhileAway(t *testing.T) {
	all := site(t, 2)
	lead, other := all[0], all[1]
	if leading(t, all) == other {
		lead, other = other, lead
	}
	other.end()
	await(t, "it to be removed", func() bool { return lead.Remove(context.Background(), other.Self()) == nil })
	other.start("", "")
	await(t, "it to hear why", func() bool { return strings.Contains(other.said(), "was taken out of site plant") })
}

// TestRefusedIsNotRemoved: an agent that leaves is out when it hears that it was taken
// out. That an agent does not let it in for another reason, or that it does not let that
// one in itself, does not say so: it asks again.
func TestRefusedIsNotRemoved(t *testing.T) {
	all := site(t, 2)
	lead, other := all[0], all[1]
	if leading(t, all) == other {
		lead, other = other, lead
	}
	await(t, "the level to rise", func() (yes bool) {
		lead.View(func(st *coordinator.State) { yes = st.Level >= coordinator.SettledLevel })
		return yes
	})
	barred := func(out mesh.NodeID) func(mesh.Peer) error {
		return func(p mesh.Peer) error {
			if p.Node == out {
				return errors.New("not now")
			}
			return nil
		}
	}
	asks := func(what string, want bool) {
		t.Helper()
		var again bool
		var err error
		await(t, "an answer: "+what, func() bool {
			again, err = other.AskOut(t.Context(), lead.Self())
			return err == nil || strings.Contains(err.Error(), "not now")
		})
		if again != want {
			t.Errorf("%s: it asks again: %t, %v", what, again, err)
		}
	}
	other.end()
	lead.Identity().SetAllow(barred(other.Self()))
	other.start("", "")
	asks("it is refused", true)
	lead.end()
	other.Identity().SetAllow(barred(lead.Self()))
	lead.start("", "")
	asks("it refuses", true)
	other.end()
	await(t, "it to be removed", func() bool { return lead.Remove(t.Context(), other.Self()) == nil })
	other.start("", "")
	var again bool
	var err error
	await(t, "an answer", func() bool {
		again, err = other.AskOut(t.Context(), lead.Self())
		return err == nil || errors.Is(err, mesh.ErrRefused)
	})
	if again || err != nil {
		t.Errorf("it is out, and asks again: %t, %v", again, err)
	}
}
