package sim

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"

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
	w      *World
	log    []entry // committed; log[i] has index i+1
	term   uint64
	leader *lead // of the greatest term; nil: none was ever elected
	voters []mesh.NodeID
	lonely dataflow.Time     // since when the leader has no majority
	hashes map[uint64]uint64 // of the state at some indexes, as the first replica had it
	led    map[uint64]mesh.NodeID
}

type entry struct {
	data []byte
	by   *lead
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

func newRaft(w *World) *raft {
	r := &raft{w: w, hashes: make(map[uint64]uint64), led: make(map[uint64]mesh.NodeID)}
	r.append(entry{data: encoded(&coordinator.Command{Level: coordinator.BaseLevel, SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: siteName}})})
	return r
}

func encoded(c *coordinator.Command) []byte {
	data, err := codec.EncodeCommand(c)
	if err != nil {
		panic(fmt.Sprintf("a command cannot be encoded: %v", err))
	}
	return data
}

func (r *raft) append(e entry) { r.log = append(r.log, e) }

// majority tells whether a process could commit something now.
func (r *raft) majority(p *proc) bool {
	if p.dead || p.paused || p.n.p != p {
		return false
	}
	n := 0
	for _, id := range r.voters {
		if o := r.w.node(id); o != nil && (o == p.n || r.w.linked(p.n, o)) {
			n++
		}
	}
	return 2*n > len(r.voters)
}

// watch elects somebody when there is nobody who leads a majority.
func (r *raft) watch() {
	defer r.w.after(100*ms, r.watch)
	l := r.leader
	if l != nil && !l.over && r.majority(l.p) {
		r.lonely = r.w.now
		return
	}
	if l != nil && !l.over && !l.p.paused && !r.w.cfg.Bugs.ConfirmAlways && r.w.now >= r.lonely+stepDown {
		l.leave()
	}
	if r.w.now >= r.lonely+patience {
		r.elect()
	}
}

// elect makes a voter that reaches a majority the leader of the next term.
func (r *raft) elect() {
	for _, i := range r.w.rng.Perm(len(r.voters)) {
		n := r.w.node(r.voters[i])
		if n != nil && n.p != nil && r.majority(n.p) && (r.leader == nil || r.leader.over || r.leader.p != n.p) {
			r.begin(n.p)
			return
		}
	}
}

// begin begins a term. Of what the leader before has under way the first few may
// have come to a majority.
func (r *raft) begin(p *proc) {
	old := r.leader
	if old != nil {
		n := r.w.rng.IntN(len(old.pending) + 1)
		for _, e := range old.pending[:n] {
			r.append(entry{data: e.data})
		}
		old.usurped()
	}
	if !r.w.cfg.Bugs.TwoLeaders || old == nil {
		r.term++
	}
	r.lonely = r.w.now
	r.w.trace("%s leads term %d", p.n.id, r.term)
	r.w.check.elected(r.term, p.n.id)
	if p.lead != nil {
		p.lead.leave()
	}
	r.leader = newLead(p, r.term)
	p.lead = r.leader
	r.leader.start()
}

// commit puts what a leader has proposed into the log, if a majority takes it.
func (r *raft) commit(l *lead) {
	if l.over || len(l.pending) == 0 {
		return
	}
	if r.leader != l && !r.w.cfg.Bugs.TwoLeaders || !r.majority(l.p) {
		r.w.after(20*ms, func() { r.commit(l) })
		return
	}
	for _, e := range l.pending {
		r.append(e)
	}
	l.waiting = append(l.waiting, l.pending...)
	l.pending = nil
}

// replicate applies what is committed and has come here.
func (p *proc) replicate() {
	w, r := p.n.w, p.n.w.raft
	defer p.after(4*ms+p.n.slow/2, p.replicate)
	l := r.leader
	if l == nil || p.applied == uint64(len(r.log)) || p.n != l.p.n && !w.linked(p.n, l.p.n) || p.n == l.p.n && p.dead {
		return
	}
	if p != l.p && w.chance(4) {
		return // it lags
	}
	if uint64(len(r.log))-p.applied > keptEntries && p != l.p && l.p.applied > p.applied {
		p.install(l.p)
		return
	}
	for n := 1 + w.rng.IntN(8); n > 0 && p.applied < uint64(len(r.log)) && !p.dead; n-- {
		p.apply()
	}
	if p.applied >= p.n.disk.snapshotAt+snapshots {
		p.n.disk.snapshot, p.n.disk.snapshotAt = p.snapshot(), p.applied
	}
}

func (p *proc) snapshot() []byte {
	var b bytes.Buffer
	if err := p.machine.Snapshot()(&b); err != nil {
		p.n.w.check.fail(0, "a snapshot cannot be made: %v", err)
	}
	return b.Bytes()
}

// install takes the leader's state in place of the entries that are not kept.
func (p *proc) install(from *proc) {
	if err := p.machine.Restore(bytes.NewReader(from.snapshot())); err != nil {
		p.n.w.check.fail(0, "agent %s cannot take a snapshot: %v", p.n.id, err)
		return
	}
	p.n.w.trace("%s takes a snapshot of %d (it had %d)", p.n.id, from.applied, p.applied)
	p.applied = from.applied
	for _, j := range p.journals() {
		j.AddAll()
	}
	p.step(worker.Event{State: true})
}

// journals are those of who watches the state here.
func (p *proc) journals() []*jobmanager.Journal {
	if p.lead != nil {
		return []*jobmanager.Journal{p.journal, p.lead.journal}
	}
	return []*jobmanager.Journal{p.journal}
}

// apply applies the next command.
func (p *proc) apply() {
	r := p.n.w.raft
	e := r.log[p.applied]
	c, err := codec.DecodeCommand(e.data)
	if err != nil {
		p.n.w.check.fail(0, "command %d cannot be decoded: %v", p.applied+1, err)
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
			p.n.w.check.fail(0, "agent %s has another state at index %d than others", p.n.id, index)
		}
		r.hashes[index] = h.Sum64()
	}
	p.n.w.check.applied(index, c, result, p)
	p.step(worker.Event{State: true})
	if l := p.lead; l != nil && !l.over {
		own := e.by == l
		p.post(func() { l.applied(index, c, e, own, result) })
	}
}
