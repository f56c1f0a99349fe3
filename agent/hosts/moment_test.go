//go:build hosts

package hosts

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// moment is when and how a running job is ended.
type moment int

const (
	whenever  moment = iota // killed at any time
	atOnce                  // killed before it is up
	atFile                  // killed as it writes a file of its state or its output
	stopping                // told to stop, and killed before it is done, if there is time
	stopped                 // told to stop
	savingOne               // killed while a savepoint is asked for
	savedStop               // a savepoint is taken, then it is stopped by the verb
	moments                 // how many there are
)

// end ends r, at the moment or nearby: nothing is expected of when it is.
func (m moment) end(t *testing.T, rng *rand.Rand, r *running, job string) {
	t.Helper()
	soon := func(ms int) {
		select {
		case <-time.After(time.Duration(rng.IntN(ms*1000)) * time.Microsecond):
		case <-r.exited: // it failed; that is told below
		}
	}
	state := filepath.Join(r.dir, "state")
	switch m {
	case whenever:
		soon(700)
	case atOnce:
		soon(150)
	case atFile:
		written(t, state, rng.IntN(60), rng.IntN(len(writes)), r.exited)
	case stopping, stopped:
		soon(500)
		r.signal(t, syscall.SIGTERM)
		if m == stopping {
			soon(60)
		} else if code := r.exit(t); code != 0 && (code > 0 || r.output() != "") { // one that has said nothing may not listen for signals yet
			t.Fatalf("after SIGTERM: exit code %d\n%s", code, tail(r.output()))
		}
	case savingOne:
		soon(500)
		p := launch(t, r.dir, nil, tidemark, "savepoint", "create", job, "--state", state)
		soon(60)
		defer p.exit(t)
	case savedStop:
		r.says(t, "subscribed")
		p := launch(t, r.dir, nil, tidemark, "savepoint", "create", job, "--state", state)
		if code := p.exit(t); code != 0 {
			t.Fatalf("savepoint create: exit code %d\n%s\n%s", code, p.output(), tail(r.output()))
		}
		soon(100)
		p = launch(t, r.dir, nil, tidemark, "job", "stop", job, "--state", state)
		if code := p.exit(t); code != 0 {
			t.Fatalf("job stop: exit code %d\n%s\n%s", code, p.output(), tail(r.output()))
		}
		if code := r.exit(t); code != 0 {
			t.Fatalf("after job stop: exit code %d\n%s", code, tail(r.output()))
		}
	}
	_ = r.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	if code := r.exit(t); code > 0 {
		t.Fatalf("it ended by itself: exit code %d\n%s", code, tail(r.output()))
	}
}

// writes are the kinds of files at which a job may be killed, by what is in
// their path.
var writes = []string{".manifest", ".avro", ".log", ".jsonl", ".journal", "/sinks/", "attempt", "pins.json", "/savepoints/", ""}

// written waits until the n-th event of a kind of file, for some time: not all
// kinds are always written.
func written(t *testing.T, state string, n, kind int, ended <-chan struct{}) {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		t.Fatalf("inotify: %v", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	dirs := make(map[int32]string)
	watch := func(dir string) {
		wd, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE|syscall.IN_MODIFY|syscall.IN_MOVED_TO|syscall.IN_DELETE)
		if err == nil { // a folder that is gone has no events
			dirs[int32(wd)] = dir
		}
	}
	watch(filepath.Dir(state))
	_ = filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			watch(path)
		}
		return nil
	})
	_ = f.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-ended:
			return
		default:
		}
		got, err := f.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:got]; len(b) >= syscall.SizeofInotifyEvent; {
			size := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			name := strings.TrimRight(string(b[syscall.SizeofInotifyEvent:size]), "\x00")
			path := filepath.Join(dirs[int32(binary.NativeEndian.Uint32(b))], name)
			b = b[size:]
			if strings.Contains(path, writes[kind]) {
				if n--; n < 0 {
					return
				}
			}
		}
	}
}

func (m moment) String() string {
	return [...]string{"whenever", "at once", "at a file", "while stopping", "stopped", "while saving", "saved and stopped"}[m]
}

// lived counts how often each moment came.
type lived [moments]int

func (l lived) String() string {
	var b strings.Builder
	for m, n := range l {
		fmt.Fprintf(&b, "%v %d, ", moment(m), n)
	}
	return strings.TrimSuffix(b.String(), ", ")
}
