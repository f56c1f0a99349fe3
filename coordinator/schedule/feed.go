package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// FeedRequest is what Owner decides on.
type FeedRequest struct {
	Feed  string // its name, for sentences
	Site  mesh.Site
	Wants []Want               // of the source that reads it
	Log   coordinator.LogEpoch // the present one; epoch 0: it was never begun
	// Replicas are the copies that are wanted; 0: two, or one where there is but
	// one agent.
	Replicas int
	Agents   []FeedAgent   // who is there; each node once
	Prefer   []mesh.NodeID // where the job's other feeds are, best first
}

// FeedAgent is an agent that is there.
type FeedAgent struct {
	Node   mesh.NodeID
	Host   string
	Labels map[string]string
	Feeds  int   // how many logs it owns or copies, without this one
	End    int64 // behind the last entry that it is known to have of this log; 0: it has none
	Heir   bool  // it may own the log, although it is no member, or ends before the epoch's start
}

// FeedChoice is who runs a feed in its next epoch, or in the present one if that
// has the same owner and members.
type FeedChoice struct {
	Owner   mesh.NodeID
	Members []mesh.NodeID // the owner first
	Short   int           // so many copies are missing
}

// Same tells whether the epoch already is as the choice says.
func (c FeedChoice) Same(log coordinator.LogEpoch) bool {
	return c.Owner == log.Owner && sameSet(c.Members, log.Members)
}

func sameSet(a, b []mesh.NodeID) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// Owner chooses who appends to a feed's log and who copies it: of a log that was
// begun one of its members owns the next epoch, since only they have all that
// was acknowledged, and only those that have come to the epoch's start: nothing
// of the epoch is acknowledged before all have, but much of the epochs before
// was. An heir may, too. One that meets the source's constraints is taken if there is any, the
// present owner before others. Where none meets them, an agent that does becomes
// a member, beyond the copies that are wanted, and may own the epoch after.
// Copies stay where they are, and else go to other hosts. The sentence says why
// there is no choice.
func Owner(r FeedRequest) (FeedChoice, string) {
	agents := slices.Clone(r.Agents)
	sort.Slice(agents, func(i, j int) bool { return agents[i].Node < agents[j].Node })
	n := needsOf(Subtask{Wants: r.Wants})
	meets := func(a FeedAgent) bool { return n.metBy(Agent{Node: a.Node, Labels: a.Labels}, r.Site) }
	able := slices.DeleteFunc(slices.Clone(agents), func(a FeedAgent) bool {
		if r.Log.Epoch == 0 {
			return !meets(a)
		}
		return !a.Heir && (!slices.Contains(r.Log.Members, a.Node) || a.End < r.Log.Start)
	})
	if len(able) == 0 {
		return FeedChoice{}, nobodyOwns(r, n)
	}
	sort.SliceStable(able, func(i, j int) bool {
		a, b := able[i], able[j]
		return cmp.Or(
			first(meets(a), meets(b)),
			first(r.Log.Epoch > 0 && a.Node == r.Log.Owner, r.Log.Epoch > 0 && b.Node == r.Log.Owner),
			cmp.Compare(rank(r.Prefer, a.Node), rank(r.Prefer, b.Node)),
			cmp.Compare(b.End, a.End),
			cmp.Compare(a.Feeds, b.Feeds),
		) < 0
	})
	choice := FeedChoice{Owner: able[0].Node, Members: []mesh.NodeID{able[0].Node}}
	wanted := r.Replicas
	if wanted == 0 {
		wanted = min(2, len(agents))
	}
	hosts := map[string]bool{able[0].Host: true}
	rest := slices.DeleteFunc(agents, func(a FeedAgent) bool { return a.Node == choice.Owner })
	unmet := !meets(able[0]) && slices.ContainsFunc(rest, meets)
	most := wanted
	if unmet {
		most++
	}
	for len(choice.Members) < most && len(rest) > 0 {
		best := slices.MinFunc(rest, func(a, b FeedAgent) int {
			return cmp.Or(
				first(unmet && meets(a), unmet && meets(b)), // it is to own the epoch after
				first(slices.Contains(r.Log.Members, a.Node), slices.Contains(r.Log.Members, b.Node)),
				first(!hosts[a.Host], !hosts[b.Host]),
				first(meets(a), meets(b)),
				cmp.Compare(b.End, a.End),
				cmp.Compare(a.Feeds, b.Feeds),
				cmp.Compare(a.Node, b.Node),
			)
		})
		choice.Members = append(choice.Members, best.Node)
		hosts[best.Host] = true
		unmet = unmet && !meets(best)
		rest = slices.DeleteFunc(rest, func(a FeedAgent) bool { return a.Node == best.Node })
	}
	choice.Short = max(0, wanted-len(choice.Members))
	return choice, ""
}

func nobodyOwns(r FeedRequest, n needs) string {
	if r.Log.Epoch > 0 {
		var members []string
		for _, m := range r.Log.Members {
			members = append(members, string(m))
		}
		return fmt.Sprintf("the log of feed %s is on %s, and none of them is there with all of it", r.Feed, strings.Join(members, ", "))
	}
	return fmt.Sprintf("feed %s needs an agent%s; none is there", r.Feed, n)
}

// first puts true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// rank is the place of a node in a list; behind all others if it is in none.
func rank(list []mesh.NodeID, node mesh.NodeID) int {
	if i := slices.Index(list, node); i >= 0 {
		return i
	}
	return len(list)
}
