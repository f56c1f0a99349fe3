//go:build hosts

package hosts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// tidemark is the binary under test.
var tidemark = filepath.Join(os.TempDir(), fmt.Sprintf("tidemark-hosts-%d", os.Getpid()), "tidemark")

func TestMain(m *testing.M) {
	build := exec.Command("go", "build", "-o", tidemark, "github.com/tidemark-mesh/tidemark/cmd/tidemark")
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "hosts: the binary cannot be built:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(filepath.Dir(tidemark))
	os.Exit(code)
}

// patience only decides how long a failing test takes.
const patience = 90 * time.Second

// await polls until ok; it is the only way in which these tests wait. state is
// printed when it takes too long.
func await(t *testing.T, what string, ok func() bool, state func() string) {
	t.Helper()
	awaitFor(t, patience, what, ok, state)
}

// awaitFor is await with another patience.
func awaitFor(t *testing.T, patience time.Duration, what string, ok func() bool, state func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain for %s\n%s", patience, what, state())
		}
	}
}

// process is a program that this test started, and what it says.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}

	mu   sync.Mutex // guards said
	said bytes.Buffer
}

// Write takes the process' output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// launch starts a program; it does not outlive the test.
func launch(t *testing.T, dir string, stdin io.Reader, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = dir, stdin, p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the exit code is looked at where it matters
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), tail(p.output()))
		}
		p.keep(t)
	})
	return p
}

// keep writes all that the process said into the folder TIDEMARK_LOGS, if one is
// named; it is made.
func (p *process) keep(t *testing.T) {
	t.Helper()
	dir := os.Getenv("TIDEMARK_LOGS")
	if dir == "" {
		return
	}
	name := fmt.Sprintf("%s-%d.log", t.Name(), p.cmd.Process.Pid)
	text := fmt.Sprintf("%q\n%s", p.cmd.Args, p.output())
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// says waits until the output matches pattern.
func (p *process) says(t *testing.T, pattern string) {
	t.Helper()
	p.saysTimes(t, pattern, 1)
}

// saysTimes waits until the output matches pattern n times.
func (p *process) saysTimes(t *testing.T, pattern string, n int) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	gone := false
	await(t, fmt.Sprintf("%q, %d times", pattern, n), func() bool {
		if len(re.FindAllStringIndex(p.output(), n)) == n {
			return true
		}
		if gone {
			t.Fatalf("it ended without saying %q:\n%s", pattern, tail(p.output()))
		}
		select {
		case <-p.exited:
			gone = true // one look more: it may have said it last
		default:
		}
		return false
	}, func() string { return tail(p.output()) })
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v: %v", s, err)
	}
}

// exit waits for the end of the process and returns its exit code, -1 if a
// signal ended it.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("it does not end:\n%s", tail(p.output()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// running is a `tidemark run`.
type running struct {
	*process
	dir string
}

// run starts a job in a folder of its own.
func run(t *testing.T, job string, args ...string) *running {
	t.Helper()
	return runIn(t, t.TempDir(), nil, job, args...)
}

func runIn(t *testing.T, dir string, stdin io.Reader, job string, args ...string) *running {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(job), 0o644); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"run", "job.yaml", "--output", "json"}, args...)
	return &running{launch(t, dir, stdin, tidemark, args...), dir}
}

// totals is what a run says at its end.
type totals struct {
	In        int64  `json:"rows_in"`
	Out       int64  `json:"rows_out"`
	Late      int64  `json:"late"`
	Rejected  int64  `json:"rejected"`
	Markers   int64  `json:"markers"`
	Watermark string `json:"watermark"`
}

// ends waits for the end of a run that went well.
func (r *running) ends(t *testing.T) totals {
	t.Helper()
	if code := r.exit(t); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, tail(r.output()))
	}
	return r.totals(t)
}

func (r *running) totals(t *testing.T) totals {
	t.Helper()
	var last string
	for line := range strings.Lines(r.output()) {
		if strings.HasPrefix(line, `{"job"`) {
			last = line
		}
	}
	var out totals
	if err := json.Unmarshal([]byte(last), &out); err != nil {
		t.Fatalf("no totals (%v) in:\n%s", err, tail(r.output()))
	}
	return out
}

// stop is Ctrl-C, and the totals.
func (r *running) stop(t *testing.T) totals {
	t.Helper()
	r.signal(t, syscall.SIGINT)
	return r.ends(t)
}

// file is the content of a file in the run's folder, empty if there is none.
func (r *running) file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b
}

// lines waits until a file has at least n lines.
func (r *running) lines(t *testing.T, name string, n int) {
	t.Helper()
	got := 0
	await(t, fmt.Sprintf("%d lines in %s", n, name), func() bool {
		got = bytes.Count(r.file(t, name), []byte("\n"))
		if got < n {
			select {
			case <-r.exited:
				t.Fatalf("it ended with %d lines in %s, want %d:\n%s", got, name, n, tail(r.output()))
			default:
			}
		}
		return got >= n
	}, func() string { return fmt.Sprintf("%d lines\n%s", got, tail(r.output())) })
}

// files are what a job wrote.
type files interface {
	file(t *testing.T, name string) []byte // empty if there is none
}

// rows decodes a file of JSON lines; a line that is half fails the test.
func rows[T any](t *testing.T, r files, name string) []T {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.file(t, name)))
	d.DisallowUnknownFields()
	var out []T
	for {
		var row T
		switch err := d.Decode(&row); {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			t.Fatalf("%s, row %d: %v", name, len(out), err)
		}
		out = append(out, row)
	}
}

// freePort is a port on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", sensortest.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}
