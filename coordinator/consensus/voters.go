package consensus

import (
	"slices"
	"sort"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Candidate is a member as the choice of voters sees it. Health fills in the
// first three, the leader knows the others.
type Candidate struct {
	Node  mesh.NodeID
	Host  string
	Alive bool

	Leaving  bool // it will be removed, or wants to lead no more: its vote goes to another one first
	Voter    bool
	Leader   bool
	CaughtUp bool // its log is about as long as the leader's
	Reached  bool // it answers the leader
}

// ballot chooses voters. It is pure: it acts on what it is told, and each choice
// is one change at a time:
//
//	members   1-2   3-4   5 and more
//	voters      1     3            5
//
// The first rule that applies is the one that is followed:
//
//  1. the leader is leaving: there is to be another voter that is well, which leads
//     next; all else is that one's to do;
//  2. more voters than that: one loses its vote;
//  3. fewer: one that is well gets a vote, if enough are well to make the number
//     odd, as an even number bears no more losses than the odd one below it;
//  4. a voter is dead and another member is well: that one gets a vote, and rule 2
//     or 7 takes the dead one's;
//  5. two voters are on one host and one that is well is on a host without: it
//     gets a vote, and rule 2 takes one of the two;
//  6. a voter is leaving, and there was none for its vote in the time after which a
//     silent one is dead, or it is not reached: one loses its vote;
//  7. the number is even, fewer than it should be, nobody is well for a vote, and
//     that has been so for as long, or a voter is dead: one loses its vote.
//
// Who loses its vote is a dead one first, then one that is not well, then one on the
// host with the most voters; never the leader, and never one without which those that
// the leader reaches would be no majority: then one that it does not reach comes first.
//
// Members that are leaving do not count, and a voter that is leaving is dead.
//
// So a dead voter keeps its vote until there is another for it, or the number is odd
// without it. Well means alive and caught up, dead means not so for a time (dead). Who
// gets a vote has been well for a time (stable) longer than it was not: one that
// starves, and is missed now and then, waits longer for its vote, but gets it.
type ballot struct {
	max          int
	stable, dead time.Duration
	since        map[mesh.NodeID]mark
	even         time.Time // since when rule 7 would apply; zero: it does not
}

// mark is since when a member is well, or is not.
type mark struct {
	well bool
	at   time.Time
	// lead is how much longer it has been well than not, from 0 to stable; as of seen.
	lead time.Duration
	seen time.Time
}

// until is the mark later, if nothing changed meanwhile.
func (k mark) until(now time.Time, stable time.Duration) mark {
	passed := now.Sub(k.seen)
	if !k.well {
		passed = -passed
	}
	k.lead, k.seen = min(stable, max(0, k.lead+passed)), now
	return k
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
	heir, resigns, dead, crowded := false, false, false, false
	for _, m := range members {
		if !m.Leaving {
			staying++
		}
		if m.Voter {
			voters++
			onHost[m.Host]++
			dead = dead || !m.Leader && b.isDead(now, m)
			heir = heir || !m.Leader && b.since[m.Node].well
		}
		resigns = resigns || m.Leader && m.Leaving
	}
	for _, m := range members {
		crowded = crowded || m.Voter && onHost[m.Host] > 1
	}
	goal, ready := b.goal(staying), b.ready(members, onHost)
	stuck := b.stuck(now, voters < goal && voters%2 == 0 && len(ready) == 0)
	switch {
	case resigns && (heir || len(ready) == 0):
	case resigns:
		return ready[0].Node, ""
	case voters > goal:
		return "", b.least(now, members, onHost)
	case len(ready) > 0 && voters < goal && (voters%2 == 0 || len(ready) > 1):
		return ready[0].Node, ""
	case len(ready) > 0 && goal > 1 && (dead || voters == goal && crowded && onHost[ready[0].Host] == 0):
		return ready[0].Node, ""
	case len(ready) == 0 && b.waitedFor(now, members), stuck, dead && !b.even.IsZero():
		return "", b.least(now, members, onHost)
	}
	return "", ""
}

// stuck tells whether the number of voters has been even for too long.
func (b *ballot) stuck(now time.Time, even bool) bool {
	switch {
	case !even:
		b.even = time.Time{}
	case b.even.IsZero():
		b.even = now
	}
	return even && now.Sub(b.even) >= b.dead
}

// waitedFor tells whether a voter is leaving that goes without another one for its
// vote.
func (b *ballot) waitedFor(now time.Time, members []Candidate) bool {
	return slices.ContainsFunc(members, func(m Candidate) bool {
		return m.Voter && m.Leaving && !m.Leader && (!m.Reached || now.Sub(b.since[m.Node].at) >= b.dead)
	})
}

// observe keeps since when each member is as it is.
func (b *ballot) observe(now time.Time, members []Candidate) {
	next := make(map[mesh.NodeID]mark, len(members))
	for _, m := range members {
		well := (m.Leader || m.Alive && m.CaughtUp) && !m.Leaving
		k, ok := b.since[m.Node]
		if k = k.until(now, b.stable); !ok {
			k = mark{well: well, at: now, seen: now}
		}
		if k.well != well {
			k.well, k.at = well, now
		}
		next[m.Node] = k
	}
	b.since = next
}

// ready are the members that may get a vote, the best first: those on hosts with
// the fewest voters.
func (b *ballot) ready(members []Candidate, onHost map[string]int) []Candidate {
	var ready []Candidate
	for _, m := range members {
		if k := b.since[m.Node]; !m.Voter && k.well && k.lead >= b.stable {
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

// least is the voter that can be spared most; empty: none can.
func (b *ballot) least(now time.Time, members []Candidate, onHost map[string]int) mesh.NodeID {
	voters, reached := 0, 0
	for _, m := range members {
		if m.Voter {
			voters++
			if m.Leader || m.Reached {
				reached++
			}
		}
	}
	var worst Candidate
	score := -1
	for _, m := range members {
		if !m.Voter || m.Leader || m.Reached && reached-1 <= (voters-1)/2 {
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
