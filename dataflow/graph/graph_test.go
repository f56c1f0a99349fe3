package graph_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// source and sink are the ends of test graphs; no reader is ever made of them.
type source struct{ schema *batch.Schema }

func (source) Connector() string                { return "test" }
func (s source) Schema() *batch.Schema          { return s.schema }
func (source) Side(operator.Side) *batch.Schema { return nil }

type sink struct{}

func (sink) Connector() string { return "test" }

// sided is a pass operator with a late stream.
type sided struct{ operator.Factory }

func (s sided) Side(x operator.Side) *batch.Schema {
	if x == operator.Late {
		return s.Output()
	}
	return nil
}

func words() *batch.Schema { return batch.MustSchema(batch.Field{Name: "word", Type: batch.String}) }

// wordCount is E45's job: p for all but the sink.
func wordCount(t *testing.T, p int) *graph.StreamGraph {
	t.Helper()
	s := words()
	b := graph.NewBuilder("wordcount", p)
	b.Source("text", source{s}).
		Then("flat", operator.NewPass(s)).Describe("flat_map split(line, ' ') as word").
		Then("map", operator.NewPass(s)).Describe("where word <> ''").
		KeyBy("word").Then("sum", operator.NewPass(s)).Describe("tumbling 5s by word: n = count(*)").
		Sink("out", sink{})
	return build(t, b)
}

func build(t *testing.T, b *graph.Builder) *graph.StreamGraph {
	t.Helper()
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestE45_WordCountIsFiveTasks(t *testing.T) {
	jg := graph.Chain(wordCount(t, 2), graph.Options{})
	var chains []string
	for _, task := range jg.Tasks {
		var ids []string
		for _, l := range task.Links {
			ids = append(ids, string(l.Node.ID))
		}
		chains = append(chains, fmt.Sprintf("%s x%d", strings.Join(ids, " "), task.Parallelism))
	}
	if got, want := strings.Join(chains, "; "), "text flat map x2; sum x2; out x1"; got != want {
		t.Errorf("chains are %q, want %q", got, want)
	}
	if n := len(graph.Expand(jg).Subtasks); n != 5 || jg.Subtasks() != 5 {
		t.Errorf("%d tasks, want 5", n)
	}
	if jg.Slots() != 2 || jg.SlotsUnshared() != 5 {
		t.Errorf("%d slots with sharing and %d without, want 2 and 5", jg.Slots(), jg.SlotsUnshared())
	}
}

func TestE45_ThirteenTasksInSixSlots(t *testing.T) {
	jg := graph.Chain(wordCount(t, 6), graph.Options{})
	if jg.Subtasks() != 13 || jg.Slots() != 6 {
		t.Errorf("%d tasks in %d slots, want 13 in 6", jg.Subtasks(), jg.Slots())
	}
	if n := graph.Chain(wordCount(t, 7), graph.Options{}).Slots(); n != 7 {
		t.Errorf("parallelism 7 needs %d slots", n)
	}
	x := graph.Expand(jg)
	if n := len(x.Slots[0].Subtasks); n != 3 {
		t.Errorf("the first slot holds %d subtasks, want one of each task", n)
	}
	if n := len(x.Slots[5].Subtasks); n != 2 {
		t.Errorf("the last slot holds %d subtasks, want 2: the sink has one", n)
	}
}

// Every condition of chaining, broken one at a time.
func TestE45_ChainingConditions(t *testing.T) {
	s := words()
	pass := operator.NewPass(s)
	for _, c := range []struct {
		name  string
		opt   graph.Options
		build func(b *graph.Builder, src *graph.Stream)
		want  int // tasks, without the sink
	}{
		{"all hold", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Then("b", pass) }, 1},
		{"chaining disabled", graph.Options{NoChaining: true}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Then("b", pass) }, 3},
		{"not forward", graph.Options{}, func(b *graph.Builder, src *graph.Stream) {
			src.Exchange(graph.Rebalance).Then("a", pass).Then("b", pass)
		}, 2},
		{"keyed", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.KeyBy("word").Then("a", pass).Then("b", pass) }, 2},
		{"other parallelism", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Parallelism(3).Then("b", pass) }, 3},
		{"other slot group", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).SlotGroup("gpu").Then("b", pass) }, 3},
		{"downstream never", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Chain(graph.ChainNever) }, 2},
		{"upstream never", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Chain(graph.ChainNever).Then("b", pass) }, 3},
		{"head may be followed", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Chain(graph.ChainHead).Then("b", pass) }, 2},
		{"union", graph.Options{}, func(b *graph.Builder, src *graph.Stream) {
			b.Union("u", pass, src.Then("a", pass), src.Then("b", pass)).Then("c", pass)
		}, 2},
		{"two followers", graph.Options{}, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass); src.Then("b", pass) }, 1},
		{"side stream", graph.Options{}, func(b *graph.Builder, src *graph.Stream) {
			src.Then("a", sided{pass}).Side(operator.Late).Then("b", pass)
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := graph.NewBuilder("j", 2)
			c.build(b, b.Source("in", source{s}))
			if got := len(graph.Chain(build(t, b), c.opt).Tasks); got != c.want {
				t.Errorf("%d tasks, want %d", got, c.want)
			}
		})
	}
}

func TestChainIsATree(t *testing.T) {
	s := words()
	pass := operator.NewPass(s)
	b := graph.NewBuilder("tree", 1)
	src := b.Source("in", source{s})
	a := src.Then("a", pass)
	src.Then("b", pass).Sink("out_b", sink{})
	a.Sink("out_a", sink{})
	jg := graph.Chain(build(t, b), graph.Options{})
	if len(jg.Tasks) != 1 {
		t.Fatalf("%d tasks, want 1", len(jg.Tasks))
	}
	for i, l := range jg.Tasks[0].Links {
		if l.Parent >= i {
			t.Errorf("link %d stands before its parent %d", i, l.Parent)
		}
	}
	if task, link := jg.Task("out_a"); task == nil || jg.Tasks[0].Links[task.Links[link].Parent].Node.ID != "a" {
		t.Error("out_a does not hang on a")
	}
}

type vector struct {
	ID    string `json:"id"`
	Cases []struct {
		Max    int      `json:"max"`
		P      int      `json:"p"`
		Ranges [][2]int `json:"ranges"`
	} `json:"cases"`
}

func vectors(t *testing.T, id string) vector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "semantics-vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	for _, r := range raw {
		var head struct{ ID string }
		if json.Unmarshal(r, &head) == nil && head.ID == id {
			var v vector
			if err := json.Unmarshal(r, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no vector %s", id)
	return vector{}
}

func TestE46_KeyGroupRangesOfSubtasks(t *testing.T) {
	for _, c := range vectors(t, "E46").Cases {
		s := words()
		b := graph.NewBuilder("j", c.P).MaxParallelism(c.Max)
		b.Source("in", source{s}).KeyBy("word").Then("sum", operator.NewPass(s))
		x := graph.Expand(graph.Chain(build(t, b), graph.Options{}))
		var got [][2]int
		for _, sub := range x.Subtasks {
			if sub.ID.Task == "sum" {
				got = append(got, [2]int{int(sub.KeyGroups.First), int(sub.KeyGroups.Last)})
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.Ranges) {
			t.Errorf("max %d, parallelism %d: %v, want %v", c.Max, c.P, got, c.Ranges)
		}
	}
}

func TestE46_RangeContainsItsGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, dataflow.MaxMaxParallelism).Draw(t, "max")
		p := rapid.IntRange(1, most).Draw(t, "p")
		g := dataflow.KeyGroup(rapid.IntRange(0, most-1).Draw(t, "group"))
		i := dataflow.SubtaskOf(g, p, most)
		if r := dataflow.RangeOf(i, p, most); !r.Contains(g) {
			t.Fatalf("group %d is dealt to subtask %d, which owns %v", g, i, r)
		}
	})
}

func TestE48_DefaultMaxParallelism(t *testing.T) {
	for _, c := range vectors(t, "E48").Cases {
		s := words()
		b := graph.NewBuilder("j", c.P)
		b.Source("in", source{s}).Sink("out", sink{})
		if g := build(t, b); g.MaxParallelism != c.Max {
			t.Errorf("parallelism %d: %d key groups, want %d", c.P, g.MaxParallelism, c.Max)
		}
	}
}

// connect makes the one connection between up and down subtasks.
func connect(t testing.TB, x graph.Exchange, up, down int) *graph.Connection {
	s := words()
	b := graph.NewBuilder("j", up)
	b.Source("in", source{s}).Exchange(x).Then("a", operator.NewPass(s)).Parallelism(down).Chain(graph.ChainNever)
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return graph.Chain(g, graph.Options{}).Connections[0]
}

func TestRescaleTable(t *testing.T) {
	out := connect(t, graph.Rescale, 2, 6)
	for from, want := range []string{"0 3", "3 3"} {
		first, n := out.Targets(from)
		if got := fmt.Sprint(first, n); got != want {
			t.Errorf("2 -> 6: subtask %d feeds %s, want %s", from, got, want)
		}
	}
	in := connect(t, graph.Rescale, 6, 2)
	for from, want := range []int{0, 0, 0, 1, 1, 1} {
		if first, n := in.Targets(from); first != want || n != 1 {
			t.Errorf("6 -> 2: subtask %d feeds %d (%d of them), want %d", from, first, n, want)
		}
	}
}

// Targets and Sources name the same channels, every subtask has at least one,
// and Channels counts them.
func TestChannelsMirror(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := rapid.SampledFrom([]graph.Exchange{graph.Forward, graph.Rebalance, graph.Rescale, graph.Shuffle, graph.BroadcastAll, graph.Global}).Draw(rt, "exchange")
		up, down := rapid.IntRange(1, 40).Draw(rt, "up"), rapid.IntRange(1, 40).Draw(rt, "down")
		if x == graph.Forward {
			down = up
		}
		c := connect(t, x, up, down)
		seen := map[[2]int]bool{}
		for i := range up {
			first, n := c.Targets(i)
			if n < 1 {
				rt.Fatalf("subtask %d of %d feeds nobody", i, up)
			}
			for j := first; j < first+n; j++ {
				seen[[2]int{i, j}] = true
			}
		}
		mirrored := 0
		for j := range down {
			first, n := c.Sources(j)
			if n < 1 {
				rt.Fatalf("subtask %d of %d is fed by nobody", j, down)
			}
			for i := first; i < first+n; i++ {
				mirrored++
				if !seen[[2]int{i, j}] {
					rt.Fatalf("%v %d -> %d: channel %d -> %d is in Sources only", x, up, down, i, j)
				}
			}
		}
		if mirrored != len(seen) || c.Channels() != len(seen) {
			rt.Fatalf("%v %d -> %d: %d targets, %d sources, %d channels", x, up, down, len(seen), mirrored, c.Channels())
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	s := words()
	pass := operator.NewPass(s)
	for _, c := range []struct {
		name, want string
		build      func(b *graph.Builder, src *graph.Stream)
	}{
		{"two ids", `two operators have the id "a"`, func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Then("a", pass) }},
		{"no id", "needs an id", func(b *graph.Builder, src *graph.Stream) { src.Then("", pass) }},
		{"forward", "forward needs equal parallelism", func(b *graph.Builder, src *graph.Stream) { src.Exchange(graph.Forward).Then("a", pass).Parallelism(3) }},
		{"key", "no such column", func(b *graph.Builder, src *graph.Stream) { src.KeyBy("wort").Then("a", pass) }},
		{"side", "no such stream", func(b *graph.Builder, src *graph.Stream) { src.Then("a", pass).Side(operator.Late).Then("b", pass) }},
		{"parallelism", "parallelism 200 is not in 1..128", func(b *graph.Builder, src *graph.Stream) { b.MaxParallelism(128); src.Then("a", pass).Parallelism(200) }},
		{"union", "has other columns", func(b *graph.Builder, src *graph.Stream) {
			o := b.Source("other", source{batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})})
			b.Union("u", pass, src, o)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := graph.NewBuilder("j", 2)
			c.build(b, b.Source("in", source{s}))
			if _, err := b.Build(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
		})
	}
}

// golden compares text with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; it is now:\n%s", file, got)
	}
}

func TestExplainAndDot(t *testing.T) {
	s := words()
	pass := operator.NewPass(s)
	b := graph.NewBuilder("alarms", 2)
	in := b.Source("in", source{s}).Describe("mqtt mqtt://127.0.0.1:1883 plant/+")
	hot := in.Then("hot", pass).Describe(`where word <> "x"`)
	cold := in.Then("cold", pass).Chain(graph.ChainHead)
	win := hot.KeyBy("word").Then("win", sided{pass}).Parallelism(20).Kind(graph.Upsert).SlotGroup("heavy")
	b.Union("both", pass, win, cold).Parallelism(1).Sink("out", sink{})
	win.Side(operator.Late).Sink("late", sink{})
	for name, g := range map[string]*graph.StreamGraph{"wordcount": wordCount(t, 2), "alarms": build(t, b)} {
		x := graph.Expand(graph.Chain(g, graph.Options{}))
		var text, dot bytes.Buffer
		if err := graph.Explain(&text, x); err != nil {
			t.Fatal(err)
		}
		if err := graph.Dot(&dot, x, nil); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".explain.txt", text.Bytes())
		var placed bytes.Buffer
		if err := graph.Dot(&placed, x, func(s dataflow.SubtaskID) string { return [...]string{"n1", "n1", "n2", ""}[s.Index%4] }); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".placed.dot", placed.Bytes())
		golden(t, name+".dot", dot.Bytes())
	}
}

// Two conditions follow from others in a graph that Check accepts; Chainable
// itself must hold them too.
func TestE45_ChainableNodes(t *testing.T) {
	up := func() *graph.Node { return &graph.Node{ID: "up", Parallelism: 2, SlotGroup: "default"} }
	down := func() *graph.Node {
		return &graph.Node{ID: "down", Parallelism: 2, SlotGroup: "default", Inputs: []graph.Edge{{From: "up", Exchange: graph.Forward}}}
	}
	if !graph.Chainable(up(), down()) {
		t.Error("nodes that meet every condition are not chained")
	}
	d := down()
	d.Inputs = append(d.Inputs, graph.Edge{From: "other", Exchange: graph.Forward})
	if graph.Chainable(up(), d) {
		t.Error("a union is chained")
	}
	d = down()
	d.Parallelism = 3
	if graph.Chainable(up(), d) {
		t.Error("nodes of different parallelism are chained")
	}
}
