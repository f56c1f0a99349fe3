package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// wordCounts are the lines of a job's stdout as `sort | uniq -c` prints them.
func wordCounts(t *testing.T, out string) (counts []string) {
	t.Helper()
	for _, l := range textLines(out) {
		var row struct {
			Word string
			N    int64
		}
		if err := json.Unmarshal([]byte(l), &row); err != nil {
			t.Fatal(err)
		}
		counts = append(counts, fmt.Sprintf("%d %s", row.N, row.Word))
	}
	slices.Sort(counts)
	return counts
}

// TestWordCount runs the sample over a text with runs of spaces, empty lines and
// words of several alphabets: what comes out is what tr, sort and uniq say.
func TestWordCount(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"tide", "mark", "the", "The", "a", "wall,", "wall", "höhe", "潮", "\"quoted\"", "back\\slash", "it's", "0", "-"}
	var text strings.Builder
	for range 3000 {
		for range r.IntN(12) {
			text.WriteString(words[min(r.IntN(len(words)), r.IntN(len(words)))])
			text.WriteString(strings.Repeat(" ", 1+max(0, r.IntN(8)-4)))
		}
		text.WriteString(strings.Repeat(" ", max(0, r.IntN(6)-4)) + "\n")
	}
	path := file(t, "text.txt", text.String())
	n := make(map[string]int)
	for _, w := range strings.Fields(text.String()) {
		n[w]++
	}
	var want []string
	for w, k := range n {
		want = append(want, fmt.Sprintf("%d %s", k, w))
	}
	slices.Sort(want)
	t.Chdir("../..")
	for _, p := range []string{"1", "2", "5"} {
		for _, size := range []string{"7", "4096"} {
			run := tidemark(t, "", "run", "configs/wordcount.yaml", "--set", "sources.text.file.path="+path, "-p", p, "--batch-rows", size)
			run.want(t, exitDone, "wordcount: rows in 3000, ")
			if got := wordCounts(t, run.out); !slices.Equal(got, want) {
				t.Errorf("parallelism %s, batches of %s: got %q, want %q", p, size, got, want)
			}
		}
	}
	for _, tool := range []string{"sh", "tr", "sort", "uniq", "grep"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("without %s there is no shell pipeline to compare with; the counts are right", tool)
		}
	}
	out, err := exec.Command("sh", "-c", `tr -s ' ' '\n' < "$1" | grep -v '^$' | LC_ALL=C sort | LC_ALL=C uniq -c`, "sh", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var shell []string
	for _, l := range textLines(string(out)) {
		shell = append(shell, strings.Join(strings.Fields(l), " "))
	}
	slices.Sort(shell)
	if !slices.Equal(shell, want) {
		t.Errorf("the shell's counts differ: %q, want %q", shell, want)
	}
}

// The sample as it stands, on its own text.
func TestWordCountSample(t *testing.T) {
	t.Chdir("../..")
	r := tidemark(t, "", "run", "configs/wordcount.yaml")
	r.want(t, exitDone, "wordcount: rows in 6, ")
	for _, c := range []string{"9 the", "3 wall", "1 turns", "3 is"} {
		if !slices.Contains(wordCounts(t, r.out), c) {
			t.Errorf("no %q in %s", c, r.out)
		}
	}
}

func TestSamplesPassTheCheck(t *testing.T) {
	t.Chdir("../..")
	for _, name := range []string{"wordcount", "cold-chain", "quakes", "silent-stations", "durable"} {
		r := tidemark(t, "", "job", "check", "configs/"+name+".yaml")
		r.want(t, exitDone)
		if !strings.Contains(r.out, "ok: job \""+name+"\"") || r.err != "" {
			t.Errorf("%s: stdout %s, stderr %s", name, r.out, r.err)
		}
	}
}

// explained is what explain prints as JSON.
type explained struct {
	JobGraph []struct {
		Chain       []string
		Parallelism int
	} `json:"job_graph"`
	Execution []any `json:"execution_graph"`
	Slots     int
}

// TestE45Explain is WordCount of five tasks: in 2 slots if they are shared, in
// 5 if not; and 13 tasks in 6 slots when all but the sink have parallelism 6.
func TestE45Explain(t *testing.T) {
	const text = `name: wordcount
parallelism: 2
sources:
  source: {file: {path: in.txt}, format: text%s}
steps:
  - {id: flat_map, from: source, flat_map: "split(line, ' ') as word"%s}
  - {id: map, from: flat_map, select: {word: lower(word)}%s}
  - {id: sum, from: map, key_by: [word], window: {tumbling: 5s}, select: {n: count(*)}%s}
sinks:
  - {id: sink, from: sum, stdout: {}%s}
`
	shared := file(t, "shared.yaml", fmt.Sprintf(text, "", "", "", "", ""))
	apart := file(t, "apart.yaml", fmt.Sprintf(text, ", slot_group: a", ", slot_group: a", ", slot_group: a", ", slot_group: b", ", slot_group: c"))
	for _, c := range []struct {
		args         []string
		tasks, slots int
		parallelism  []int
	}{
		{[]string{shared}, 5, 2, []int{2, 2, 1}},
		{[]string{apart}, 5, 5, []int{2, 2, 1}},
		{[]string{shared, "-p", "6"}, 13, 6, []int{6, 6, 1}},
		{[]string{shared, "-p", "7"}, 15, 7, []int{7, 7, 1}},
	} {
		r := tidemark(t, "", append([]string{"job", "explain", "--output", "json"}, c.args...)...)
		r.want(t, exitDone)
		var e explained
		if err := json.Unmarshal([]byte(r.out), &e); err != nil {
			t.Fatal(err)
		}
		if len(e.Execution) != c.tasks || e.Slots != c.slots {
			t.Errorf("%v: %d tasks in %d slots, want %d in %d", c.args, len(e.Execution), e.Slots, c.tasks, c.slots)
		}
		chains := [][]string{{"source", "flat_map", "map"}, {"sum"}, {"sink"}}
		for i, task := range e.JobGraph {
			if i >= len(chains) || !slices.Equal(task.Chain, chains[i]) || task.Parallelism != c.parallelism[i] {
				t.Errorf("%v: task %d is %+v", c.args, i, task)
			}
		}
	}
	plain := tidemark(t, "", "job", "explain", shared)
	plain.want(t, exitDone)
	for _, says := range []string{"source", "flat_map", "hash", "2 slots", "5 "} {
		if !strings.Contains(plain.out, says) {
			t.Errorf("explain does not say %q:\n%s", says, plain.out)
		}
	}
	dot := tidemark(t, "", "job", "explain", shared, "--dot")
	dot.want(t, exitDone)
	if !strings.HasPrefix(dot.out, "digraph") || !strings.HasSuffix(strings.TrimSpace(dot.out), "}") {
		t.Errorf("--dot: %s", dot.out)
	}
}
