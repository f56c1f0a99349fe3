package executor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

const (
	collectEvery = 5 * dataflow.Second // parts that nobody needs are looked for so often, at most
	keepAgain    = 5 * dataflow.Second // after a failure
	tellAgain    = dataflow.Minute     // of a failure that lasts
)

// keeper makes the manifests on this disk those that the site keeps, lets go
// what was held for checkpoints of which it is known what became, and collects. One
// goroutine does it all, in the order in which it is told: what is kept waits in the
// queue at times, and what it names must not be let go, and collected, before it is
// looked at.
type keeper struct {
	x       *Executor
	release func() // what was here at the start
	// now is how long this process has run: no step of the machine's clock makes anything
	// due or puts it off, and time in which the machine slept, and heard nothing of the
	// site, does not count.
	now func() dataflow.Time

	mu     sync.Mutex    // guards queue
	queue  []any         // worker.Kept, *coordinator.Job, *worker.Copy, letGo
	signal chan struct{} // 1: the queue may have something
	quit   chan struct{}
	done   sync.WaitGroup

	// Of its goroutine.

	// failed is lost with the process, as queue is; the next one is told all of it
	// again: what is kept of each job that the site has, and that nothing is of one that
	// has a folder here (worker.Config.Folders). So the folder of a job must not go before
	// all else of it has.
	failed map[coordinator.JobID]worker.Kept       // to be tried again
	unread map[coordinator.JobID]bool              // of those in failed: nobody knows what they name
	lost   map[coordinator.JobID]*coordinator.Job  // whose files are to be cut back; tried again
	looked map[coordinator.JobID]bool              // this disk was looked through for what is kept of them
	owed   bool                                    // a collection
	more   bool                                    // of what is kept more follows, before which nothing is collected
	last   dataflow.Time                           // when parts were last collected
	fails  dataflow.Time                           // when a collection that failed is tried again, if none is owed before; MaxTime: it did not
	again  dataflow.Time                           // when what failed and lost have is tried again; MaxTime: there is nothing
	until  dataflow.Time                           // when release is due; MaxTime: it is done
	seen   map[dataflow.CheckpointID]dataflow.Time // what is held as imported, and since when that is known
	told   map[string]dataflow.Time                // of what does not succeed, when that was last told
}

func newKeeper(x *Executor, release func()) *keeper {
	k := &keeper{x: x, release: release, now: sinceNow(), signal: make(chan struct{}, 1), quit: make(chan struct{}), failed: make(map[coordinator.JobID]worker.Kept), unread: make(map[coordinator.JobID]bool), lost: make(map[coordinator.JobID]*coordinator.Job),
		looked: make(map[coordinator.JobID]bool), seen: make(map[dataflow.CheckpointID]dataflow.Time), told: make(map[string]dataflow.Time)}
	now := k.now()
	k.last, k.until, k.again, k.fails = now.Add(-collectEvery), now.Add(x.o.Hold), dataflow.MaxTime, dataflow.MaxTime
	k.done.Go(k.run)
	return k
}

func sinceNow() func() dataflow.Time {
	began := time.Now()
	return func() dataflow.Time { return dataflow.Time(time.Since(began).Microseconds()) }
}

func (k *keeper) close() {
	close(k.quit)
	k.done.Wait()
	k.release()
}

// letGo is of what is held: what a job's attempts before one held for checkpoints that
// will not be, and what parts to restore were held under. Each of them may be empty.
type letGo struct {
	job    coordinator.JobID
	before dataflow.FencingToken
	held   string
}

// tell never blocks. What waits is as much as the site has jobs, a few times.
func (k *keeper) tell(kept worker.Kept) { k.put(kept) }

// lose is Executor.Lost's.
func (k *keeper) lose(j *coordinator.Job) { k.put(j) }

func (k *keeper) put(item any) {
	k.mu.Lock()
	k.queue = append(k.queue, item)
	k.mu.Unlock()
	select {
	case k.signal <- struct{}{}:
	default:
	}
}

func (k *keeper) next() (any, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		return nil, false
	}
	item := k.queue[0]
	k.queue = k.queue[1:]
	return item, true
}

func (k *keeper) run() {
	for {
		item, ok := k.next()
		for ; ok; item, ok = k.next() {
			switch item := item.(type) {
			case worker.Kept:
				k.more = item.More
				k.keep(item, true)
			case *coordinator.Job:
				k.lost[item.ID] = item
				k.cut(item)
			case *worker.Copy: // what it is of was kept before
				k.x.copier.ask(item)
			case letGo:
				k.x.holds.Before(string(item.job), item.before)
				k.x.holds.Drop(item.held)
			}
		}
		k.retry()
		k.collect()
		var wake <-chan time.Time
		if d, ok := k.due(); ok {
			wake = k.x.o.Clock.After(d)
		}
		select {
		case <-k.quit:
			return
		case <-k.signal:
		case <-wake:
		}
	}
}

// retry tries again what is due.
func (k *keeper) retry() {
	now := k.now()
	if now >= k.again {
		k.again = dataflow.MaxTime
		for _, id := range slices.Sorted(maps.Keys(k.failed)) { // what fails again goes back into it
			k.keep(k.failed[id], false)
		}
		for _, id := range slices.Sorted(maps.Keys(k.lost)) {
			k.cut(k.lost[id])
		}
	}
	switch {
	case len(k.failed) == 0 && len(k.lost) == 0:
		k.again = dataflow.MaxTime
	case k.again == dataflow.MaxTime:
		k.again = now.Add(keepAgain)
	}
}

// due is when something is to be done although nobody says anything.
func (k *keeper) due() (dataflow.Duration, bool) {
	now, at := k.now(), min(k.again, k.until)
	if !k.waits() {
		at = min(at, k.fails)
	}
	if k.owed && !k.waits() {
		at = min(at, k.last.Add(collectEvery))
	}
	for _, since := range k.seen {
		at = min(at, since.Add(k.x.o.Hold))
	}
	if at == dataflow.MaxTime {
		return 0, false
	}
	return max(0, dataflow.Duration(at-now)), true
}

// keep makes one folder what it is to be. What cannot be written is spared by
// collections until it is, so that all else goes on. first: it was not tried before.
func (k *keeper) keep(kept worker.Kept, first bool) {
	job := string(kept.Job)
	first = first || k.unread[kept.Job]
	delete(k.failed, kept.Job)
	delete(k.unread, kept.Job)
	var ms []manifest.Manifest
	var errs []error
	for _, s := range kept.Snapshots {
		m, err := manifest.Decode(s.Manifest)
		errs = append(errs, err)
		ms = append(ms, m)
	}
	if k.complain("read "+job, errors.Join(errs...), "what is kept of job %q cannot be read here, and nothing is collected; it is tried again every %v", job, keepAgain) {
		k.failed[kept.Job], k.unread[kept.Job] = kept, true
		return
	}
	_, had := k.told["keep "+job] // failed before
	changed, err := k.x.o.State.SyncKept(job, ms)
	failed := k.complain("keep "+job, err, "the manifests of job %q here are not what is kept; it is tried again every %v", job, keepAgain)
	if failed {
		k.failed[kept.Job] = kept
	}
	if first || changed || had && !failed { // else there is nothing new to collect
		k.owed = true
	}
	if !k.looked[kept.Job] { // once: what is lost later is found when it is read
		k.looked[kept.Job] = true
		k.x.missing(kept, ms)
	}
	if job == "" {
		return
	}
	if n := len(kept.Snapshots); n > 0 {
		k.x.holds.Through(job, kept.Snapshots[n-1].ID)
		return
	}
	if failed || k.x.o.Present == nil || k.x.o.Present(kept.Job) != nil {
		return
	}
	k.x.holds.Drop(job)
	delete(k.looked, kept.Job)
	done, err := k.x.forget(kept.Job)
	if k.complain("forget "+job, err, "what is here of job %q, which is forgotten, could not be removed; it is tried again every %v", job, keepAgain) || !done {
		k.failed[kept.Job] = kept
	}
}

// cut makes a job's files here what is on record of them.
func (k *keeper) cut(j *coordinator.Job) {
	done, err := k.x.loses(j)
	if !k.complain("cut "+string(j.ID), err, "files of job %s could not be cut back to what counts of them; it is tried again every %v", j.Name, keepAgain) && done {
		delete(k.lost, j.ID)
	}
}

// complain tells of what does not succeed: at once, and then once a minute for as
// long as it is tried. false: there is nothing to complain of.
func (k *keeper) complain(of string, err error, format string, args ...any) bool {
	if err == nil {
		delete(k.told, of)
		return false
	}
	now := k.now()
	if last, told := k.told[of]; !told || now >= last.Add(tellAgain) {
		k.told[of] = now
		k.x.o.Tell(fmt.Sprintf(format, args...) + ": " + err.Error())
	}
	return true
}

// expire lets go what was imported long ago: a savepoint names it by now.
func (k *keeper) expire(now dataflow.Time) {
	held := k.x.holds.Checkpoints(imported)
	for _, id := range held {
		since, known := k.seen[id]
		if !known {
			k.seen[id] = now
		} else if now >= since.Add(k.x.o.Hold) {
			k.x.holds.Only(imported, id)
			delete(k.seen, id)
			k.owed = true
		}
	}
}

// waits tells whether nothing may be collected now.
func (k *keeper) waits() bool { return k.more || len(k.unread) > 0 }

// collect removes what nobody needs, where it is known what everything that is kept names.
func (k *keeper) collect() {
	now := k.now()
	if now >= k.until {
		k.until = dataflow.MaxTime
		k.release()
		k.owed = true
	}
	k.expire(now)
	k.owed = k.owed || now >= k.fails
	if !k.owed || k.waits() || now < k.last.Add(collectEvery) {
		return
	}
	k.owed, k.last, k.fails = false, now, dataflow.MaxTime
	_, err := k.x.o.State.Collect()
	if k.complain("collect", err, "parts that are not needed any more stay where they are") {
		k.fails = now.Add(tellAgain)
	}
}
