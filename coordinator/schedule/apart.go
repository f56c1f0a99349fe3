package schedule

import (
	"cmp"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Pair is two agents, the lesser first.
type Pair [2]mesh.NodeID

// PairOf puts two agents in order.
func PairOf(a, b mesh.NodeID) Pair { return Pair{min(a, b), max(a, b)} }

// Place places all slots, or none. Equal requests are placed equally. Agents to
// avoid are left out one after the other, as far as there is room without them;
// then one of each pair that does not reach each other.
func Place(r Request) (Placement, Waiting) {
	best, why := placeAll(r)
	if len(why) > 0 {
		return nil, why
	}
	without := func(node mesh.NodeID) bool {
		less := r
		less.Agents = slices.DeleteFunc(slices.Clone(r.Agents), func(a Agent) bool { return a.Node == node })
		places, why := placeAll(less)
		if len(why) > 0 {
			return false
		}
		r, best = less, places
		return true
	}
	for _, node := range slices.Sorted(slices.Values(r.Avoid)) {
		without(node)
	}
	pairs := slices.Clone(r.Apart)
	sort.Slice(pairs, func(i, j int) bool { return slices.Compare(pairs[i][:], pairs[j][:]) < 0 })
	for again := true; again; {
		again = false
		for _, p := range pairs {
			if n := subtasksOn(best, p[0]); n == 0 || subtasksOn(best, p[1]) == 0 {
				continue
			}
			first := order(r, best, p)
			again = without(first[0]) || without(first[1]) || again
		}
	}
	return best, nil
}

func subtasksOn(places Placement, node mesh.NodeID) (n int) {
	for _, p := range places {
		if p.Node == node {
			n++
		}
	}
	return n
}

// order says which of a pair is left out rather: who reaches fewest, then who
// has least to do.
func order(r Request, places Placement, p Pair) Pair {
	alone := func(node mesh.NodeID) (n int) {
		for _, q := range r.Apart {
			if q[0] == node || q[1] == node {
				n++
			}
		}
		return n
	}
	if cmp.Or(cmp.Compare(alone(p[0]), alone(p[1])), cmp.Compare(subtasksOn(places, p[1]), subtasksOn(places, p[0]))) > 0 {
		return p
	}
	return Pair{p[1], p[0]}
}
