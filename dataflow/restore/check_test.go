package restore_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; it is now:\n%s", file, got)
	}
}

// keyed is a keyed table, its identity the first column.
func keyed(name string, fields ...batch.Field) restore.Table {
	return restore.Table{StateTable: operator.StateTable{Name: name, Schema: batch.MustSchema(fields...), Keyed: true, Identity: 1}}
}

func counter() restore.Table {
	return keyed("counter", batch.Field{Name: "key", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint})
}

// saveOf is the manifest entry of a table with a row for each subtask.
func saveOf(t restore.Table, parallelism int) manifest.Table {
	m := manifest.Table{Name: t.Name, Schema: avro.SchemaOf(t.Name, t.Schema, t.Keyed), Keyed: t.Keyed, Spread: uint8(t.Spread), Identity: t.Identity}
	for i := range parallelism {
		m.Shards = append(m.Shards, manifest.Shard{Subtask: i, Parts: []manifest.PartUse{{Rows: 1}}})
	}
	return m
}

// savepoint is one of a job with parallelism 2: a source, a stateless filter
// that heads a task, and a counter.
func savepoint() *manifest.Manifest {
	inputs := restore.Table{StateTable: operator.StateTable{Name: "task.inputs", Spread: operator.Union, Schema: values()}}
	return &manifest.Manifest{Kind: manifest.Savepoint, Name: "sp-1", Job: "counts", MaxParallelism: 128, Operators: []manifest.Operator{
		{ID: "in", Parallelism: 2, Positions: []manifest.Position{{Split: "0", Offset: 5}, {Split: "1", Offset: 6}}},
		{ID: "f", Parallelism: 2, Tables: []manifest.Table{saveOf(inputs, 2)}},
		{ID: "c", Parallelism: 2, Tables: []manifest.Table{saveOf(inputs, 2), saveOf(counter(), 2)}},
	}}
}

// job is the job it was taken of.
func job() restore.Job {
	return restore.Job{Name: "counts", MaxParallelism: 128, Operators: []restore.Operator{
		{ID: "in", Role: graph.SourceNode, Parallelism: 2},
		{ID: "f", Role: graph.StepNode, Parallelism: 2},
		{ID: "c", Role: graph.StepNode, Parallelism: 2, Tables: []restore.Table{counter()}},
		{ID: "out", Role: graph.SinkNode, Parallelism: 1},
	}}
}

// verdicts is the report in short: "c/counter as is".
func verdicts(r *restore.Report) string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s/%s %s", f.Operator, f.State, f.Verdict))
	}
	return strings.Join(all, ", ")
}

func at(t *testing.T, j *restore.Job, id dataflow.OperatorID) *restore.Operator {
	t.Helper()
	i := slices.IndexFunc(j.Operators, func(o restore.Operator) bool { return o.ID == id })
	if i < 0 {
		t.Fatalf("no operator %q", id)
	}
	return &j.Operators[i]
}

func rename(o *restore.Operator) { o.ID, o.Was = "c2", o.ID }

// Each change of the job, and what becomes of the state.
func TestMatching(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(j *restore.Job, m *manifest.Manifest)
		allow  bool
		want   string   // verdicts
		errs   []string // of a refusal, each in the error
	}{
		{name: "unchanged", want: "in/positions as is, f/ no state, c/counter as is, out/ no state"},
		{name: "E56 renamed", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").ID = "c2" },
			want: "in/positions as is, f/ no state, c2/counter starts empty, out/ no state, c/ refused",
			errs: []string{`operator "c": it has state (2 rows of "counter"), and the job has no operator with this id`, "was: c", "allow-non-restored"}},
		{name: "E56 renamed, allowed", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").ID = "c2" }, allow: true,
			want: "in/positions as is, f/ no state, c2/counter starts empty, out/ no state, c/ dropped"},
		{name: "E56 renamed, said so", change: func(j *restore.Job, _ *manifest.Manifest) { rename(at(t, j, "c")) },
			want: "in/positions as is, f/ no state, c2/counter as is, out/ no state"},
		{name: "renamed long ago", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").Was = "c0" },
			want: "in/positions as is, f/ no state, c/counter as is, out/ no state"},
		{name: "E57 a stateless map in front", change: func(j *restore.Job, _ *manifest.Manifest) {
			j.Operators = slices.Insert(j.Operators, 1, restore.Operator{ID: "m", Role: graph.StepNode, Parallelism: 2})
		}, want: "in/positions as is, m/ no state, f/ no state, c/counter as is, out/ no state"},
		{name: "E57 the stateless filter removed", change: func(j *restore.Job, _ *manifest.Manifest) {
			j.Operators = slices.Delete(j.Operators, 1, 2)
		}, want: "in/positions as is, c/counter as is, out/ no state"},
		{name: "E58 deleted", change: func(j *restore.Job, _ *manifest.Manifest) { j.Operators = slices.Delete(j.Operators, 2, 3) },
			want: "in/positions as is, f/ no state, out/ no state, c/ refused", errs: []string{`operator "c"`}},
		{name: "E58 deleted, allowed", change: func(j *restore.Job, _ *manifest.Manifest) { j.Operators = slices.Delete(j.Operators, 2, 3) }, allow: true,
			want: "in/positions as is, f/ no state, out/ no state, c/ dropped"},
		{name: "a source deleted", change: func(j *restore.Job, _ *manifest.Manifest) { j.Operators = slices.Delete(j.Operators, 0, 1) },
			want: "f/ no state, c/counter as is, out/ no state, in/ refused", errs: []string{"the positions of 2 splits"}},
		{name: "a source became a step", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "in").Role = graph.StepNode }, allow: true,
			want: "in/ refused, f/ no state, c/counter as is, out/ no state", errs: []string{"give it another id"}},
		{name: "two say was", change: func(j *restore.Job, _ *manifest.Manifest) {
			rename(at(t, j, "c"))
			at(t, j, "out").Was = "c"
		}, want: "in/positions as is, f/ no state, c2/counter as is, out/ refused", errs: []string{"taken by another operator"}},
		{name: "E59 the job names no max", change: func(j *restore.Job, _ *manifest.Manifest) { j.MaxParallelism = 256 },
			want: "in/positions as is, f/ no state, c/counter as is, out/ no state"},
		{name: "E59 another max", change: func(j *restore.Job, _ *manifest.Manifest) { j.MaxParallelism, j.Named = 256, true }, allow: true,
			want: "/ refused, in/positions as is, f/ no state, c/counter as is, out/ no state", errs: []string{"max_parallelism 256, the state was saved with 128"}},
		{name: "E59 the same max", change: func(j *restore.Job, _ *manifest.Manifest) { j.MaxParallelism, j.Named = 128, true },
			want: "in/positions as is, f/ no state, c/counter as is, out/ no state"},
		{name: "E59 parallelism 129", change: func(j *restore.Job, _ *manifest.Manifest) { j.MaxParallelism, at(t, j, "f").Parallelism = 256, 129 },
			want: "f/ refused, in/positions as is, f/ no state, c/counter as is, out/ no state", errs: []string{`operator "f": parallelism 129 is more than the 128 key groups`}},
		{name: "E59 parallelism 64", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").Parallelism = 64 },
			want: "in/positions as is, f/ no state, c/counter as is, out/ no state"},
		{name: "drained", change: func(_ *restore.Job, m *manifest.Manifest) { m.Drained = true }, allow: true,
			want: "/ refused, in/positions as is, f/ no state, c/counter as is, out/ no state", errs: []string{"drained"}},
		{name: "other rows by key", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").Tables[0].Keyed = false },
			want: "in/positions as is, f/ no state, c/counter refused, out/ no state", errs: []string{`operator "c", state "counter": its rows are dealt out`}},
		{name: "the key's type", change: func(j *restore.Job, _ *manifest.Manifest) {
			at(t, j, "c").Tables[0] = keyed("counter", batch.Field{Name: "key", Type: batch.Bytes}, batch.Field{Name: "n", Type: batch.Bigint})
		}, want: "in/positions as is, f/ no state, c/counter refused, out/ no state", errs: []string{`state "counter", field "key"`, "such columns cannot change"}},
		{name: "other identity", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").Tables[0].Identity = 2 },
			want: "in/positions as is, f/ no state, c/counter refused, out/ no state", errs: []string{"told apart by 2 columns"}},
		{name: "a state less and one more", change: func(j *restore.Job, _ *manifest.Manifest) { at(t, j, "c").Tables[0].Name = "other" },
			want: "in/positions as is, f/ no state, c/other starts empty, c/counter dropped, out/ no state"},
		{name: "a sink with rows to commit", change: func(j *restore.Job, m *manifest.Manifest) {
			m.Operators = append(m.Operators, manifest.Operator{ID: "out", Parallelism: 1, Tables: []manifest.Table{saveOf(keyed("task.pending", batch.Field{Name: "target", Type: batch.String}), 1)}})
		}, want: "in/positions as is, f/ no state, c/counter as is, out/task.pending refused", errs: []string{"rows of this checkpoint to commit"}},
		{name: "all at once", change: func(j *restore.Job, m *manifest.Manifest) {
			m.Drained = true
			j.MaxParallelism, j.Named = 64, true
			at(t, j, "c").Tables[0] = keyed("counter", batch.Field{Name: "key", Type: batch.Bytes}, batch.Field{Name: "n", Type: batch.Boolean})
			j.Operators = slices.Delete(j.Operators, 0, 1)
		}, want: "/ refused, / refused, f/ no state, c/counter refused, out/ no state, in/ refused",
			errs: []string{"drained", "max_parallelism 64", `field "key"`, "the positions of 2 splits"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, m := job(), savepoint()
			if c.change != nil {
				c.change(&j, m)
			}
			r := restore.Check(m, j, restore.Options{AllowNonRestored: c.allow})
			if got := verdicts(r); got != c.want {
				t.Errorf("found %s\nwant  %s", got, c.want)
			}
			err := r.Err()
			if (err != nil) != (len(c.errs) > 0) || r.OK == (err != nil) || (r.Plan() == nil) == r.OK {
				t.Fatalf("ok is %v, plan %v, error %v", r.OK, r.Plan(), err)
			}
			if err != nil && !errors.Is(err, restore.ErrRefused) {
				t.Errorf("the error is no ErrRefused: %v", err)
			}
			for _, want := range c.errs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

// What a person sees, in both forms.
func TestReport(t *testing.T) {
	j, m := job(), savepoint()
	c := at(t, &j, "c")
	c.ID, c.Was, c.Parallelism = "count", "c", 3
	c.Tables[0] = keyed("counter", batch.Field{Name: "key", Type: batch.String}, batch.Field{Name: "n", Type: batch.Double}, batch.Field{Name: "unit", Type: batch.String})
	at(t, &j, "out").ID = "archive"
	r := restore.Check(m, j, restore.Options{})
	golden(t, "ok.txt", r.String())
	text, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "ok.json", string(text)+"\n")

	c.Was, j.Named, j.MaxParallelism = "", true, 64
	r = restore.Check(m, j, restore.Options{})
	golden(t, "refused.txt", r.String())
	if text, err = r.JSON(); err != nil {
		t.Fatal(err)
	}
	golden(t, "refused.json", string(text)+"\n")

	m.Finished = true
	if r = restore.Check(m, job(), restore.Options{}); !r.OK || !r.Finished || !strings.Contains(r.String(), "nothing left to do") {
		t.Errorf("a finished job:\n%s", r)
	}
	var empty restore.Report
	if text, err := empty.JSON(); err != nil || !json.Valid(text) || !strings.Contains(string(text), `"findings": []`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestJobOf(t *testing.T) {
	b := graph.NewBuilder("j", 2).MaxParallelism(64)
	b.Source("in", source{}).Then("a", operator.NewPass(values())).Parallelism(3)
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	g.MaxNamed = true
	g.Node("a").Was = "b"
	j := restore.JobOf(g, func(id dataflow.OperatorID) []operator.StateTable {
		if id == "in" {
			return nil
		}
		return []operator.StateTable{counter().StateTable}
	})
	a := j.Operators[1]
	if !j.Named || j.MaxParallelism != 64 || j.Name != "j" || a.ID != "a" || a.Was != "b" || a.Parallelism != 3 || a.Role != graph.StepNode || len(a.Tables) != 1 || len(j.Operators[0].Tables) != 0 {
		t.Errorf("%+v", j)
	}
}

type source struct{}

func (source) Connector() string                { return "test" }
func (source) Schema() *batch.Schema            { return values() }
func (source) Side(operator.Side) *batch.Schema { return nil }

// tumbling are the tables of a step of windows.
func tumbling(t *testing.T, lateness dataflow.Duration, firing window.Firing) (all []restore.Table) {
	t.Helper()
	f, err := window.NewFactory(window.Spec{Form: window.Tumbling, Size: 10, AllowedLateness: lateness, Firing: firing, Keys: []int{0}, Input: events(),
		Aggregates: []window.Aggregate{{Name: "n", Func: window.CountRows}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tab := range f.New().(operator.Stateful).StateTables() {
		all = append(all, restore.Table{StateTable: tab})
	}
	return all
}

// Windows that owe an update keep a step from becoming one that sends none, and
// nothing else does.
func TestUpdatesThatAreDue(t *testing.T) {
	for _, c := range []struct {
		name     string
		lateness dataflow.Duration
		firing   window.Firing
		due      int64
		allow    bool
		want     restore.Verdict // of the table
	}{
		{"unchanged", 5, window.FireAtWatermark, 1, false, restore.AsIs},
		{"another lateness", 7, window.FireAtWatermark, 1, false, restore.AsIs},
		{"no lateness", 0, window.FireAtWatermark, 1, false, restore.Refused},
		{"at once", 5, window.FireEach, 1, false, restore.Refused},
		{"at once, allowed", 5, window.FireEach, 1, true, restore.Dropped},
		{"at once, and none is due", 5, window.FireEach, 0, false, restore.Dropped},
	} {
		j, m := job(), savepoint()
		o := &m.Operators[2]
		o.Tables = nil
		for _, tab := range tumbling(t, 5, window.FireAtWatermark) {
			s := saveOf(tab, 2)
			if tab.Name == "refire" {
				s.Shards[0].Parts[0].Rows, s.Shards[1].Parts[0].Rows = c.due, 0
			}
			o.Tables = append(o.Tables, s)
		}
		at(t, &j, "c").Tables = tumbling(t, c.lateness, c.firing)
		r := restore.Check(m, j, restore.Options{AllowNonRestored: c.allow})
		i := slices.IndexFunc(r.Findings, func(f restore.Finding) bool { return f.State == "refire" })
		if i < 0 || r.Findings[i].Verdict != c.want || r.OK != (c.want != restore.Refused) {
			t.Errorf("%s: found %s", c.name, verdicts(r))
		}
	}
}
