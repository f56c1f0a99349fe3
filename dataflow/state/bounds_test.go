package state_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/dataflow/statetest"
)

// TestTimersPushedForward: a timer that is moved with each event leaves no trail
// of the places where it was.
func TestTimersPushedForward(t *testing.T) {
	f := newStore(t, nil, func(*state.Store) {})
	ids := []int32{f.id("a"), f.id("b"), f.id("c")}
	var small int64
	for i := range dataflow.Time(100_000) {
		f.SetKey(ids[i%3])
		f.DeleteTimer(state.EventTime, 1000+i-3)
		f.SetTimer(state.EventTime, 1000+i)
		f.Commit()
		if i == 10_000 {
			small = f.Bytes()
		}
	}
	if n := f.Bytes(); n > 2*small {
		t.Errorf("%d bytes after 100,000 events, %d after 10,000", n, small)
	}
	if got := fired(f, state.EventTime, dataflow.MaxTime); got != "b@100997 c@100998 a@100999" {
		t.Errorf("fired %s", got)
	}
}

// TestTextWrittenOver: a text that is replaced again and again takes no more
// room than a few of them.
func TestTextWrittenOver(t *testing.T) {
	var v *state.Value
	f := newStore(t, nil, func(s *state.Store) { v = s.Value("v", state.TTL{}, text("v")) })
	long := []byte(strings.Repeat("x", 1000))
	f.SetKey(f.id("k"))
	for range 10_000 {
		v.SetBytes(0, long)
		f.Commit()
	}
	if n := f.Bytes(); n > 1<<20 {
		t.Errorf("%d bytes for 1,000", n)
	}
	if string(v.Bytes(0)) != string(long) {
		t.Error("the text is not the one written last")
	}
	v.SetBytes(0, []byte("short"))
	f.Undo()
	if string(v.Bytes(0)) != string(long) {
		t.Error("the text undone is not the one before")
	}
}

// TestManyTimersBacked: with a Backing, far more timers than memory holds fire
// in order, each once, and memory stays within its bound.
func TestManyTimersBacked(t *testing.T) {
	const n, memory = 20_000, 400_000
	const most = memory + 300_000 // and the keys that are read together
	b := statetest.NewMemory(memory)
	f := newStore(t, b, func(*state.Store) {})
	rng := rand.New(rand.NewPCG(1, 2))
	var want []dataflow.Time
	set := func(i int, at dataflow.Time) {
		id := f.id(fmt.Sprintf("key-%06d", i))
		for !f.Fetch([]int32{id}) {
			arrive(t, f, b)
		}
		f.SetKey(id)
		f.SetTimer(state.EventTime, at)
		f.Commit()
		f.Unpin([]int32{id})
		want = append(want, at)
		if f.Bytes() > most {
			t.Fatalf("%d bytes in memory after %d timers", f.Bytes(), i)
		}
	}
	for i := range n {
		set(i, dataflow.Time(rng.IntN(1_000_000)))
	}
	var got []dataflow.Time
	for until := dataflow.Time(0); until <= 1_100_000; until += 100_000 {
		for {
			id, at, step := f.NextTimer(state.EventTime, until)
			if step == state.None {
				break
			}
			if step == state.Wait {
				arrive(t, f, b)
				continue
			}
			if n := len(got); n > 0 && got[n-1] > at || at > until {
				t.Fatalf("%d after %d, until %d", at, got[n-1], until)
			}
			got = append(got, at)
			f.SetKey(id)
			f.DeleteTimer(state.EventTime, at)
			f.Commit()
			if f.NoKey(); f.Bytes() > most {
				t.Fatalf("%d bytes in memory after %d fired", f.Bytes(), len(got))
			}
			if len(got) == n/2 { // later and earlier than what is on disk
				for i := range 100 {
					set(n+i, until+dataflow.Time(rng.IntN(200_000)))
				}
			}
		}
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("%d timers fired, want %d, or they differ", len(got), len(want))
	}
	if f.KeysLive() != 0 {
		t.Errorf("%d keys live", f.KeysLive())
	}
}

func arrive(t *testing.T, f fixture, b statetest.Backing) {
	t.Helper()
	if err := b.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := f.Arrived(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingAllocated: once a key is there, access to its state allocates
// nothing.
func TestNothingAllocated(t *testing.T) {
	var v *state.Value
	var m *state.Map
	var r *state.Reducing
	f := newStore(t, nil, func(s *state.Store) {
		v = s.Value("v", state.TTL{After: 1000}, number("n"), text("t"))
		m = s.Map("m", text("k"), state.TTL{}, number("n"))
		r = s.Reducing("r", state.TTL{}, number("n"), state.Reduce{Ints: func(a, b int64) int64 { return a + b }})
	})
	id := f.id("k")
	key, value := []byte("key"), []byte("value")
	run := func() {
		f.SetKey(id)
		v.SetInt(0, v.Int(0)+1)
		v.SetBytes(1, value)
		m.PutBytes(key).SetInt(0, 7)
		m.Each(func(r state.Cursor) bool { return r.Int(0) == 7 })
		r.AddInt(1)
		f.SetTimer(state.EventTime, 5)
		f.Commit()
	}
	for range 100_000 { // the columns' bytes have all the room they will need
		run()
	}
	if n := testing.AllocsPerRun(1000, run); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

// TestExpiresOnDisk: what has expired goes, also where it was on disk when its
// time came, and though nobody asks for its key.
func TestExpiresOnDisk(t *testing.T) {
	const n = 500
	var v *state.Value
	b := statetest.NewMemory(4000)
	f := newStore(t, b, func(s *state.Store) { v = s.Value("v", state.TTL{After: 100}, text("t")) })
	for round := range int64(2) {
		for i := range n {
			f.SetClock(dataflow.MinTime, dataflow.Time(60*round))
			id := f.id(fmt.Sprint("key", i))
			for !f.Fetch([]int32{id}) {
				arrive(t, f, b)
			}
			f.SetKey(id)
			v.SetBytes(0, []byte("text"))
			f.Commit()
			f.NoKey()
			f.Unpin([]int32{id})
		}
	}
	if f.Bytes() > 20_000 {
		t.Errorf("%d bytes in memory: nothing was evicted", f.Bytes())
	}
	if expire(t, f, b, 159); f.KeysLive() != n {
		t.Errorf("at 159 %d keys live, want all %d: they were written again at 60", f.KeysLive(), n)
	}
	if expire(t, f, b, 160); f.KeysLive() != 0 {
		t.Errorf("at 160 %d keys live", f.KeysLive())
	}
}

func expire(t *testing.T, f fixture, b statetest.Backing, at dataflow.Time) {
	t.Helper()
	f.SetClock(dataflow.MinTime, at)
	for f.Expire() == state.Wait {
		arrive(t, f, b)
	}
}
