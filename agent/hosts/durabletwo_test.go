//go:build hosts

package hosts

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verb runs the binary and returns what it wrote, and its exit code.
func verb(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	p := launch(t, dir, nil, tidemark, args...)
	code := p.exit(t)
	return p.output(), code
}

// A second process on a state folder is refused, whichever job it has, and harms
// nobody; when the first is gone, the next goes on. A job twice in one process is
// refused as well.
func TestHostsDurableTwoProcesses(t *testing.T) {
	t.Parallel()
	s := scale{publishers: 2, devices: 5, intervals: 30, readings: 11}
	m := startMosquitto(t, raised)
	f := newFleet(s, m.url(), 1)
	dir := t.TempDir()
	r := durable(t, dir, m.url(), 1)
	r.says(t, "subscribed")
	f.hello(t, s)
	total := s.messages() / s.publishers
	wait := f.sending(total / 2)
	for _, name := range []string{"crash", "other"} {
		text := strings.Replace(crashJob(m.url(), 1), "name: crash", "name: "+name, 1)
		write(t, filepath.Join(dir, "second.yaml"), text)
		if out, code := verb(t, dir, "run", "second.yaml", "--state", "state", "--overwrite"); code != 1 || !strings.Contains(out, "another process") {
			t.Errorf("a second process with job %s: exit code %d\n%s", name, code, out)
		}
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	r.kill(t)
	write(t, filepath.Join(dir, "second.yaml"), crashJob(m.url(), 1))
	if out, code := verb(t, dir, "run", "job.yaml", "second.yaml", "--state", "state"); code != 1 || !strings.Contains(out, `"crash"`) {
		t.Errorf("a job twice in one process: exit code %d\n%s", code, out)
	}
	r = durable(t, dir, m.url(), 1)
	f.send(t, total)
	r.lastWindows(t, s)
	r.stopDurable(t)
	f.compareAll(t, r, s)
}

// sharedJob is a crashJob that reads a feed and writes into a folder of its own.
func sharedJob(t *testing.T, dir, name string) {
	t.Helper()
	text := crashJob("none", 1)
	text = strings.Replace(text, `mqtt: {broker: "none", topics: [plant/+/telemetry], qos: 1, lanes: 3}`, "feed: plant", 1)
	text = strings.Replace(text, "name: crash", "name: "+name, 1)
	text = strings.ReplaceAll(text, "path: ", "path: "+name+"/")
	write(t, filepath.Join(dir, name+".yaml"), text)
}

// Two jobs read one feed. One is stopped, the process is killed, the other goes
// on alone, then both; both have everything. Two more jobs begin at one savepoint
// of the first: what they write is what the first wrote after it.
func TestHostsDurableSharedFeed(t *testing.T) {
	t.Parallel()
	s := scale{publishers: 2, devices: 5, intervals: 60, readings: 11}
	m := startMosquitto(t, raised)
	f := newFleet(s, m.url(), 1)
	dir := t.TempDir()
	if out, code := verb(t, dir, "feed", "create", "plant", "--state", "state", "--broker", m.url(), "--topic", "plant/+/telemetry", "--lanes", "3"); code != 0 {
		t.Fatalf("feed create: %d, %s", code, out)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		sharedJob(t, dir, name)
	}
	start := func(args ...string) *running {
		return &running{launch(t, dir, nil, tidemark, append([]string{"run", "--state", "state", "--output", "json"}, args...)...), dir}
	}
	part := func(k int) func() error { return f.sending(s.messages() / s.publishers * k / 6) }

	r := start("a.yaml", "b.yaml")
	r.says(t, "subscribed")
	f.hello(t, s)
	wait := part(1)
	f.middle(t, s, 1, 12)
	(&running{r.process, filepath.Join(dir, "a")}).lines(t, "raw.jsonl", 1) // who has subscribed may be b, before a runs
	if out, code := verb(t, dir, "job", "stop", "a", "--state", "state"); code != 0 {
		t.Fatalf("job stop a: %d, %s", code, out)
	}
	f.waited(t, wait)
	wait = part(2)
	f.middle(t, s, 3, 12)
	r.kill(t)
	r = start("b.yaml")
	f.waited(t, wait)
	wait = part(3)
	r.says(t, "subscribed")
	r.kill(t)
	r = start("b.yaml", "a.yaml")
	f.waited(t, wait)
	await(t, "job a to have caught up", func() bool { return bytes.Count(r.file(t, "a/windows.jsonl"), []byte("\n")) >= s.windows()*2/5 }, r.output)
	out, code := verb(t, dir, "savepoint", "create", "a", "--state", "state")
	if code != 0 {
		t.Fatalf("savepoint create a: %d, %s", code, out)
	}
	savepoint := strings.TrimSpace(out)
	f.waited(t, part(6))
	for _, name := range []string{"a", "b"} {
		(&running{r.process, filepath.Join(dir, name)}).lastWindows(t, s)
	}
	r.stopDurable(t)
	for _, name := range []string{"c", "d"} {
		j := start(name+".yaml", "--from-savepoint", savepoint)
		in := &running{j.process, filepath.Join(dir, name)}
		if name == "d" {
			j.says(t, "subscribed")
			j.kill(t)
			in.process = start("d.yaml", "--from-savepoint", savepoint).process
		}
		in.lastWindows(t, s)
		in.stopDurable(t)
	}
	for _, name := range []string{"a", "b"} {
		f.compareAll(t, &running{r.process, filepath.Join(dir, name)}, s)
	}
	for _, file := range []string{"windows.jsonl", "sessions.jsonl", "running.jsonl", "raw.jsonl"} {
		a, c, d := linesOf(t, dir, "a", file), linesOf(t, dir, "c", file), linesOf(t, dir, "d", file)
		if !slices.Equal(slices.Sorted(maps.Keys(c)), slices.Sorted(maps.Keys(d))) {
			t.Errorf("%s: two jobs that begin at one savepoint wrote different rows, %d and %d", file, len(c), len(d))
		}
		if len(c) == 0 || len(c) == len(a) {
			t.Errorf("%s: %d rows after the savepoint, %d in all: nothing was told apart", file, len(c), len(a))
		}
		for row := range c {
			if a[row] == 0 {
				t.Errorf("%s: the first job never wrote %s", file, row)
				break
			}
		}
	}
	f.afterSavepoint(t, linesOf(t, dir, "a", "running.jsonl"), linesOf(t, dir, "c", "running.jsonl"))
}

func (f *fleet) waited(t *testing.T, wait func() error) {
	t.Helper()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// linesOf are the lines of a file; no two are equal.
func linesOf(t *testing.T, dir, job, name string) map[string]int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, job, name))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]int)
	for l := range strings.Lines(string(b)) {
		if all[l]++; all[l] > 1 {
			t.Errorf("%s/%s: %s is there twice", job, name, strings.TrimSpace(l))
		}
	}
	return all
}

// afterSavepoint: of each device, what came after is all from some total on.
func (f *fleet) afterSavepoint(t *testing.T, all, after map[string]int) {
	t.Helper()
	for device := range f.devices() {
		before, n := 0, 0
		for l := range all {
			if strings.Contains(l, fmt.Sprintf("%q", device)) {
				n++
				if after[l] == 0 {
					before++
				}
			}
		}
		for l := range after {
			var k int
			if _, tail, ok := strings.Cut(l, `"n":`); ok && strings.Contains(l, fmt.Sprintf("%q", device)) {
				if _, err := fmt.Sscan(strings.Split(tail, ",")[0], &k); err != nil || k <= before || k > n {
					t.Errorf("%s: %d of %d totals were before the savepoint, and %s after it (%v)", device, before, n, strings.TrimSpace(l), err)
				}
			}
		}
	}
}

func (f *fleet) devices() map[string]bool {
	all := make(map[string]bool)
	f.each(func(m *message) { all[m.device] = true })
	return all
}

// A process that is not there hears nothing: for longer than idle_after, and
// more than once. No device was silent in that time.
func TestHostsDurableTimeAway(t *testing.T) {
	t.Parallel()
	d := startTwoDevices(t, "8s", "--state", "state")
	again := func() {
		d.process = launch(t, d.dir, nil, tidemark, "run", "job.yaml", "--state", "state", "--output", "json")
		d.says(t, "subscribed")
	}
	for range 3 {
		d.kill(t)
		<-time.After(3 * time.Second) // together longer than idle_after
		again()
	}
	d.signal(t, syscall.SIGTERM)
	d.exit(t)
	<-time.After(9 * time.Second)
	again()
	d.catchUp(t)
	if got := d.stop(t); got.Late != 0 {
		t.Errorf("totals %+v", got)
	}
	d.compare(t)
}
