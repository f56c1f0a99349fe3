package ingestlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store"
)

// What is read is what was appended and committed: whatever max is, from memory
// or from disk, from any offset, by readers of any lanes, also after the log was
// opened again; and so is the tail.
func TestReplayIsTheSameFromMemoryAndDisk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		lanes := 1 + rnd.IntN(4)
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		o := Options{Dir: dir, Lanes: lanes, SegmentBytes: 300 << 10, TailBytes: int64(1 + rnd.IntN(1<<20))}
		l, err := Open(o)
		if err != nil {
			rt.Fatal(err)
		}
		m := newModel(lanes)
		var r sensors.Records
		now := int64(1_700_000_000_000_000)
		for range 5 + rnd.IntN(40) {
			now += int64(rnd.IntN(1000) - 50)
			random(&r, rnd, lanes, now)
			p, err := l.Append(&r)
			if err != nil {
				rt.Fatal(err)
			}
			m.append(&r)
			if p != (sensors.Position{Split: r.Split, Offset: m.lanes[r.Split].next}) {
				rt.Fatalf("Append returns %v, want %d", p, m.lanes[r.Split].next)
			}
			if rnd.IntN(3) == 0 {
				if err := l.Commit(); err != nil {
					rt.Fatal(err)
				}
				m.commit()
			}
			if rnd.IntN(15) == 0 {
				if err := l.Commit(); err != nil {
					rt.Fatal(err)
				}
				m.commit()
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				if l, err = Open(o); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if err := m.holds(l); err != nil {
			rt.Fatal(err)
		}
		for range 6 {
			which := rnd.Perm(lanes)[:1+rnd.IntN(lanes)]
			from := make([]int64, len(which))
			for i, lane := range which {
				from[i] = rnd.Int64N(l.Lane(lane).Next + 1)
			}
			want := m.reads(which, from)
			got, err := read(l, which, from, len(want), func() int { return 1 + rnd.IntN(1+rnd.IntN(5000)) })
			if err == nil {
				err = compare(got, want)
			}
			if err == nil {
				err = m.tails(l, rnd.IntN(1+rnd.IntN(1+len(m.entries))))
			}
			if err != nil {
				rt.Fatalf("lanes %d from %d: %v", which, from, err)
			}
		}
		if err := l.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// Nothing is visible before its commit returned.
func TestNothingIsVisibleBeforeCommit(t *testing.T) {
	l := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 1}))
	var r sensors.Records
	r.Reset(0)
	r.AppendMessage([]byte("a"), []byte("1"), 5)
	must[sensors.Position](t)(l.Append(&r))
	rd := l.NewReader([]int{0})
	r.Reset(0)
	if err := rd.fill(&r, 10); err != nil || r.Len() > 0 || l.Lane(0).Next != 0 {
		t.Errorf("%d records, %v", r.Len(), err)
	}
	if err := (&model{}).tails(l, 10); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A wall clock that was set back while the process was away does not set the
// arrival clock back.
func TestArrivalClockNeverGoesBack(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 1}
	var r sensors.Records
	for _, at := range []int64{1000, 400} {
		l := must[*Log](t)(Open(o))
		r.Reset(0)
		r.AppendMessage(nil, []byte("x"), at)
		r.AppendMessage(nil, []byte("y"), at-10)
		must[sensors.Position](t)(l.Append(&r))
		r.Reset(0)
		r.Clock = at
		must[sensors.Position](t)(l.Append(&r)) // tells nothing
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
		if s := l.Lane(0); s.Clock != 1000 {
			t.Errorf("the clock is %d", s.Clock)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := must[*Log](t)(Open(o))
	got, err := read(l, []int{0}, []int64{0}, 4, func() int { return 100 })
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range got {
		if e.clock != 1000 {
			t.Errorf("%+v", e)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSensorsReaderSuite(t *testing.T) {
	sensortest.Reader(t, sensortest.ReaderCase{
		Arrivals: true, Seeks: true,
		Open: func(t *testing.T) sensortest.Source {
			l := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 3, TailBytes: 300}))
			t.Cleanup(func() { _ = l.Close() })
			return sensortest.Source{
				Reader: l.NewReader([]int{2}),
				Reopen: func(*testing.T) sensors.Reader { return l.NewReader([]int{2}) },
				Feed: func(t *testing.T, payloads [][]byte) {
					var r sensors.Records
					for i, p := range payloads {
						r.Reset(2)
						r.AppendMessage([]byte("t"), p, int64(i))
						must[sensors.Position](t)(l.Append(&r))
						if i%7 == 0 || i == len(payloads)-1 {
							if err := l.Commit(); err != nil {
								t.Error(err)
							}
						}
					}
				},
			}
		},
	})
}

// Many readers follow a writer, some from the start, while segments roll.
func TestReadersFollowTheWriter(t *testing.T) {
	defer goleak.VerifyNone(t)
	const lanes, n = 3, 30000
	l := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: lanes, SegmentBytes: 256 << 10, TailBytes: 64 << 10}))
	var wg sync.WaitGroup
	for i := range 6 {
		rd := l.NewReader([]int{i % lanes})
		wg.Go(func() {
			defer func() { _ = rd.Close() }()
			var r sensors.Records
			for next := 0; next < n; {
				if err := rd.Read(context.Background(), &r, 1+i*100); err != nil {
					t.Errorf("reader %d: %v", i, err)
					return
				}
				for k := range r.Len() {
					if want := fmt.Sprintf("lane %d message %d", i%lanes, next); string(r.Payload(k)) != want {
						t.Errorf("reader %d: %q, want %q", i, r.Payload(k), want)
						return
					}
					next++
				}
			}
		})
	}
	var r sensors.Records
	for at := 0; at < n; at += 100 {
		for lane := range lanes {
			r.Reset(lane)
			for k := at; k < at+100; k++ {
				r.AppendMessage([]byte("t"), fmt.Appendf(nil, "lane %d message %d", lane, k), int64(k))
			}
			must[sensors.Position](t)(l.Append(&r))
		}
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if s := l.Stats(); s.Segments < 3 {
		t.Errorf("%d segments", s.Segments)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLockAndReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(Options{Dir: dir, ReadOnly: true}); !errors.Is(err, store.ErrMissing) {
		t.Errorf("reading where there is no log: %v", err)
	}
	l := must[*Log](t)(Open(Options{Dir: dir, Lanes: 2}))
	for _, readOnly := range []bool{false, true} {
		if _, err := Open(Options{Dir: dir, ReadOnly: readOnly}); !errors.Is(err, store.ErrLocked) {
			t.Errorf("opened twice (read only %v): %v", readOnly, err)
		}
	}
	m := newModel(2)
	var r sensors.Records
	r.Reset(1)
	r.AppendMessage([]byte("a"), []byte("b"), 3)
	m.append(&r)
	must[sensors.Position](t)(l.Append(&r))
	if err := errors.Join(l.Commit(), l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	m.commit()
	if _, err := l.Append(&r); !errors.Is(err, ErrClosed) {
		t.Errorf("appended after Close: %v", err)
	}
	if _, err := Open(Options{Dir: dir, Lanes: 3}); err == nil {
		t.Error("a log of two lanes was opened with three")
	}
	before := must[[]os.DirEntry](t)(os.ReadDir(dir))
	for range 2 {
		ro := must[*Log](t)(Open(Options{Dir: dir, ReadOnly: true}))
		also := must[*Log](t)(Open(Options{Dir: dir, ReadOnly: true}))
		if err := errors.Join(m.holds(ro), m.tails(ro, 5), m.holds(also)); err != nil {
			t.Error(err)
		}
		if _, err := ro.Append(&r); err == nil {
			t.Error("appended to a log open for reading")
		}
		if err := errors.Join(ro.Close(), also.Close()); err != nil {
			t.Error(err)
		}
	}
	if after := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(after) != len(before) {
		t.Errorf("reading changed the folder: %v", after)
	}
}

func TestSeekOutsideTheLogSaysWhereItCanBeRead(t *testing.T) {
	l := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 1}))
	defer func() { _ = l.Close() }()
	rd := l.NewReader([]int{0})
	if err := rd.Seek(sensors.Position{Offset: 1}); !errors.Is(err, store.ErrMissing) {
		t.Error(err)
	}
	if name := rd.SplitName(0); name != "lane-0" {
		t.Error(name)
	}
}

// What Records may not hold is refused.
func TestAppendRefuses(t *testing.T) {
	l := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 1}))
	defer func() { _ = l.Close() }()
	for i, change := range []func(*sensors.Records){
		func(r *sensors.Records) { r.Split = 1 },
		func(r *sensors.Records) { r.Deaf = true },
		func(r *sensors.Records) { r.Tags = []uint32{1} },
	} {
		var r sensors.Records
		r.Reset(0)
		r.AppendMessage(nil, nil, 1)
		r.AppendMessage(nil, nil, 1)
		change(&r)
		if _, err := l.Append(&r); err == nil {
			t.Errorf("case %d was taken", i)
		}
	}
	if l.app.seq != 0 {
		t.Error("something was taken")
	}
}
