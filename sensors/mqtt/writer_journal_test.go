package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func someProgress(n int64) progress {
	next := pieceKey{Epoch: 1, Site: "site-a", Attempt: 3, Counter: 8, Piece: n + 1}
	p := progress{QoS: 2, Piece: next, Half: int(n % 2), Stage: released, Next: &next}
	p.Piece.Piece = n
	return p
}

// TestJournalGolden is the slot of docs/MQTT.md.
func TestJournalGolden(t *testing.T) {
	p := someProgress(41)
	p.Seq = 7
	b, err := encodeProgress(&p)
	if err != nil {
		t.Fatal(err)
	}
	want := "TMJ1\x00\x00\x00\xba\v\xfe\xde\xe2" + `{"seq":7,"qos":2,"piece":{"epoch":1,"site":"site-a","attempt":3,"counter":8,"piece":41},"half":1,"stage":"released","next":{"epoch":1,"site":"site-a","attempt":3,"counter":8,"piece":42}}`
	if got := strings.TrimRight(string(b), "\x00"); got != want || len(b) != 1024 {
		t.Errorf("%d bytes: %q, want %q", len(b), got, want)
	}
	if name := journalName("/state", "job/sink"); name != "/state/mqtt-d0b963e886e71e5065c2135ddc8fbba3.journal" {
		t.Error(name)
	}
}

// TestJournalCrashImages: after a crash at any write a journal says what the
// last save that returned said, or the one that did not.
func TestJournalCrashImages(t *testing.T) {
	const saves = 5
	for at := 1; ; at++ {
		fsys := storetest.New()
		fsys.PowerOffAt(at)
		saved := int64(0)
		j, err := openJournal(fsys, "/state", "c")
		if err == nil {
			for saved < saves {
				if err = j.save(someProgress(saved + 1)); err != nil {
					break
				}
				saved++
			}
		}
		if err != nil && !errors.Is(err, storetest.ErrPower) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			j, err := openJournal(fsys.Crash(seed), "/state", "c")
			if err != nil {
				t.Fatal(err)
			}
			got := int64(0)
			if j.last != nil {
				got = j.last.Piece.Piece
			}
			if got != saved && got != saved+1 {
				t.Fatalf("power off at %d, image %d: the journal says %d, %d were saved", at, seed, got, saved)
			}
			if err := j.save(someProgress(saved + 2)); err != nil {
				t.Fatal(err)
			}
		}
		if !fsys.Off() {
			break
		}
	}
}

// TestJournalFaults: what failed can be saved again, and nothing before it is
// lost.
func TestJournalFaults(t *testing.T) {
	for n := 1; n <= 2; n++ {
		fsys := storetest.New()
		j, err := openJournal(fsys, "/state", "c")
		if err != nil {
			t.Fatal(err)
		}
		if err := j.save(someProgress(1)); err != nil {
			t.Fatal(err)
		}
		fsys.FailAt(n, syscall.EIO)
		if err := j.save(someProgress(2)); !errors.Is(err, syscall.EIO) || j.last.Piece.Piece != 1 {
			t.Fatalf("%v, %+v", err, j.last)
		}
		again, err := openJournal(fsys.Crash(0), "/state", "c")
		if err != nil || again.last == nil || again.last.Piece.Piece != 1 {
			t.Fatalf("%v, %+v", err, again.last)
		}
		if err := j.save(someProgress(2)); err != nil {
			t.Fatal(err)
		}
		again, err = openJournal(fsys.Crash(0), "/state", "c")
		if err != nil || again.last == nil || again.last.Piece.Piece != 2 {
			t.Fatalf("%v, %+v", err, again.last)
		}
	}
	p := someProgress(1)
	p.Piece.Site = strings.Repeat("x", 1000)
	if err := (&journal{}).save(p); err != nil {
		t.Errorf("without a file: %v", err)
	}
	if _, err := encodeProgress(&p); err == nil {
		t.Error("an entry that is too long")
	}
}

// TestProgressHas is the table of what need not be published again.
func TestProgressHas(t *testing.T) {
	key := func(attempt, counter uint64, piece int64) pieceKey {
		return pieceKey{Attempt: attempt, Counter: counter, Piece: piece}
	}
	for _, c := range []struct {
		stage stage
		k     pieceKey
		has   bool
	}{
		{opened, key(1, 5, 9), false}, {released, key(1, 5, 9), true}, {complete, key(1, 5, 9), true},
		{opened, key(1, 5, 8), true}, {complete, key(1, 5, 10), false},
		{opened, key(1, 4, 7), true}, {complete, key(1, 6, 10), false},
		{complete, key(2, 1, 2), false}, // a later attempt, whatever the counter
		{opened, key(0, 9, 99), true},
	} {
		p := progress{Piece: key(1, 5, 9), Stage: c.stage}
		if p.has(c.k) != c.has {
			t.Errorf("%s, %+v: %v", c.stage, c.k, !c.has)
		}
	}
}

func FuzzProgress(f *testing.F) {
	p := someProgress(3)
	b, err := encodeProgress(&p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, slot []byte) {
		p, ok := decodeProgress(slot)
		if !ok {
			return
		}
		again, err := encodeProgress(p)
		if err != nil {
			return // a slot of the future may be longer
		}
		if q, ok := decodeProgress(again); !ok || fmt.Sprintf("%+v", *q) == "" || q.Seq != p.Seq || q.Piece != p.Piece {
			t.Fatalf("%+v, %+v", p, q)
		}
	})
}

// FuzzTargets: whatever a checkpoint holds is taken or refused.
func FuzzTargets(f *testing.F) {
	row := appendRow(appendRow(nil, []byte("t/a"), []byte("1")), nil, nil)
	f.Add(append([]byte("{\"counter\":2,\"piece\":1}\n"), row...))
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) > 0 {
			_, _, rest, ok := cutRow(data)
			if !ok {
				return
			}
			if len(rest) >= len(data) {
				t.Fatal("no progress")
			}
			data = rest
		}
	})
}
