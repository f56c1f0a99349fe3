package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// agentVerb makes this test program an agent.
const agentVerb = "agent-of-a-demo"

// brokenVerb makes it one that ends at once.
const brokenVerb = "broken-agent-of-a-demo"

// TestMain is an agent where a demo of a test has started it as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == brokenVerb {
		fmt.Fprintln(os.Stderr, "this one cannot start")
		os.Exit(3)
	}
	if len(os.Args) != 3 || os.Args[1] != agentVerb {
		goleak.VerifyTestMain(m)
		return
	}
	Leash()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := config.Load(os.Args[2])
	if err == nil {
		err = c.Check()
	}
	if err == nil {
		err = node.Run(ctx, node.Options{Config: c, Version: "test", Level: coordinator.Level, Events: func(e api.Event) {
			fmt.Fprintln(os.Stderr, e.What, e.Text)
		}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func agentCommand(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, agentVerb}
}

// The whole demo, with real processes that are really killed.
func TestDemoFindsEveryReadingAndWindow(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 15 seconds, and the processes in it have no race detector's report to give")
	}
	var out bytes.Buffer
	t.Parallel()
	temp := t.TempDir()
	err := Run(t.Context(), Options{Sensors: 200, For: 9 * time.Second, Seed: 7, Out: &out, Agent: agentCommand(t), temp: temp, away: time.Millisecond})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"Every window is right", "ok   readings", "ok   rejected: clock too far ahead", "an agent, n", "the leader, n", "migrated to depot in ", "pause "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, &out)
		}
	}
	nothingLeft(t, temp)
}

// An interrupt, long before the fleet's time is over.
func TestDemoInterruptedJudgesWhatThereIs(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 10 seconds")
	}
	var out bytes.Buffer
	t.Parallel()
	temp := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	err := Run(ctx, Options{Sensors: 50, For: time.Hour, Seed: 7, Out: &out, Agent: agentCommand(t), temp: temp, sent: func() {
		if sent++; sent == 500 {
			cancel()
		}
	}})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	nothingLeft(t, temp)
}

// An agent that does not start is an error that shows what it said, and leaves
// nothing behind.
func TestDemoSaysWhyAnAgentEnded(t *testing.T) {
	var out bytes.Buffer
	t.Parallel()
	temp := t.TempDir()
	err := Run(t.Context(), Options{Sensors: 1, For: time.Hour, Out: &out, Agent: []string{agentCommand(t)[0], brokenVerb}, temp: temp})
	if err == nil || !strings.Contains(err.Error(), "agent n1 ended by itself") || !strings.Contains(err.Error(), "this one cannot start") {
		t.Errorf("it said %v", err)
	}
	nothingLeft(t, temp)
}

func nothingLeft(t *testing.T, temp string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(temp, folderPrefix+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// An agent whose demo is gone ends by itself, and takes the folder with it.
func TestAgentEndsWithItsDemo(t *testing.T) {
	temp := t.TempDir()
	s, err := newSite(temp, agentCommand(t), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	a := s.agents[0]
	cmd := exec.Command(s.run[0], s.run[1], a.config)
	cmd.Env = append(os.Environ(), leashEnv+"="+s.folder)
	leash, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Read(make([]byte, 1)); err != nil { // it lives
		t.Fatal(err)
	}
	if err := leash.Close(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, log)
	if err := cmd.Wait(); err == nil {
		t.Error("it ended as if all were well")
	}
	nothingLeft(t, temp)
}

// Every kind of wrong answer must end in ErrMismatch.
func TestReportRefusesWrongCounts(t *testing.T) {
	right := judgement{verdict: simulate.Verdict{Right: 3}, expect: simulate.Totals{Late: 2, Refused: 1}, late: 2, rejected: 1, readings: tally{right: 9}}
	report := func(change func(*judgement)) error {
		j := right
		change(&j)
		return newView(&demo{opt: Options{Out: io.Discard}}).report(j)
	}
	if err := report(func(*judgement) {}); err != nil {
		t.Fatalf("the right answer was refused: %v", err)
	}
	for name, change := range map[string]func(*judgement){
		"a window wrong":    func(j *judgement) { j.verdict.Wrong = 1 },
		"a window missing":  func(j *judgement) { j.verdict.Missing = 1 },
		"a window too many": func(j *judgement) { j.verdict.Surplus = 1 },
		"no window":         func(j *judgement) { j.verdict.Right = 0 },
		"a reading lost":    func(j *judgement) { j.readings.missing = 1 },
		"a reading twice":   func(j *judgement) { j.readings.twice = 1 },
		"a strange reading": func(j *judgement) { j.readings.strange = 1 },
		"no reading":        func(j *judgement) { j.readings.right = 0 },
		"one late too many": func(j *judgement) { j.late++ },
		"one not rejected":  func(j *judgement) { j.rejected-- },
	} {
		if err := report(change); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: the report said %v", name, err)
		}
	}
}

func TestCompareFindsReadings(t *testing.T) {
	row := func(sensor string, seq int) []byte {
		return fmt.Appendf(nil, `{"sensor":%q,"ts":1,"temp":2.5,"seq":%d}`, sensor, seq)
	}
	sent := map[reading]int{{"s-1", 1}: 1, {"s-1", 2}: 2, {"s-2", 1}: 1}
	came := [][]byte{row("s-1", 1), row("s-1", 2), row("s-1", 2), row("s-2", 1)}
	if got, err := compare(sent, came); err != nil || !got.good() || got.right != 4 {
		t.Errorf("all are there: %+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		came [][]byte
		want tally
	}{
		"missing":     {came[1:], tally{right: 3, missing: 1}},
		"once of two": {[][]byte{came[0], came[1], came[3]}, tally{right: 3, missing: 1}},
		"twice":       {append([][]byte{came[0]}, came...), tally{right: 4, twice: 1}},
		"strange":     {append([][]byte{row("s-3", 1)}, came...), tally{right: 4, strange: 1}},
	} {
		got, err := compare(sent, c.came)
		if len(got.details) != 1 {
			t.Errorf("%s: details %v", name, got.details)
		}
		if got.details = nil; err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A file of an agent that lost a sink is cut back and may grow again.
func TestLinesFollowAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	l := &lines{files: []*file{{path: path}}}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l.read()
	}
	got := func() string { return string(bytes.Join(l.all(), []byte("|"))) }
	l.read() // there is none yet
	for _, c := range []struct{ text, want string }{
		{"a\nb", "a"}, {"a\nbb\nc\n", "a|bb|c"}, {"a\n", "a"}, {"a\nd\n", "a|d"},
	} {
		if write(c.text); got() != c.want {
			t.Errorf("%q: rows %s", c.text, got())
		}
	}
	if err := l.again(); err != nil || got() != "a|d" {
		t.Errorf("anew: %s, %v", got(), err)
	}
	write("a\nd\ne")
	if l.again() == nil {
		t.Error("half a row was taken for a whole one")
	}
}

// A line of the picture that wraps is not drawn over.
func TestPictureFits(t *testing.T) {
	const text = bold + "abcdef" + plain + "\n\x1b[1;31mmärz" + plain + "y\nxy\n"
	if got, want := fit(text, 3), bold+"abc"+plain+"\n\x1b[1;31mmär"+plain+"\nxy\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The picture has the lines that it is given, and fits the narrowest terminal that is
// usual.
func TestPictureHasItsLines(t *testing.T) {
	s, err := newSite(t.TempDir(), nil, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	start := dataflow.FromGo(time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC))
	d := &demo{opt: Options{For: time.Minute}, site: s, watermark: start, clock: start, phase: "the job moves to depot", sent: 1234567, moved: &move{}}
	d.config.Start = start
	d.now.job.Site, d.now.job.Status = home, "restarting"
	p := painting{view: newView(d), width: 80, room: 3, on: map[*process]int{s.agents[0]: 1234567}, c: counts{99999, 1234567, 999, 9999}}
	p.windows = []simulate.Result{{Sensor: "s-0001", Start: start, Count: 10, Avg: 12.5, Max: 31}}
	p.notes = []string{strings.Repeat("x", 200), "y"}
	text := p.picture()
	if n, want := strings.Count(text, "\n"), fixedLines+p.room+len(p.notes); n != want {
		t.Errorf("%d lines, want %d:\n%s", n, want, text)
	}
	if cut := fit(text, 80); cut != text {
		t.Errorf("a line is wider than 80 columns:\n%s", text)
	}
}
