package sim

import (
	"slices"
	"syscall"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// fault is one thing that goes wrong.
func (r *run) fault() {
	n := r.site.Nodes[r.w.Rand.IntN(len(r.site.Nodes))]
	if n.Gone {
		return
	}
	if r.cfg.Zombies && !r.w.Chance(3) {
		r.zombie(n)
		return
	}
	switch r.w.Rand.IntN(14) {
	case 0, 1, 2:
		r.faultKill(n)
	case 3, 4:
		if n.P != nil && !n.P.Paused {
			n.Pause()
			long := ms * 200
			if r.w.Chance(2) {
				long = 5 * sec
			}
			if r.w.Chance(5) {
				long = 15 * sec
			}
			r.w.After(long, n.Resume)
		}
	case 5, 6:
		r.cut(n, true)
	case 7:
		r.cut(n, false)
	case 8:
		r.isolate(n)
	case 9, 10:
		r.w.Tell("FAULT another leader")
		r.site.Elect()
	case 11:
		r.faultDisk(n)
	case 12:
		n.Slow = 20 * ms * dataflow.Time(1+r.w.Rand.IntN(8))
		r.w.Tell("FAULT %s is slow", n.ID)
		r.w.After(3*sec, func() { n.Slow = 0 })
	case 13:
		r.w.BreakStreams(n)
	}
}

// zombie stops a process for longer than a lease, or takes the leader away from
// the others.
func (r *run) zombie(n *world.Node) {
	for _, o := range r.site.Nodes {
		if o.P != nil && o.P.Paused {
			return
		}
	}
	if l := r.site.Leader(); r.w.Whole() && r.w.Chance(3) && l != nil {
		r.isolate(l.Node())
	} else if n.P != nil {
		n.Slow = 300 * ms // so that much is on its way when it stops
		r.w.After(sec, func() {
			n.Slow = 0
			if n.P != nil && !n.P.Paused && !r.w.Calm {
				n.Pause()
				r.w.After(5*sec, n.Resume)
			}
		})
	}
}

func (r *run) faultKill(n *world.Node) {
	if n.P == nil {
		return
	}
	n.Kill()
	wait := 300 * ms
	if r.w.Chance(3) {
		wait = 5 * sec
	}
	if !r.cfg.Heirs && r.w.Chance(12) && r.wipe(n) {
		return
	}
	r.w.After(wait, n.Again)
}

// faultHeirs takes the disk of a log's owner away when its epoch has hardly begun,
// and has others than the one before: who left may then be the only one that has
// everything.
func (r *run) faultHeirs(e *coordinator.LogEpoch) {
	left := slices.ContainsFunc(e.Heirs, func(h coordinator.Heir) bool { return !slices.Contains(e.Members, h.Node) })
	if !r.cfg.Heirs || r.w.Calm || !left {
		return
	}
	r.w.After(5*ms*dataflow.Time(1+r.w.Rand.IntN(20)), func() {
		n := r.w.Node(e.Owner)
		if !r.w.Calm && n.P != nil && r.wipe(n) {
			n.Kill()
		}
	})
}

// wipe takes an agent's disk away for good; another agent takes its place.
func (r *run) wipe(n *world.Node) bool {
	for _, o := range r.site.Nodes {
		if o != n && (o.Gone || o.P == nil && !r.cfg.Heirs) {
			return false // one in all: two copies are lost only if two disks are
		}
	}
	n.Gone = true
	r.site.Judge.Stats.Disks++
	r.w.Tell("FAULT the disk of %s is lost", n.ID)
	r.w.After(sec, r.site.Replace(n).Again)
	return true
}

// cut loses packets between a node and another one.
func (r *run) cut(n *world.Node, both bool) {
	o := r.site.Nodes[r.w.Rand.IntN(len(r.site.Nodes))]
	if o == n {
		return
	}
	r.w.Tell("FAULT no packets from %s to %s (both ways: %v)", n.ID, o.ID, both)
	r.w.Lose(n.ID, o.ID)
	if both {
		r.w.Lose(o.ID, n.ID)
	}
	wait := sec
	if r.w.Chance(2) {
		wait = 6 * sec
	}
	r.w.After(wait, func() { r.w.Join(n.ID, o.ID) })
}

func (r *run) isolate(n *world.Node) {
	r.w.Tell("FAULT %s is alone", n.ID)
	for _, o := range r.site.Nodes {
		if o != n {
			r.w.Lose(n.ID, o.ID)
			r.w.Lose(o.ID, n.ID)
		}
	}
	wait := sec
	if r.w.Chance(2) {
		wait = 6 * sec
	}
	r.w.After(wait, func() {
		for _, o := range r.site.Nodes {
			if o != n {
				r.w.Join(n.ID, o.ID)
			}
		}
	})
}

func (r *run) faultDisk(n *world.Node) {
	err := world.ErrDisk
	if r.w.Chance(2) {
		err = syscall.ENOSPC
	}
	r.w.Tell("FAULT the disk of %s: %v", n.ID, err)
	n.Disk.Fail(err)
	wait := sec
	if r.w.Chance(2) {
		wait = 5 * sec
	}
	r.w.After(wait, n.Disk.Heal)
}

// split cuts the leader and the agent that publishes off from all others, in both
// ways, until everything heals. Only the end of its lease ends what it does.
func (r *run) split() {
	r.w.Run(800 * ms) // before a checkpoint, which may have both its copies there
	l, j := r.site.Leader(), r.site.Job("publish")
	if l == nil || j == nil || len(j.Places) == 0 {
		return
	}
	with := r.w.Node(j.Places[0].Node)
	r.w.Tell("FAULT %s and %s are cut off", l.Node().ID, with.ID)
	for _, a := range []*world.Node{l.Node(), with} {
		for _, b := range r.site.Nodes {
			if b != l.Node() && b != with {
				r.w.Lose(a.ID, b.ID)
				r.w.Lose(b.ID, a.ID)
			}
		}
	}
	r.w.Run(r.w.Now() + 15*sec)
}
