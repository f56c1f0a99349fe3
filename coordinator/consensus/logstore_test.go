package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/store/storetest"
)

const testReserve = 1 << 20

func newLog(t testing.TB, path string) *logStore {
	t.Helper()
	s, err := openLog(path, testReserve, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func logPath(t testing.TB) string { return filepath.Join(t.TempDir(), logFile) }

func entries(from, to, term uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "%d in %d", i, term)})
	}
	return logs
}

// see is what the store has, as the library reads it.
func see(t testing.TB, s *logStore) []string {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	if first == 0 {
		if last != 0 {
			t.Fatalf("the first is none, the last %d", last)
		}
		return seen
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatalf("entry %d of %d to %d: %v", i, first, last, err)
		}
		if l.Index != i {
			t.Fatalf("entry %d says that it is %d", i, l.Index)
		}
		seen = append(seen, string(l.Data))
	}
	for _, i := range []uint64{0, first - 1, last + 1} {
		if err := s.GetLog(i, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("entry %d is not there, and the error is %v", i, err)
		}
	}
	return seen
}

func data(logs ...[]*raft.Log) (all []string) {
	for _, some := range logs {
		for _, l := range some {
			all = append(all, string(l.Data))
		}
	}
	return all
}

func want(t testing.TB, s *logStore, logs ...[]*raft.Log) {
	t.Helper()
	if got, want := see(t, s), data(logs...); !slices.Equal(got, want) {
		t.Fatalf("the log has %q\nwant %q", got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogStore(t *testing.T) {
	path := logPath(t)
	s := newLog(t, path)
	want(t, s)
	must(t, s.DeleteRange(0, 0))
	must(t, s.StoreLog(entries(5, 5, 1)[0]))
	must(t, s.StoreLogs(entries(6, 300, 1)))
	want(t, s, entries(5, 300, 1))
	must(t, s.DeleteRange(5, 99))
	want(t, s, entries(100, 300, 1))
	must(t, s.DeleteRange(250, 300))
	want(t, s, entries(100, 249, 1))
	must(t, s.StoreLogs(entries(250, 260, 2)))
	want(t, s, entries(100, 249, 1), entries(250, 260, 2))
	must(t, s.StoreLogs(entries(250, 251, 3))) // over what is there
	must(t, s.close())
	s = newLog(t, path)
	want(t, s, entries(100, 249, 1), entries(250, 251, 3), entries(252, 260, 2))
	must(t, s.DeleteRange(100, 260))
	want(t, s)
	must(t, s.StoreLogs(entries(261, 9000, 4)))
	must(t, s.DeleteRange(261, 8999)) // more than one transaction deletes
	want(t, s, entries(9000, 9000, 4))
}

// What the library reads back is what it wrote.
func TestEntryKeepsAll(t *testing.T) {
	s := newLog(t, logPath(t))
	in := &raft.Log{Index: 7, Term: 1 << 40, Type: raft.LogConfiguration, Data: []byte("d"), Extensions: []byte("ext"), AppendedAt: time.Unix(3, 4)}
	bare := &raft.Log{Index: 8}
	must(t, s.StoreLogs([]*raft.Log{in, bare}))
	for _, w := range []*raft.Log{in, bare} {
		var got raft.Log
		must(t, s.GetLog(w.Index, &got))
		if !reflect.DeepEqual(&got, w) {
			t.Errorf("got %+v, want %+v", got, w)
		}
	}
}

// The bytes of an entry are in docs/RAFT.md.
func TestEntryBytes(t *testing.T) {
	l := &raft.Log{Index: 2, Term: 300, Type: raft.LogCommand, Data: []byte("hi"), Extensions: []byte{9}, AppendedAt: time.Unix(0, 1)}
	got := fmt.Sprintf("%x", appendEntry(nil, l))
	if want := "0100ac02020109686959966c71"; got != want {
		t.Errorf("an entry is %s, want %s", got, want)
	}
}

func TestStableStore(t *testing.T) {
	path := logPath(t)
	s := newLog(t, path)
	if _, err := s.Get([]byte("k")); err == nil || err.Error() != "not found" {
		t.Errorf("no value: %v; the library looks for the text", err)
	}
	if _, err := s.GetUint64([]byte("k")); err == nil || err.Error() != "not found" {
		t.Errorf("no number: %v", err)
	}
	must(t, s.Set([]byte("k"), []byte("v")))
	must(t, s.SetUint64([]byte("n"), 1<<63))
	must(t, s.Set([]byte("empty"), nil))
	if _, err := s.GetUint64([]byte("k")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a number of one byte: %v", err)
	}
	must(t, s.close())
	s = newLog(t, path)
	if v, err := s.Get([]byte("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := s.Get([]byte("empty")); err != nil || v == nil || len(v) != 0 {
		t.Errorf("%q, %v", v, err)
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n != 1<<63 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestLogInUse(t *testing.T) {
	path := logPath(t)
	s := newLog(t, path)
	if _, err := openLog(path, testReserve, func(Event) {}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.close())
}

// A suffix that the library takes away to put another in its place stays if
// that fails: the library goes on as if it had not asked.
func TestSuffixIsReplacedAtOnce(t *testing.T) {
	for _, fail := range []bool{false, true} {
		path := logPath(t)
		s := newLog(t, path)
		must(t, s.StoreLogs(entries(1, 10, 1)))
		pages := storetest.WatchPages(s.db)
		must(t, s.DeleteRange(4, 10))
		want(t, s, entries(1, 3, 1))
		if fail {
			pages.Fail = func(storetest.PageWrite) error { return syscall.EIO }
		}
		err := s.StoreLogs(entries(4, 5, 2))
		pages.Fail = nil
		if fail != (err != nil) {
			t.Fatalf("failing %v: %v", fail, err)
		}
		for range 2 {
			if fail {
				want(t, s, entries(1, 10, 1))
			} else {
				want(t, s, entries(1, 3, 1), entries(4, 5, 2))
			}
			must(t, s.close())
			s = newLog(t, path)
		}
	}
}

// fullDisk lets a store's file have so many bytes and no more.
type fullDisk struct {
	size  int64
	pages *storetest.Pages
}

func fill(s *logStore) *fullDisk {
	d := &fullDisk{size: s.room.allocated, pages: storetest.WatchPages(s.db)}
	s.room.allocate = func(f *os.File, n int64) error {
		if n > d.size {
			return syscall.ENOSPC
		}
		return allocate(f, n)
	}
	d.pages.Fail = func(w storetest.PageWrite) error {
		if w.At+int64(len(w.Data)) > d.size {
			return syscall.ENOSPC
		}
		return nil
	}
	return d
}

func TestFullDiskLeavesRoomForTermAndVote(t *testing.T) {
	path := logPath(t)
	var events []Kind
	s, err := openLog(path, testReserve, func(e Event) { events = append(events, e.Kind) })
	must(t, err)
	d := fill(s)
	d.size = s.room.allocated
	next := uint64(1)
	big := bytes.Repeat([]byte("x"), 8<<10)
	for err == nil {
		err = s.StoreLog(&raft.Log{Index: next, Term: 1, Data: big})
		next++
	}
	if !errors.Is(err, ErrNoRoom) {
		t.Fatalf("a full disk: %v", err)
	}
	if next < 40 {
		t.Errorf("only %d entries of 8 KiB found room in 1 MiB", next)
	}
	if !slices.Equal(events, []Kind{Short}) {
		t.Errorf("told %v, want Short once", events)
	}
	for term := range uint64(300) {
		must(t, s.SetUint64([]byte(currentTermKey), term))
		must(t, s.Set([]byte("LastVoteCand"), []byte("somebody")))
	}
	// What a snapshot frees is room too.
	must(t, s.DeleteRange(1, next-10))
	must(t, s.StoreLogs(entries(next-1, next+20, 2)))
	d.size += 4 << 20
	must(t, s.StoreLogs(entries(next+21, next+22, 2)))
	if !slices.Equal(events, []Kind{Short, Room}) {
		t.Errorf("told %v, want Short and Room", events)
	}
	must(t, s.close())
	if got := see(t, newLog(t, path)); len(got) == 0 || got[len(got)-1] != fmt.Sprintf("%d in 2", next+22) {
		t.Errorf("after a restart: %d entries", len(got))
	}
}

// A disk that has no room for a term in spite of the reserve holds the node up,
// as the library panics on an error; closing ends that, without a vote.
func TestTermWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := 0
		s, err := openLog(logPath(t), testReserve, func(e Event) {
			if e.Kind == Lost {
				lost++
			}
		})
		must(t, err)
		pages := storetest.WatchPages(s.db)
		var full atomic.Bool
		pages.Fail = func(storetest.PageWrite) error {
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}
		full.Store(true)
		saved := make(chan error, 1)
		go func() { saved <- s.SetUint64([]byte(currentTermKey), 9) }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		select {
		case err := <-saved:
			t.Fatalf("it does not wait: %v", err)
		default:
		}
		full.Store(false)
		must(t, <-saved)
		if n, err := s.GetUint64([]byte(currentTermKey)); n != 9 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if lost != 1 {
			t.Errorf("told %d times", lost)
		}
		full.Store(true)
		go func() { saved <- s.SetUint64([]byte(currentTermKey), 10) }()
		synctest.Wait()
		s.release()
		if err := <-saved; err != nil {
			t.Errorf("a term while closing: %v; the library panics", err)
		}
		if err := s.SetUint64([]byte("LastVoteTerm"), 10); err == nil {
			t.Error("a vote that is not saved counts")
		}
		full.Store(false)
		must(t, s.close())
	})
}

// The power fails at any write: what was stored before is there, and of the
// last transactions a prefix.
func TestPowerLossOfLog(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		path := logPath(t)
		s := newLog(t, path)
		must(t, s.SetUint64([]byte(currentTermKey), 1))
		must(t, s.StoreLogs(entries(1, 50, 1)))
		base, err := os.ReadFile(path)
		must(t, err)
		pages := storetest.WatchPages(s.db)
		steps := []func() error{
			func() error { return s.StoreLogs(entries(51, 70, 1)) },
			func() error { return s.DeleteRange(1, 20) },
			func() error { return s.SetUint64([]byte(currentTermKey), 2) },
			func() error { _ = s.DeleteRange(60, 70); return s.StoreLogs(entries(60, 61, 2)) },
		}
		states := []string{state(t, s)}
		for _, step := range steps {
			must(t, step())
			states = append(states, state(t, s))
		}
		writes := pages.Take()
		must(t, s.close())
		image, whole := storetest.PageImage(base, writes, r)
		crashed := logPath(t)
		must(t, os.WriteFile(crashed, image, 0o600))
		after := newLog(t, crashed)
		got := state(t, after)
		if got != states[whole] && (whole+1 >= len(states) || got != states[whole+1]) {
			t.Fatalf("seed %d: after %d transactions:\n%s\nwant\n%s", seed, whole, got, states[whole])
		}
		must(t, after.StoreLogs(entries(100, 101, 9)))
		must(t, after.close())
	}
}

func state(t *testing.T, s *logStore) string {
	term, err := s.GetUint64([]byte(currentTermKey))
	return fmt.Sprint(term, err, see(t, s))
}

// Whatever is in the file, an entry is read or refused.
func FuzzEntry(f *testing.F) {
	f.Add(uint64(2), appendEntry(nil, &raft.Log{Index: 2, Term: 3, Data: []byte("x"), Extensions: []byte("e"), AppendedAt: time.Unix(1, 0)}))
	f.Add(uint64(1), []byte{})
	f.Add(uint64(1), []byte{1, 0, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, index uint64, b []byte) {
		for _, b := range [][]byte{b, appendSum(index, b)} {
			var l raft.Log
			switch err := readEntry(index, b, &l); {
			case err == nil:
				again := raft.Log{}
				if err := readEntry(index, appendEntry(nil, &l), &again); err != nil || !reflect.DeepEqual(l, again) {
					t.Fatalf("%+v is written and read as %+v, %v", l, again, err)
				}
			case !errors.Is(err, ErrCorrupt):
				t.Fatal(err)
			}
		}
	})
}

// appendSum makes any bytes an entry with the right checksum.
func appendSum(index uint64, b []byte) []byte {
	sum := entrySum(index, b)
	return append(slices.Clone(b), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
}

// A bit that has changed is seen, at each place.
func TestEntryDamage(t *testing.T) {
	whole := appendEntry(nil, &raft.Log{Index: 5, Term: 3, Data: []byte("data"), Extensions: []byte("e")})
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 1 << (i % 8)
		if err := readEntry(5, b, new(raft.Log)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d: %v", i, err)
		}
		if err := readEntry(5, whole[:i], new(raft.Log)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if err := readEntry(6, whole, new(raft.Log)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("at another's place: %v", err)
	}
}
