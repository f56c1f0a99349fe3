//go:build unix

package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stuck is a pipe that nobody reads: its first write waits until it is let go.
type stuck struct {
	once     sync.Once
	written  chan struct{} // closed when a write has begun
	released chan struct{}
}

func (s *stuck) Write([]byte) (int, error) {
	s.once.Do(func() { close(s.written) })
	<-s.released
	return 0, io.ErrClosedPipe
}

// alone is set in a process of one test only.
const alone = "TIDEMARK_TEST_ALONE"

// inProcessOfItsOwn runs a test that sends its own process signals, of which the
// last may still be on their way when it ends: the next test's run would take
// them for its own. It tells whether this is that process.
func inProcessOfItsOwn(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) != "" {
		return true
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	c.Env = append(os.Environ(), alone+"=1")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A second interrupt ends a run at once, also when a write to stdout hangs.
func TestSecondInterruptWhileStdoutHangs(t *testing.T) {
	if !inProcessOfItsOwn(t) {
		return
	}
	job := file(t, "job.yaml", "name: endless\nsources:\n  in: {generate: {rate: 0}}\nsinks:\n  - {id: out, from: in, stdout: {}}\n")
	out := &stuck{written: make(chan struct{}), released: make(chan struct{})}
	defer close(out.released)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var said lockedBuffer
	done := make(chan error, 1)
	go func() {
		done <- runJob(ctx, &terminal{in: strings.NewReader(""), out: out, err: &said}, job, loadFlags{}, runFlags{})
	}()
	<-out.written
	interrupt()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(said.String(), "stopping: ") {
		<-tick.C
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, os.Interrupt) // for ever: one that is on its way when this test ends would end the process
	for {                              // the first ones come together with the interrupt
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "stopped at once") {
				t.Errorf("%v, want it to say that it stopped at once", err)
			}
			return
		case <-tick.C:
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
}
