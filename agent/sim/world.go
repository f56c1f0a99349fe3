package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

const (
	ms  = dataflow.Time(dataflow.Millisecond)
	sec = dataflow.Time(dataflow.Second)
)

// siteName is the site that is simulated.
const siteName = mesh.Site("s")

// Config is one run.
type Config struct {
	Seed   uint64
	Agents int           // 0: 3 to 5, by the seed
	Faulty dataflow.Time // how long faults come; 0: 12 s
	Bugs   Bugs
	// Zombies makes most faults such after which somebody acts who should not:
	// processes that stand still for seconds, and leaders that are alone.
	Zombies bool
	// Heirs loses the disk of a log's owner, once, just when others than those of
	// the epoch before are to copy it.
	Heirs bool
	Trace func(string) // a line for each thing worth telling; nil: nobody listens
}

// World is a site and all that surrounds it. One goroutine owns it.
type World struct {
	cfg     Config
	rng     *rand.Rand
	now     dataflow.Time
	queue   events
	seq     uint64
	steps   int
	nodes   []*node
	raft    *raft
	broker  *broker
	outside *outside
	clients *clients
	check   *checker
	streams []*stream
	cuts    map[[2]mesh.NodeID]bool // packets of the first to the second are lost
	calm    bool                    // no fault comes any more
	parsed  map[string]*spec
	parses  map[string]*leader.Parsed
	digests map[string]bool
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

// New makes a world in which nothing has happened.
func New(cfg Config) *World {
	w := &World{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x7469646d)), cuts: make(map[[2]mesh.NodeID]bool), parsed: make(map[string]*spec),
		parses: make(map[string]*leader.Parsed), digests: make(map[string]bool)}
	if w.cfg.Agents == 0 {
		w.cfg.Agents = 3 + w.rng.IntN(3)
	}
	if w.cfg.Faulty == 0 {
		w.cfg.Faulty = 12 * sec
		if cfg.Heirs { // members are replaced when they were away for 5 s
			w.cfg.Faulty *= 2
		}
	}
	w.check = newChecker(w)
	w.raft = newRaft(w)
	w.broker, w.outside, w.clients = newBroker(w), newOutside(w), newClients(w)
	for i := range w.cfg.Agents {
		w.add(fmt.Sprintf("n%d", i+1), 3)
	}
	return w
}

// at does something at a time; what is due at the same time comes in the order
// in which it was asked for.
func (w *World) at(t dataflow.Time, f func()) {
	w.seq++
	heap.Push(&w.queue, event{max(t, w.now), w.seq, f})
}

// soon is a time between least and twice that from now.
func (w *World) soon(least dataflow.Time) dataflow.Time {
	return w.now + least + dataflow.Time(w.rng.Int64N(int64(least)+1))
}

func (w *World) after(least dataflow.Time, f func()) { w.at(w.soon(least), f) }

// chance is true once in n.
func (w *World) chance(n int) bool { return w.rng.IntN(n) == 0 }

// run lets time pass, until something is wrong.
func (w *World) run(until dataflow.Time) {
	for len(w.queue) > 0 && w.queue[0].at <= until && w.check.failed == nil {
		e := heap.Pop(&w.queue).(event)
		w.now = max(w.now, e.at)
		w.steps++
		e.f()
		w.check.step()
	}
	if w.check.failed == nil {
		w.now = max(w.now, until)
	}
}

// trace tells people what happens.
func (w *World) trace(format string, args ...any) {
	if w.cfg.Trace != nil {
		w.cfg.Trace(fmt.Sprintf("%9.3f  %s", float64(w.now)/float64(sec), fmt.Sprintf(format, args...)))
	}
}

// node is an agent: its machine, its disk, and its process, if it runs.
type node struct {
	w     *World
	id    mesh.NodeID
	name  string
	slots int
	disk  *disk
	boots uint64
	p     *proc         // nil: it does not run
	slow  dataflow.Time // what is added to everything that it does
	rate  int64         // of its clock: this many thousandths of a second a millisecond
	gone  bool          // its disk was wiped, so it is nobody any more
}

func (w *World) add(name string, slots int) *node {
	id := mesh.NodeID(name)
	for w.node(id) != nil {
		id += "x"
	}
	n := &node{w: w, id: id, name: string(id), slots: slots, disk: newDisk(), rate: 990 + w.rng.Int64N(21)}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *World) node(id mesh.NodeID) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// procs are the processes that run, paused or not.
func (w *World) procs() (all []*proc) {
	for _, n := range w.nodes {
		if n.p != nil {
			all = append(all, n.p)
		}
	}
	return all
}

// hears tells whether packets of a node reach another one.
func (w *World) hears(from, to mesh.NodeID) bool {
	return from == to || !w.cuts[[2]mesh.NodeID{from, to}]
}

// linked tells whether two nodes can talk now.
func (w *World) linked(a, b *node) bool {
	return a.p != nil && b.p != nil && !a.p.paused && !b.p.paused && w.hears(a.id, b.id) && w.hears(b.id, a.id)
}

// state is that of the process that has applied most.
func (w *World) state() *coordinator.State {
	var best *proc
	for _, p := range w.procs() {
		if best == nil || p.machine.State().Index > best.machine.State().Index {
			best = p
		}
	}
	if best == nil {
		return &coordinator.State{}
	}
	return best.machine.State()
}

func refText(r coordinator.AttemptRef) string { return fmt.Sprintf("%s/%d", r.Job, r.Token.Attempt) }

func nodesText(ids []mesh.NodeID) string {
	var all []string
	for _, id := range ids {
		all = append(all, string(id))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
