package world

import (
	"container/heap"
	"fmt"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Ms and Sec are the units of the world's time.
const (
	Ms  = dataflow.Time(dataflow.Millisecond)
	Sec = dataflow.Time(dataflow.Second)

	ms  = Ms
	sec = Sec
)

// Config is a world from its seed.
type Config struct {
	Seed  uint64
	Bugs  Bugs
	Trace func(string) // a line for each thing worth telling; nil: nobody listens
}

// World is all that surrounds what runs in it. One goroutine owns it.
type World struct {
	Config
	Rand   *rand.Rand
	Nodes  []*Node
	Broker *Broker
	Wan    *Wan
	Calm   bool // no fault comes any more
	Steps  int  // events so far

	now     dataflow.Time
	queue   events
	seq     uint64
	streams []*Stream
	cuts    map[[2]mesh.NodeID]bool // packets of the first to the second are lost
	failed  *Violation
}

// Violation is an invariant of the design that does not hold.
type Violation struct {
	Invariant int // its number in the design; 0: something that should never happen
	At        dataflow.Time
	Text      string
}

// Error says it for people.
func (v *Violation) Error() string {
	return fmt.Sprintf("invariant %d at %.3f s: %s", v.Invariant, float64(v.At)/float64(sec), v.Text)
}

type event struct {
	at  dataflow.Time
	seq uint64
	f   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// New makes a world in which nothing has happened, and nobody is.
func New(cfg Config) *World {
	w := &World{Config: cfg, Rand: rand.New(rand.NewPCG(cfg.Seed, 0x7469646d)), cuts: make(map[[2]mesh.NodeID]bool)}
	w.Wan = &Wan{Delay: 25 * ms, w: w, off: make(map[[2]string]bool)}
	w.Broker = &Broker{w: w, sessions: make(map[string]*Session)}
	return w
}

// Now is the time that is everywhere the same, and which nobody can read.
func (w *World) Now() dataflow.Time { return w.now }

// At does something at a time; what is due at the same time comes in the order
// in which it was asked for.
func (w *World) At(t dataflow.Time, f func()) {
	w.seq++
	heap.Push(&w.queue, event{max(t, w.now), w.seq, f})
}

// Soon is a time between least and twice that from now.
func (w *World) Soon(least dataflow.Time) dataflow.Time {
	return w.now + least + dataflow.Time(w.Rand.Int64N(int64(least)+1))
}

// After does something soon.
func (w *World) After(least dataflow.Time, f func()) { w.At(w.Soon(least), f) }

// Chance is true once in n.
func (w *World) Chance(n int) bool { return w.Rand.IntN(n) == 0 }

// Run lets time pass, until something is wrong.
func (w *World) Run(until dataflow.Time) {
	for len(w.queue) > 0 && w.queue[0].at <= until && w.failed == nil {
		e := heap.Pop(&w.queue).(event)
		w.now = max(w.now, e.at)
		w.Steps++
		e.f()
	}
	if w.failed == nil {
		w.now = max(w.now, until)
	}
}

// Fail notes the first thing that is wrong; then time stands still.
func (w *World) Fail(invariant int, format string, args ...any) {
	if w.failed == nil {
		w.failed = &Violation{invariant, w.now, fmt.Sprintf(format, args...)}
		w.Tell("VIOLATION %v", w.failed)
	}
}

// Failed is the first thing that is wrong; nil: nothing.
func (w *World) Failed() *Violation { return w.failed }

// Tell tells people what happens.
func (w *World) Tell(format string, args ...any) {
	if w.Trace != nil {
		w.Trace(fmt.Sprintf("%9.3f  %s", float64(w.now)/float64(sec), fmt.Sprintf(format, args...)))
	}
}

// Hears tells whether packets of a node reach another one.
func (w *World) Hears(from, to mesh.NodeID) bool {
	if from == to {
		return true
	}
	if len(w.Wan.off) > 0 && !w.Wan.Carries(w.Node(from).Place, w.Node(to).Place) {
		return false
	}
	return !w.cuts[[2]mesh.NodeID{from, to}]
}

// Linked tells whether two nodes can talk now.
func (w *World) Linked(a, b *Node) bool {
	return a.P != nil && b.P != nil && !a.P.Paused && !b.P.Paused && w.Hears(a.ID, b.ID) && w.Hears(b.ID, a.ID)
}

// Whole tells whether no packets are lost anywhere.
func (w *World) Whole() bool { return len(w.cuts) == 0 && len(w.Wan.off) == 0 }

// Lose loses the packets from one node to another.
func (w *World) Lose(from, to mesh.NodeID) {
	w.cuts[[2]mesh.NodeID{from, to}] = true
	for _, s := range w.streams {
		s.suspect(from)
	}
}

// Join heals what is between two nodes.
func (w *World) Join(a, b mesh.NodeID) {
	delete(w.cuts, [2]mesh.NodeID{a, b})
	delete(w.cuts, [2]mesh.NodeID{b, a})
	w.healed()
}

func (w *World) healed() {
	for _, s := range append([]*Stream(nil), w.streams...) {
		s.healed()
	}
}

// BreakStreams breaks about half of a node's streams.
func (w *World) BreakStreams(n *Node) {
	w.Tell("FAULT streams of %s break", n.ID)
	for _, s := range w.streams {
		if (s.ends[0].Node == n || s.ends[1].Node == n) && s.ends[0] != s.ends[1] && w.Chance(2) {
			s.breakOff()
		}
	}
}

// Heal ends all faults.
func (w *World) Heal() {
	w.Tell("HEAL")
	w.Calm = true
	clear(w.cuts)
	clear(w.Wan.off)
	w.Wan.Bad = 0
	w.healed()
	for _, n := range append([]*Node(nil), w.Nodes...) {
		n.Slow = 0
		n.Disk.Heal()
		n.Again()
		n.Resume()
	}
}
