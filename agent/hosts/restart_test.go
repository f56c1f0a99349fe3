//go:build hosts

package hosts

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
)

// Epochs of the test that kills the broker.
const (
	before    = iota // the broker has not been asked to save
	saving           // it has
	saved            // its state is on disk
	killed           // it is about to die, or has
	restarted        // it runs again
)

// sentID is one message to the broker.
type sentID struct{ id, try int }

// arrivals are how often each message came into the job.
func arrivals(t *testing.T, r *running) map[sentID]int {
	t.Helper()
	got := make(map[sentID]int)
	for _, a := range rows[arrival](t, r, "raw.jsonl") {
		got[sentID{a.ID, a.Try}]++
	}
	return got
}

// lastWindows waits until each device's last window has fired: then all that
// came before it has arrived.
func (r *running) lastWindows(t *testing.T, s scale) {
	t.Helper()
	last := fmt.Appendf(nil, `"window_start":%d,`, firstTime+(s.intervals-1)*interval)
	got := 0
	await(t, "the last windows", func() bool {
		got = bytes.Count(r.file(t, "windows.jsonl"), last)
		return got == s.publishers*s.devices
	}, func() string { return fmt.Sprintf("%d of %d\n%s", got, s.publishers*s.devices, tail(r.output())) })
}

// addsUp: every reading that came in is in one window, or was counted as late.
func addsUp(t *testing.T, r *running, got totals) {
	t.Helper()
	readings, counted := int64(0), int64(0)
	for _, a := range rows[arrival](t, r, "raw.jsonl") {
		if a.Kind == "reading" {
			readings++
		}
	}
	for _, w := range rows[window](t, r, "windows.jsonl") {
		counted += w.N
	}
	if readings != counted+got.Late {
		t.Errorf("%d readings came in, %d are in windows and %d were late", readings, counted, got.Late)
	}
}

// Mosquitto is stopped and started again, twice, while eight publishers send.
// With persistence it keeps what it acknowledged: every such message arrives,
// once. One that it did not acknowledge the publisher sends again, and where
// the broker had it nevertheless, there are two of it; that is QoS 1, and
// count(distinct id) is the job's answer to it.
func TestHostsMosquittoRestarted(t *testing.T) {
	t.Parallel()
	s := scale{publishers: 8, devices: 5, intervals: 40, readings: 24}
	m := startMosquitto(t, raised+persistent)
	f := newFleet(s, m.url(), 1)
	r := run(t, job(m.url(), 1, true))
	r.says(t, "subscribed")
	f.hello(t, s)

	total := s.messages() / s.publishers
	wait := f.sending(total - s.devices*(s.readings+1)) // the last interval when all is well again
	for stop := range 2 {
		await(t, "publishers to be in the middle", func() bool { return f.acked.Load() > int64((stop+1)*s.messages()/3) }, m.output)
		m.end(t, syscall.SIGTERM)
		r.saysTimes(t, "lost", stop+1)
		m.start(t)
		r.saysTimes(t, "subscribed", stop+2)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	f.send(t, total)
	r.lastWindows(t, s)
	got := r.stop(t)

	came := arrivals(t, r)
	twice, again, rowsIn := 0, 0, int64(0)
	f.each(func(msg *message) {
		copies := 0
		for i, try := range msg.tries {
			n := came[sentID{msg.id, i}]
			copies += n
			rowsIn += int64(n)
			if n > 1 {
				t.Errorf("message %d, try %d came %d times", msg.id, i, n)
			}
			if n == 0 && try.acked >= 0 {
				t.Errorf("message %d, try %d was acknowledged and did not come", msg.id, i)
			}
			if i > 0 {
				again++
			}
		}
		if copies > 1 {
			twice++
		}
	})
	if got.In != rowsIn {
		t.Errorf("%d rows in, of what was sent %d came", got.In, rowsIn)
	}
	sameWindows(t, r, f.windows(func(*message) bool { return true }), twice == 0)
	addsUp(t, r, got)
	t.Logf("%d messages, %d published again, %d of them twice in the broker; late %d", s.messages(), again, twice, got.Late)
}

// Mosquitto is killed. What it keeps is what it saved before; so what it
// acknowledged after that may be lost, and what it had in its queue at that
// time may come a second time. Nothing else.
func TestHostsMosquittoKilled(t *testing.T) {
	t.Parallel()
	s := scale{publishers: 8, devices: 5, intervals: 40, readings: 24}
	m := startMosquitto(t, raised+persistent)
	f := newFleet(s, m.url(), 1)
	r := run(t, job(m.url(), 1, true))
	r.says(t, "subscribed")
	f.hello(t, s)

	total := s.messages() / s.publishers
	wait := f.sending(total / 2)
	await(t, "publishers to be on their way", func() bool { return f.acked.Load() > int64(s.messages()/3) }, m.output)
	f.epoch.Store(saving)
	m.save(t)
	f.epoch.Store(saved)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	wait = f.sending(total - s.devices*(s.readings+1)) // so many remain, however fast the publishers were meanwhile
	mark := f.acked.Load()
	await(t, "publishers to go on", func() bool { return f.acked.Load() > mark+int64(s.messages()/10) }, m.output)
	f.epoch.Store(killed)
	m.end(t, syscall.SIGKILL)
	r.says(t, "lost")
	m.start(t)
	f.epoch.Store(restarted)
	r.saysTimes(t, "subscribed", 2)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	f.send(t, total)
	r.lastWindows(t, s)
	got := r.stop(t)

	came := arrivals(t, r)
	lost, doubled := f.compareKilled(t, came)
	sameWindows(t, r, f.windows(func(msg *message) bool {
		for i := range msg.tries {
			if came[sentID{msg.id, i}] > 0 {
				return true
			}
		}
		return false
	}), false)
	addsUp(t, r, got)
	t.Logf("%d messages: the broker lost %d that it had acknowledged, and brought %d twice", s.messages(), lost, doubled)
}

// compareKilled compares what came with what may come when a broker is killed,
// by the epochs of the test: how much of what it had acknowledged it lost, and
// how much came twice.
func (f *fleet) compareKilled(t *testing.T, came map[sentID]int) (lost, doubled int) {
	t.Helper()
	f.each(func(msg *message) {
		for i, try := range msg.tries {
			n := came[sentID{msg.id, i}]
			safe := try.acked == before || try.sent == restarted && try.acked == restarted
			most := 1
			if try.sent <= saving { // it may be in what was saved
				most = 2
			}
			switch {
			case n > most:
				t.Errorf("message %d, try %+v came %d times, at most %d are allowed", msg.id, try, n, most)
			case n == 0 && safe:
				t.Errorf("message %d, try %+v did not come", msg.id, try)
			case n == 0 && try.acked >= 0:
				lost++
			case n == 2:
				doubled++
			}
		}
	})
	return lost, doubled
}
