package ingestlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// golden is the bytes of an example in docs/INGEST_LOG.md.
func golden(t *testing.T, name string) []byte {
	doc, err := os.ReadFile("../../docs/INGEST_LOG.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```hex " + name + "\n(.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatalf("the page has no example %q", name)
	}
	var all strings.Builder
	for line := range strings.Lines(string(m[1])) {
		bytes, _, _ := strings.Cut(line, "#")
		all.WriteString(strings.Join(strings.Fields(bytes), ""))
	}
	data, err := hex.DecodeString(all.String())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// example is what the page says that its first block holds.
func example() []*sensors.Records {
	a, b, c := new(sensors.Records), new(sensors.Records), new(sensors.Records)
	a.Reset(1)
	a.AppendMessage([]byte("a/t"), []byte("21.5"), 1_000_000)
	a.AppendMessage([]byte("b/t"), []byte("20"), 1_000_300)
	a.AppendMessage([]byte("a/t"), []byte("21"), 1_000_300)
	a.Tags = []uint32{1, 2, 3}
	a.TooLong = []int32{1}
	a.Notes = []uint32{7}
	b.Reset(0)
	b.Clock = 1_000_400
	c.Reset(1)
	c.Clock, c.Deaf = 1_200_300, true
	return []*sensors.Records{a, b, c}
}

func TestGoldenBytes(t *testing.T) {
	l := must[*Log](t)(Open(Options{Dir: t.TempDir(), Lanes: 2, ID: LogID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}))
	defer func() { _ = l.Close() }()
	if err := l.Lead(3); err != nil {
		t.Fatal(err)
	}
	for _, r := range example() {
		must[sensors.Position](t)(l.Append(r))
	}
	group := must[*Group](t)(l.Stage())
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	blocks := l.tail.live()[0].blocks
	for i, name := range []string{"tick", "block"} {
		if got, want := blocks[i].data, golden(t, name); !bytes.Equal(got, want) {
			t.Errorf("%s is\n% x, the page has\n% x", name, got, want)
		}
	}
	if got, want := l.last().end.encode(nil), golden(t, "end"); !bytes.Equal(got, want) {
		t.Errorf("the end is\n% x, the page has\n% x", got, want)
	}
	if got, want := group.State, golden(t, "group"); !bytes.Equal(got, want) {
		t.Errorf("the group's state is\n% x, the page has\n% x", got, want)
	}
	if _, got := l.First(); !bytes.Equal(got, golden(t, "head")) {
		t.Errorf("the head is\n% x, the page has\n% x", got, golden(t, "head"))
	}
	if got, want := must[[]byte](t)(os.ReadFile(filepath.Join(l.o.Dir, promiseFile))), golden(t, "promise"); !bytes.Equal(got, want) {
		t.Errorf("the promise is\n% x, the page has\n% x", got, want)
	}
	var old state
	if err := old.decode(golden(t, "end of version 1")); err != nil {
		t.Fatal(err)
	}
	if old.id, old.epoch = l.ID(), 3; !reflect.DeepEqual(old, l.last().end) {
		t.Errorf("version 1 says %+v, want %+v", old, l.last().end)
	}
}

// A version that is not known is told apart from damage.
func TestUnknownVersionIsRefused(t *testing.T) {
	for _, name := range []string{"block", "end"} {
		data := golden(t, name)
		data[sumBytes] = max(version, stateVersion) + 1
		binary.LittleEndian.PutUint64(data, xxh3.Hash(data[sumBytes:]))
		err := new(cursor).open(data)
		if name == "end" {
			err = new(state).decode(data)
		}
		if !errors.Is(err, errVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a block's bytes are, reading them neither panics nor gives more than
// they can hold.
func FuzzBlock(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		var r sensors.Records
		var b builder
		b.reset(int64(rnd.IntN(1000)), int64(rnd.IntN(1000)), 5)
		for range 3 {
			random(&r, rnd, 1, 100)
			n := min(r.Len(), 50)
			if n > 0 {
				b.addMessages(&r, 0, n, 5, b.next)
			}
			b.addClock(tick, 9, 7, b.next+1)
			b.addNotes([]uint32{1, 2}, b.next)
		}
		if data := b.encode(nil, 3)[sumBytes:]; len(data) < 2000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append(make([]byte, sumBytes), data...)
		for _, most := range []int{1, 1000} {
			var c cursor
			if c.open(data) != nil {
				return
			}
			entries := c.end - c.offset
			if entries > int64(len(data)) {
				t.Fatalf("%d entries in %d bytes", entries, len(data))
			}
			var out sensors.Records
			for more := true; more; {
				out.Reset(0)
				clock := c.clock
				var err error
				if more, err = c.deliver(&out, most); err != nil {
					break
				}
				if out.Len() > most || len(out.Payloads) > len(data) || c.clock < clock {
					t.Fatalf("%d records, %d bytes, clock %d after %d", out.Len(), len(out.Payloads), c.clock, clock)
				}
				if more {
					entries--
				}
			}
			_ = c.finish()
			if c.open(data) == nil {
				_ = c.skip(c.offset+int64(len(data))/3, &out)
			}
		}
	})
}

func FuzzState(f *testing.F) {
	s := newState(3)
	f.Add(s.encode(nil)[sumBytes:])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append(make([]byte, sumBytes), data...)
		binary.LittleEndian.PutUint64(data, xxh3.Hash(data[sumBytes:]))
		var s state
		if s.decode(data) != nil {
			return
		}
		var again state
		if err := again.decode(s.encode(nil)); err != nil || again.seq != s.seq {
			t.Fatal(err)
		}
	})
}
