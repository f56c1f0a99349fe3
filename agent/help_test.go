package agent_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// TestMain sees to it that no goroutine outlives a job, and draws the same jobs and inputs each time, so that a change of the
// code is what makes a test fail. Others: -rapid.seed N, -rapid.checks N.
func TestMain(m *testing.M) {
	flag.Parse()
	if seed := flag.Lookup("rapid.seed"); seed.Value.String() == "0" {
		if err := seed.Value.Set("1"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// setting is how a job runs; no result may depend on it.
type setting struct {
	parallelism, batchRows int
	memory                 int64
	overwrite              bool
	set                    []string
}

func (s setting) String() string {
	return fmt.Sprintf("parallelism %d, batches of %d", s.parallelism, s.batchRows)
}

// settings are those that the semantics' examples are shown at.
func settings() (all []setting) {
	for _, p := range []int{1, 2, 5} {
		for _, n := range []int{1, 7, batch.MaxRows} {
			all = append(all, setting{parallelism: p, batchRows: n})
		}
	}
	return all
}

// ran is what came of a job.
type ran struct {
	lines     []string // of all stdout sinks, in the order in which they were written
	totals    agent.Totals
	operators map[string]operator.Counters // by operator, over all its subtasks
}

// rows are the lines of those stdout sinks that have a column.
func (r *ran) rows(column string, has bool) (rows []string) {
	for _, l := range r.lines {
		if strings.Contains(l, `"`+column+`":`) == has {
			rows = append(rows, l)
		}
	}
	return rows
}

// load reads a job's text.
func load(t tester, text string, s setting) *job.Job {
	t.Helper()
	j, err := job.Load("job.yaml", []byte(text), job.Options{Parallelism: s.parallelism, Set: s.set})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return j
}

// run runs a job to its end.
func run(t tester, text string, s setting) *ran {
	t.Helper()
	var out lockedBuffer
	local, err := agent.NewLocal(load(t, text, s), agent.LocalOptions{
		Stdout: &out, Stdin: strings.NewReader(""), BatchRows: s.batchRows, Memory: s.memory, Overwrite: s.overwrite,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := local.Run(context.Background()); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return outcome(local, out.String())
}

// outcome gathers what a job that has ended has done.
func outcome(local *agent.Local, out string) *ran {
	r := &ran{lines: lines(out), totals: local.Totals(), operators: make(map[string]operator.Counters)}
	for _, s := range local.Status() {
		for _, o := range s.Operators {
			c := r.operators[string(o.Operator)]
			c.In += o.In
			c.Out += o.Out
			c.Filtered += o.Filtered
			c.Late += o.Late
			c.NoWindow += o.NoWindow
			c.Rejected += o.Rejected
			c.Markers += o.Markers
			c.Fired += o.Fired
			if c.FirstRejected == "" {
				c.FirstRejected = o.FirstRejected
			}
			r.operators[string(o.Operator)] = c
		}
	}
	return r
}

// lines are the lines of a text, without the end of the last.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// write puts a text into a new file of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// read is the lines of a file.
func read(t tester, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return lines(string(text))
}

// lockedBuffer is a stdout that several sinks write.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
