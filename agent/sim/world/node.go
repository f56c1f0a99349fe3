package world

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Node is a machine, its disk, and its process, if one runs.
type Node struct {
	W    *World
	ID   mesh.NodeID
	Name string
	// Place is where it is: between places is the Wan.
	Place string
	Disk  *Disk
	P     *Proc         // nil: it does not run
	Slow  dataflow.Time // what is added to everything that it does
	Gone  bool          // its disk was wiped, so it is nobody any more
	Boot  func(*Proc)   // what runs in a new process

	boots uint64
	rate  int64 // of its clock: this many thousandths of a second a millisecond
}

// Add adds a machine that has not been started.
func (w *World) Add(name string, boot func(*Proc)) *Node {
	id := mesh.NodeID(name)
	for w.Node(id) != nil {
		id += "x"
	}
	n := &Node{W: w, ID: id, Name: string(id), Disk: newDisk(), Boot: boot, rate: 990 + w.Rand.Int64N(21)}
	w.Nodes = append(w.Nodes, n)
	return n
}

// Node finds one; nil: there is none.
func (w *World) Node(id mesh.NodeID) *Node {
	for _, n := range w.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Proc is a process: all that is lost when it is killed.
//
//	running
//	paused  it stands still, as after SIGSTOP; what was due is done when it goes on
//	dead    it was killed: nothing of it is done any more
type Proc struct {
	*Node
	Number uint64 // of the node's processes, from 1
	Dead   bool
	Paused bool
	Killed func() // what ends with it, unseen by itself

	held    []func()
	serves  map[string]func(s *Stream, from *Proc)
	answers map[string]func(ask any, reply func(answer any))
}

// Serve says what becomes of streams of a kind that others open.
func (p *Proc) Serve(kind string, accept func(s *Stream, from *Proc)) { p.serves[kind] = accept }

// Answer says how questions of a kind are answered; reply is called at most once.
func (p *Proc) Answer(kind string, serve func(ask any, reply func(answer any))) {
	p.answers[kind] = serve
}

// Now is the process's clock: it does not go exactly as the others do.
func (p *Proc) Now() dataflow.Time { return 1000*sec + p.W.now/1000*dataflow.Time(p.rate) }

// Real is when the process's clock is at t.
func (p *Proc) Real(t dataflow.Time) dataflow.Time {
	if t >= dataflow.MaxTime/2 {
		return dataflow.MaxTime
	}
	return (t - 1000*sec + dataflow.Time(p.rate)) / dataflow.Time(p.rate) * 1000
}

// Live runs f now, when the process goes on, or never.
func (p *Proc) Live(f func()) {
	switch {
	case p.Dead:
	case p.Paused:
		p.held = append(p.held, f)
	default:
		f()
	}
}

// After does something later in the process.
func (p *Proc) After(least dataflow.Time, f func()) {
	p.W.After(least+p.Slow/4, func() { p.Live(f) })
}

// Post does something after what is under way.
func (p *Proc) Post(f func()) { p.W.At(p.W.now, func() { p.Live(f) }) }

// Start begins a process with what is on the node's disk.
func (n *Node) Start() {
	if n.P != nil {
		n.W.Fail(0, "agent %s is started twice: two processes would share its disk", n.ID)
		return
	}
	n.boots++
	n.P = &Proc{Node: n, Number: n.boots, Killed: func() {}, serves: make(map[string]func(*Stream, *Proc)), answers: make(map[string]func(any, func(any)))}
	n.Boot(n.P)
}

// Again starts a process where none runs: what heals everything may have done so
// already.
func (n *Node) Again() {
	if n.P == nil && !n.Gone {
		n.Start()
	}
}

// Kill ends a process; what was not synced is lost, or not.
func (n *Node) Kill() {
	p := n.P
	if p == nil {
		return
	}
	n.W.Tell("FAULT %s is killed", n.ID)
	n.P, p.Dead = nil, true
	n.Disk.crash(n.W.Rand)
	p.Killed()
	for _, s := range n.W.streams {
		s.died(p)
	}
}

// Pause makes a process stand still.
func (n *Node) Pause() {
	n.W.Tell("FAULT %s stands still", n.ID)
	n.P.Paused = true
	for _, s := range n.W.streams {
		s.suspect(n.ID)
	}
}

// Resume lets a process that stands still do what was due, and go on.
func (n *Node) Resume() {
	p := n.P
	if p == nil || !p.Paused {
		return
	}
	n.W.Tell("FAULT %s goes on", n.ID)
	p.Paused = false
	held := p.held
	p.held = nil
	for i, f := range held {
		if p.Dead || p.Paused {
			p.held = append(p.held, held[i:]...)
			return
		}
		f()
	}
}
