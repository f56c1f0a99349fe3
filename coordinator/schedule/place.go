package schedule

import (
	"cmp"
	"maps"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Request is what Place decides on. The order of its slices decides nothing but
// the order in which equals are taken.
type Request struct {
	Site   mesh.Site
	Slots  []Slot
	Agents []Agent             // who is there; each node once
	Before []coordinator.Place // where subtasks ran last, if they did
	// Memory is the bytes that each slot needs; 0: nobody knows.
	Memory int64
	// Rebalance lets go of an agent's slots beyond its fair share; else everything
	// stays where it ran, if it can.
	Rebalance bool
	// Avoid are agents, and Apart pairs of agents, that are not to be used (not
	// both) if there is room without.
	Avoid []mesh.NodeID
	Apart []Pair
}

// SlotMemory is how many bytes for batches in flight a slot needs at least. An
// agent has as many slots as its budget has of them, whatever it announces.
const SlotMemory = 1 << 20

// Agent is an agent that is there.
type Agent struct {
	Node   mesh.NodeID
	Name   string // for sentences
	Labels map[string]string
	Slots  int   // free ones: those of this job's last attempt are free too
	Memory int64 // free bytes; counts only if Request.Memory does
}

// Slot is subtasks that share a slot.
type Slot struct {
	Subtasks []Subtask
}

// Subtask is what is to be placed.
type Subtask struct {
	ID     dataflow.SubtaskID
	Wants  []Want      // of all its operators
	Pin    mesh.NodeID // it runs there or nowhere; empty: it is free
	PinWhy string      // for sentences: "feed plant"
	Near   []Near      // who has its data
}

// Want is a constraint of an operator: a site, or a label that an agent must
// have.
type Want struct {
	Operator     dataflow.OperatorID // whose it is; empty: the job's
	Site         mesh.Site           // empty: it is a label's
	Label, Value string
}

// Near is an agent that has parts of a subtask's state on disk.
type Near struct {
	Node  mesh.NodeID
	Bytes int64
}

// Placement is where everything goes, by task and index.
type Placement []coordinator.Place

// Waiting is what is missing, a sentence each. It is empty if and only if there
// is a placement.
type Waiting []string

// placeAll places all slots on the agents that there are, or none.
//
// Where an agent has too few slots for all that is pinned to it, what is pinned
// to it goes into one slot of its own: sources of a feed that an agent with one
// free slot owns run there, and the rest of the job elsewhere.
func placeAll(r Request) (Placement, Waiting) {
	places, waiting := place(r)
	if len(waiting) > 0 {
		if gathered, ok := gather(r.Slots); ok {
			r.Slots = gathered
			if again, still := place(r); len(still) == 0 {
				return again, nil
			}
		}
	}
	return places, waiting
}

// gather takes what is pinned to an agent out of its slots, into one. ok is false
// if that changes nothing.
func gather(slots []Slot) (gathered []Slot, ok bool) {
	pinned := make(map[mesh.NodeID]*Slot)
	for _, s := range slots {
		var rest Slot
		for _, t := range s.Subtasks {
			if t.Pin == "" {
				rest.Subtasks = append(rest.Subtasks, t)
				continue
			}
			if pinned[t.Pin] == nil {
				pinned[t.Pin] = &Slot{}
			} else {
				ok = true
			}
			pinned[t.Pin].Subtasks = append(pinned[t.Pin].Subtasks, t)
		}
		ok = ok || len(rest.Subtasks) > 0 && len(rest.Subtasks) < len(s.Subtasks)
		if len(rest.Subtasks) > 0 {
			gathered = append(gathered, rest)
		}
	}
	for _, pin := range slices.Sorted(maps.Keys(pinned)) {
		gathered = append(gathered, *pinned[pin])
	}
	return gathered, ok
}

func place(r Request) (Placement, Waiting) {
	p := newPlacer(r)
	p.keep()
	rest := make([]int, 0, len(p.pieces))
	for i, k := range p.pieces {
		if k.at < 0 {
			rest = append(rest, i)
		}
	}
	// Who can go to few places chooses first, so that less must be moved again.
	slices.SortStableFunc(rest, func(a, b int) int { return cmp.Compare(len(p.pieces[a].may), len(p.pieces[b].may)) })
	var left []int
	for _, i := range rest {
		if !p.place(i) && !p.makeRoom(i) {
			left = append(left, i)
		}
	}
	if len(left) > 0 {
		return nil, p.missing(left)
	}
	places := make(Placement, 0, len(p.pieces))
	for _, k := range p.pieces {
		for _, s := range k.subtasks {
			places = append(places, coordinator.Place{Subtask: s.ID, Node: p.agents[k.at].Node})
		}
	}
	sort.Slice(places, func(i, j int) bool {
		a, b := &places[i].Subtask, &places[j].Subtask
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Index, b.Index)) < 0
	})
	return places, nil
}

// piece is a slot, or what was cut out of one.
type piece struct {
	subtasks []Subtask
	needs    needs
	may      []int // agents that meet the needs, in order
	at       int   // agent; -1: none yet
	near     map[int]int64
}

type placer struct {
	r      Request
	agents []Agent // by node
	room   []int   // slots of each that are free for this job
	pieces []*piece
	load   []int // pieces on each
	fair   int   // pieces of each, if all were equal: rounded up
	over   int   // so many agents have fair, the others one less
	on     [][]int
}

func newPlacer(r Request) *placer {
	p := &placer{r: r, agents: slices.Clone(r.Agents)}
	sort.Slice(p.agents, func(i, j int) bool { return p.agents[i].Node < p.agents[j].Node })
	p.agents = slices.CompactFunc(p.agents, func(a, b Agent) bool { return a.Node == b.Node })
	p.load, p.on, p.room = make([]int, len(p.agents)), make([][]int, len(p.agents)), make([]int, len(p.agents))
	usable := 0
	index := make(map[mesh.NodeID]int, len(p.agents))
	for i, a := range p.agents {
		index[a.Node] = i
		p.room[i] = max(0, a.Slots)
		if r.Memory > 0 {
			p.room[i] = int(min(int64(p.room[i]), max(0, a.Memory)/r.Memory))
		}
		if p.room[i] > 0 {
			usable++
		}
	}
	able := make(map[string][]int) // agents by needs: most slots need the same
	for _, s := range r.Slots {
		p.pieces = append(p.pieces, p.pieceOf(s, able)...)
	}
	for _, k := range p.pieces {
		k.near = make(map[int]int64)
		for _, s := range k.subtasks {
			for _, n := range s.Near {
				if i, ok := index[n.Node]; ok {
					k.near[i] += n.Bytes
				}
			}
		}
	}
	usable = max(1, usable)
	p.fair = (len(p.pieces) + usable - 1) / usable
	p.over = len(p.pieces) - usable*(p.fair-1)
	return p
}

// pieceOf cuts a slot where nobody can take all of it: each subtask goes into the
// first piece that somebody can still take with it.
func (p *placer) pieceOf(s Slot, able map[string][]int) []*piece {
	var all needs
	for _, t := range s.Subtasks {
		all = all.and(needsOf(t))
	}
	if may := p.able(all, able); len(may) > 0 || len(s.Subtasks) == 1 {
		return []*piece{{subtasks: s.Subtasks, needs: all, may: may, at: -1}}
	}
	var pieces []*piece
next:
	for _, t := range s.Subtasks {
		own := needsOf(t)
		for _, k := range pieces {
			both := k.needs.and(own)
			if may := p.able(both, able); len(may) > 0 {
				k.subtasks, k.needs, k.may = append(k.subtasks, t), both, may
				continue next
			}
		}
		pieces = append(pieces, &piece{subtasks: []Subtask{t}, needs: own, may: p.able(own, able), at: -1})
	}
	return pieces
}

// able are the agents that meet needs, whether they have room or not.
func (p *placer) able(n needs, known map[string][]int) []int {
	key := n.String()
	may, ok := known[key]
	if !ok {
		for i, a := range p.agents {
			if n.metBy(a, p.r.Site) {
				may = append(may, i)
			}
		}
		known[key] = may
	}
	return may
}

func (p *placer) put(i, agent int) {
	k := p.pieces[i]
	if k.at >= 0 {
		p.load[k.at]--
		p.on[k.at] = slices.DeleteFunc(p.on[k.at], func(j int) bool { return j == i })
	}
	k.at = agent
	p.load[agent]++
	p.on[agent] = append(p.on[agent], i)
}

// keep leaves pieces where most of their subtasks ran.
func (p *placer) keep() {
	ran := make(map[dataflow.SubtaskID]mesh.NodeID, len(p.r.Before))
	for _, b := range p.r.Before {
		ran[b.Subtask] = b.Node
	}
	over := p.over
	for i, k := range p.pieces {
		best, most := -1, 0
		for _, agent := range k.may {
			n := 0
			for _, s := range k.subtasks {
				if ran[s.ID] == p.agents[agent].Node {
					n++
				}
			}
			if n > most {
				best, most = agent, n
			}
		}
		if best < 0 || p.load[best] >= p.room[best] {
			continue
		}
		if p.r.Rebalance && p.load[best] >= p.fair-1 {
			if p.load[best] >= p.fair || over == 0 {
				continue
			}
			over--
		}
		p.put(i, best)
	}
}

// place puts a piece on the best agent that has room.
func (p *placer) place(i int) bool {
	k, best := p.pieces[i], -1
	for _, agent := range k.may {
		if p.load[agent] < p.room[agent] && (best < 0 || p.better(k, agent, best)) {
			best = agent
		}
	}
	if best < 0 {
		return false
	}
	p.put(i, best)
	return true
}

// better tells whether x suits a piece better than y: up to the fair share who
// has most of the data, then who has least to do, then who has most room.
func (p *placer) better(k *piece, x, y int) bool {
	if over := p.load[x] >= p.fair; over != (p.load[y] >= p.fair) {
		return !over
	} else if !over && k.near[x] != k.near[y] {
		return k.near[x] > k.near[y]
	}
	return cmp.Or(cmp.Compare(p.load[x], p.load[y]), cmp.Compare(p.room[y]-p.load[y], p.room[x]-p.load[x])) < 0
}

// makeRoom moves placed pieces on, as few as possible, until one of those who
// may take piece i has room: the shortest augmenting path. If there is none,
// there is no placement of all that are placed and i.
func (p *placer) makeRoom(i int) bool {
	type step struct{ piece, from int } // the piece that comes here, and the agent that it leaves
	came := make(map[int]step)
	var queue []int
	reach := func(piece, from int) {
		for _, agent := range p.pieces[piece].may {
			if _, ok := came[agent]; !ok {
				came[agent] = step{piece, from}
				queue = append(queue, agent)
			}
		}
	}
	reach(i, -1)
	for len(queue) > 0 {
		agent := queue[0]
		queue = queue[1:]
		if p.load[agent] < p.room[agent] {
			for agent >= 0 {
				s := came[agent]
				p.put(s.piece, agent)
				agent = s.from
			}
			return true
		}
		for _, j := range p.on[agent] {
			reach(j, agent)
		}
	}
	return false
}

// Used counts the slots that a job takes on each agent, where its places are
// those. Of a slot that is on several agents, the one with most of it has the
// slot; what all the others' pieces of a job are on one agent is one slot of its
// own, as Place gathers them.
func Used(slots []Slot, places []coordinator.Place) map[mesh.NodeID]int {
	at := make(map[dataflow.SubtaskID]mesh.NodeID, len(places))
	for _, p := range places {
		at[p.Subtask] = p.Node
	}
	used := make(map[mesh.NodeID]int)
	apart := make(map[mesh.NodeID]bool)
	var split []map[mesh.NodeID]int // subtasks by agent, of slots that are on several
	times := make(map[mesh.NodeID]int)
	for _, s := range slots {
		nodes := make(map[mesh.NodeID]int)
		for _, t := range s.Subtasks {
			if node := at[t.ID]; node != "" {
				nodes[node]++
			}
		}
		if len(nodes) > 1 {
			split = append(split, nodes)
		}
		for node := range nodes {
			if times[node]++; len(nodes) == 1 {
				used[node]++
			}
		}
	}
	for _, nodes := range split {
		all := slices.SortedFunc(maps.Keys(nodes), func(a, b mesh.NodeID) int { // where much is gathered comes last
			return cmp.Or(cmp.Compare(nodes[b], nodes[a]), cmp.Compare(times[a], times[b]), cmp.Compare(a, b))
		})
		used[all[0]]++
		for _, node := range all[1:] {
			apart[node] = true
		}
	}
	for node := range apart {
		used[node]++
	}
	return used
}
