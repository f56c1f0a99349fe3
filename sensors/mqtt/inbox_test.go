package mqtt

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// Whatever comes and however it is read: each lane hands out its messages in
// order, with arrivals and clocks that never go back, deafness between the
// right messages, and empty books at the end.
func TestInboxProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lanes := rapid.IntRange(1, 3).Draw(t, "lanes")
		b := inbox{lanes: make([]lane, lanes)}
		for i := range b.lanes {
			b.lanes[i].hearing = true
		}
		in, out := make([][]string, lanes), make([][]string, lanes)
		clocks := make([]int64, lanes)
		now := int64(1000)
		var r sensors.Records
		take := func(max int) bool {
			if !b.take(&r, max) {
				return false
			}
			k := r.Split
			if r.Len() > max || r.Next-r.First != int64(r.Len()) {
				t.Fatalf("%d records, at most %d, from %d to %d", r.Len(), max, r.First, r.Next)
			}
			for i := range r.Len() {
				if r.Arrivals[i] < clocks[k] {
					t.Fatalf("arrival %d after %d", r.Arrivals[i], clocks[k])
				}
				clocks[k] = r.Arrivals[i]
				out[k] = append(out[k], fmt.Sprintf("%s %s", r.Topic(i), r.Payload(i)))
			}
			if r.Clock < clocks[k] {
				t.Fatalf("clock %d after %d", r.Clock, clocks[k])
			}
			clocks[k] = r.Clock
			if r.Len() == 0 {
				turn := fmt.Sprint("deaf ", r.Deaf)
				if n := len(out[k]); n > 0 && out[k][n-1] == turn {
					t.Fatalf("%s twice", turn)
				}
				out[k] = append(out[k], turn)
			}
			return true
		}
		n := 0
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now += rapid.Int64Range(-5, 20).Draw(t, "time")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				b.hear(rapid.Bool().Draw(t, "hearing"), now)
			case 1, 2:
				take(rapid.IntRange(1, 5).Draw(t, "max"))
			default:
				n++
				k := rapid.IntRange(0, lanes-1).Draw(t, "lane")
				add := b.late
				if b.hears() || rapid.Bool().Draw(t, "hears") {
					b.hear(true, now)
					add = b.add
				}
				add(k, fmt.Sprint("t", k), []byte(fmt.Sprint(n)), 0, now, false)
				in[k] = append(in[k], fmt.Sprintf("t%d %d", k, n))
			}
		}
		for take(1000) {
		}
		for k := range in {
			var got []string
			deaf := false
			for _, v := range out[k] {
				if v == "deaf true" || v == "deaf false" {
					deaf = v == "deaf true"
					continue
				}
				if deaf {
					t.Fatalf("lane %d hands out %q while deaf", k, v)
				}
				got = append(got, v)
			}
			if fmt.Sprint(got) != fmt.Sprint(in[k]) {
				t.Fatalf("lane %d: got %v, want %v", k, got, in[k])
			}
			if deaf == b.lanes[k].hearing {
				t.Fatalf("lane %d ends deaf %v, hearing %v", k, deaf, b.lanes[k].hearing)
			}
		}
		if b.messages != 0 || b.bytes != 0 {
			t.Fatalf("%d messages and %d bytes on the books of an empty inbox", b.messages, b.bytes)
		}
	})
}

// A broker that comes and goes, and nobody who reads: the inbox does not grow.
func TestInboxFlapping(t *testing.T) {
	b := inbox{lanes: make([]lane, 1)}
	b.lanes[0].hearing = true
	b.add(0, "t", []byte("x"), 0, 1, false)
	for i := range int64(1000) {
		b.hear(false, 10+i)
		b.hear(true, 10+i)
	}
	if n := len(b.lanes[0].queue); n > 3 {
		t.Errorf("%d segments for one message", n)
	}
}

// Full segments, handed over whole and in parts.
func TestInboxSegments(t *testing.T) {
	b := inbox{lanes: make([]lane, 1)}
	const n = 3*segmentRows + 10
	for i := range n {
		b.add(0, "topic", []byte(fmt.Sprint(i)), 0, int64(i), false)
	}
	var r sensors.Records
	next := 0
	for _, max := range []int{segmentRows, 1, segmentRows, 7, segmentRows, segmentRows, segmentRows} {
		if !b.take(&r, max) {
			break
		}
		if r.First != int64(next) {
			t.Fatalf("from %d, want %d", r.First, next)
		}
		for i := range r.Len() {
			if string(r.Payload(i)) != fmt.Sprint(next) || string(r.Topic(i)) != "topic" || r.Arrivals[i] != int64(next) {
				t.Fatalf("record %d is %q of %q at %d", next, r.Payload(i), r.Topic(i), r.Arrivals[i])
			}
			next++
		}
	}
	if next != n || b.messages != 0 || b.bytes != 0 {
		t.Errorf("%d of %d records; %d messages, %d bytes left", next, n, b.messages, b.bytes)
	}
}

// Indexes of messages over the limit count from the run that is handed out.
func TestInboxTooLong(t *testing.T) {
	b := inbox{lanes: make([]lane, 1)}
	for i := range 10 {
		b.add(0, "t", []byte("text"), 0, 1, i%3 == 0)
	}
	var r sensors.Records
	var long []int
	for n := 0; b.take(&r, 4); n += r.Len() {
		for _, k := range r.TooLong {
			long = append(long, n+int(k))
		}
	}
	if fmt.Sprint(long) != "[0 3 6 9]" {
		t.Errorf("too long: %v", long)
	}
}

// In steady flow the inbox allocates nothing.
func TestInboxAllocates(t *testing.T) {
	b := inbox{lanes: make([]lane, 1)}
	var r sensors.Records
	payload := make([]byte, 100)
	round := func() {
		for range 500 {
			b.add(0, "some/topic", payload, 0, 1, false)
		}
		for b.take(&r, 4096) {
		}
	}
	for range 100 {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations for 500 messages", n)
	}
}

// Silent lanes are told the time together, however they began, and none later than it is
// due; each time one is told something its clock moves, whatever the wall clock does.
func TestTicksTogether(t *testing.T) {
	const every = 200_000
	b := inbox{lanes: make([]lane, 5)}
	for i := range b.lanes {
		b.lanes[i] = lane{hearing: true, clock: int64(1_000_000 + 30_000*i)}
	}
	var out sensors.Records
	round := func(now int64) (told []int) {
		for {
			i, _ := b.silent(now, every)
			if i < 0 {
				return told
			}
			was := b.lanes[i].clock
			if b.tick(i, now, &out); b.lanes[i].clock <= was {
				t.Fatalf("lane %d stands at %d", i, was)
			}
			told = append(told, i)
			now += 7 // it takes a moment
		}
	}
	now, rounds := int64(1_000_000), 0
	for range 20 {
		_, wait := b.silent(now, every)
		if wait <= 0 {
			t.Fatalf("nobody is due, and the wait is %d", wait)
		}
		now += wait
		for i := range b.lanes {
			if now-b.lanes[i].clock > every {
				t.Fatalf("lane %d is told the time after %d", i, now-b.lanes[i].clock)
			}
		}
		if rounds++; len(round(now)) < len(b.lanes) && rounds > 2 {
			t.Fatalf("round %d: not all lanes are told", rounds)
		}
		now += 7 * int64(len(b.lanes))
	}

	b.add(0, "t", []byte("x"), 0, now, false)
	now += every
	round(now)
	now -= 1_000_000 // it is set back, and a lane is read empty that was not told
	b.take(&out, 1)
	if told := round(now); len(told) > 0 {
		t.Errorf("%v are told a time that has passed", told)
	}
	if i, _ := b.silent(now+1, 1); i >= 0 {
		t.Errorf("lane %d is due", i)
	}
	b.round = 0
	if told := round(now + 3_000_000); len(told) != len(b.lanes) {
		t.Errorf("%v are told the time", told)
	}
}
