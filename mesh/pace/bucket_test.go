package pace

import (
	"fmt"
	"testing"
	"time"
)

// run lets classes send for a while, each having so many wishes of 1000 bytes waiting all
// the time (0: none), and tells what each has sent.
func run(b *Bucket, waiting [classes]int, from, long time.Duration) (sent [classes]int) {
	of := make(map[Ticket]Class)
	ask := func(c Class) { of[b.Ask(c, 1000)] = c }
	for c := range classes {
		for range waiting[c] {
			ask(c)
		}
	}
	for now := from; now < from+long; {
		if t, ok := b.Grant(now); ok {
			c := of[t]
			delete(of, t)
			sent[c] += 1000
			ask(c)
			continue
		}
		pause, ok := b.Wait(now)
		if !ok {
			break
		}
		now += max(pause, 1)
	}
	for t, c := range of {
		b.Forget(c, t)
	}
	return sent
}

// What is sent is the rate and no more, a class goes before those behind it, and these
// get a sixteenth all the same.
func TestClasses(t *testing.T) {
	for _, c := range []struct {
		control, log, parts int // waiting
		want                string
	}{
		{1, 0, 0, "1010 0 0"},
		{0, 1, 0, "0 1010 0"},
		{0, 0, 1, "0 0 1010"},
		{0, 0, 8, "0 0 1010"},
		{1, 1, 0, "954 56 0"},
		{0, 5, 5, "0 952 58"},
		{3, 3, 3, "897 55 58"},
		{0, 0, 0, "0 0 0"},
	} {
		b := New(100_000, 10_000, time.Hour)
		sent := run(b, [classes]int{c.control, c.log, c.parts}, time.Hour, 10*time.Second)
		got := fmt.Sprint(sent[Control]/1000, sent[Log]/1000, sent[Parts]/1000)
		if got != c.want {
			t.Errorf("%d %d %d waiting: %s were sent, in thousands; want %s", c.control, c.log, c.parts, got, c.want)
		}
	}
}

// A pause saves up the burst and no more, and nothing is owed to who does not wait.
func TestPauses(t *testing.T) {
	b := New(100_000, 10_000, 0)
	run(b, [classes]int{1, 0, 1}, 0, 10*time.Second)
	for c, owed := range b.owed {
		if owed != 0 || len(b.wait[c]) != 0 {
			t.Errorf("class %d: %d owed, %d waiting", c, owed, len(b.wait[c]))
		}
	}
	if sent := run(b, [classes]int{0, 0, 1}, time.Hour, time.Nanosecond); sent[Parts] != 11_000 {
		t.Errorf("%d bytes at once after an hour", sent[Parts])
	}
	first := b.Ask(Parts, 1)
	b.Forget(Parts, first)
	if _, ok := b.Wait(2 * time.Hour); ok {
		t.Error("who does not wait any more is waited for")
	}
	if _, ok := b.Grant(2 * time.Hour); ok {
		t.Error("a wish that was taken back is granted")
	}
}
