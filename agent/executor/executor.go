package executor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/part/peers"
)

// Channels carries rows between the parts of a job on different agents.
type Channels interface {
	// Join is called when a job's part is open, before it is said to be prepared:
	// from then on other agents may send to it. lost is called when a channel broke
	// that had not ended, from any goroutine, with the agent at its other end; it
	// does not block.
	Join(ref coordinator.AttemptRef, j *runtime.Job, p *runtime.Plan, places []coordinator.Place, lost func(peer mesh.NodeID, err error)) (Joined, error)
}

// Joined are the channels of one attempt on this agent.
type Joined interface {
	// Outlet is runtime.Options': it opens a channel to another agent.
	Outlet(c runtime.Channel) (runtime.Outlet, error)
	// Flush waits until everything that was sent has been taken; the job has ended
	// without an error.
	Flush() error
	// Close ends all of them, and a Flush that waits. It waits for their
	// goroutines, and may be called again.
	Close() error
}

// Options are the surroundings of an Executor. Functions may be called by any
// goroutine, and must not block unless they say so.
type Options struct {
	Node      mesh.NodeID
	Site      mesh.Site
	Dir       string         // DATA
	State     *durable.State // opened at Dir
	Transport mesh.Transport // not started yet
	Channels  Channels
	Feeds     Feeds // nil: there are none
	Permit    sensors.Permit
	Secrets   job.Resolver
	Clock     sensors.Clock // of jobs' sources and sinks; nil: the machine's
	Files     store.FS      // where file sinks write; nil: the disk
	Memory    int64         // bytes for batches in flight, of all attempts; 0: 256 MiB
	Slots     int           // among which Memory is divided; 0: one
	Ways      int           // connections over which a large part comes from another site; 0: one

	// Packs tells whether an agent of another site knows of packed parts; nil: none does.
	Packs  func(mesh.NodeID) bool
	Packer *pack.Packer // packs them; nil: one that nobody asks what it has counted

	// Peers are the agents to which copies of something go, the best first, without
	// this one: see Rank. It is asked anew for each share.
	Peers func(key string, suits func(*mesh.Member) bool) []mesh.NodeID
	// Present is a job as the state here has it, which answers nil if it has none.
	// Present nil: what was prepared here is all that is known.
	Present func(coordinator.JobID) *coordinator.Job

	Events func(worker.AttemptEvent)
	Logs   func(worker.LogEvent)
	Copied func(coordinator.Copied) // nil: nobody wants to know
	Warmed func(coordinator.Warmed) // nil: nobody wants to know
	Probed func(coordinator.Probed) // nil: nobody wants to know
	Tell   func(string)             // one line for each thing worth telling

	// Hold is how long what was on the disk at the start is kept, because the process
	// before may have promised it to a checkpoint; 0: an hour.
	Hold dataflow.Duration
}

// Executor performs a worker's effects on one agent. Do is called by one
// goroutine, everything else by any.
type Executor struct {
	o      Options
	holds  *part.Holds // let go by kept only
	peers  *peers.Peers
	kept   *keeper
	copier *copier
	logs   *logs
	serial atomic.Uint64 // of attempts, and of what is restored early

	mu       sync.Mutex // guards what follows
	attempts map[coordinator.JobID]*attempt
	tokens   map[coordinator.JobID]dataflow.FencingToken // the greatest that was prepared here
	damaged  map[coordinator.JobID][]store.Part          // parts that were found so when a job was restored, to be fetched anew
	warms    map[coordinator.JobID]*warming              // of which no attempt has begun
	warming  map[coordinator.JobID]int                   // warmings that have not ended, also of those that were dropped
	cutting  *cutting                                    // by the keeper, one at a time; nil: nothing
	closed   bool
	running  sync.WaitGroup // attempts, what is restored early, and probes

	probes context.Context // of all of them
	closes context.CancelFunc
}

// New makes an executor: from now on peers may push parts to it and fetch some.
func New(o Options) (*Executor, error) {
	if o.Clock == nil {
		o.Clock = sensors.Wall{}
	}
	if o.Files == nil {
		o.Files = disk.Group
	}
	if o.Memory == 0 {
		o.Memory = config.DefaultMemory
	}
	if o.Hold == 0 {
		o.Hold = dataflow.Hour
	}
	o.Slots = max(1, o.Slots)
	x := &Executor{o: o, attempts: make(map[coordinator.JobID]*attempt), tokens: make(map[coordinator.JobID]dataflow.FencingToken), damaged: make(map[coordinator.JobID][]store.Part), warms: make(map[coordinator.JobID]*warming), warming: make(map[coordinator.JobID]int)}
	x.probes, x.closes = context.WithCancel(context.Background())
	out := x.out()
	if err := disk.MkdirAll(o.Files, out); err != nil {
		return nil, err
	}
	x.holds = newHolds(o.State)
	release, err := x.holds.HoldAll()
	if err != nil {
		return nil, err
	}
	x.peers = peers.New(peers.Options{Transport: o.Transport, Store: o.State.Parts(), Site: o.Site, Holds: x.holds, Fence: x.fence, Ways: o.Ways, Packs: o.Packs, Packer: o.Packer})
	if err := o.State.Tidy(); err != nil {
		o.Tell(fmt.Sprintf("what jobs of the process before have left in %s could not be removed: %v", o.State.Dir(), err))
	}
	x.copier = newCopier(x)
	x.kept = newKeeper(x, release)
	x.logs = newLogs(o)
	return x, nil
}

func (x *Executor) out() string { return filepath.Join(x.o.Dir, "out") }

// fence says why an attempt's parts are not taken any more.
func (x *Executor) fence(name string, token dataflow.FencingToken) error {
	id := coordinator.JobID(name)
	x.mu.Lock()
	greatest := x.tokens[id]
	x.mu.Unlock()
	if x.o.Present != nil {
		if j := x.o.Present(id); j != nil && greatest.Less(j.Token(x.o.Site)) {
			greatest = j.Token(x.o.Site)
		}
	}
	if token.Less(greatest) {
		return fencedBy(greatest)
	}
	return nil
}

// Do begins to do what a worker decided; it never blocks. What it asks of one
// attempt, and of one feed, is done in order.
func (x *Executor) Do(e worker.Effect) {
	switch {
	case e.Prepare != nil:
		x.prepare(e.Prepare)
	case e.Begin != nil:
		x.to(e.Begin.AttemptRef, func(a *attempt) { a.begin = e.Begin })
	case e.Trigger != nil:
		x.to(e.Trigger.AttemptRef, func(a *attempt) { a.trigger(e.Trigger.Barrier) })
	case e.Complete != nil:
		x.to(e.Complete.AttemptRef, func(a *attempt) { a.complete(e.Complete.Snapshot.ID) })
	case e.Finish != nil:
		x.to(e.Finish.AttemptRef, func(a *attempt) { a.finish() })
	case e.Close != nil:
		x.close(*e.Close)
	case e.Kept != nil:
		x.kept.tell(*e.Kept)
	case e.Copy != nil:
		x.kept.put(e.Copy)
	case e.Lost != nil:
		x.Lost(e.Lost)
	case e.Warm != nil:
		x.warmUp(e.Warm)
	case e.Cool != nil:
		x.coolDown(*e.Cool)
	case e.Probe != nil:
		x.probe(e.Probe)
	default:
		x.logs.do(e)
	}
}

func (x *Executor) prepare(p *worker.Prepare) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return
	}
	before := x.attempts[p.AttemptRef.Job]
	a := newAttempt(x, p)
	if before != nil { // the worker closed it: it is gone in a moment
		a.before = before.done
	}
	a.early = x.warms[p.AttemptRef.Job]
	delete(x.warms, p.AttemptRef.Job)
	x.attempts[p.AttemptRef.Job] = a
	if x.tokens[p.AttemptRef.Job].Less(p.Token) {
		x.tokens[p.AttemptRef.Job] = p.Token
	}
	x.running.Go(a.run)
}

// to hands something to an attempt; one that is gone has nothing to do with it.
func (x *Executor) to(ref coordinator.AttemptRef, f func(*attempt)) {
	if a := x.find(ref); a != nil {
		a.post(func() { f(a) })
	}
}

func (x *Executor) find(ref coordinator.AttemptRef) *attempt {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a := x.attempts[ref.Job]; a != nil && a.ref == ref {
		return a
	}
	return nil
}

func (x *Executor) close(ref coordinator.AttemptRef) {
	if a := x.find(ref); a != nil {
		a.cancel(errClosed)
		return
	}
	x.o.Events(worker.AttemptEvent{Closed: &ref})
}

// gone: nothing of an attempt is left.
func (x *Executor) gone(a *attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.attempts[a.ref.Job] == a {
		delete(x.attempts, a.ref.Job)
	}
}

// forget lets go what was known of a job that the site does not have any more.
// What is on the disk goes, too; false: its last attempt here still ends, or something
// of it is restored early.
func (x *Executor) forget(id coordinator.JobID) (bool, error) {
	x.mu.Lock()
	if x.attempts[id] != nil || x.warming[id] > 0 {
		x.mu.Unlock()
		return false, nil
	}
	delete(x.tokens, id)
	delete(x.damaged, id)
	x.cutting = &cutting{job: id, done: make(chan struct{})}
	x.mu.Unlock()
	defer x.hasCut()
	return true, x.o.State.Forget(string(id))
}

// awaitCut waits until nothing of a job is being cut back or forgotten. Who calls it is in
// attempts or warming: no such thing of its job begins after it.
func (x *Executor) awaitCut(id coordinator.JobID) {
	x.mu.Lock()
	now := x.cutting
	x.mu.Unlock()
	if now != nil && now.job == id {
		<-now.done
	}
}

// hasCut lets an attempt of the job go on, and what is restored early of it.
func (x *Executor) hasCut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.cutting.done)
	x.cutting = nil
}

// memoryOf is an attempt's part of the budget: that of its slots here. As many
// slots as the scheduler may fill make up the whole.
func (x *Executor) memoryOf(slots int) int64 {
	most := min(int64(x.o.Slots), max(1, x.o.Memory/schedule.SlotMemory))
	return x.o.Memory / most * int64(max(1, slots))
}

// Status is what the subtasks that run here have done, for a heartbeat.
func (x *Executor) Status() (all []coordinator.SubtaskStatus) {
	for _, a := range x.present() {
		all = append(all, a.status()...)
	}
	return all
}

// Preparations are how those attempts came to run that run here.
func (x *Executor) Preparations() (all []Preparation) {
	for _, a := range x.present() {
		a.mu.Lock()
		if a.ran != nil {
			all = append(all, *a.ran)
		}
		a.mu.Unlock()
	}
	return all
}

// present are the attempts in order of their jobs.
func (x *Executor) present() (all []*attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, a := range x.attempts {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *attempt) int {
		if a.ref.Job < b.ref.Job {
			return -1
		}
		return 1
	})
	return all
}

// Close ends everything and waits for it. Nothing is answered any more.
func (x *Executor) Close() error {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	for _, a := range x.present() {
		a.cancel(errClosed)
	}
	x.coolAll()
	x.closes()
	x.running.Wait()
	x.logs.close()
	x.copier.close()
	err := x.peers.Close()
	x.kept.close()
	return err
}
