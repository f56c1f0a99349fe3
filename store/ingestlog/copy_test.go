package ingestlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/zeebo/xxh3"
	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// led makes a log of an epoch with some commits, and their model. Each commit is
// a group; ends are where they end.
func led(t *testing.T, o Options, commits int, seed uint64) (l *Log, m *model, groups []*Group) {
	l = must[*Log](t)(Open(o))
	m = newModel(o.Lanes)
	rnd := rand.New(rand.NewPCG(seed, 11))
	for i := range commits {
		if i == 0 || i == commits/2 {
			if err := l.Lead(uint64(1 + i)); err != nil {
				t.Fatal(err)
			}
		}
		var r sensors.Records
		for n := range 1 + rnd.IntN(3) {
			random(&r, rnd, o.Lanes, int64(1000*i))
			if n == 0 {
				r.Reset(0)
				r.AppendMessage([]byte("t"), fmt.Appendf(nil, "commit %d", i), int64(1000*i))
			}
			must[sensors.Position](t)(l.Append(&r))
			m.append(&r)
		}
		g := must[*Group](t)(l.Stage())
		groups = append(groups, &Group{g.Seq, g.Next, nil, bytes.Clone(g.State)})
		for _, b := range g.Blocks {
			groups[i].Blocks = append(groups[i].Blocks, GroupBlock{b.Lane, bytes.Clone(b.Data)})
		}
		if err := l.Write(); err != nil {
			t.Fatal(err)
		}
		m.commit()
	}
	l.Replicated(l.done.seq)
	return l, m, groups
}

// first is the model of the first n commits.
func (m *model) first(n int) *model {
	c := &model{lanes: slices.Clone(m.lanes), entries: m.entries, commits: m.commits[:n]}
	for i := range c.lanes {
		c.lanes[i] = c.durable(i)
	}
	return c
}

// read is all groups from seq on.
func readAll(t *testing.T, l *Log, seq int64) (all []*Group) {
	for {
		some := must[[]*Group](t)(l.ReadGroups(seq, 10_000))
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
		seq = some[len(some)-1].Next
	}
}

// A copy has the same groups, byte for byte, read from the owner's disk or as
// they were staged, several at a time or one by one, and can lead on.
func TestCopyIsTheSame(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 3, SegmentBytes: 256 << 10}
	l, m, groups := led(t, o, 40, 1)
	if got := readAll(t, l, 0); !reflect.DeepEqual(got, groups) {
		t.Error("what is read back is not what was staged")
	}
	o.Dir, o.SegmentBytes = t.TempDir(), 1
	c := must[*Log](t)(Open(o))
	by := uint64(30)
	if err := c.Take(by, groups[0]); !errors.Is(err, ErrSealed) {
		t.Errorf("without a promise: %v", err)
	}
	if err := c.Promise(by); err != nil {
		t.Fatal(err)
	}
	if err := c.Take(by, groups[0]); err == nil || !strings.Contains(err.Error(), "it is of log") {
		t.Errorf("another log's: %v", err)
	}
	_, head := l.First()
	if err := c.BeginAnew(by, head); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(groups); i += 3 {
		if err := c.Take(by, groups[i:min(i+3, len(groups))]...); err != nil {
			t.Fatal(err)
		}
		if i == 12 {
			if err := c.Take(by, groups[3]); !errors.Is(err, store.ErrMissing) {
				t.Errorf("one that is there: %v", err)
			}
			if c.Shown() != 0 {
				t.Error("readers of a copy see what nobody said is everywhere")
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			c = must[*Log](t)(Open(o))
		}
	}
	if c.ID() != l.ID() || c.Promised() != by || len(c.segs) < 10 {
		t.Errorf("log %v, promised %d, %d segments", c.ID(), c.Promised(), len(c.segs))
	}
	c.Replicated(c.done.seq)
	if err := errors.Join(m.holds(c), m.tails(c, 50)); err != nil {
		t.Error(err)
	}
	if got := readAll(t, c, 0); !reflect.DeepEqual(got, groups) {
		t.Error("the copy's groups are others")
	}
	// What a byte makes of a group is found out.
	var r sensors.Records
	r.Reset(1)
	r.AppendMessage([]byte("t"), []byte("x"), 1)
	must[sensors.Position](t)(l.Append(&r))
	next := must[*Group](t)(l.Stage())
	for at := range next.Blocks[0].Data {
		bad := &Group{next.Seq, next.Next, []GroupBlock{{next.Blocks[0].Lane, bytes.Clone(next.Blocks[0].Data)}}, next.State}
		bad.Blocks[0].Data[at] ^= 4
		if err := c.Take(by, bad); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	for _, bad := range []*Group{{next.Seq, next.Next + 1, next.Blocks, next.State}, {next.Seq, next.Next, nil, next.State}, {next.Seq, next.Next, next.Blocks, next.State[:20]}} {
		if err := c.Take(by, bad); !errors.Is(err, store.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Take(by, next), l.Write()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(&r); err == nil {
		t.Error("a copy takes what its owner did not send")
	}
	if err := c.Lead(by + 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Take(by, next); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
	must[sensors.Position](t)(c.Append(&r))
	if err := errors.Join(c.Commit(), c.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}

// Readers of a log that is led see what all members have, in whatever steps they
// are told, and wait at its end.
func TestReadersStopAtWhatIsReplicated(t *testing.T) {
	for _, tail := range []int64{1, 0} { // from disk, from memory
		l, m, groups := led(t, Options{Dir: t.TempDir(), Lanes: 2, TailBytes: tail}, 12, 2)
		if err := l.Lead(20); err != nil {
			t.Fatal(err)
		}
		for i := range groups {
			l.Replicated(groups[i].Next)
			first := m.first(i + 1)
			want := first.reads(all(l), firsts(l))
			got, err := read(l, all(l), firsts(l), len(want), func() int { return 5 })
			if err == nil {
				err = compare(got, want)
			}
			if err != nil {
				t.Fatalf("up to group %d: %v", i, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A promise outlives everything, and what comes before it is refused.
func TestPromise(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 1}
	l, _, _ := led(t, o, 2, 3)
	var r sensors.Records
	r.Reset(0)
	r.AppendMessage(nil, []byte("x"), 1)
	must[sensors.Position](t)(l.Append(&r))
	must[*Group](t)(l.Stage())
	if err := l.Promise(9); err != nil {
		t.Fatal(err)
	}
	_, err := l.Append(&r)
	for _, err := range []error{err, l.Write(), l.Commit(), l.Promise(8), l.Lead(8), l.Seal(7), l.Seal(1)} {
		if err == nil {
			t.Error("taken behind a promise")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = must[*Log](t)(Open(o))
	if epoch, end := l.End(); l.Promised() != 9 || epoch != 2 || end < 2 {
		t.Errorf("promised %d, ends with %d of epoch %d", l.Promised(), end, epoch)
	}
	if err := l.Seal(8); err != nil || l.Promised() != 9 || l.Placed() != 8 { // it was not cut before it promised
		t.Errorf("%v: promised %d, cut to %d", err, l.Promised(), l.Placed())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Dir, promiseFile)
	b := must[[]byte](t)(os.ReadFile(path))
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a damaged promise: %v", err)
	}
}

// A staged group stays as it is while its write fails, whatever is appended
// meanwhile.
func TestStagedGroupStays(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
		d := newDisk(t.TempDir())
		l := must[*Log](t)(Open(Options{Dir: d.dir, Lanes: 1, OpenDB: d.open}))
		if err := l.Lead(1); err != nil {
			t.Fatal(err)
		}
		var r sensors.Records
		add := func(text string) {
			r.Reset(0)
			r.AppendMessage(nil, []byte(text), 1)
			must[sensors.Position](t)(l.Append(&r))
		}
		add("a")
		g := must[*Group](t)(l.Stage())
		want := bytes.Clone(g.Blocks[0].Data)
		d.fail = func(string, storetest.PageWrite) error { return err }
		if e := l.Write(); !errors.Is(e, err) {
			t.Fatalf("%v", e)
		}
		add("b")
		again := must[*Group](t)(l.Stage())
		if again != g || !bytes.Equal(again.Blocks[0].Data, want) {
			t.Error("the group is another one")
		}
		d.fail = nil
		if err := l.Write(); err != nil {
			t.Fatal(err)
		}
		if next := must[*Group](t)(l.Stage()); next.Seq != g.Next || next.Next != g.Next+1 {
			t.Errorf("the next is %d to %d", next.Seq, next.Next)
		}
		if err := errors.Join(l.Write(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// cutting does something to a log that is cut, with the power failing at every
// write and between any two files: what is found is a log that is whole, at or
// behind where it is cut, and cutting it again does what was wanted.
func cutting(t *testing.T, o Options, m *model, groups []*Group, to int) {
	d := newDisk(o.Dir)
	whole := func(files map[string][]byte, what string) {
		t.Helper()
		o := o
		o.Dir = put(t, files)
		defer func() { _ = os.RemoveAll(o.Dir) }()
		l, err := Open(o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_, end := l.End()
		n := slices.IndexFunc(groups, func(g *Group) bool { return g.Seq == end })
		if n < 0 {
			n = len(groups)
		}
		if n < to {
			t.Fatalf("%s: it ends with group %d of %d", what, n, to)
		}
		if err := m.first(n).holds(l); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		at, err := l.CutTo(groups[to].Seq)
		if err == nil && at != groups[to].Seq {
			err = fmt.Errorf("cut to %d, not %d", at, groups[to].Seq)
		}
		if err == nil {
			err = m.first(to).holds(l)
		}
		if err = errors.Join(err, l.Promise(99)); err == nil {
			err = l.Take(99, groups[to:]...)
		}
		if err == nil {
			l.Replicated(l.done.seq)
			err = m.holds(l)
		}
		if err = errors.Join(err, l.Close()); err != nil {
			t.Fatalf("%s, going on: %v", what, err)
		}
	}
	rnd := rand.New(rand.NewPCG(uint64(to), 4))
	before := segments(t, o.Dir)
	c := o
	c.OpenDB = d.open
	l := must[*Log](t)(Open(c))
	d.durable(t)
	if at, err := l.CutTo(groups[to].Seq); err != nil || at != groups[to].Seq {
		t.Fatalf("cut to %d, %v", at, err)
	}
	// Whole files went, the newest first.
	files := maps.Clone(before)
	now := segments(t, o.Dir)
	names := slices.Sorted(maps.Keys(before))
	for _, name := range slices.Backward(names) {
		if _, is := now[name]; !is {
			delete(files, name)
			whole(files, "without "+name)
		}
	}
	last := slices.Max(slices.Collect(maps.Keys(now)))
	w := d.files[last]
	writes := w.Take()
	for range 4 {
		files[last], _ = storetest.PageImage(w.base, writes, rnd)
		whole(files, "power loss in "+last)
	}
	if err := errors.Join(m.first(to).holds(l), l.Close()); err != nil {
		t.Fatal(err)
	}
	whole(segments(t, o.Dir), "cut")
}

func TestPowerLossWhileCutting(t *testing.T) {
	for _, c := range []struct {
		size    int64 // of segments; one commit in each, or all in one
		commits int
		to      []int
	}{{1, 4, []int{0, 1, 3}}, {1 << 20, 15, []int{0, 1, 7, 8, 14}}} {
		for _, to := range c.to {
			o := Options{Dir: t.TempDir(), Lanes: 2, SegmentBytes: c.size}
			l, m, groups := led(t, o, c.commits, 5)
			if c.size == 1 && len(l.segs) != c.commits {
				t.Fatalf("%d segments", len(l.segs))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			cutting(t, o, m, groups, to)
		}
	}
}

// What is in a segment twice, because a commit failed and was written again in
// the next, is cut with the rest.
func TestCutAfterAFailedCommit(t *testing.T) {
	d := newDisk(t.TempDir())
	o := Options{Dir: d.dir, Lanes: 1, OpenDB: d.open}
	l := must[*Log](t)(Open(o))
	if err := l.Lead(1); err != nil {
		t.Fatal(err)
	}
	var r sensors.Records
	commit := func(text string) {
		r.Reset(0)
		r.AppendMessage(nil, []byte(text), 1)
		must[sensors.Position](t)(l.Append(&r))
		if err := l.Commit(); err != nil {
			if err := l.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit("a")
	broken := false
	for _, w := range d.files {
		w.FailSync = func(p storetest.PageWrite) bool { is := p.Meta() && !broken; broken = broken || is; return is }
	}
	func() {
		r.Reset(0)
		r.AppendMessage(nil, []byte("b"), 1)
		must[sensors.Position](t)(l.Append(&r))
		if err := l.Commit(); err == nil {
			t.Fatal("the sync did not fail")
		}
		for _, w := range d.files {
			w.Restore()
			w.FailSync = nil
		}
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}()
	commit("c")
	if len(l.segs) != 2 || !broken {
		t.Fatalf("%d segments", len(l.segs))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o.OpenDB = nil
	l = must[*Log](t)(Open(o))
	if at, err := l.CutTo(1); at != 1 || err != nil {
		t.Fatal(at, err)
	}
	if err := errors.Join(l.Close(), func() (err error) { l, err = Open(o); return err }()); err != nil {
		t.Fatal(err)
	}
	if _, end := l.End(); end != 1 {
		t.Errorf("it ends with %d", end)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Beginning anew is whole at every step: the old log, less and less of it, or
// the new one.
func TestPowerLossWhileBeginningAnew(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 2, SegmentBytes: 1}
	owner, m, groups := led(t, o, 10, 6)
	_, head := owner.First()
	id := owner.ID()
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	o.Dir = t.TempDir()
	l, _, _ := led(t, o, 6, 7)
	if err := errors.Join(l.Close(), func() (err error) { l, err = Open(o); return err }(), l.Promise(50)); err != nil {
		t.Fatal(err)
	}
	before := segments(t, o.Dir)
	if err := l.BeginAnew(50, head); err != nil {
		t.Fatal(err)
	}
	after := segments(t, o.Dir)
	if err := l.Take(50, groups...); err != nil {
		t.Fatal(err)
	}
	l.Replicated(l.done.seq)
	if err := errors.Join(m.holds(l), l.Close()); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(before))
	steps := []map[string][]byte{}
	files := maps.Clone(before)
	for _, name := range names[:len(names)-1] {
		delete(files, name)
		steps = append(steps, maps.Clone(files))
	}
	maps.Copy(files, after)
	steps = append(steps, maps.Clone(files))
	for i, files := range append(steps, after) {
		o.Dir = put(t, files)
		l, err := Open(o)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if (l.ID() == id) != (i >= len(steps)-1) {
			t.Errorf("step %d: log %v", i, l.ID())
		}
		if err := errors.Join(l.Verify(), l.Promise(50), l.BeginAnew(50, head), l.Take(50, groups...)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		l.Replicated(l.done.seq)
		if err := errors.Join(m.holds(l), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A copy that begins in the middle has what the owner keeps, and lets go what the
// owner lets go.
func TestCopyKeepsWhatTheOwnerKeeps(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 2, SegmentBytes: 1}
	l, _, groups := led(t, o, 10, 8)
	if err := l.LetGo(groups[4].Seq); err != nil {
		t.Fatal(err)
	}
	first, head := l.First()
	if first != groups[4].Seq {
		t.Fatalf("it begins with %d, want %d", first, groups[4].Seq)
	}
	c := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 2}))
	if err := errors.Join(c.Promise(50), c.BeginAnew(50, head), c.Take(50, groups[4:7]...), c.LetGo(groups[6].Seq)); err != nil {
		t.Fatal(err)
	}
	if at, _ := c.First(); at != first {
		t.Errorf("a segment that is still needed in part went: it begins with %d", at)
	}
	if _, err := c.CutTo(first - 1); !errors.Is(err, store.ErrMissing) {
		t.Error(err)
	}
	if _, err := l.ReadGroups(0, 1); !errors.Is(err, store.ErrMissing) {
		t.Error(err)
	}
	if err := errors.Join(c.Verify(), c.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
}

// A log of version 1 is read; it can be led, and gets its name then.
func TestVersion1(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 2}
	l := must[*Log](t)(Open(o))
	m := newModel(2)
	var r sensors.Records
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 10 {
		random(&r, rnd, 2, 1000)
		must[sensors.Position](t)(l.Append(&r))
		m.append(&r)
	}
	if err := errors.Join(l.Commit(), l.Close()); err != nil {
		t.Fatal(err)
	}
	m.commit()
	path := segmentPath(o.Dir, 1)
	db := must[*bolt.DB](t)(bolt.Open(path, 0o644, nil))
	if err := errors.Join(db.Update(func(tx *bolt.Tx) error {
		root := tx.Bucket(keyRoot())
		for _, key := range [][]byte{keyHead(), keyEnd()} {
			var s state
			if err := s.decode(root.Get(key)); err != nil {
				return err
			}
			if err := root.Put(key, encodeV1(&s)); err != nil {
				return err
			}
		}
		return nil
	}), db.Close()); err != nil {
		t.Fatal(err)
	}
	l = must[*Log](t)(Open(o))
	if err := m.holds(l); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadGroups(0, 1); err == nil || !strings.Contains(err.Error(), "no epoch") {
		t.Error(err)
	}
	if err := l.Lead(1); err != nil {
		t.Fatal(err)
	}
	id := l.ID()
	r.Reset(0)
	r.AppendMessage(nil, []byte("new"), 2000)
	must[sensors.Position](t)(l.Append(&r))
	m.append(&r)
	if err := errors.Join(l.Commit(), l.Close()); err != nil {
		t.Fatal(err)
	}
	m.commit()
	l = must[*Log](t)(Open(o))
	if err := errors.Join(m.holds(l), l.Close()); err != nil || l.ID() != id {
		t.Error(err, l.ID(), id)
	}
}

// encodeV1 is a state as version 1 wrote it.
func encodeV1(s *state) []byte {
	b := append(make([]byte, sumBytes), 1)
	b = appendUvarint(b, s.segment)
	b = appendUvarint(b, uint64(s.seq))
	b = appendUvarint(b, uint64(len(s.lanes)))
	for i := range s.lanes {
		m := &s.lanes[i]
		d := uint64(0)
		if m.deaf {
			d = 1
		}
		b = appendUvarint(b, uint64(m.next)<<1|d)
		b = binary.AppendVarint(b, m.clock)
		b = appendUvarint(b, uint64(m.messages))
		b = appendUvarint(b, uint64(m.bytes))
	}
	binary.LittleEndian.PutUint64(b, xxh3.Hash(b[sumBytes:]))
	return b
}
