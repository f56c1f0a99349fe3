package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// keeping is a keeper on a disk that a test can fill, of a machine whose clock it can set.
type keeping struct {
	*keeper
	disk     *storetest.FS
	clock    *setClock
	released atomic.Bool // what was here at the start
	mu       sync.Mutex  // guards lines
	lines    []string
}

// setClock is the wall's clock, set by so much.
type setClock struct {
	sensors.Wall
	by atomic.Int64
}

func (c *setClock) Now() dataflow.Time { return c.Wall.Now().Add(dataflow.Duration(c.by.Load())) }

func newKeeping(t *testing.T) *keeping {
	k := &keeping{disk: storetest.New(), clock: &setClock{}}
	state, err := durable.Open(t.TempDir(), k.disk)
	if err != nil {
		t.Fatal(err)
	}
	x := &Executor{tokens: make(map[coordinator.JobID]dataflow.FencingToken), damaged: make(map[coordinator.JobID][]store.Part), holds: newHolds(state)}
	x.o = Options{Node: "a", State: state, Files: k.disk, Clock: k.clock, Hold: dataflow.Hour, Present: func(coordinator.JobID) *coordinator.Job { return nil },
		Tell: func(line string) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.lines = append(k.lines, line)
		}}
	k.keeper = newKeeper(x, func() { k.released.Store(true) })
	x.kept = k.keeper
	t.Cleanup(func() {
		k.close()
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k *keeping) told() []string {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	lines := k.lines
	k.lines = nil
	return lines
}

// What cannot be written is tried again every few seconds, each job once a round, and
// told once a minute, until it is done. A collection fails too; it is tried again once a
// minute, as nothing changes that it could see.
func TestAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		const jobs = 50
		name := func(i int) coordinator.JobID { return coordinator.JobID(fmt.Sprintf("j%d", i)) }
		for i := range jobs {
			if err := k.disk.MkdirAll(filepath.Join(k.x.o.State.Dir(), "jobs", string(name(i)), "checkpoints")); err != nil {
				t.Fatal(err)
			}
		}
		k.disk.FailFrom(1, syscall.ENOSPC)
		before := k.disk.Ops()
		for i := range jobs {
			k.tell(worker.Kept{Job: name(i), More: i < jobs-1}) // one collection, when all are known
		}
		synctest.Wait()
		per := (k.disk.Ops() - before) / jobs
		for round := range 10 {
			time.Sleep(keepAgain.Go())
			synctest.Wait()
			if got, want := k.disk.Ops()-before, per*jobs*(round+2)+1; got != want || per == 0 {
				t.Fatalf("round %d: %d operations, want %d", round, got, want)
			}
		}
		const what = jobs + 1
		if lines := k.told(); len(lines) != what {
			t.Errorf("told %d times, want once for each of %d jobs, and of the collection", len(lines), jobs)
		}
		time.Sleep(10 * time.Minute)
		if n := len(k.told()); n < 9*what || n > 10*what {
			t.Errorf("told %d times in 10 minutes of %d jobs", n, jobs)
		}
		k.disk.Heal()
		time.Sleep(time.Minute)
		k.told()
		time.Sleep(time.Hour)
		if lines := k.told(); len(lines) > 0 {
			t.Errorf("when there is room: %q", lines)
		}
	})
}

// Files are to be cut back until it is done: a job that cannot be read is no job
// without files.
func TestFilesOfAJobThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		j := &coordinator.Job{ID: "j", Name: "doors", Spec: []byte("from: ["), Sinks: []coordinator.SinkCommit{{Node: "a", Operator: "out", Target: "a:/f"}}, Status: coordinator.Failed}
		k.x.o.Present = func(coordinator.JobID) *coordinator.Job { return j }
		k.lose(j)
		for range 3 {
			if lines := k.told(); len(lines) != 1 || !strings.Contains(lines[0], "files of job doors could not be cut back") {
				t.Fatalf("told %q", lines)
			}
			time.Sleep(tellAgain.Go() + keepAgain.Go())
		}
	})
}

// Nothing is remembered of a job that the site does not have any more.
func TestAForgottenJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		k.x.tokens["j"] = dataflow.FencingToken{Attempt: 3}
		k.x.damaged["j"] = []store.Part{{Size: 1}}
		k.tell(worker.Kept{Job: "j"})
		synctest.Wait()
		if len(k.x.tokens) > 0 || len(k.x.damaged) > 0 {
			t.Errorf("%v, %v", k.x.tokens, k.x.damaged)
		}
	})
}

// While one manifest cannot be read nothing is collected: that a collection is owed
// does not wake anybody then. It would be at once, for ever.
func TestACollectionThatWaits(t *testing.T) {
	const now = dataflow.Time(2 * dataflow.Hour)
	k := &keeper{x: &Executor{}, now: func() dataflow.Time { return now }, owed: true, last: now.Add(-dataflow.Hour), until: dataflow.MaxTime, again: now.Add(dataflow.Hour)}
	if d, ok := k.due(); !ok || d != 0 {
		t.Errorf("it wakes in %v, %v to collect, want at once", d, ok)
	}
	k.unread = map[coordinator.JobID]bool{"j": true}
	if d, ok := k.due(); !ok || d <= 0 {
		t.Errorf("it wakes in %v, %v, and can do nothing then", d, ok)
	}
}

// movingFile is a job with a file of 100 bytes here that has moved away, while its last
// attempt here still ends.
func movingFile(t *testing.T, k *keeping) (at func(epoch, attempt uint64, st coordinator.Status, length int64) *coordinator.Job, f store.File) {
	t.Helper()
	const spec = "name: doors\ncheckpoint: {interval: 1s}\nsources:\n  in: {generate: {rate: 1, keys: 1}}\nsinks:\n  - {id: out, from: in, file: {path: /f.csv}}\n"
	at = func(epoch, attempt uint64, st coordinator.Status, length int64) *coordinator.Job {
		j := &coordinator.Job{ID: "j", Name: "doors", Spec: []byte(spec), Epoch: epoch, Attempt: attempt, Status: st,
			Sinks: []coordinator.SinkCommit{{Node: "a", Operator: "out", Target: "a:/f.csv", Length: length}}}
		if !st.Ended() {
			j.Places = []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "in"}, Node: "a"}}
		}
		return j
	}
	f, err := k.disk.Open("/f.csv", os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt(make([]byte, 100), 0); err != nil {
		t.Fatal(err)
	}
	k.x.attempts = map[coordinator.JobID]*attempt{"j": {}}
	return at, f
}

func (k *keeping) size(t *testing.T) int64 {
	t.Helper()
	info, err := k.disk.Stat("/f.csv")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A job moves away, comes home before its files could be cut back, and commits more here:
// what was to be cut then is of no account any more, also when it moves away again.
func TestAJobThatComesHomeBeforeItsFilesAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		at, f := movingFile(t, k)
		var present atomic.Pointer[coordinator.Job]
		k.x.o.Present = func(coordinator.JobID) *coordinator.Job { return present.Load() }
		present.Store(at(2, 1, coordinator.Moved, 100))
		k.lose(present.Load())
		synctest.Wait()
		present.Store(at(3, 2, coordinator.Running, 1000))
		k.x.mu.Lock()
		k.x.tokens["j"] = dataflow.FencingToken{Epoch: 3, Attempt: 2}
		k.x.mu.Unlock()
		if _, err := f.WriteAt(make([]byte, 900), 100); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keepAgain.Go() + time.Second)
		synctest.Wait()
		k.x.mu.Lock()
		delete(k.x.attempts, "j") // it is restarted
		k.x.mu.Unlock()
		time.Sleep(2 * keepAgain.Go())
		synctest.Wait()
		if n := k.size(t); n != 1000 {
			t.Errorf("%d bytes of 1000 on record", n)
		}
		present.Store(at(4, 2, coordinator.Moved, 1000))
		time.Sleep(2 * keepAgain.Go())
		synctest.Wait()
		if n := k.size(t); n != 1000 {
			t.Errorf("%d bytes of 1000 on record, when it has moved again", n)
		}
	})
}

// Less of a file counts than did, which the job does not write here, though it runs here:
// it is cut to what is on record now, as soon as the attempt has begun.
func TestAFileOfWhichLessCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		at, _ := movingFile(t, k)
		var present atomic.Pointer[coordinator.Job]
		k.x.o.Present = func(coordinator.JobID) *coordinator.Job { return present.Load() }
		present.Store(at(1, 3, coordinator.Running, 70))
		token := dataflow.FencingToken{Epoch: 1, Attempt: 3}
		k.x.attempts["j"].ref.Token, k.x.tokens["j"] = token, token
		k.lose(present.Load())
		synctest.Wait()
		if n := k.size(t); n != 100 {
			t.Errorf("%d bytes of 100 while the attempt is being prepared", n)
		}
		k.x.mu.Lock()
		k.x.attempts["j"].written = map[string]bool{"a:/g.csv": true}
		k.x.mu.Unlock()
		time.Sleep(keepAgain.Go() + time.Second)
		synctest.Wait()
		if n := k.size(t); n != 70 {
			t.Errorf("%d bytes of 70 on record", n)
		}
		present.Store(at(1, 3, coordinator.Running, 60))
		k.x.mu.Lock()
		k.x.attempts["j"].written = map[string]bool{"a:/f.csv": true}
		k.x.mu.Unlock()
		k.lose(present.Load())
		synctest.Wait()
		if n := k.size(t); n != 70 {
			t.Errorf("%d bytes of a file that is being written", n)
		}
	})
}

// What is on the disk of a job that the site has forgotten goes as a whole, once its last
// attempt here is gone.
func TestTheFolderOfAForgottenJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		job := filepath.Join(k.x.o.State.Dir(), "jobs", "j")
		for _, name := range []string{"scratch/big", "sinks/out/ab.pending", "sinks/out/ab.journal", "checkpoints/left"} {
			k.write(t, filepath.Join(job, name))
		}
		k.x.attempts = map[coordinator.JobID]*attempt{"j": {}}
		k.tell(worker.Kept{Job: "j"})
		time.Sleep(3 * keepAgain.Go())
		synctest.Wait()
		if _, err := k.disk.Stat(filepath.Join(job, "scratch", "big")); err != nil {
			t.Errorf("an attempt still ends, and its scratch is gone: %v", err)
		}
		k.x.mu.Lock()
		delete(k.x.attempts, "j")
		k.x.mu.Unlock()
		time.Sleep(3 * keepAgain.Go())
		synctest.Wait()
		if _, err := k.disk.Stat(job); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("its folder: %v", err)
		}
		if lines := k.told(); len(lines) > 0 {
			t.Errorf("told %q", lines)
		}
	})
}

// While something is restored early of a job its folder stays, until the last of that
// is gone: it may keep files there.
func TestTheFolderOfAForgottenJobThatIsWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		k.x.warms, k.x.warming = make(map[coordinator.JobID]*warming), make(map[coordinator.JobID]int)
		scratch := filepath.Join(k.x.o.State.Scratch("j"), "big")
		k.write(t, scratch)
		for _, name := range []string{"doors", "gates"} { // the second takes the place of the first
			k.x.warmUp(&worker.Warm{Job: &coordinator.Job{ID: "j", Name: name, Spec: []byte("from: [")}, From: &coordinator.Snapshot{Name: "c1"}})
		}
		synctest.Wait()
		k.tell(worker.Kept{Job: "j"})
		time.Sleep(3 * keepAgain.Go())
		synctest.Wait()
		if _, err := k.disk.Stat(scratch); err != nil {
			t.Errorf("it is restored early, and its files are gone: %v", err)
		}
		k.x.coolDown("j")
		k.x.running.Wait()
		time.Sleep(2 * keepAgain.Go())
		synctest.Wait()
		if _, err := k.disk.Stat(filepath.Join(k.x.o.State.Dir(), "jobs", "j")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("its folder: %v", err)
		}
		if len(k.x.warming) > 0 {
			t.Errorf("%v", k.x.warming)
		}
	})
}

// What is restored early of a job that is being forgotten waits until that is done.
func TestWarmBehindForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		k.x.warms, k.x.warming = make(map[coordinator.JobID]*warming), make(map[coordinator.JobID]int)
		k.x.cutting = &cutting{job: "j", done: make(chan struct{})}
		k.x.warmUp(&worker.Warm{Job: &coordinator.Job{ID: "j", Name: "doors", Spec: []byte("from: [")}, From: &coordinator.Snapshot{Name: "c1"}})
		if lines := k.told(); len(lines) > 0 {
			t.Errorf("it has begun: %q", lines)
		}
		k.x.hasCut()
		if lines := k.told(); len(lines) != 1 {
			t.Errorf("told %q, want that it cannot be read", lines)
		}
		k.x.cutting = &cutting{job: "j", done: make(chan struct{})}
		k.x.warmUp(&worker.Warm{Job: &coordinator.Job{ID: "j", Name: "gates", Spec: []byte("from: [")}, From: &coordinator.Snapshot{Name: "c1"}})
		k.x.coolDown("j") // it was dropped, and has not ended
		if done, err := k.x.forget("j"); done || err != nil {
			t.Errorf("forgotten under it: %v, %v", done, err)
		}
		k.x.hasCut()
		k.x.running.Wait()
	})
}

// write makes a file and the folders above it.
func (k *keeping) write(t *testing.T, name string) {
	t.Helper()
	err := k.disk.MkdirAll(filepath.Dir(name))
	if err == nil {
		var f store.File
		if f, err = k.disk.Open(name, os.O_RDWR|os.O_CREATE); err == nil {
			_, err = f.WriteAt([]byte("x"), 0)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
