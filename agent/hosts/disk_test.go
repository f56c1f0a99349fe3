//go:build hosts

package hosts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// smallDisk is a disk of 64 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	mount(t, dir, "64k")
	return dir
}

// mount makes a folder a disk of a size.
func mount(t *testing.T, dir, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no small disk can be mounted (%v): run as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// frames counts the packets of one direction of a connection.
type frames struct {
	mu    sync.Mutex // guards what follows
	count [16]int    // by type
	head  []byte     // the beginning of a packet's header
	skip  int        // bytes of a packet that are to come
}

const (
	publishType = 3
	pubackType  = 4
)

func (f *frames) see(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(b) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(b))
			f.skip -= n
			b = b[n:]
			continue
		}
		f.head = append(f.head, b[0])
		b = b[1:]
		if n := len(f.head); n == 1 || f.head[n-1]&0x80 != 0 {
			continue
		}
		for i := len(f.head) - 1; i > 0; i-- {
			f.skip = f.skip<<7 | int(f.head[i]&0x7f)
		}
		f.count[f.head[0]>>4]++
		f.head = f.head[:0]
	}
}

func (f *frames) of(kind int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[kind]
}

// The disk of a file sink is full: the job says so, takes nothing more and
// acknowledges nothing more to the broker; what is in the file is whole
// commits. When there is room it goes on, and nothing is lost, twice, or half.
func TestHostsDiskFull(t *testing.T) {
	t.Parallel()
	small := smallDisk(t)
	filler := filepath.Join(small, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte("x"), 48<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	s := scale{publishers: 1, devices: 5, intervals: 10, readings: 9}
	half := s.messages() / 2
	m := startMosquitto(t, raised)
	var down, up frames
	relay := newRelay(t, m.addr(), down.see, up.see)
	f := newFleet(s, m.url(), 1)
	r := run(t, strings.Replace(job(relay.url(), 1, true), "path: raw.jsonl", "path: "+filepath.Join(small, "raw.jsonl"), 1))
	r.says(t, "subscribed")
	f.hello(t, s)
	f.send(t, half)

	r.says(t, `sink "raw" waits for room: .*no space left`)
	var raw []byte
	// It tries again and again, and a part of a commit is there until it is cut off.
	await(t, "the file to hold whole commits", func() (whole bool) {
		var err error
		if raw, err = os.ReadFile(filepath.Join(small, "raw.jsonl")); err != nil {
			t.Fatal(err)
		}
		return len(raw) == 0 || raw[len(raw)-1] == '\n'
	}, func() string { return tail(string(raw)) })
	f.send(t, s.messages())
	await(t, "the broker to send all that it has", func() bool { return down.of(publishType) == s.messages() }, func() string {
		return fmt.Sprintf("%d of %d\n%s", down.of(publishType), s.messages(), tail(r.output()))
	})
	if n := up.of(pubackType); n > half {
		t.Errorf("%d messages acknowledged with a full disk; %d were sent before it was full", n, half)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.says(t, `sink "raw" goes on`)
	r.lines(t, "windows.jsonl", s.windows())
	await(t, "the broker to have all acknowledgements", func() bool { return up.of(pubackType) == s.messages() }, func() string { return tail(r.output()) })
	if got := r.stop(t); got.In != int64(s.messages()) || got.Late != 0 {
		t.Errorf("sent %d, totals %+v", s.messages(), got)
	}
	sameWindows(t, r, f.windows(func(*message) bool { return true }), true)
	r.dir = small
	came := arrivals(t, r)
	f.each(func(msg *message) {
		if n := came[sentID{msg.id, 0}]; n != 1 {
			t.Errorf("message %d is in the file %d times", msg.id, n)
		}
	})
}
