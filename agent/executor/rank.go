package executor

import (
	"cmp"
	"sort"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Rank orders the members of self's site that are alive, without self, by who is
// to have copies of something: each key has an order of its own that changes
// little when members come and go, and those on hosts that have none yet come
// first. Among these, and among the others, those that suit come first: who runs
// next what the copies are of has them on its disk then. A nil suits: all do.
func Rank(key string, self mesh.NodeID, members []mesh.Member, suits func(*mesh.Member) bool) []mesh.NodeID {
	hosts := make(map[string]bool)
	site := mesh.Site("")
	for _, m := range members {
		if m.Node == self {
			hosts[m.Host], site = true, m.Site
		}
	}
	type ranked struct {
		mesh.Member
		score uint64
		suits int // 1: it does
	}
	var all []ranked
	for _, m := range members {
		if m.Node != self && m.Status == mesh.Alive && (site == "" || m.Site == site) {
			r := ranked{Member: m, score: xxh3.HashString(key + "\x00" + string(m.Node))}
			if suits == nil || suits(&m) {
				r.suits = 1
			}
			all = append(all, r)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(b.suits, a.suits), cmp.Compare(b.score, a.score), cmp.Compare(a.Node, b.Node)) < 0
	})
	var first, rest []mesh.NodeID
	for _, m := range all {
		if hosts[m.Host] {
			rest = append(rest, m.Node)
			continue
		}
		hosts[m.Host] = true
		first = append(first, m.Node)
	}
	return append(first, rest...)
}
