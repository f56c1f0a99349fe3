package ingestlog

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// mirrorOf makes a log that is led, and begins where another one does.
func mirrorOf(t *testing.T, l *Log, epoch uint64) *Log {
	t.Helper()
	c := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: l.Lanes(), SegmentBytes: 1}))
	if err := c.Lead(epoch); err != nil {
		t.Fatal(err)
	}
	_, head := l.First()
	if err := c.Replace(head); err != nil {
		t.Fatal(err)
	}
	return c
}

// A mirror has the same blocks in the same groups, of its own epochs; its members
// take them as any, it can be opened again, and goes on as the log itself would.
func TestMirrorIsTheSame(t *testing.T) {
	l, m, groups := led(t, Options{Dir: t.TempDir(), Lanes: 3, SegmentBytes: 256 << 10}, 40, 1)
	c := mirrorOf(t, l, 7)
	follower := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 3}))
	if err := follower.Promise(7); err != nil {
		t.Fatal(err)
	}
	_, head := c.First()
	if err := follower.BeginAnew(7, head); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(groups); i += 3 {
		some := must[[]*Group](t)(c.Adopt(groups[i:min(i+3, len(groups))]...))
		if _, err := c.Adopt(groups[i]); err == nil {
			t.Error("groups are adopted while others are staged")
		}
		if err := c.Write(); err != nil {
			t.Fatal(err)
		}
		if err := follower.Take(7, some...); err != nil {
			t.Fatal(err)
		}
		c.Replicated(some[len(some)-1].Next)
		if i == 12 {
			if _, err := c.Adopt(groups[3]); !errors.Is(err, store.ErrMissing) {
				t.Errorf("one that is there: %v", err)
			}
		}
	}
	mine := readAll(t, c, 0)
	if !reflect.DeepEqual(mine, readAll(t, follower, 0)) || len(mine) != len(groups) {
		t.Error("the member has other groups")
	}
	for i, g := range mine {
		var a, b state
		if err := errors.Join(a.decode(g.State), b.decode(groups[i].State)); err != nil {
			t.Fatal(err)
		}
		b.epoch = 7
		if !reflect.DeepEqual(g.Blocks, groups[i].Blocks) || !reflect.DeepEqual(a, b) || g.Seq != groups[i].Seq || g.Next != groups[i].Next {
			t.Fatalf("group %d is another", i)
		}
	}
	if err := m.holds(c); err != nil {
		t.Error(err)
	}
	dir := c.o.Dir
	if err := errors.Join(c.Close(), follower.Close()); err != nil {
		t.Fatal(err)
	}
	c = must[*Log](t)(Open(Options{Dir: dir}))
	if err := c.Lead(8); err != nil {
		t.Fatal(err)
	}
	var r sensors.Records
	r.Reset(1)
	r.AppendMessage([]byte("t"), []byte("its own"), 0)
	must[sensors.Position](t)(c.Append(&r))
	m.append(&r)
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	m.commit()
	c.Replicated(c.done.seq)
	if err := m.holds(c); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}

// A mirror that was overtaken begins where its source does, and a reader of what
// is gone is told.
func TestMirrorBeginsAnew(t *testing.T) {
	l, _, groups := led(t, Options{Dir: t.TempDir(), Lanes: 1, SegmentBytes: 1}, 40, 3)
	c := mirrorOf(t, l, 7)
	must[[]*Group](t)(c.Adopt(groups[:5]...))
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	c.Replicated(groups[4].Next)
	r := c.NewReader([]int{0})
	l.mu.Lock()
	l.segs = l.segs[len(l.segs)/2:] // as retention does
	l.mu.Unlock()
	first, head := l.First()
	if id, seq, _, err := Head(head); err != nil || id != l.ID() || seq != first || first <= groups[4].Next {
		t.Fatal(id, seq, err)
	}
	if err := c.Replace(head); err != nil {
		t.Fatal(err)
	}
	var out sensors.Records
	if err := r.Read(t.Context(), &out, 10); !errors.Is(err, store.ErrMissing) {
		t.Errorf("%v, %d records", err, out.Len())
	}
	i := slices.IndexFunc(groups, func(g *Group) bool { return g.Seq == first })
	must[[]*Group](t)(c.Adopt(groups[i:]...))
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c, first); len(got) != len(groups)-i {
		t.Errorf("%d groups of %d", len(got), len(groups)-i)
	}
	if epoch, end := c.End(); epoch != 7 || end != l.done.seq {
		t.Error(epoch, end)
	}
	lanes := mirrorOf(t, l, 1)
	other := newState(2)
	if err := lanes.Replace(other.encode(nil)); err == nil || !strings.Contains(err.Error(), "2 lanes") {
		t.Error(err)
	}
	if err := errors.Join(r.Close(), c.Close(), l.Close(), lanes.Close()); err != nil {
		t.Error(err)
	}
}

// A full disk refuses what a mirror adopted: that can be given up, and the same be adopted
// again, or the log begin anew; where that has no room either the log is as it was.
func TestAMirrorsDiskIsFull(t *testing.T) {
	l, _, groups := led(t, Options{Dir: t.TempDir(), Lanes: 2}, 6, 1)
	d := newDisk(t.TempDir())
	c := must[*Log](t)(Open(Options{Dir: d.dir, Lanes: 2, OpenDB: d.open}))
	if err := c.Lead(4); err != nil {
		t.Fatal(err)
	}
	_, head := l.First()
	if err := c.Replace(head); err != nil {
		t.Fatal(err)
	}
	adopt := func(some ...*Group) error {
		must[[]*Group](t)(c.Adopt(some...))
		return c.Write()
	}
	if err := adopt(groups[:2]...); err != nil {
		t.Fatal(err)
	}
	full := func(string, storetest.PageWrite) error { return syscall.ENOSPC }
	for range 2 {
		d.fail = full
		if err := adopt(groups[2:4]...); !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
		c.Unstage()
		c.Unstage()
		if err := c.Replace(head); !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
		if _, end := c.End(); end != groups[2].Seq || c.pending != 0 {
			t.Errorf("it ends at %d, and %d bytes wait", end, c.pending)
		}
	}
	d.fail = nil
	if err := adopt(groups[2]); err != nil {
		t.Fatal(err)
	}
	if err := adopt(groups[3:]...); err != nil {
		t.Fatal(err)
	}
	c.Replicated(groups[5].Next)
	if got := readAll(t, c, 0); len(got) != len(groups) {
		t.Errorf("%d groups", len(got))
	}
	if err := c.Replace(head); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(adopt(groups...), l.Close(), c.Close()); err != nil {
		t.Error(err)
	}
}

// A log of which nothing belongs to what it is to be begins with nothing, whatever
// step it dies at, and then where its source does.
func TestEmpty(t *testing.T) {
	source, _, groups := led(t, Options{Dir: t.TempDir(), Lanes: 2}, 10, 8)
	_, head := source.First()
	o := Options{Dir: t.TempDir(), Lanes: 2, SegmentBytes: 1}
	l, _, mine := led(t, o, 6, 7)
	if err := l.LetGo(mine[2].Seq); err != nil {
		t.Fatal(err)
	}
	epoch, _ := l.End()
	if err := l.Empty(epoch); err == nil {
		t.Error("it is led, and begins anew")
	}
	if err := errors.Join(l.Close(), func() (err error) { l, err = Open(o); return err }(), l.Promise(50)); err != nil {
		t.Fatal(err)
	}
	if err := l.Empty(49); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
	before, was := segments(t, o.Dir), l.ID()
	if err := l.Empty(50); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	steps, names := []map[string][]byte{before}, slices.Sorted(maps.Keys(before))
	for i := range names[1:] {
		files := maps.Clone(steps[i])
		delete(files, names[i])
		steps = append(steps, files)
	}
	both := maps.Clone(steps[len(steps)-1])
	maps.Copy(both, segments(t, o.Dir))
	for i, files := range append(steps, both, segments(t, o.Dir)) {
		l := must[*Log](t)(Open(Options{Dir: put(t, files), Lanes: 2}))
		if err := errors.Join(l.Promise(50), l.Empty(50)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		first, _ := l.First()
		if epoch, end := l.End(); first != 0 || epoch != 0 || end != 0 || l.Placed() != 0 || l.ID() == was || l.Lane(1) != (LaneState{Clock: dataflow.MinTime}) {
			t.Errorf("step %d: from %d to %d of epoch %d, %+v", i, first, end, epoch, l.Lane(1))
		}
		if err := errors.Join(l.Lead(50), l.Replace(head)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		must[[]*Group](t)(l.Adopt(groups...))
		if err := l.Write(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, l, 0); len(got) != len(groups) || l.ID() != source.ID() {
			t.Errorf("step %d: %d groups of %d", i, len(got), len(groups))
		}
		if err := errors.Join(l.Verify(), l.Close()); err != nil {
			t.Error(err)
		}
	}
	if err := source.Close(); err != nil {
		t.Error(err)
	}
}

// A log keeps what a mirror lacks, as long as that is not too much, and it is not full.
func TestHold(t *testing.T) {
	k := newKeeper(t, Options{Lanes: 1, SegmentBytes: 1, Retain: Retention{Bytes: 1}})
	k.Hold("far", 0, 1<<40)
	fill := func() {
		for range 3 {
			k.must(k.put(KeptMessages/2, 1, 0))
		}
	}
	fill()
	k.first(0)
	k.Hold("far", 3, 1<<40)
	k.must(k.MakeRoom(0))
	k.first(0)
	k.full = true
	k.must(k.MakeRoom(0))
	k.full = false
	if k.Lane(0).First == 0 {
		t.Error("a full log keeps what a mirror lacks")
	}
	first := k.Lane(0).First
	k.Hold("far", first, 1<<40)
	fill()
	k.first(first)
	k.Hold("far", first, 1)
	k.must(k.MakeRoom(0))
	if k.Lane(0).First == first {
		t.Error("it keeps more than is kept for a mirror")
	}
	first = k.Lane(0).First
	k.Hold("far", first, 1<<40)
	fill()
	k.first(first)
	k.Release("far")
	k.must(k.MakeRoom(0))
	if k.Lane(0).First == first {
		t.Error("it keeps what nobody lacks")
	}
}

func TestBeyond(t *testing.T) {
	l, _, groups := led(t, Options{Dir: t.TempDir(), Lanes: 1}, 4, 5)
	<-l.Beyond(groups[2].Next)
	more := l.Beyond(groups[3].Next)
	select {
	case <-more:
		t.Error("there is nothing more")
	default:
	}
	var r sensors.Records
	r.Reset(0)
	r.AppendMessage([]byte("t"), []byte("x"), 1<<40)
	must[sensors.Position](t)(l.Append(&r))
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	l.Replicated(l.done.seq)
	<-more
	if bytes, clock := l.Totals(); bytes == 0 || clock != 1<<40 {
		t.Error(bytes, clock)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-l.Beyond(1 << 40)
}
