package sensortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// patience is how long the suites wait for what must come: it only decides how
// long a failing test takes.
const patience = 2 * time.Minute

// ReaderCase tells the Reader suite about one connector.
type ReaderCase struct {
	// Open makes a reader that no other test shares. It has one split. What it
	// needs beside the reader (a file, a broker) ends with the test.
	Open func(t *testing.T) Source
	// Bounded: after the last record fed, the split ends and Read returns io.EOF.
	Bounded bool
	// Arrivals: records have arrival times, and ticks may come.
	Arrivals bool
	// Seeks: the reader can be opened again and read on from any position that
	// it handed out.
	Seeks bool
}

// Source is a reader and the world it reads from.
type Source struct {
	Reader sensors.Reader
	// Feed makes the records available, in order; a bounded source is complete
	// when it returns. It is called once, before or while the reader is read.
	Feed func(t *testing.T, payloads [][]byte)
	// Reopen makes another reader on the same world; only if the case Seeks.
	Reopen func(t *testing.T) sensors.Reader
}

// Reader runs the suite.
func Reader(t *testing.T, c ReaderCase) {
	t.Run("order and positions", func(t *testing.T) { c.order(t, 1000, 4096) })
	t.Run("at most max", func(t *testing.T) { c.order(t, 100, 7) })
	t.Run("one by one", func(t *testing.T) { c.order(t, 20, 1) })
	t.Run("close twice", c.closeTwice)
	t.Run("read after close", c.readAfterClose)
	if !c.Bounded {
		t.Run("context ends a read", c.contextEnds)
		t.Run("close ends a read", c.closeEnds)
	}
	if c.Seeks {
		t.Run("seek", c.seek)
	}
}

// open makes a reader and checks at the end that it leaves no goroutine.
func (c ReaderCase) open(t *testing.T) (Source, context.Context) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) }) // runs after the cleanups that Open adds
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s := c.Open(t)
	t.Cleanup(func() { _ = s.Reader.Close() })
	if n := s.Reader.Splits(); n != 1 {
		t.Fatalf("the case must have one split, has %d", n)
	}
	return s, ctx
}

func payloads(n int) [][]byte {
	p := make([][]byte, n)
	for i := range p {
		p[i] = fmt.Appendf(nil, "record %d of %d", i, n)
	}
	return p
}

// tracker checks what must hold of every Records, one after the other.
type tracker struct {
	c     ReaderCase
	next  int64 // where the next record must begin; -1: not known yet
	clock int64
	done  bool
}

func (k *tracker) check(r *sensors.Records, max int) error {
	n := r.Len()
	switch {
	case r.Split != 0:
		return fmt.Errorf("split %d of 1", r.Split)
	case n > max:
		return fmt.Errorf("%d records, at most %d asked for", n, max)
	case k.done:
		return errors.New("records after the end of the split")
	case n == 0 && !r.Done && r.Clock == int64(dataflow.MinTime):
		return errors.New("neither a record nor a tick nor the end")
	case n == 0 && !r.Done && !k.c.Arrivals:
		return errors.New("a tick from a reader without arrivals")
	case r.Deaf && n > 0:
		return errors.New("deaf, with records")
	}
	k.done = r.Done
	if r.Clock != int64(dataflow.MinTime) {
		defer func() { k.clock = r.Clock }()
	}
	if n == 0 { // in a log a tick has a place of its own, and so has what readers do not get
		switch {
		case r.Clock != int64(dataflow.MinTime) && r.Clock < k.clock:
			return fmt.Errorf("the clock goes back from %d to %d", k.clock, r.Clock)
		case r.First < k.next || r.Next < r.First:
			return fmt.Errorf("a tick from %d to %d, what was before it ended at %d", r.First, r.Next, k.next)
		}
		k.next = r.Next
		return nil
	}
	if k.next >= 0 && r.First != k.next {
		return fmt.Errorf("first record is at %d, what was before it ended at %d", r.First, k.next)
	}
	if r.Next <= r.First {
		return fmt.Errorf("%d records from %d to %d", n, r.First, r.Next)
	}
	k.next = r.Next
	return k.arrivals(r)
}

func (k *tracker) arrivals(r *sensors.Records) error {
	if !k.c.Arrivals {
		if len(r.Arrivals) != 0 {
			return errors.New("arrivals where there are none")
		}
		return nil
	}
	if len(r.Arrivals) != r.Len() {
		return fmt.Errorf("%d arrivals for %d records", len(r.Arrivals), r.Len())
	}
	last := k.clock
	for _, a := range r.Arrivals {
		if a < last {
			return fmt.Errorf("arrival goes back from %d to %d", last, a)
		}
		last = a
	}
	if r.Clock < last {
		return fmt.Errorf("clock %d is behind the last arrival %d", r.Clock, last)
	}
	return nil
}

func newTracker(c ReaderCase) *tracker {
	return &tracker{c: c, next: -1, clock: int64(dataflow.MinTime)}
}

// collect reads until n records are there, acknowledging each run, and calls
// each for every run.
func collect(ctx context.Context, rd sensors.Reader, k *tracker, max, n int, each func(r *sensors.Records)) ([][]byte, error) {
	var got [][]byte
	var r sensors.Records
	for len(got) < n {
		if err := rd.Read(ctx, &r, max); err != nil {
			return got, err
		}
		if err := k.check(&r, max); err != nil {
			return got, err
		}
		for i := range r.Len() {
			got = append(got, bytes.Clone(r.Payload(i)))
		}
		if r.Len() > 0 {
			rd.Ack(sensors.Position{Split: 0, Offset: r.Next})
			if each != nil {
				each(&r)
			}
		}
	}
	return got, nil
}

func same(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("record %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func (c ReaderCase) order(t *testing.T, n, max int) {
	s, ctx := c.open(t)
	want := payloads(n)
	s.Feed(t, want)
	k := newTracker(c)
	got, err := collect(ctx, s.Reader, k, max, n, nil)
	if err != nil {
		t.Fatalf("after %d records: %v", len(got), err)
	}
	same(t, got, want)
	if c.Bounded {
		c.ends(t, ctx, s.Reader, k, max)
	}
}

// ends reads to io.EOF, which then stays.
func (c ReaderCase) ends(t *testing.T, ctx context.Context, rd sensors.Reader, k *tracker, max int) {
	t.Helper()
	var r sensors.Records
	for {
		err := rd.Read(ctx, &r, max)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = k.check(&r, max)
		}
		if err == nil && r.Len() > 0 {
			err = fmt.Errorf("%d records more than were fed", r.Len())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !k.done {
		t.Error("io.EOF before the split said Done")
	}
	if err := rd.Read(ctx, &r, max); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want io.EOF again", err)
	}
}

func (c ReaderCase) closeTwice(t *testing.T) {
	s, _ := c.open(t)
	if err := s.Reader.Close(); err != nil {
		t.Errorf("first Close: %v", err)
	}
	if err := s.Reader.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func (c ReaderCase) readAfterClose(t *testing.T) {
	s, ctx := c.open(t)
	s.Feed(t, payloads(3))
	if err := s.Reader.Close(); err != nil {
		t.Fatal(err)
	}
	var r sensors.Records
	if err := s.Reader.Read(ctx, &r, 10); err == nil || ctx.Err() != nil {
		t.Errorf("Read after Close: error %v after %d records, want an error at once", err, r.Len())
	}
	s.Reader.Ack(sensors.Position{Offset: 1}) // must not panic
}

// drain reads in a goroutine until an error, which it sends.
func drain(ctx context.Context, rd sensors.Reader, first chan<- struct{}) <-chan error {
	out := make(chan error, 1)
	go func() {
		var r sensors.Records
		for {
			if err := rd.Read(ctx, &r, 100); err != nil {
				out <- err
				return
			}
			if r.Len() > 0 && first != nil {
				close(first)
				first = nil
			}
		}
	}()
	return out
}

func (c ReaderCase) contextEnds(t *testing.T) {
	s, ctx := c.open(t)
	ctx, cancel := context.WithCancel(ctx)
	first := make(chan struct{})
	done := drain(ctx, s.Reader, first)
	s.Feed(t, payloads(1))
	<-first
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Read returned %v, want the context's error", err)
	}
	var r sensors.Records
	if err := s.Reader.Read(ctx, &r, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Read with an ended context returned %v", err)
	}
}

func (c ReaderCase) closeEnds(t *testing.T) {
	s, ctx := c.open(t)
	first := make(chan struct{})
	done := drain(ctx, s.Reader, first)
	s.Feed(t, payloads(1))
	<-first
	if err := s.Reader.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil || ctx.Err() != nil {
		t.Errorf("Read returned %v, want an error because of Close", err)
	}
}

func (c ReaderCase) seek(t *testing.T) {
	const n = 200
	s, ctx := c.open(t)
	want := payloads(n)
	s.Feed(t, want)
	type place struct {
		offset int64
		index  int
	}
	places, seen := []place{}, 0
	got, err := collect(ctx, s.Reader, newTracker(c), 13, n, func(r *sensors.Records) {
		seen += r.Len()
		places = append(places, place{r.Next, seen})
	})
	if err != nil {
		t.Fatalf("after %d records: %v", len(got), err)
	}
	for _, p := range places {
		if p.index == n {
			continue
		}
		rd := s.Reopen(t)
		if err := rd.Seek(sensors.Position{Offset: p.offset}); err != nil {
			t.Fatalf("seek to %d: %v", p.offset, err)
		}
		k := newTracker(c)
		k.next = p.offset
		got, err := collect(ctx, rd, k, 31, n-p.index, nil)
		if err != nil {
			t.Fatalf("from %d: after %d records: %v", p.offset, len(got), err)
		}
		same(t, got, want[p.index:])
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	}
}
