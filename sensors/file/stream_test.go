package file

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// TestNobodyReads: the end of a pipe into head is a final error with a kind of
// its own.
func TestNobodyReads(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	n := newNumbers()
	s := NewStream(out, n.csv(), false)
	b, _ := n.rows(3)
	mustWrite(t, s, b)
	in.Close()
	if err := s.Commit(context.Background()); !errors.Is(err, ErrNobodyReads) || errors.Is(err, sensors.ErrFull) {
		t.Error(err)
	}
}

// smallPipe takes a limited number of bytes, then says that there is no room.
type smallPipe struct {
	strings.Builder
	room int
}

func (p *smallPipe) Write(b []byte) (int, error) {
	n := min(len(b), p.room)
	p.room -= n
	p.Builder.Write(b[:n])
	if n < len(b) {
		return n, &os.PathError{Op: "write", Path: "stdout", Err: syscall.ENOSPC}
	}
	return n, nil
}

// TestStreamGoesOnWhereItStopped: a full disk under a redirected stdout holds
// rows back, and nothing is written twice.
func TestStreamGoesOnWhereItStopped(t *testing.T) {
	ctx := context.Background()
	for _, live := range []bool{false, true} {
		for room := range 40 {
			p := &smallPipe{room: room}
			n := newNumbers()
			s := NewStream(p, n.csv(), live)
			want := "n\n"
			for range 3 {
				b, text := n.rows(12)
				mustWrite(t, s, b)
				want += text
			}
			if err := s.Commit(ctx); !errors.Is(err, sensors.ErrFull) {
				t.Fatalf("room for %d: %v", room, err)
			}
			p.room = 1000
			if err := s.Commit(ctx); err != nil || p.String() != want {
				t.Fatalf("live %v, room for %d: %v, %q", live, room, err, p.String())
			}
		}
	}
}

// TestStreamIsBounded: rows that wait for a Commit are written when they are
// many; when that fails, Write has taken nothing.
func TestStreamIsBounded(t *testing.T) {
	ctx := context.Background()
	p := &smallPipe{room: 1 << 20}
	n := newNumbers()
	s := NewStream(p, n.csv(), false)
	want := "n\n"
	for p.Len() == 0 {
		b, text := n.rows(4000)
		mustWrite(t, s, b)
		want += text
		if len(want) > 2*maxStreamed {
			t.Fatal("nothing is written before the commit")
		}
	}
	p.room = 0
	for {
		b, text := n.rows(4000)
		err := s.Write(ctx, b)
		b.Release()
		if err != nil {
			if !errors.Is(err, sensors.ErrFull) {
				t.Fatal(err)
			}
			break
		}
		want += text
	}
	p.room = 1 << 20
	if err := s.Commit(ctx); err != nil || p.String() != want {
		t.Fatalf("%v, %d bytes, want %d", err, p.Len(), len(want))
	}
}

func TestBlackholeCounts(t *testing.T) {
	var h Blackhole
	n := newNumbers()
	b, _ := n.rows(10)
	b.Sel = append(b.OwnSel(2), 3, 5)
	mustWrite(t, &h, b)
	c, _ := n.rows(4)
	mustWrite(t, &h, c)
	if err := errors.Join(h.Commit(context.Background()), h.Close()); err != nil || h.Rows() != 6 {
		t.Errorf("%d rows, %v", h.Rows(), err)
	}
}
