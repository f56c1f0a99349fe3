package file

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

const sitePath = "/out/rows.csv"

// site is a few agents with a disk each, and what they agree on: the last
// checkpoint that completed and what is on record of the sink's targets.
type site struct {
	t       *testing.T
	disks   map[string]*storetest.FS
	epoch   uint64 // of the job's owners, and of jobs that go on from one another
	attempt uint64
	counter uint64
	done    siteCheckpoint
	record  map[string]sensors.Commit
	told    []sensors.Commit // by the present attempt, not on record yet
	now     *deployed        // the present attempt
	all     []siteCheckpoint // that completed, up to done
	next    int64            // the next row to be written
}

type siteCheckpoint struct {
	id   dataflow.CheckpointID
	held []sensortest.Held
	next int64
}

func newSite(t *testing.T, nodes ...string) *site {
	s := &site{t: t, disks: map[string]*storetest.FS{}, record: map[string]sensors.Commit{}}
	for _, n := range nodes {
		s.disks[n] = storetest.New()
	}
	return s
}

// note puts what was told on record, the oldest first, but for the last keep, as
// coordinator/jobmanager does. Agents of whose files less counts now cut them back.
func (s *site) note(keep int) error {
	n := max(0, len(s.told)-keep)
	fell := false
	for _, c := range s.told[:n] {
		old, known := s.record[c.Target]
		undone := c.Through == s.now.placed.From && c.Through.Less(old.Through) && old.Through.Token != s.now.placed.Attempt
		switch {
		case known && c.Through.Less(old.Through) && !undone:
			continue
		case known && c.Through == old.Through:
			c.Length = max(c.Length, old.Length)
		}
		fell = fell || c.Length < old.Length
		s.record[c.Target] = c
	}
	s.told = s.told[n:]
	if fell {
		return s.cutBack(s.now)
	}
	return nil
}

// older has another job begin with what one that has ended completed i checkpoints ago.
func (s *site) older(i int) {
	s.all = s.all[:len(s.all)-i]
	s.done = s.all[len(s.all)-1]
	s.epoch = s.done.id.Token.Epoch + 1
	for _, d := range s.record { // an ended job of the same epoch began with it, too
		s.epoch = max(s.epoch, d.Through.Token.Epoch+1)
	}
}

// deployed is an attempt: its sinks, by subtask.
type deployed struct {
	s      *site
	placed sensors.Placed
	nodes  []string
	sinks  []*Sink
	held   []sensortest.Held
	full   bool
	done   dataflow.CheckpointID // the last of this attempt that completed
}

// deploy begins the next attempt. What the one before has told and is not on
// record never will be. Agents that have lost the sink cut their files back.
func (s *site) deploy(nodes ...string) (*deployed, error) {
	s.attempt++
	s.told, s.next = nil, s.done.next
	d := &deployed{s: s, nodes: nodes, full: true, held: make([]sensortest.Held, len(nodes))}
	d.placed = sensors.Placed{Nodes: nodes, Attempt: dataflow.FencingToken{Epoch: s.epoch, Attempt: s.attempt}, From: s.done.id}
	for _, c := range s.record {
		d.placed.Commits = append(d.placed.Commits, c)
	}
	s.now = d
	if err := s.cutBack(d); err != nil {
		return d, err
	}
	for i, n := range nodes {
		cfg := SinkConfig{Path: sitePath, Subtask: i, Parallelism: len(nodes), Durable: true, Encoder: newNumbers().csv(), FS: s.disks[n], MaxPending: 60, Placed: d.placed}
		cfg.Placed.Node = n
		k, err := OpenSink(cfg)
		if err != nil {
			return d, err
		}
		d.sinks = append(d.sinks, k)
		if err := k.Recover(context.Background(), sensortest.Pending(s.done.held...), sensortest.Owns(i, len(nodes))); err != nil {
			return d, err
		}
	}
	for _, k := range d.sinks {
		s.told = append(s.told, k.Commits()...)
	}
	return d, nil
}

// cutBack does what every agent does for the targets that it does not write any
// more.
func (s *site) cutBack(now *deployed) error {
	for target, c := range s.record {
		node, _, _ := strings.Cut(target, ":")
		own := false
		for i, n := range now.nodes {
			own = own || target == SiteTarget(n, Target(sitePath, i, len(now.nodes)))
		}
		if !own {
			if err := CutBack(s.disks[node], node, target, c.Length); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *deployed) write(n int) error {
	for i, k := range d.sinks {
		rows := newNumbers()
		rows.next = d.s.next + int64(i*n)
		b, _ := rows.rows(n)
		err := k.Write(context.Background(), b)
		b.Release()
		if err != nil {
			return err
		}
	}
	d.s.next += int64(n * len(d.sinks))
	return nil
}

// checkpoint takes one, which completes or does not. Whoever says that it has
// completed has put on record what was told before.
func (d *deployed) checkpoint(completes bool) error {
	d.s.counter++
	id := dataflow.CheckpointID{Token: d.placed.Attempt, Counter: d.s.counter}
	held := make([]sensortest.Held, len(d.sinks))
	for i, k := range d.sinks {
		var err error
		if held[i], err = d.held[i].Prepare(k, id, d.full); err != nil {
			return err
		}
	}
	d.held, d.full = held, false
	if completes {
		if err := d.s.note(0); err != nil {
			return err
		}
		d.s.done, d.done = siteCheckpoint{id, held, d.s.next}, id
		d.s.all = append(d.s.all, d.s.done)
	}
	return nil
}

// commit has a sink commit what completed, and tells it.
func (d *deployed) commit(i int) error {
	if err := d.sinks[i].CommitThrough(context.Background(), d.s.done.id); err != nil {
		return err
	}
	d.s.told = append(d.s.told, d.sinks[i].Commits()...)
	return nil
}

func (d *deployed) close() {
	for _, k := range d.sinks {
		_ = k.Close()
	}
}

// rows are those in all files of the site.
func (s *site) rows() (all []int64) {
	s.t.Helper()
	for node, disk := range s.disks {
		for _, name := range disk.Files() {
			body := text(s.t, disk, name)
			if strings.HasPrefix(name, "/out/.") || body == "" {
				continue
			}
			lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
			if lines[0] != "n" || !strings.HasSuffix(body, "\n") {
				s.t.Fatalf("%s:%s holds %q", node, name, body)
			}
			for _, l := range lines[1:] {
				n, err := strconv.ParseInt(l, 10, 64)
				if err != nil {
					s.t.Fatalf("%s:%s holds %q", node, name, body)
				}
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all
}

// finish deploys a last time, completes a checkpoint and looks at all files.
func (s *site) finish(what string, nodes ...string) {
	s.t.Helper()
	d, err := s.deploy(nodes...)
	if err == nil {
		err = d.write(2)
	}
	if err == nil {
		err = d.checkpoint(true)
	}
	for i := 0; err == nil && i < len(nodes); i++ {
		err = d.commit(i)
	}
	d.close()
	if err = errors.Join(err, s.note(0)); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	for got, n := s.rows(), int64(0); n < s.next || int64(len(got)) > s.next; n++ {
		if int64(len(got)) <= n || got[n] != n {
			s.t.Fatalf("%s: the files hold %v, want each of %d rows once", what, got, s.next)
		}
	}
}

// round writes rows, completes a checkpoint and commits it.
func (d *deployed) round(n int) {
	d.s.t.Helper()
	err := errors.Join(d.write(n), d.checkpoint(true))
	for i := range d.sinks {
		err = errors.Join(err, d.commit(i))
	}
	if err = errors.Join(err, d.s.note(0)); err != nil {
		d.s.t.Fatal(err)
	}
}

// A site is lost after it has committed more than is kept elsewhere. The job goes on at
// another site with what is kept, and comes home: what is on record there is not of the
// job that comes, stays where it is, and the file goes on behind it. So it is on an agent
// that the checkpoint does not know, too.
func TestHomeAfterALoss(t *testing.T) {
	for _, home := range []string{"a", "x"} {
		t.Run(home, func(t *testing.T) {
			s := newSite(t, "a", "x", "b")
			deploy := func(nodes ...string) *deployed {
				d, err := s.deploy(nodes...)
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			d := deploy("a")
			d.round(3)                                                          // 0, 1, 2
			if err := errors.Join(d.write(2), d.checkpoint(true)); err != nil { // 3, 4: pending
				t.Fatal(err)
			}
			kept := s.done
			d.round(1) // 5
			d.close()
			d = deploy(home)
			d.round(2) // 6, 7
			d.close()
			record := s.record

			s.epoch, s.done, s.record = 1, kept, map[string]sensors.Commit{}
			d = deploy("b")
			d.round(4) // 3, 4 again, and 5 to 8 as they are here
			// 9, in the savepoint of a move: it goes along.
			if err := errors.Join(d.write(1), d.checkpoint(true)); err != nil {
				t.Fatal(err)
			}
			d.close()

			s.epoch, s.record = 2, record
			d = deploy(home)
			d.round(1) // 9, 10
			d.close()
			want := []int64{0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10}
			if got := s.rows(); !slices.Equal(got, want) {
				t.Errorf("the files hold %v, want %v", got, want)
			}
		})
	}
}

// A job begins with an older savepoint of one that has ended, and takes its files over:
// they are what the savepoint knows of them, wherever its sinks are, and stay what the
// job makes of them.
func TestAnOlderSavepoint(t *testing.T) {
	for _, where := range [][]string{{"a"}, {"b"}, {"a", "b"}} {
		for _, after := range []int{0, 1, 2} { // rounds of the ended job with two sinks, after the savepoint
			t.Run(fmt.Sprintf("%v, %d rounds at two", where, after), func(t *testing.T) {
				s := newSite(t, "a", "b")
				run := func(rounds, rows int, nodes ...string) {
					t.Helper()
					d, err := s.deploy(nodes...)
					if err != nil {
						t.Fatal(err)
					}
					defer d.close()
					if err := s.note(0); err != nil { // before it completes anything
						t.Fatal(err)
					}
					for range rounds {
						d.round(rows)
					}
				}
				run(1, 3, "a") // the savepoint
				run(2, 5, "a")
				run(after, 4, "b", "a")
				s.older(len(s.all) - 1)
				run(0, 0, where...)
				run(1, 1, where...)
				run(1, 1, "b")
				run(1, 1, "a")
				run(1, 1, "b", "a")
				s.finish("at last", where...)
			})
		}
	}
}

// TestE52_SiteCrashPoints: agent a writes, and its power goes off at each
// operation of its disk; what was on record then are all of its commits, all but
// the last, or none but that it begins. The sink goes on at b, at a, or at both,
// then perhaps elsewhere; in the end each row is in one of the files.
func TestE52_SiteCrashPoints(t *testing.T) {
	images := 0
	for _, lost := range []int{0, 1, 100} {
		for _, then := range [][][]string{{{"b"}}, {{"a"}}, {{"b"}, {"a"}}, {{"a"}, {"b"}}, {{"b"}, {"b"}}, {{"a", "b"}, {"a"}}, {{"b", "a"}, {"b", "a"}}} {
			off := true
			for at := 1; off; at++ {
				for seed := range uint64(3) {
					what := fmt.Sprintf("power off at %d, %d not on record, image %d, then %v", at, lost, seed, then)
					s := newSite(t, "a", "b")
					s.disks["a"].PowerOffAt(at)
					if err := s.story(lost); err != nil && !errors.Is(err, storetest.ErrPower) {
						t.Fatalf("%s: %v", what, err)
					}
					off = s.disks["a"].Off()
					s.disks["a"] = s.disks["a"].Crash(seed)
					images++
					for i, nodes := range then {
						if i == len(then)-1 {
							s.finish(what, nodes...)
						} else if err := s.episode(nodes, int(seed)); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
					}
				}
			}
		}
	}
	t.Logf("%d images", images)
}

// story is an attempt on a: four checkpoints, of which the second does not
// complete.
func (s *site) story(lost int) error {
	d, err := s.deploy("a")
	defer d.close()
	for c := 1; err == nil && c <= 4; c++ {
		if err = d.write(9); err != nil {
			return err
		}
		if err = d.checkpoint(c != 2); err != nil || c == 2 {
			continue
		}
		err = d.commit(0)
		if lost == 0 {
			err = errors.Join(err, s.note(0))
		}
		if lost == 100 && c == 4 {
			break
		}
	}
	return err
}

// episode is an attempt that dies: before its first checkpoint completes, or
// before it commits, or before that is on record.
func (s *site) episode(nodes []string, dies int) error {
	d, err := s.deploy(nodes...)
	defer d.close()
	if err != nil {
		return err
	}
	if err := d.write(4); err != nil {
		return err
	}
	if err := d.checkpoint(dies > 0); err != nil {
		return err
	}
	if dies == 2 {
		return d.commit(0)
	}
	return nil
}

// TestE52_SiteAtRandom: attempts on any agents, with one or two subtasks, die at
// any operation of any disk or between two; commits come on record late or never;
// an agent that was taken for dead commits after its successor has begun; at times
// another job goes on, with something older.
func TestE52_SiteAtRandom(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 7))
		nodes := []string{"a", "b", "c"}
		s := newSite(t, nodes...)
		var zombie *deployed
		place := func() (out []string) {
			for range 1 + rng.IntN(2) {
				out = append(out, nodes[rng.IntN(3)])
			}
			return out
		}
		what := fmt.Sprintf("seed %d", seed)
		for range 5 {
			for n := range s.disks {
				if rng.IntN(3) == 0 {
					s.disks[n].PowerOffAt(1 + rng.IntN(25))
				}
			}
			where := place()
			if zombie != nil && slices.ContainsFunc(where, func(n string) bool { return slices.Contains(zombie.nodes, n) }) {
				zombie.end() // an agent ends what it runs before it begins anew
				zombie = nil
			}
			if len(s.all) > 1 && rng.IntN(4) == 0 {
				s.older(1 + rng.IntN(len(s.all)-1))
			}
			d, err := s.deploy(where...)
			for steps := 0; err == nil && steps < 8; steps++ {
				err = d.step(rng)
				if zombie != nil && rng.IntN(6) == 0 {
					zombie.end()
					zombie = nil
					err = s.cutBack(d)
				}
			}
			if err != nil && !errors.Is(err, storetest.ErrPower) {
				t.Fatalf("%s: %v", what, err)
			}
			crashed := false
			for n, disk := range s.disks {
				if disk.Off() {
					s.disks[n], crashed = disk.Crash(rng.Uint64N(5)), true
				}
				s.disks[n].PowerOffAt(1 << 30)
			}
			if zombie == nil && !crashed && err == nil && rng.IntN(2) == 0 {
				zombie = d
				continue
			}
			d.close()
			if zombie != nil && crashed {
				zombie.close()
				zombie = nil
			}
		}
		if zombie != nil {
			zombie.end()
		}
		s.finish(what, place()...)
	}
}

// end has an attempt that does not know that it is over commit what completed
// when it was not, and ends it.
func (d *deployed) end() {
	for _, k := range d.sinks {
		_ = k.CommitThrough(context.Background(), d.done)
	}
	d.close()
}

// step is one thing that may happen in an attempt.
func (d *deployed) step(rng *rand.Rand) error {
	switch rng.IntN(4) {
	case 0:
		return d.write(1 + rng.IntN(20))
	case 1:
		return d.checkpoint(rng.IntN(3) > 0)
	case 2:
		if d.done == d.s.done.id {
			return d.commit(rng.IntN(len(d.sinks)))
		}
	case 3:
		return d.s.note(rng.IntN(3))
	}
	return nil
}
