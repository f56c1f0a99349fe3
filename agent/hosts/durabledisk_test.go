//go:build hosts

package hosts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fill takes a disk's room, up to what is to be left, and returns how to give it
// back.
func fill(t *testing.T, dir string, leave int64) (room func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for page := make([]byte, 4096); err == nil; {
		var n int
		n, err = f.Write(page)
		size += int64(n)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(max(0, size-leave)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// keepFull takes all of a disk's room, and goes on to take what becomes free: who
// writes there deletes as well, whenever it does. It returns how to give it back.
func keepFull(t *testing.T, dir string) (room func()) {
	t.Helper()
	empty := fill(t, dir, 0)
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var filling sync.WaitGroup
	filling.Go(func() {
		defer f.Close()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for page := make([]byte, 4096); ; {
			if _, err := f.Write(page); err == nil {
				continue
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		filling.Wait()
	})
	t.Cleanup(end)
	return func() {
		t.Helper()
		end()
		empty()
	}
}

// The disk of a feed's log is full: nothing more is acknowledged, and the broker
// keeps the rest. The job is killed, and starts on the full disk; it is killed
// once more. When there is room it goes on, and each message counts once.
func TestHostsDurableLogFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "state", "feeds")
	if err := os.MkdirAll(log, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, log, "24m")
	room := fill(t, log, 1<<20)
	s := scale{publishers: 2, devices: 5, intervals: 250, readings: 19}
	m := startMosquitto(t, raised)
	var down, up frames
	relay := newRelay(t, m.addr(), down.see, up.see)
	f := newFleet(s, m.url(), 1)
	r := durable(t, dir, relay.url(), 1)
	r.says(t, "subscribed")
	f.hello(t, s)
	f.send(t, s.messages()/s.publishers/2)
	r.says(t, `feed crash\.readings: reading pauses, the broker holds the rest: .*no space left`)
	r.kill(t)
	f.send(t, s.messages()/s.publishers-s.devices)
	r = durable(t, dir, relay.url(), 1)
	r.says(t, `reading pauses, the broker holds the rest: .*no space left`)
	r.saysTimes(t, `reading pauses`, 3) // it tries again
	r.kill(t)
	if n, all := up.of(pubackType), s.messages()-s.publishers*s.devices; n > all*9/10 {
		t.Errorf("%d of %d messages were acknowledged by a feed whose disk is full", n, all)
	}
	r = durable(t, dir, relay.url(), 1)
	r.says(t, `reading pauses`)
	room()
	r.says(t, `the log takes messages again`)
	f.send(t, s.messages()/s.publishers)
	r.lastWindows(t, s)
	r.stopDurable(t)
	f.compareAll(t, r, s)
}

// The disk of the checkpoints is full: they fail, and are told; after as many as
// the job tolerates it goes back to the last one, and again. The feed goes on
// and acknowledges. When there is room all is as if nothing had been.
func TestHostsDurableCheckpointsFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parts := filepath.Join(dir, "state", "parts")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, parts, "8m")
	s := scale{publishers: 2, devices: 5, intervals: 90, readings: 19}
	m := startMosquitto(t, raised)
	f := newFleet(s, m.url(), 1)
	start := func() *running {
		text := strings.Replace(crashJob(m.url(), 1), "interval: 150ms", "interval: 150ms, tolerable_failures: 4", 1)
		text = strings.Replace(text, "\nsources:", "\nrestart: {strategy: fixed-delay, attempts: 1000, delay: 100ms}\nsources:", 1)
		return runIn(t, dir, nil, text, "--state", "state")
	}
	r := start()
	r.says(t, "subscribed")
	f.hello(t, s)
	part := s.messages() / s.publishers / 3
	f.send(t, part)
	r.lines(t, "windows.jsonl", s.publishers*s.devices)
	room := keepFull(t, parts) // parts that nothing needs are deleted every few seconds
	f.send(t, 2*part)
	r.saysTimes(t, `checkpoint .* of job crash failed: state could not be stored: .*no space left`, 3)
	r.says(t, `job crash failed, and is started again`)
	r.says(t, `goes on from chk-`)
	r.kill(t)
	r = start()
	r.saysTimes(t, `failed: state could not be stored: .*no space left`, 2)
	room()
	f.send(t, s.messages()/s.publishers)
	r.lastWindows(t, s)
	r.stopDurable(t)
	f.compareAll(t, r, s)
}

// The disk of a durable job's output is full: it says so and waits, also when it
// is killed and has to put back what is pending. When there is room it goes on.
func TestHostsDurableOutputFull(t *testing.T) {
	t.Parallel()
	dir, small := t.TempDir(), t.TempDir()
	mount(t, small, "2m")
	room := fill(t, small, 64<<10)
	s := scale{publishers: 1, devices: 5, intervals: 60, readings: 19}
	m := startMosquitto(t, raised)
	f := newFleet(s, m.url(), 1)
	text := strings.Replace(crashJob(m.url(), 1), "path: raw.jsonl", "path: "+filepath.Join(small, "raw.jsonl"), 1)
	start := func() *running { return runIn(t, dir, nil, text, "--state", "state") }
	r := start()
	r.says(t, "subscribed")
	f.hello(t, s)
	f.send(t, s.messages()/2)
	r.says(t, `no space left`)
	r.kill(t)
	f.send(t, s.messages()*3/4)
	r = start()
	r.says(t, `no space left`)
	room()
	f.send(t, s.messages())
	r.lastWindows(t, s)
	r.stopDurable(t)
	b, err := os.ReadFile(filepath.Join(small, "raw.jsonl"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "raw.jsonl"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.compareAll(t, r, s)
}
