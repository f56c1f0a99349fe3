package site

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// raft stands for the consensus library: one ordered log of committed commands,
// to which the leader of the greatest term appends while a majority of the
// voters hears it. Leaders of before go on until they notice: what they propose
// is refused, and may be in the log all the same.
type raft struct {
	s      *Site
	w      *world.World
	log    []entry // committed; log[i] has index i+1
	term   uint64
	leader *Lead // of the greatest term; nil: none was ever elected
	voters []mesh.NodeID
	lonely dataflow.Time     // since when the leader has no majority
	hashes map[uint64]uint64 // of the state at some indexes, as the first replica had it
	led    map[uint64]mesh.NodeID
}

type entry struct {
	data []byte
	by   *Lead
	what string                                  // as Mesh.Step is told; empty: it is not
	done func(index uint64, r jobmanager.Result) // in by's process
}

// Consensus as it is modelled.
const (
	patience    = 800 * ms // of voters without a leader
	stepDown    = 600 * ms // of a leader without a majority
	keptEntries = 40       // who lacks more gets a snapshot
	snapshots   = 60       // entries from one snapshot on an agent's disk to the next
)

var errLost = errors.New("leadership was lost")

func newRaft(s *Site) *raft {
	r := &raft{s: s, w: s.W, hashes: make(map[uint64]uint64), led: make(map[uint64]mesh.NodeID)}
	r.append(entry{data: encoded(&coordinator.Command{Level: coordinator.BaseLevel, SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: s.Name}})})
	return r
}

func encoded(c *coordinator.Command) []byte {
	data, err := codec.EncodeCommand(c)
	if err != nil {
		panic(fmt.Sprintf("a command cannot be encoded: %v", err))
	}
	return data
}

func (r *raft) append(e entry) {
	r.log = append(r.log, e)
	for _, n := range r.s.Nodes {
		if p := r.s.agents[n.P]; p != nil && p.idle {
			p.idle = false
			looks := 4*ms + p.Slow/2 // as often as this: one that is slow learns of it late
			r.w.At(r.w.Now()+dataflow.Time(r.w.Rand.Int64N(int64(looks))), func() { p.Live(p.replicate) })
		}
	}
}

// majority tells whether a process could commit something now.
func (r *raft) majority(p *agent) bool {
	if p.Dead || p.Paused || p.P != p.Proc {
		return false
	}
	n := 0
	for _, id := range r.voters {
		if o := r.w.Node(id); o != nil && (o == p.Node || r.w.Linked(p.Node, o)) {
			n++
		}
	}
	return 2*n > len(r.voters)
}

// watch elects somebody when there is nobody who leads a majority.
func (r *raft) watch() {
	defer r.w.After(100*ms, r.watch)
	l := r.leader
	if l != nil && !l.over && r.majority(l.p) {
		r.lonely = r.w.Now()
		return
	}
	if l != nil && !l.over && !l.p.Paused && !r.w.Bugs.ConfirmAlways && r.w.Now() >= r.lonely+stepDown {
		l.leave()
	}
	if r.w.Now() >= r.lonely+patience {
		r.elect()
	}
}

// elect makes a voter that reaches a majority the leader of the next term.
func (r *raft) elect() {
	for _, i := range r.w.Rand.Perm(len(r.voters)) {
		n := r.w.Node(r.voters[i])
		if n != nil && n.P != nil && r.majority(r.s.agents[n.P]) && (r.leader == nil || r.leader.over || r.leader.p.Proc != n.P) {
			r.begin(r.s.agents[n.P])
			return
		}
	}
}

// begin begins a term. Of what the leader before has under way the first few may
// have come to a majority.
func (r *raft) begin(p *agent) {
	old := r.leader
	if old != nil {
		n := r.w.Rand.IntN(len(old.pending) + 1)
		for _, e := range old.pending[:n] {
			r.append(entry{data: e.data})
		}
		old.usurped()
	}
	if !r.w.Bugs.TwoLeaders || old == nil {
		r.term++
	}
	r.lonely = r.w.Now()
	r.w.Tell("%s leads term %d", p.ID, r.term)
	r.s.Judge.Elected(r.term, p.ID)
	if p.lead != nil {
		p.lead.leave()
	}
	r.leader = newLead(p, r.term)
	p.lead = r.leader
	r.leader.start()
}

// commit puts what a leader has proposed into the log, if a majority takes it.
func (r *raft) commit(l *Lead) {
	if l.over || len(l.pending) == 0 {
		return
	}
	if r.leader != l && !r.w.Bugs.TwoLeaders || !r.majority(l.p) {
		r.w.After(20*ms, func() { r.commit(l) })
		return
	}
	for len(l.pending) > 0 {
		e := l.pending[0]
		if r.s.step(e.what, false); l.over {
			return // that was a fault
		}
		r.append(e)
		l.waiting, l.pending = append(l.waiting, e), l.pending[1:]
	}
}

// replicate applies what is committed and has come here.
func (p *agent) replicate() {
	w, r := p.W, p.s.raft
	if p.applied == uint64(len(r.log)) {
		p.idle = true
		return
	}
	defer p.After(4*ms+p.Slow/2, p.replicate)
	l := r.leader
	if l == nil || p.Node != l.p.Node && !w.Linked(p.Node, l.p.Node) || p.Node == l.p.Node && p.Dead {
		return
	}
	if p != l.p && w.Chance(4) {
		return // it lags
	}
	if uint64(len(r.log))-p.applied > keptEntries && p != l.p && l.p.applied > p.applied {
		p.install(l.p)
		return
	}
	for n := 1 + w.Rand.IntN(8); n > 0 && p.applied < uint64(len(r.log)) && !p.Dead; n-- {
		p.apply()
	}
	if p.applied >= p.Disk.SnapshotAt+snapshots {
		p.Disk.Snapshot, p.Disk.SnapshotAt = p.snapshot(), p.applied
	}
}

func (p *agent) snapshot() []byte {
	var b bytes.Buffer
	if err := p.machine.Snapshot()(&b); err != nil {
		p.W.Fail(0, "a snapshot cannot be made: %v", err)
	}
	return b.Bytes()
}

// install takes the leader's state in place of the entries that are not kept.
func (p *agent) install(from *agent) {
	if err := p.machine.Restore(bytes.NewReader(from.snapshot())); err != nil {
		p.W.Fail(0, "agent %s cannot take a snapshot: %v", p.ID, err)
		return
	}
	p.W.Tell("%s takes a snapshot of %d (it had %d)", p.ID, from.applied, p.applied)
	p.applied = from.applied
	for _, j := range p.journals() {
		j.AddAll()
	}
	p.step(worker.Event{State: true})
}

// journals are those of who watches the state here.
func (p *agent) journals() []*jobmanager.Journal {
	if p.lead != nil {
		return []*jobmanager.Journal{p.journal, p.lead.journal}
	}
	return []*jobmanager.Journal{p.journal}
}

// apply applies the next command.
func (p *agent) apply() {
	r := p.s.raft
	e := r.log[p.applied]
	c, err := codec.DecodeCommand(e.data)
	if err != nil {
		p.W.Fail(0, "command %d cannot be decoded: %v", p.applied+1, err)
		return
	}
	p.applied++
	index := p.applied
	result, changes := p.machine.Apply(index, c)
	for _, j := range p.journals() {
		j.Add(changes)
	}
	if index%16 == 0 {
		h := fnv.New64a()
		h.Write(p.snapshot())
		if was, ok := r.hashes[index]; ok && was != h.Sum64() {
			p.W.Fail(0, "agent %s has another state at index %d than others", p.ID, index)
		}
		r.hashes[index] = h.Sum64()
	}
	if b := c.LogEpochBegun; p.s.Judge.Applied(index, c, result, p.machine.State()) && result.Err == nil {
		if b != nil && p.s.EpochBegan != nil {
			p.s.EpochBegan(&p.machine.State().Feeds[b.Feed].Log)
		}
		p.s.step(entryOf(c), true)
	}
	p.step(worker.Event{State: true})
	if l := p.lead; l != nil && !l.over {
		own := e.by == l
		p.Post(func() { l.applied(index, c, e, own, result) })
	}
}
