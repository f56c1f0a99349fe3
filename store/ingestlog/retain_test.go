package ingestlog

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

const second = int64(dataflow.Second)

// keeper is a log of one lane with a segment for each commit.
type keeper struct {
	*testing.T
	*Log
	events []EventKind
}

func newKeeper(t *testing.T, o Options) *keeper {
	k := &keeper{T: t}
	o.Dir, o.Lanes = t.TempDir(), 1
	o.Events = func(e Event) { k.events = append(k.events, e.Kind) }
	k.Log = must[*Log](t)(Open(o))
	k.o.SegmentBytes = 1
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// put commits n messages that arrive at once.
func (k *keeper) put(n, size int, at int64) error {
	var r sensors.Records
	r.Reset(0)
	for range n {
		r.AppendMessage([]byte("t"), bytes.Repeat([]byte("x"), size), at)
	}
	if _, err := k.Append(&r); err != nil {
		return err
	}
	return k.Commit()
}

func (k *keeper) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

func (k *keeper) first(want int64) {
	k.Helper()
	if got := k.Lane(0).First; got != want {
		k.Fatalf("the lane begins at %d, want %d", got, want)
	}
	files := must[[]string](k.T)(filepath.Glob(filepath.Join(k.o.Dir, "*"+suffix)))
	if s := k.Stats(); len(files) != s.Segments {
		k.Fatalf("%d files, %d segments", len(files), s.Segments)
	}
}

// Age is by the arrival clock: a log that hears nothing keeps all; ticks and
// messages move it.
func TestRetentionByAgeOnTheArrivalClock(t *testing.T) {
	k := newKeeper(t, Options{Retain: Retention{Age: 10 * dataflow.Second}})
	k.must(k.put(10, 1, 1*second))
	k.must(k.put(KeptMessages, 1, 5*second))
	k.must(k.put(1, 1, 11*second))
	k.first(0) // the first segment ends at 1 s, which is not more than 10 s ago
	k.must(k.put(1, 1, 12*second))
	k.first(10)
	k.must(k.put(KeptMessages, 1, 13*second))
	k.first(10)
	var r sensors.Records
	r.Reset(0)
	r.Clock = 16 * second
	must[sensors.Position](t)(k.Append(&r))
	k.must(k.Commit())
	k.first(10 + KeptMessages)
}

// The last messages stay, however old, since a broker may send them again.
func TestRetentionKeepsTheLastMessages(t *testing.T) {
	k := newKeeper(t, Options{Retain: Retention{Age: 1}})
	k.must(k.put(1, 1, 1*second))
	k.must(k.put(KeptMessages-1, 1, 2*second))
	k.must(k.put(0, 1, 2*second))
	k.must(k.put(1, 1, 100*second))
	k.first(1)
	k.must(k.put(1, 1, 200*second))
	k.first(1)
	k.must(k.put(KeptMessages-2, 1, 300*second))
	k.first(KeptMessages)
}

func TestRetentionNeverPassesAPin(t *testing.T) {
	k := newKeeper(t, Options{Retain: Retention{Bytes: 1}})
	k.Pin("a", []sensors.Position{{Offset: 5}})
	k.Pin("b", []sensors.Position{{Offset: 20}, {Split: 7}})
	for i := range int64(4) {
		k.must(k.put(10, 1, i))
	}
	k.must(k.put(KeptMessages, 1, 9))
	k.must(k.put(1, 1, 9))
	k.first(0)
	k.Pin("a", []sensors.Position{{Offset: 10}})
	k.must(k.put(1, 1, 9))
	k.first(10)
	rd := k.NewReader([]int{0})
	if err := rd.Seek(sensors.Position{Offset: 9}); !errors.Is(err, store.ErrMissing) {
		t.Errorf("seek to what is gone: %v", err)
	}
	k.must(rd.Seek(sensors.Position{Offset: 10}))
	k.Unpin("a")
	k.must(k.put(1, 1, 9))
	k.first(20)
	// The reader was overtaken: nobody pinned what it has not read.
	var r sensors.Records
	if err := rd.Read(context.Background(), &r, 1); !errors.Is(err, store.ErrMissing) {
		t.Errorf("reading what is gone: %v", err)
	}
	k.Unpin("b")
	k.must(k.put(1, 1, 9))
	k.first(40)
}

// The cap is back-pressure: nothing is taken, nothing is lost, and it goes on
// when time has passed or a pin has moved.
func TestCapHoldsBackUntilThereIsRoom(t *testing.T) {
	k := newKeeper(t, Options{Cap: 1 << 20, Retain: Retention{Age: 10 * dataflow.Second}})
	k.Pin("checkpoint", []sensors.Position{{}})
	at, n := int64(0), int64(0)
	var err error
	for ; err == nil; at += second / 100 {
		if err = k.put(50, 1000, at); err == nil {
			n += 50
		}
	}
	if !errors.Is(err, store.ErrFull) || k.Lane(0).Next != n || k.Stats().Bytes > 1<<20 {
		t.Fatalf("after %d of %d messages: %v; %+v", k.Lane(0).Next, n, err, k.Stats())
	}
	k.must(k.Commit())
	if err := k.MakeRoom(dataflow.Time(at)); !errors.Is(err, store.ErrFull) {
		t.Errorf("there is room at once: %v", err)
	}
	if err := k.MakeRoom(dataflow.Time(at + 20*second)); !errors.Is(err, store.ErrFull) {
		t.Errorf("there is room although all is pinned: %v", err)
	}
	k.first(0)
	k.Pin("checkpoint", []sensors.Position{{Offset: n}})
	k.must(k.MakeRoom(dataflow.Time(at + 20*second)))
	if k.Lane(0).First == 0 {
		t.Error("nothing was deleted")
	}
	k.must(k.put(50, 1000, at))
	events := slices.DeleteFunc(k.events, func(e EventKind) bool { return e == Rolled || e == Deleted })
	if !slices.Equal(events, []EventKind{Full, Room}) {
		t.Errorf("events %v", events)
	}
}

// A log to which nothing is committed takes no more at some time.
func TestPendingIsBounded(t *testing.T) {
	k := newKeeper(t, Options{})
	var r sensors.Records
	r.Reset(0)
	r.AppendMessage(nil, make([]byte, 16<<20), 1)
	n := int64(0)
	for {
		if _, err := k.Append(&r); err != nil {
			if !errors.Is(err, store.ErrFull) {
				t.Error(err)
			}
			break
		}
		if n++; n > 10 {
			t.Fatal("160 MiB wait")
		}
	}
	k.must(k.Commit())
	must[sensors.Position](t)(k.Append(&r))
	if s := k.Lane(0); s.Records != n || s.Bytes != n*16<<20 {
		t.Errorf("%+v after %d", s, n)
	}
}

// What comes next is larger than the room beside the half of the cap in which the last
// messages are kept: they make room for it, and no more of them goes than must.
func TestTheLastMessagesDoNotUseUpTheCap(t *testing.T) {
	k := newKeeper(t, Options{Cap: 4 << 20, Retain: Retention{Age: 10 * dataflow.Second}})
	for i, n := range []int{16, 8, 8} { // of a half of the cap, the first segment is more than the others leave
		k.must(k.put(n, 100_000, int64(i)*second))
	}
	k.must(k.MakeRoom(dataflow.Time(99 * second)))
	k.first(0)
	if err := k.put(11, 100_000, 100*second); !errors.Is(err, store.ErrFull) {
		t.Fatalf("%v; %+v", err, k.Stats())
	}
	k.must(k.MakeRoom(dataflow.Time(100 * second)))
	k.first(16)
	k.must(k.put(11, 100_000, 100*second))
	k.must(k.MakeRoom(dataflow.Time(200 * second)))
	k.first(16)
}

// A log may be as large as its cap: it is never larger than that, and what is to be
// taken makes the room that it needs, whatever the age.
func TestASizeThatIsTheCap(t *testing.T) {
	for _, age := range []dataflow.Duration{0, dataflow.Hour} {
		k := newKeeper(t, Options{Cap: 4 << 20, Retain: Retention{Age: age, Bytes: 4 << 20}})
		k.Pin("chk-1", []sensors.Position{{Split: 0, Offset: 3}})
		full := 0
		for i := range 90 {
			err := k.put(1, 100_000, int64(i)*second)
			if errors.Is(err, store.ErrFull) {
				full++
				k.Pin("chk-1", []sensors.Position{{Split: 0, Offset: int64(i) - 9}})
				k.must(k.MakeRoom(dataflow.Time(int64(i) * second)))
				err = k.put(1, 100_000, int64(i)*second)
			}
			k.must(err)
		}
		if s := k.Stats(); full == 0 || s.Bytes < 3<<20 {
			t.Errorf("%d times full: %+v", full, s)
		}
	}
}

// What is larger than the cap is no reason to let the last messages go.
func TestWhatNeverFitsMakesNoRoom(t *testing.T) {
	k := newKeeper(t, Options{Cap: 4 << 20, Retain: Retention{Age: 10 * dataflow.Second}})
	for range 2 {
		k.must(k.put(4, 100_000, 0))
	}
	for range 2 {
		if err := k.put(50, 100_000, 100*second); !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
		if err := k.MakeRoom(dataflow.Time(100 * second)); !errors.Is(err, store.ErrFull) {
			t.Errorf("there is room: %v", err)
		}
	}
	k.first(0)
	k.must(k.put(4, 100_000, 100*second))
}
