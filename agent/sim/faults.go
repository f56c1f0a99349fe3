package sim

import (
	"slices"
	"syscall"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// fault is one thing that goes wrong.
func (w *World) fault() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if n.gone {
		return
	}
	if w.cfg.Zombies && !w.chance(3) {
		w.zombie(n)
		return
	}
	switch w.rng.IntN(14) {
	case 0, 1, 2:
		w.faultKill(n)
	case 3, 4:
		if n.p != nil && !n.p.paused {
			n.pause()
			long := ms * 200
			if w.chance(2) {
				long = 5 * sec
			}
			if w.chance(5) {
				long = 15 * sec
			}
			w.after(long, n.resume)
		}
	case 5, 6:
		w.cut(n, true)
	case 7:
		w.cut(n, false)
	case 8:
		w.isolate(n)
	case 9, 10:
		w.trace("FAULT another leader")
		w.raft.elect()
	case 11:
		w.faultDisk(n)
	case 12:
		n.slow = 20 * ms * dataflow.Time(1+w.rng.IntN(8))
		w.trace("FAULT %s is slow", n.id)
		w.after(3*sec, func() { n.slow = 0 })
	case 13:
		w.breakStreams(n)
	}
}

// zombie stops a process for longer than a lease, or takes the leader away from
// the others.
func (w *World) zombie(n *node) {
	for _, o := range w.nodes {
		if o.p != nil && o.p.paused {
			return
		}
	}
	if l := w.raft.leader; len(w.cuts) == 0 && w.chance(3) && l != nil && !l.over {
		w.isolate(l.p.n)
	} else if n.p != nil {
		n.slow = 300 * ms // so that much is on its way when it stops
		w.after(sec, func() {
			n.slow = 0
			if n.p != nil && !n.p.paused && !w.calm {
				n.pause()
				w.after(5*sec, n.resume)
			}
		})
	}
}

func (w *World) faultKill(n *node) {
	if n.p == nil {
		return
	}
	n.kill()
	wait := 300 * ms
	if w.chance(3) {
		wait = 5 * sec
	}
	if !w.cfg.Heirs && w.chance(12) && w.wipe(n) {
		return
	}
	w.after(wait, n.again)
}

// again starts a process where none runs: what heals everything may have done so
// already.
func (n *node) again() {
	if n.p == nil && !n.gone {
		n.start()
	}
}

// faultHeirs takes the disk of a log's owner away when its epoch has hardly begun,
// and has others than the one before: who left may then be the only one that has
// everything.
func (w *World) faultHeirs(e *coordinator.LogEpoch) {
	left := slices.ContainsFunc(e.Heirs, func(h coordinator.Heir) bool { return !slices.Contains(e.Members, h.Node) })
	if !w.cfg.Heirs || w.calm || !left {
		return
	}
	w.after(5*ms*dataflow.Time(1+w.rng.IntN(20)), func() {
		n := w.node(e.Owner)
		if !w.calm && n.p != nil && w.wipe(n) {
			n.kill()
		}
	})
}

// wipe takes an agent's disk away for good; another agent takes its place.
func (w *World) wipe(n *node) bool {
	for _, o := range w.nodes {
		if o != n && (o.gone || o.p == nil && !w.cfg.Heirs) {
			return false // one in all: two copies are lost only if two disks are
		}
	}
	n.gone = true
	w.check.Stats.Disks++
	w.trace("FAULT the disk of %s is lost", n.id)
	o := w.add(n.name+"b", n.slots)
	for i, v := range w.raft.voters {
		if v == n.id {
			w.raft.voters[i] = o.id
		}
	}
	w.after(sec, o.again)
	return true
}

// cut loses packets between a node and another one.
func (w *World) cut(n *node, both bool) {
	o := w.nodes[w.rng.IntN(len(w.nodes))]
	if o == n {
		return
	}
	w.trace("FAULT no packets from %s to %s (both ways: %v)", n.id, o.id, both)
	w.lose(n.id, o.id)
	if both {
		w.lose(o.id, n.id)
	}
	wait := sec
	if w.chance(2) {
		wait = 6 * sec
	}
	w.after(wait, func() { w.join(n.id, o.id) })
}

func (w *World) isolate(n *node) {
	w.trace("FAULT %s is alone", n.id)
	for _, o := range w.nodes {
		if o != n {
			w.lose(n.id, o.id)
			w.lose(o.id, n.id)
		}
	}
	wait := sec
	if w.chance(2) {
		wait = 6 * sec
	}
	w.after(wait, func() {
		for _, o := range w.nodes {
			if o != n {
				w.join(n.id, o.id)
			}
		}
	})
}

func (w *World) lose(from, to mesh.NodeID) {
	w.cuts[[2]mesh.NodeID{from, to}] = true
	for _, s := range w.streams {
		s.suspect(from)
	}
}

// join heals what is between two nodes.
func (w *World) join(a, b mesh.NodeID) {
	delete(w.cuts, [2]mesh.NodeID{a, b})
	delete(w.cuts, [2]mesh.NodeID{b, a})
	for _, s := range append([]*stream(nil), w.streams...) {
		s.healed()
	}
}

func (w *World) faultDisk(n *node) {
	err := errDisk
	if w.chance(2) {
		err = syscall.ENOSPC
	}
	w.trace("FAULT the disk of %s: %v", n.id, err)
	n.disk.fail(err)
	wait := sec
	if w.chance(2) {
		wait = 5 * sec
	}
	w.after(wait, n.disk.heal)
}

func (w *World) breakStreams(n *node) {
	w.trace("FAULT streams of %s break", n.id)
	for _, s := range w.streams {
		if (s.ends[0].n == n || s.ends[1].n == n) && s.ends[0] != s.ends[1] && w.chance(2) {
			s.breakOff()
		}
	}
}

// heal ends all faults.
func (w *World) heal() {
	w.trace("HEAL")
	w.calm = true
	clear(w.cuts)
	for _, s := range append([]*stream(nil), w.streams...) {
		s.healed()
	}
	for _, n := range append([]*node(nil), w.nodes...) {
		n.slow = 0
		n.disk.heal()
		n.again()
		n.resume()
	}
}
