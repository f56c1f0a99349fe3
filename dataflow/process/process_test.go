package process_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/process"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/dataflow/statetest"
	"github.com/tidemark-mesh/tidemark/store/statedb"
)

func in() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "v", Type: batch.Bigint}, batch.Field{Name: "do", Type: batch.String})
}

func out() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "what", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint})
}

func late() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "k", Type: batch.String})
}

// script does what the column `do` says.
type script struct {
	sum  *state.Reducing
	last *state.Value
	list *state.List
	tags *state.Map
}

func newScript(s *state.Store) process.Function {
	return &script{
		sum:  s.Reducing("sum", state.TTL{}, batch.Field{Name: "sum", Type: batch.Bigint}, state.Reduce{Ints: func(a, b int64) int64 { return a + b }}),
		last: s.Value("last", state.TTL{After: 10}, batch.Field{Name: "v", Type: batch.Bigint}),
		list: s.List("list", state.TTL{}, batch.Field{Name: "v", Type: batch.Bigint}),
		tags: s.Map("tags", batch.Field{Name: "v", Type: batch.Bigint}, state.TTL{After: 20}, batch.Field{Name: "times", Type: batch.Bigint}),
	}
}

func (f *script) Process(c *process.Context, r process.Run) error {
	for _, p := range r.Rows {
		cols, t := r.Batch.Cols, dataflow.Time(r.Batch.Times[p])
		v := cols[1].Ints[p]
		emit := func(what string, n int64) {
			c.Out.Set(0, cols[0], int(p))
			c.Out.SetString(1, what)
			c.Out.SetInt(2, n)
			c.Out.EndRow(t)
		}
		f.sum.AddInt(v)
		f.list.Add().SetInt(0, v)
		tag := f.tags.Put(v)
		tag.SetInt(0, tag.Int(0)+1)
		c.SetTimer(state.EventTime, t+5)
		emit("sum", f.sum.Int(0))
		switch do := string(cols[2].At(int(p))); {
		case strings.HasPrefix(do, "twice"):
			emit("list", int64(f.list.Len()))
		case do == "last":
			emit("last", f.last.Int(0))
			f.last.SetInt(0, v)
		case do == "timer":
			c.SetTimer(state.ArrivalTime, dataflow.Time(v))
		case do == "untimer":
			c.DeleteTimer(state.EventTime, dataflow.Time(v))
		case do == "clear":
			f.list.Clear()
			f.sum.Clear()
			f.tags.Clear()
		case do == "late":
			if c.Late != nil {
				c.Late.Set(0, cols[0], int(p))
				c.Late.EndRow(t)
			}
		case do == "flood":
			for i := range int64(3 * batch.MaxRows / 2) {
				emit("flood", i)
			}
		case do == "panic":
			var nothing *script
			nothing.sum.AddInt(1)
		case do == "error":
			return errors.New("this will not do")
		}
	}
	return nil
}

func (f *script) OnTimer(c *process.Context, t process.Timer) error {
	c.Out.Set(0, c.Key()[0], 0)
	c.Out.SetString(1, fmt.Sprint("timer ", t.Clock))
	c.Out.SetInt(2, f.sum.Int(0)+100*int64(c.Timers(state.EventTime))+10000*int64(f.tags.Len()))
	c.Out.EndRow(t.At)
	if f.sum.Int(0) == 13 {
		panic("unlucky")
	}
	f.sum.SetInt(0, f.sum.Int(0)+1000)
	if t.Clock == state.ArrivalTime {
		c.SetTimer(state.EventTime, c.Watermark())
	}
	return nil
}

func newFactory(t optest.TB, onError operator.OnError) operator.Factory {
	f, err := process.New(process.Config{Input: in(), Keys: []int{0}, Output: out(), Late: late(), OnError: onError, New: newScript})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

const input = `wm 0 arrival 0; a@1 v=1 do=x; a@2 v=2 do=x; b@2 v=5 do=twice; wm 3 arrival 3
	a@4 v=3 do=last; b@4 v=1 do=last; wm 6 arrival 6; a@7 v=1 do=timer; wm 8 arrival 8
	c@9 v=13 do=late; a@9 v=2 do=last; b@9 v=14 do=untimer; wm 12 arrival 15; a@13 v=4 do=last; wm 14 arrival 40
	b@15 v=0 do=clear; b@16 v=3 do=x; wm 20 arrival 41; c@21 v=1 do=late; end`

const want = `wm 0 arrival 0
	a@1 what=sum n=1; a@2 what=sum n=3; b@2 what=sum n=5; b@2 what=list n=1; wm 3 arrival 3
	a@4 what=sum n=6; a@4 what=last n=0; b@4 what=sum n=6; b@4 what=last n=0
	a@6 what="timer 1" n=30206; wm 6 arrival 6
	a@7 what=sum n=1007
	a@7 what="timer 1" n=31207; b@7 what="timer 1" n=20106
	a@1 what="timer 2" n=32207; a@8 what="timer 1" n=33207; wm 8 arrival 8`

// TestProcessSevenWays: in batches of any size, restored after each element,
// from deltas, with an output that refuses: always the same.
func TestProcessSevenWays(t *testing.T) {
	f := newFactory(t, operator.FailOnError)
	for seed := range uint64(20) {
		optest.Check(t, optest.Case{Factory: f, Input: optest.MustParse(t, in(), strings.Split(input, "c@9")[0]), OrderBy: []string{"k"}, HashBy: []int{0}, Seed: seed, Want: want})
	}
}

// backings are the ways to keep state, for cases that must not tell them apart.
func backings(t *testing.T) map[string]func() optest.Backing {
	dir := t.TempDir()
	n := 0
	return map[string]func() optest.Backing{
		"memory": nil,
		"backed": func() optest.Backing { return statetest.NewMemory(1) },
		"disk": func() optest.Backing {
			n++
			d, err := statedb.Open(filepath.Join(dir, fmt.Sprint(n)), statedb.Options{Memory: 1})
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
	}
}

// TestProcessBackends: state in memory and on disk give the same rows in each of
// the seven ways.
func TestProcessBackends(t *testing.T) {
	f := newFactory(t, operator.RejectRow)
	var first string
	for _, name := range []string{"memory", "backed", "disk"} {
		r := optest.Check(t, optest.Case{Factory: f, Input: optest.MustParse(t, in(), input), OrderBy: []string{"k"}, HashBy: []int{0}, Backing: backings(t)[name]})
		got := r.Main.String() + r.Sides[0].String() + r.Sides[1].String()
		if first == "" {
			first = got
		}
		if len(r.Sides[operator.Late].Rows()) != 2 {
			t.Errorf("%s: late rows\n%s", name, r.Sides[operator.Late])
		}
		if sorted(got) != sorted(first) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, first)
		}
	}
}

func sorted(s string) string {
	l := strings.Split(s, "\n")
	for i := range l {
		for k := i; k > 0 && l[k] < l[k-1]; k-- {
			l[k], l[k-1] = l[k-1], l[k]
		}
	}
	return strings.Join(l, "\n")
}

// TestProcessRejects: of a row on which the function panics nothing stays, not
// in state, not in timers, not among the rows emitted; nor of one with an error.
func TestProcessRejects(t *testing.T) {
	rejected := map[operator.Side]string{operator.Rejected: `a@2 v=2 do=panic reason="panic: runtime error: invalid memory address or nil pointer dereference"
		a@3 v=2 do=error reason="this will not do"`, operator.Late: ""}
	optest.Check(t, optest.Case{Factory: newFactory(t, operator.RejectRow), OrderBy: []string{"k"},
		Input: optest.MustParse(t, in(), `a@1 v=1 do=x; a@2 v=2 do=panic; a@3 v=2 do=error; a@4 v=3 do=twice; wm 7; b@8 v=1 do=x; end`),
		Want: `a@1 what=sum n=1; a@4 what=sum n=4; a@4 what=list n=2; a@6 what="timer 1" n=20104; wm 7
			b@8 what=sum n=1; a@9 what="timer 1" n=21004; b@13 what="timer 1" n=10001; end`,
		WantSide: rejected,
		WantCounters: func(c operator.Counters) error {
			if c.Rejected != 2 {
				return fmt.Errorf("%d rejected", c.Rejected)
			}
			return nil
		}})
}

// TestProcessTimerRejects: a timer on which the function panics does not fire
// again, and nothing else stays of it.
func TestProcessTimerRejects(t *testing.T) {
	optest.Check(t, optest.Case{Factory: newFactory(t, operator.RejectRow), Input: optest.MustParse(t, in(), `a@1 v=13 do=x; wm 6; a@6 v=1 do=x; wm 7`),
		Want:     `a@1 what=sum n=13; wm 6; a@6 what=sum n=14; wm 7`,
		WantSide: map[operator.Side]string{operator.Rejected: `a@6 v=null do=null reason="of a timer at 1970-01-01T00:00:00.000006Z: panic: unlucky"`}})
}

// TestProcessFails: without on_error: reject the job fails, and says where.
func TestProcessFails(t *testing.T) {
	optest.Check(t, optest.Case{Factory: newFactory(t, operator.FailOnError), Input: optest.MustParse(t, in(), `a@1 v=1 do=x; a@2 v=2 do=panic`),
		WantErr: `panic: runtime error: invalid memory address or nil pointer dereference; row at 1970-01-01T00:00:00.000002Z, key (k="a")`})
	optest.Check(t, optest.Case{Factory: newFactory(t, operator.FailOnError), Input: optest.MustParse(t, in(), `a@1 v=1 do=x; a@2 v=2 do=error`),
		WantErr: `row at 1970-01-01T00:00:00.000002Z, key (k="a"): this will not do; `})
	optest.Check(t, optest.Case{Factory: newFactory(t, operator.FailOnError), Input: optest.MustParse(t, in(), `a@1 v=13 do=x; end`),
		WantErr: `panic: unlucky; row of a timer at 1970-01-01T00:00:00.000006Z, key (k="a")`})
}

// TestProcessFlood: one call may emit more than a batch holds, also when it
// fails in the end.
func TestProcessFlood(t *testing.T) {
	r := optest.Check(t, optest.Case{Factory: newFactory(t, operator.RejectRow), Input: optest.MustParse(t, in(), `a@1 v=1 do=flood; a@1 v=1 do=panic; a@1 v=1 do=flood; b@2 v=1 do=x`)})
	if n := len(r.Main.Rows()); n != 3*batch.MaxRows+3 {
		t.Errorf("%d rows", n)
	}
}

// TestProcessRandom: random rows, in memory and with a Backing, in all ways.
func TestProcessRandom(t *testing.T) {
	f := newFactory(t, operator.RejectRow)
	all := backings(t)
	rapid.Check(t, func(t *rapid.T) {
		var s strings.Builder
		at, arrival, last := 0, 0, ""
		for range rapid.IntRange(1, 25).Draw(t, "n") {
			if !strings.HasPrefix(last, "wm") && rapid.IntRange(0, 4).Draw(t, "mark") == 0 { // between two marks there is a row, or they would be one
				at += rapid.IntRange(0, 9).Draw(t, "wm")
				arrival += rapid.IntRange(0, 9).Draw(t, "arrival")
				last = fmt.Sprintf("wm %d arrival %d\n", at, arrival)
				s.WriteString(last)
				continue
			}
			do := rapid.SampledFrom([]string{"x", "twice", "last", "timer", "untimer", "clear", "late", "panic", "error"}).Draw(t, "do")
			last = fmt.Sprintf("%s@%d v=%d do=%s\n", rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "k"), at+rapid.IntRange(-3, 9).Draw(t, "t"), rapid.IntRange(0, 14).Draw(t, "v"), do)
			s.WriteString(last)
		}
		var first optest.Result
		for i, name := range []string{"memory", "backed"} {
			r := optest.Check(t, optest.Case{Factory: f, Input: optest.MustParse(t, in(), s.String()), OrderBy: []string{"k"}, HashBy: []int{0}, Backing: all[name], Seed: rapid.Uint64().Draw(t, "seed")})
			if i == 0 {
				first = r
			} else if sorted(r.Main.String()) != sorted(first.Main.String()) {
				t.Fatalf("%s:\n%s\nwant\n%s", name, r.Main, first.Main)
			}
		}
	})
}
