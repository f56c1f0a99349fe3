package consensus

import (
	"slices"
	"sort"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Candidate is a member as the choice of voters sees it. Health fills in the
// first four, the leader knows the others.
type Candidate struct {
	Node    mesh.NodeID
	Host    string
	Alive   bool
	Leaving bool // it will be removed: its vote goes to another one first

	Voter    bool
	Leader   bool
	CaughtUp bool // its log is about as long as the leader's
}

// ballot chooses voters. It is pure: it acts on what it is told, and each choice
// is one change at a time:
//
//	members   1-2   3-4   5 and more
//	voters      1     3            5
//
// The first rule that applies is the one that is followed:
//
//  1. more voters than that: one loses its vote, a dead one first, then one that
//     is not well, then one on the host with the most voters; never the leader;
//  2. fewer: one that is well gets a vote, if enough are well to make the number
//     odd, as an even number bears no more losses than the odd one below it;
//  3. a voter is dead and another member is well: that one gets a vote, and rule 1
//     takes the dead one's;
//  4. two voters are on one host and one that is well is on a host without: it
//     gets a vote, and rule 1 takes one of the two.
//
// Members that are leaving do not count, and a voter that is leaving is dead. A
// leader that is leaving does not count as a voter either: it keeps its vote
// until another one leads.
//
// So a dead voter keeps its vote until there is another for it. Well means alive
// and caught up for a time (stable), dead means neither for a time (dead): who
// comes and goes is neither.
type ballot struct {
	max          int
	stable, dead time.Duration
	since        map[mesh.NodeID]mark
}

// mark is since when a member is well, or is not.
type mark struct {
	well bool
	at   time.Time
}

func newBallot(max int, stable, dead time.Duration) *ballot {
	return &ballot{max: max, stable: stable, dead: dead, since: make(map[mesh.NodeID]mark)}
}

// goal is how many voters so many members shall have.
func (b *ballot) goal(members int) int {
	switch {
	case members >= 5 && b.max >= 5:
		return 5
	case members >= 3 && b.max >= 3:
		return 3
	}
	return 1
}

// choose says who is to get a vote or to lose it; at most one of them is not
// empty.
func (b *ballot) choose(now time.Time, members []Candidate) (promote, demote mesh.NodeID) {
	members = slices.Clone(members)
	sort.Slice(members, func(i, j int) bool { return members[i].Node < members[j].Node })
	b.observe(now, members)
	staying, voters, onHost := 0, 0, make(map[string]int)
	for _, m := range members {
		if !m.Leaving {
			staying++
		}
		if m.Voter && !(m.Leader && m.Leaving) {
			voters++
			onHost[m.Host]++
		}
	}
	goal := b.goal(staying)
	if voters > goal {
		return "", b.least(now, members, onHost)
	}
	ready, dead, crowded := b.ready(now, members, onHost), false, false
	for _, m := range members {
		dead = dead || m.Voter && !m.Leader && b.isDead(now, m)
		crowded = crowded || m.Voter && onHost[m.Host] > 1
	}
	switch {
	case len(ready) == 0:
	case voters < goal:
		if voters%2 == 0 || len(ready) > 1 {
			return ready[0].Node, ""
		}
	case dead, crowded && onHost[ready[0].Host] == 0:
		if goal > 1 {
			return ready[0].Node, ""
		}
	}
	return "", ""
}

// observe keeps since when each member is as it is.
func (b *ballot) observe(now time.Time, members []Candidate) {
	next := make(map[mesh.NodeID]mark, len(members))
	for _, m := range members {
		well := (m.Leader || m.Alive && m.CaughtUp) && !m.Leaving
		k, ok := b.since[m.Node]
		if !ok || k.well != well {
			k = mark{well, now}
		}
		next[m.Node] = k
	}
	b.since = next
}

// ready are the members that may get a vote, the best first: those on hosts with
// the fewest voters.
func (b *ballot) ready(now time.Time, members []Candidate, onHost map[string]int) []Candidate {
	var ready []Candidate
	for _, m := range members {
		if k := b.since[m.Node]; !m.Voter && k.well && now.Sub(k.at) >= b.stable {
			ready = append(ready, m)
		}
	}
	sort.SliceStable(ready, func(i, j int) bool { return onHost[ready[i].Host] < onHost[ready[j].Host] })
	return ready
}

func (b *ballot) isDead(now time.Time, m Candidate) bool {
	k := b.since[m.Node]
	return !k.well && (m.Leaving || now.Sub(k.at) >= b.dead)
}

// least is the voter that can be spared most.
func (b *ballot) least(now time.Time, members []Candidate, onHost map[string]int) mesh.NodeID {
	var worst Candidate
	score := -1
	for _, m := range members {
		if !m.Voter || m.Leader {
			continue
		}
		s := onHost[m.Host]
		if !b.since[m.Node].well {
			s += len(members) + 1
		}
		if b.isDead(now, m) {
			s += len(members) + 1
		}
		if s >= score { // of those alike, the last
			worst, score = m, s
		}
	}
	return worst.Node
}
