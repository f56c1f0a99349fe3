package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// endless is a job that runs until it is told to stop. Its one window stays
// open.
const endless = `name: %s
checkpoint: {interval: 10ms}
sources:
  in: {generate: {rate: 1000, keys: 3, seed: 5}, event_time: ts, watermark: {bounded: 1ms}}
steps:
  - {id: sums, from: in, key_by: [key], window: {tumbling: 1h}, select: {n: count(*)}}
sinks:
  - {id: out, from: sums, file: {path: %q, timestamps: ms}}
`

// running is a job that runs on a state folder, in this process.
type running struct {
	t      *testing.T
	dir    string // the state folder
	job    string // its file
	path   string // of its output
	name   string
	stdin  io.Reader // nil: empty
	stdout lockedBuffer
	stderr told
	ended  chan int
}

// told wakes who waits for a text.
type told struct {
	lockedBuffer
	changed chan struct{} // 1
}

func (b *told) Write(p []byte) (int, error) {
	defer func() {
		select {
		case b.changed <- struct{}{}:
		default:
		}
	}()
	return b.lockedBuffer.Write(p)
}

// shortFolder is a new folder in which there may be a socket, whose path is short:
// where temporary files have long ones it is in /tmp.
func shortFolder(t *testing.T) string {
	t.Helper()
	const most = 103 - len("/tm1234567890/state/control.sock")
	parent := ""
	if len(os.TempDir()) > most {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "tm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newRunning makes the files of a job.
func newRunning(t *testing.T, name string) *running {
	t.Helper()
	dir := shortFolder(t)
	r := &running{t: t, dir: filepath.Join(dir, "state"), job: filepath.Join(dir, "job.yaml"), path: filepath.Join(dir, "out.jsonl"), name: name}
	if err := os.WriteFile(r.job, fmt.Appendf(nil, endless, name, r.path), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs the job until it says that it keeps its state.
func (r *running) start(args ...string) {
	r.t.Helper()
	r.ended, r.stderr = make(chan int, 1), told{changed: make(chan struct{}, 1)}
	in := r.stdin
	if in == nil {
		in = strings.NewReader("")
	}
	go func() {
		r.ended <- run(append([]string{"run", r.job, "--state", r.dir}, args...), in, &r.stdout, &r.stderr)
	}()
	r.says("keeps its state in")
}

func (r *running) says(what string) {
	r.t.Helper()
	for !strings.Contains(r.stderr.String(), what) {
		select {
		case <-r.stderr.changed:
		case code := <-r.ended:
			r.t.Fatalf("exit code %d before it said %q:\n%s", code, what, r.stderr.String())
		}
	}
}

// wait is until the job has ended; its exit code must be code.
func (r *running) wait(code int, says string) {
	r.t.Helper()
	if r.t.Failed() {
		r.t.FailNow() // what was to end it may have failed, and then it never ends
	}
	if got := <-r.ended; got != code || !strings.Contains(r.stderr.String(), says) {
		r.t.Errorf("exit code %d, want %d and %q:\n%s", got, code, says, r.stderr.String())
	}
}

// verb runs a verb on the folder.
func (r *running) verb(args ...string) called {
	r.t.Helper()
	return tidemark(r.t, "", append(args, "--state", r.dir)...)
}

// savepoint takes savepoints until there is one in which a state has so many
// rows.
func (r *running) savepoint(op, state string, rows int) string {
	r.t.Helper()
	for {
		c := r.verb("savepoint", "create", r.name)
		c.want(r.t, exitDone)
		id := strings.TrimSpace(c.out)
		read := tidemark(r.t, "", "state", "read", id, "--operator", op, "--state", state, "--dir", r.dir)
		if len(textLines(read.out)) == rows || r.t.Failed() {
			return id
		}
	}
}

// A running job is asked by other commands: what it does, for savepoints, to
// stop. What it says of them is what the folder holds.
func TestRunningJobIsAsked(t *testing.T) {
	r := newRunning(t, "asked")
	r.start()
	id := r.savepoint("sums", "windows", 3)

	list := r.verb("job", "list", "--output", "json")
	list.want(t, exitDone)
	var line jobLine
	if err := json.Unmarshal([]byte(list.out), &line); err != nil || line.Name != "asked" || line.Status != "running" || line.Totals == nil || line.Totals.In == 0 {
		t.Errorf("%v: %s", err, list.out)
	}
	for _, verb := range [][]string{{"savepoint", "create", "nobody"}, {"job", "stop", "nobody"}} {
		r.verb(verb...).want(t, exitFailed, `job "nobody" does not run on this folder; there is asked`)
	}
	tidemark(t, "", "run", r.job, "--state", r.dir).want(t, exitFailed, "in use by another process", fmt.Sprintf("(process %d)", os.Getpid()))

	for changed := 0; changed < 3 && !t.Failed(); { // each key has had a row since
		changed = strings.Count(r.verb("state", "diff", id, r.savepoint("sums", "windows", 3)).out, `"state":"windows","change":"changed"`)
	}
	stop := r.verb("job", "stop", "asked")
	stop.want(t, exitDone)
	last := strings.TrimSpace(stop.out)
	r.wait(exitDone, "job asked is stopped, savepoint "+last)
	for _, name := range []string{id, last} {
		r.verb("savepoint", "verify", name).want(t, exitDone)
		r.verb("savepoint", "show", name).want(t, exitDone)
	}
	diff := r.verb("state", "diff", id, last)
	diff.want(t, exitDone, "operator in, state positions: 0 added, 0 removed, 1 changed", "operator sums, state windows: 0 added, 0 removed, 3 changed")
	if n := strings.Count(diff.out, `"state":"windows","change":"changed"`); n != 3 {
		t.Errorf("%d windows differ: %s", n, diff.out)
	}
	if same := r.verb("state", "diff", last, last); same.out != "" || same.code != exitDone {
		t.Errorf("a savepoint and itself: %s", same.out)
	}
	for _, verb := range [][]string{{"savepoint", "create", "asked"}, {"job", "stop", "asked"}} {
		r.verb(verb...).want(t, exitFailed, "no process runs jobs on", "the newest of job asked is chk-1-", "tidemark run JOB.yaml --state")
	}
	if list := r.verb("job", "list"); !strings.Contains(list.out, "not running") {
		t.Errorf("%s", list.out)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "control.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A stop with drain fires what is open, and nothing goes on from it.
func TestDrainFiresAndEnds(t *testing.T) {
	r := newRunning(t, "drained")
	r.start()
	r.savepoint("sums", "windows", 3)
	stop := r.verb("job", "stop", "drained", "--drain")
	stop.want(t, exitDone)
	id := strings.TrimSpace(stop.out)
	r.wait(exitDone, "savepoint "+id)
	if got := linesOf(t, r.path); len(got) != 3 {
		t.Errorf("%q", got)
	}
	check := r.verb("job", "check", r.job, "--against", id)
	check.want(t, exitFailed)
	if !strings.Contains(check.out, "it was drained") || !strings.Contains(check.out, "it would not work") {
		t.Errorf("%s", check.out)
	}
	if list := r.verb("savepoint", "list"); !strings.Contains(list.out, "drained") {
		t.Errorf("%s", list.out)
	}
	tidemark(t, "", "run", r.job, "--state", r.dir).want(t, exitFailed, "stopped with drain")
}

// A savepoint goes to another folder as a file, and the job goes on there with
// another parallelism: the windows that were open have all their rows.
func TestSavepointMovesAsAFile(t *testing.T) {
	r := newRunning(t, "moving")
	r.start()
	id := r.savepoint("sums", "windows", 3)
	r.verb("job", "stop", "moving").want(t, exitDone)
	r.wait(exitDone, "is stopped")
	exported := filepath.Join(filepath.Dir(r.dir), "moving.savepoint")
	r.verb("savepoint", "export", id, exported).want(t, exitDone, id)

	away := newRunning(t, "moving")
	away.verb("savepoint", "import", exported, "--as", "sp-moved").want(t, exitDone)
	check := tidemark(t, "", "job", "check", away.job, "--against", exported, "-p", "3", "--output", "json")
	check.want(t, exitDone)
	var c struct {
		OK       bool
		Findings []struct{ Operator, State, Verdict string }
	}
	if err := json.Unmarshal([]byte(check.out), &c); err != nil || !c.OK || len(c.Findings) == 0 {
		t.Errorf("%v: %s", err, check.out)
	}
	before := len(dirFiles(t, away.dir))
	away.verb("job", "check", away.job, "--against", "sp-moved", "-p", "3").want(t, exitDone)
	if got := len(dirFiles(t, away.dir)); got != before {
		t.Errorf("the check left %d files in place of %d", got, before)
	}
	rows := position(t, exported) + 100
	away.start("--from-savepoint", "sp-moved", "-p", "3", "--set", fmt.Sprintf("sources.in.generate.rows=%d", rows))
	away.says("begins at savepoint sp-moved")
	away.wait(exitDone, "is finished")
	counted := int64(0)
	for _, l := range linesOf(t, away.path) {
		var row struct{ N int64 }
		if err := json.Unmarshal([]byte(l), &row); err != nil {
			t.Fatal(err)
		}
		counted += row.N
	}
	if counted != rows {
		t.Errorf("%d rows counted of %d", counted, rows)
	}
	again := away.verb("job", "list")
	if !strings.Contains(again.out, "finished") {
		t.Errorf("%s", again.out)
	}
	away.verb("savepoint", "delete", "sp-moved").want(t, exitDone, "sp-moved: deleted")
	away.verb("savepoint", "delete", "sp-moved").want(t, exitFailed, "missing", "has none")
}

// position is where the source stands in an exported savepoint.
func position(t *testing.T, exported string) int64 {
	t.Helper()
	var at struct{ Offset int64 }
	read := tidemark(t, "", "state", "read", exported, "--operator", "in", "--state", "positions")
	if err := json.Unmarshal([]byte(read.out), &at); err != nil || at.Offset == 0 {
		t.Fatalf("%v: %s%s", err, read.out, read.err)
	}
	return at.Offset
}

// dirFiles are all files below a folder.
func dirFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// finished runs the counting job to its end on a state folder.
func finished(t *testing.T) (p place, dir string) {
	t.Helper()
	p = newPlace(t, reading)
	dir = filepath.Join(p.dir, "st")
	tidemark(t, "", "run", p.job, "--state", dir).want(t, exitDone, "is finished")
	tidemark(t, "", "run", p.job, "--state", dir).want(t, exitDone, "has finished before")
	return p, dir
}

// What is wrong with a folder or a name is told with what is there and what to
// do, and with the right exit code.
func TestWrongFoldersAndNames(t *testing.T) {
	p, dir := finished(t)
	none, empty := filepath.Join(p.dir, "none"), t.TempDir()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"savepoint list", exitFailed, "name a state folder with --state DIR"},
		{"checkpoint list counting", exitFailed, "TIDEMARK_STATE"},
		{"savepoint list --state " + none, exitFailed, "none: missing; give the folder that a job was run with"},
		{"savepoint list --state " + p.job, exitFailed, "give the folder"},
		{"savepoint delete sp-1 --state " + none, exitFailed, "missing"},
		{"savepoint show sp-1 --state " + empty, exitFailed, "holds no savepoint and no checkpoint"},
		{"savepoint show sp-1 --dir " + dir, exitFailed, "there is counting/chk-"},
		{"savepoint show counting/chk-9-9 --state " + dir, exitFailed, "there is counting/chk-"},
		{"savepoint verify " + p.job + " --state " + dir, exitFailed, "not an archive of a savepoint"},
		{"savepoint import " + p.job + " --state " + dir, exitFailed, "not an archive of a savepoint"},
		{"savepoint import nothing --state " + dir, exitFailed, "give a file that tidemark savepoint export wrote"},
		{"savepoint delete counting/chk-1-1 --state " + dir, exitFailed, "lets them go itself"},
		{"savepoint export counting " + p.dir + "/none/x --state " + dir, exitFailed, "no such file or directory"},
		{"checkpoint list other --state " + dir, exitFailed, `job "other" is missing`},
		{"state read counting --dir " + dir, exitUsage, "--operator UID --state NAME; chk-1-"},
		{"state read counting --operator w --dir " + dir, exitUsage, "operator w has "},
		{"state read counting --operator nobody --dir " + dir, exitUsage, `operator "nobody" has no state`},
		{"state read counting --operator w --state x --dir " + dir, exitFailed, `state "x" of operator "w" is missing`},
		{"state read counting --operator w --state windows", exitFailed, "no agent answers"},
		{"state diff counting --dir " + dir, exitUsage, "two savepoints"},
		{"job check " + p.job + " --allow-non-restored", exitUsage, "--against"},
		{"job check " + p.job + " --against sp-1 --state " + dir, exitFailed, "there is counting/chk-"},
		{"feed show none --state " + dir, exitFailed, "none"},
		{"feed list --state " + none, exitFailed, "missing"},
	} {
		r := tidemark(t, "", strings.Fields(c.args)...)
		if r.code != c.code || !strings.Contains(r.err, c.says) || r.out != "" {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", c.args, r.code, c.code, c.says, r.err, r.out)
		}
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a folder was made that was not there")
	}
	t.Setenv(folderVariable, dir)
	tidemark(t, "", "checkpoint", "list", "counting").want(t, exitDone)
	tidemark(t, "", "state", "read", "counting", "--operator", "in", "--state", "positions").want(t, exitDone, "1 rows of state positions")
}

// Damage is found by verify, by a check and by whoever reads, and named.
func TestDamageIsNamed(t *testing.T) {
	p, dir := finished(t)
	s, err := durable.View(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Saved("counting")
	if err != nil {
		t.Fatal(err)
	}
	var digest string
	for _, o := range v.Manifest.Operators {
		for _, tab := range o.Tables {
			for _, sh := range tab.Shards {
				if o.ID == "in" && tab.Name == "splits" && len(sh.Parts) > 0 {
					digest = sh.Parts[0].Digest.String()
				}
			}
		}
	}
	name := filepath.Join(dir, "parts", digest[:2], digest+".avro")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 1
	for what, spoil := range map[string]func() error{
		"damaged": func() error { return os.WriteFile(name, bad, 0o600) },
		"missing": func() error { return os.Remove(name) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		tidemark(t, "", "savepoint", "verify", "counting", "--state", dir).want(t, exitFailed, "is not whole", `state "splits" of operator "in"`, what)
		tidemark(t, "", "savepoint", "export", "counting", filepath.Join(p.dir, "x"), "--state", dir).want(t, exitFailed, what)
		if _, err := os.Stat(filepath.Join(p.dir, "x")); err == nil {
			t.Error("half an export was left")
		}
		tidemark(t, "", "state", "read", "counting", "--operator", "in", "--state", "splits", "--dir", dir).want(t, exitFailed, what)
		r := tidemark(t, "", "job", "check", p.job, "--against", "counting", "--state", dir)
		r.want(t, exitFailed)
		if !strings.Contains(r.out, "refused: part of state \"splits\" of operator \"in\"") || !strings.Contains(r.out, what) {
			t.Errorf("%s", r.out)
		}
		if err := os.WriteFile(name, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "jobs", "counting", "checkpoints", "*.manifest"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := tidemark(t, "", "checkpoint", "list", "counting", "--state", dir); r.code != exitDone || !strings.Contains(r.out, "damaged") {
		t.Errorf("%s%s", r.out, r.err)
	}
	tidemark(t, "", "savepoint", "show", "counting", "--state", dir).want(t, exitFailed, "no checkpoint can be used")
}

// A check says at once all that stands against a job: its state, its files and
// its brokers.
func TestCheckAgainstSaysEverything(t *testing.T) {
	_, dir := finished(t)
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	nobody := sensortest.FreeAddr(t)
	job := file(t, "other.yaml", fmt.Sprintf(`name: other
sources:
  in: {file: {path: /nowhere/in.jsonl}, format: json, fields: {k: string, ts: {type: timestamp, unit: ms}}, event_time: ts}
  plant: {mqtt: {broker: "mqtt://%s", topics: [t]}, format: json, fields: {k: string}, event_time: ingestion}
  deaf: {mqtt: {broker: "mqtt://%s", topics: [t]}, format: json, fields: {k: string}, event_time: ingestion}
  shared: {feed: none, format: json, fields: {k: string}, event_time: ingestion}
steps:
  - {id: v, from: in, key_by: [k], window: {tumbling: 10s}, select: {n: count(*)}}
sinks:
  - {id: out, from: v, file: {path: %q}}
  - {id: a, from: plant, blackhole: {}}
  - {id: b, from: deaf, blackhole: {}}
  - {id: c, from: shared, blackhole: {}}
`, b.Addr(), nobody, filepath.Join(dir, "LOCK", "out.jsonl")))
	r := tidemark(t, "", "job", "check", job, "--against", "counting", "--state", dir)
	r.want(t, exitFailed)
	for _, says := range []string{
		`refused: operator "w": it has state`, "source in, /nowhere/in.jsonl: NOT THERE", "source plant, mqtt://" + b.Addr() + ": there",
		"source deaf, mqtt://" + nobody + ": NOT THERE: mqtt: cannot reach", `there is no feed "none"`, "is not a directory", "it would not work",
	} {
		if !strings.Contains(r.out, says) {
			t.Errorf("it does not say %q:\n%s%s", says, r.out, r.err)
		}
	}
}

// What was read from a pipe cannot be read again: a job that has to is told so
// at once, and not started again and again.
func TestStdinCannotGoOn(t *testing.T) {
	p := newPlace(t, "")
	r := newRunning(t, "counting")
	r.job = p.job
	in, out := io.Pipe()
	defer in.Close()
	r.stdin = in
	stdin := []string{"--set", "sources.in.file.path=-"}
	r.start(stdin...)
	if _, err := io.WriteString(out, reading); err != nil {
		t.Fatal(err)
	}
	r.savepoint("w", "windows", 1)
	r.verb("job", "stop", "counting").want(t, exitDone)
	r.wait(exitDone, "is stopped")
	tidemark(t, reading, append([]string{"run", p.job, "--state", r.dir}, stdin...)...).want(t, exitFailed, "cannot be read again from a position; use a file")
}
