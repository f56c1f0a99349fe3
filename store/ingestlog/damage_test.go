package ingestlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// written makes a log of two lanes and some segments, closes it, and returns its
// model and the blocks of each lane.
func written(t *testing.T) (*model, Options, [][]*block) {
	o := Options{Dir: t.TempDir(), Lanes: 2, SegmentBytes: 1}
	l := must[*Log](t)(Open(o))
	m := newModel(2)
	blocks := make([][]*block, 2)
	var r sensors.Records
	for i := range 12 {
		if i == 6 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			o.SegmentBytes = 0
			l = must[*Log](t)(Open(o))
		}
		if i == 7 {
			l.o.SegmentBytes = 1 << 30
		}
		for lane := range 2 {
			r.Reset(lane)
			for k := range 20 {
				r.AppendMessage(fmt.Appendf(nil, "topic %d", k%3), fmt.Appendf(nil, "lane %d commit %d message %d %s", lane, i, k, strings.Repeat("x", 20*k)), int64(i))
			}
			r.Notes = append(r.Notes, 9)
			must[sensors.Position](t)(l.Append(&r))
			m.append(&r)
		}
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
		m.commit()
		live := l.tail.live()
		for _, b := range live[len(live)-1].blocks {
			blocks[b.lane] = append(blocks[b.lane], &block{lane: b.lane, first: b.first, next: b.next, data: bytes.Clone(b.data)})
		}
	}
	if err := errors.Join(m.holds(l), l.Close()); err != nil {
		t.Fatal(err)
	}
	return m, o, blocks
}

// A bit of any block that flips is found, and named with file, lane and offsets
// by Verify, by who opens the log, and by who reads it; all other entries can be
// read.
func TestFlippedBitInABlockIsNamed(t *testing.T) {
	m, o, blocks := written(t)
	rnd := rand.New(rand.NewPCG(1, 1))
	files := segments(t, o.Dir)
	for lane := range blocks {
		for _, b := range blocks[lane] {
			for name, data := range files {
				at := bytes.Index(data, b.data)
				if at < 0 {
					continue
				}
				bit := rnd.IntN(8 * len(b.data))
				bad := bytes.Clone(data)
				bad[at+bit/8] ^= 1 << (bit % 8)
				named(t, m, o, name, bad, b)
			}
		}
	}
}

func named(t *testing.T, m *model, o Options, name string, data []byte, b *block) {
	path := filepath.Join(o.Dir, name)
	good := must[[]byte](t)(os.ReadFile(path))
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}()
	var events []Event
	o.Events = func(e Event) { events = append(events, e) }
	l := must[*Log](t)(Open(o))
	defer func() { _ = l.Close() }()
	want := fmt.Sprintf("%s: lane %d, entries %d to %d", name, b.lane, b.first, b.next-1)
	check := func(who string, err error) {
		t.Helper()
		if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s says %v, want %q", who, err, want)
		}
	}
	check("Verify", l.Verify())
	if last := l.last().path == path; last != (len(events) == 1) {
		t.Fatalf("%d events", len(events))
	} else if last {
		check("Open", events[0].Err)
	}
	// All before it is read, then it is named, then all behind it is read.
	lanes := []int{b.lane}
	expect := m.reads(lanes, []int64{0})
	var got []entry
	rd := l.NewReader(lanes)
	var r sensors.Records
	var err error
	for err == nil {
		if err = rd.Read(context.Background(), &r, 7); err == nil {
			got, err = flatten(got, b.lane, &r, false)
		}
	}
	check("Read", err)
	check("Read again", rd.Read(context.Background(), &r, 7))
	before := 0
	for before < len(expect) && expect[before].offset < b.first {
		before++
	}
	if err := errors.Join(compare(got, expect[:before]), rd.Close()); err != nil {
		t.Fatal(err)
	}
	rest := m.reads(lanes, []int64{b.next})
	if got, err = read(l, lanes, []int64{b.next}, len(rest), func() int { return 50 }); err == nil {
		err = compare(got, rest)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A bit anywhere in a file, also in bbolt's own pages, either does not matter or
// is found: nothing wrong is ever read, and nothing is missed silently.
func TestFlippedBitAnywhereIsFound(t *testing.T) {
	m, o, _ := written(t)
	rnd := rand.New(rand.NewPCG(2, 2))
	files := segments(t, o.Dir)
	found, flips := 0, 80
	if testing.Short() {
		flips = 20
	}
	for i := range flips {
		for name, data := range files {
			used := len(bytes.TrimRight(data, "\x00"))
			at := rnd.IntN(used)
			if i%2 == 0 { // the beginning of a page, where its structure is
				at = at/4096*4096 + rnd.IntN(128)
			}
			path := filepath.Join(o.Dir, name)
			if f, err := os.OpenFile(path, os.O_RDWR, 0); err != nil {
				t.Fatal(err)
			} else if _, err = f.WriteAt([]byte{data[at] ^ 1<<rnd.IntN(8)}, int64(at)); errors.Join(err, f.Close()) != nil {
				t.Fatal(err)
			}
			o.ReadOnly = true
			l, err := Open(o)
			if err == nil {
				err = errors.Join(m.holds(l), l.Close())
			}
			if err != nil {
				found++
				if !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("%s, byte %d: %v", name, at, err)
				}
			}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if found < flips/8 {
		t.Errorf("only %d flips mattered", found)
	}
}

// After an orderly stop a meta page may be damaged, and nothing is lost; after a
// crash it looks like one that was being written. It is said in both cases.
func TestFlippedBitInAMetaIsSaid(t *testing.T) {
	m, o, _ := written(t)
	names := slices.Sorted(maps.Keys(segments(t, o.Dir)))
	path := filepath.Join(o.Dir, names[len(names)-1])
	data := must[[]byte](t)(os.ReadFile(path))
	for page := range 2 {
		for _, at := range []int{20, 40, 60, 75} {
			bad := bytes.Clone(data)
			bad[page*os.Getpagesize()+at] ^= 4
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			var events []Event
			o.ReadOnly, o.Events = true, func(e Event) { events = append(events, e) }
			l := must[*Log](t)(Open(o))
			if err := errors.Join(m.holds(l), l.Close()); err != nil {
				t.Errorf("meta %d, byte %d: %v", page, at, err)
			}
			if len(events) != 1 || events[0].Kind != Damaged || !errors.Is(events[0].Err, store.ErrCorrupt) {
				t.Errorf("meta %d, byte %d: events %v", page, at, events)
			}
		}
	}
}

// A segment that is not there is noticed.
func TestMissingSegmentIsNamed(t *testing.T) {
	o := Options{Dir: t.TempDir(), Lanes: 1, SegmentBytes: 1}
	l := must[*Log](t)(Open(o))
	var r sensors.Records
	for range 4 {
		r.Reset(0)
		r.AppendMessage(nil, []byte("x"), 1)
		must[sensors.Position](t)(l.Append(&r))
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(segmentPath(o.Dir, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "0000000002.log") {
		t.Errorf("Open says %v", err)
	}
}

// A segment that was cut short or emptied is said to be damaged, by
// its name and in words for people, and is left as it is.
func TestTruncatedSegmentIsDamaged(t *testing.T) {
	_, o, _ := written(t)
	for name, data := range segments(t, o.Dir) {
		path := filepath.Join(o.Dir, name)
		refused := 0
		for size := 0; size < min(len(data), 128<<10); size += 6 << 10 {
			if err := os.WriteFile(path, data[:size], 0o644); err != nil {
				t.Fatal(err)
			}
			l, err := Open(o)
			if err == nil {
				err = errors.Join(l.Verify(), l.Close())
			}
			if err == nil {
				continue // nothing that counts was there
			}
			refused++
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "runtime error") || strings.Contains(err.Error(), "0x") {
				t.Errorf("%d of %d bytes: %v", size, len(data), err)
			}
			if size == 0 && (!strings.Contains(err.Error(), "damaged: it is empty") || len(must[[]byte](t)(os.ReadFile(path))) != 0) {
				t.Errorf("empty: %v", err)
			}
		}
		if refused == 0 {
			t.Errorf("%s: any part of it is as good as the whole", name)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
