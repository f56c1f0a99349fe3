package restore_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func values() *batch.Schema { return batch.MustSchema(batch.Field{Name: "v", Type: batch.Bigint}) }

// list is a table of numbers, and a saved job that has it in lists of these
// lengths, one for each subtask.
func list(name string, keyed bool, spread operator.Spread, lengths ...int) (restore.Table, manifest.Table) {
	t := restore.Table{StateTable: operator.StateTable{Name: name, Schema: values(), Keyed: keyed, Spread: spread}}
	m := manifest.Table{Name: name, Schema: avro.SchemaOf(name, t.Schema, keyed), Keyed: keyed, Spread: uint8(spread)}
	for i, n := range lengths {
		s := manifest.Shard{Subtask: i}
		if n > 0 {
			s.Parts = []manifest.PartUse{{Rows: int64(n)}}
		}
		m.Shards = append(m.Shards, s)
	}
	return t, m
}

// planned is the plan of one operator that has these tables.
func planned(t interface{ Fatal(...any) }, from, to, max int, tables []restore.Table, saved []manifest.Table) *restore.OperatorPlan {
	m := manifest.Manifest{Kind: manifest.Savepoint, Name: "sp", Job: "j", MaxParallelism: max,
		Operators: []manifest.Operator{{ID: "op", Parallelism: from, Tables: saved}}}
	job := restore.Job{Name: "j", MaxParallelism: max, Operators: []restore.Operator{{ID: "op", Role: graph.StepNode, Parallelism: to, Tables: tables}}}
	r := restore.Check(&m, job, restore.Options{})
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r.Plan().Operator("op")
}

// kept is what a new subtask has of the rows of the old ones: each row is given
// as the key hash and the value v.
func kept(o *restore.OperatorPlan, table string, subtask int, pool *batch.Pool, old [][]uint64) (got []int64) {
	first := make([]int64, len(old)) // values are numbered through all lists
	for i := 1; i < len(old); i++ {
		first[i] = first[i-1] + int64(len(old[i-1]))
	}
	for _, s := range o.Shares(table, subtask, nil) {
		rows := old[s.Old]
		for at := 0; at < len(rows); at += 3 { // in small batches
			n := min(3, len(rows)-at)
			bl := batch.NewBuilder(pool, values())
			for k := range n {
				bl.SetInt(0, first[s.Old]+int64(at+k))
				bl.EndRow(0)
			}
			b := bl.Take()
			copy(b.OwnHashes(n), rows[at:at+n])
			want := s.Filter(b, int64(at))
			if want != b.Len() {
				panic("Filter says one thing and selects another")
			}
			for k := range b.Len() {
				got = append(got, b.Cols[0].Ints[b.Position(k)])
			}
			b.Release()
		}
	}
	return got
}

// Without a rescale no row is looked at: all are kept, and no selection is made.
func TestSameGroupsKeepAll(t *testing.T) {
	for _, to := range []int{2, 3} {
		tab, saved := list("k", true, 0, 64, 64)
		o := planned(t, 2, to, 128, []restore.Table{tab}, []manifest.Table{saved})
		for i := range to {
			for _, s := range o.Shares("k", i, nil) {
				b := batch.NewPool(0, nil).Get(values())
				b.Rows = 4
				b.Own(0, 4)
				clear(b.OwnHashes(4))
				n := s.Filter(b, 0)
				if all := b.Sel == nil; all != (to == 2) || all && n != 4 {
					t.Errorf("2 to %d, subtask %d: %d rows, selected %v", to, i, n, b.Sel)
				}
			}
		}
	}
}

func TestE60_KeyedStateFromTwoToThree(t *testing.T) {
	tab, saved := list("k", true, 0, 64, 64)
	o := planned(t, 2, 3, 128, []restore.Table{tab}, []manifest.Table{saved})
	want := []string{"old 0: 0-42", "old 0: 43-63, old 1: 64-85", "old 1: 86-127"}
	moved := 0
	for i, w := range want {
		got := ""
		for _, s := range o.Shares("k", i, nil) {
			if got != "" {
				got += ", "
			}
			got += fmt.Sprintf("old %d: %d-%d", s.Old, s.Groups.First, s.Groups.Last)
			if s.Old != i {
				moved += int(s.Groups.Last-s.Groups.First) + 1
			}
		}
		if got != w {
			t.Errorf("subtask %d reads %s, want %s", i, got, w)
		}
	}
	if moved != 63 {
		t.Errorf("%d key groups change their owner's index, want 63", moved)
	}
}

// Every row of keyed state goes to the subtask that owns its key group, once,
// and is read only from the one that owned it.
func TestE46_E60_RowsFollowTheirKeyGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 300).Draw(t, "max")
		from, to := rapid.IntRange(1, most).Draw(t, "from"), rapid.IntRange(1, most).Draw(t, "to")
		hashes := rapid.SliceOfN(rapid.Uint64(), 0, 60).Draw(t, "hashes")
		old := make([][]uint64, from)
		lengths := make([]int, from)
		for _, h := range hashes {
			i := dataflow.SubtaskOf(dataflow.KeyGroupOf(h, most), from, most)
			old[i] = append(old[i], h)
			lengths[i]++
		}
		tab, saved := list("k", true, 0, lengths...)
		o := planned(t, from, to, most, []restore.Table{tab}, []manifest.Table{saved})
		pool := batch.NewPool(0, nil)
		all := slices.Concat(old...)
		seen := 0
		for i := range to {
			for _, v := range kept(o, "k", i, pool, old) {
				if owner := dataflow.SubtaskOf(dataflow.KeyGroupOf(all[v], most), to, most); owner != i {
					t.Fatalf("%d -> %d of %d: a row of subtask %d's went to %d", from, to, most, owner, i)
				}
				seen++
			}
			for _, s := range o.Shares("k", i, nil) {
				if r := dataflow.RangeOf(s.Old, from, most); !r.Contains(s.Groups.First) || !r.Contains(s.Groups.Last) {
					t.Fatalf("old subtask %d never owned %v", s.Old, *s.Groups)
				}
			}
		}
		if seen != len(all) || pool.Out() != 0 {
			t.Fatalf("%d rows became %d; %d batches are left", len(all), seen, pool.Out())
		}
	})
}

// lists is how the values come out, as letters.
func lists(o *restore.OperatorPlan, table string, to int, old [][]uint64) []string {
	pool := batch.NewPool(0, nil)
	out := make([]string, to)
	for i := range out {
		for _, v := range kept(o, table, i, pool, old) {
			out[i] += string(rune('a' + v))
		}
	}
	return out
}

func TestE61_SplitState(t *testing.T) {
	old := [][]uint64{make([]uint64, 3), make([]uint64, 2)} // [a,b,c] [d,e]
	for _, c := range []struct {
		to   int
		want string
	}{
		{1, "[abcde]"}, {2, "[abc de]"}, {3, "[ab cd e]"}, {4, "[ab c d e]"}, {5, "[a b c d e]"}, {7, "[a b c d e  ]"},
	} {
		tab, saved := list("l", false, operator.Split, 3, 2)
		o := planned(t, 2, c.to, 128, []restore.Table{tab}, []manifest.Table{saved})
		if got := fmt.Sprint(lists(o, "l", c.to, old)); got != c.want {
			t.Errorf("to %d: %s, want %s", c.to, got, c.want)
		}
	}
}

// The extra rows of each further state begin where the last state's ended.
func TestE61_SeveralSplitStates(t *testing.T) {
	var tables []restore.Table
	var saved []manifest.Table
	old := make(map[string][][]uint64)
	for _, s := range []struct {
		name    string
		lengths [2]int
	}{{"first", [2]int{3, 2}}, {"second", [2]int{4, 0}}, {"third", [2]int{1, 2}}, {"fourth", [2]int{0, 1}}} {
		tab, sv := list(s.name, false, operator.Split, s.lengths[0], s.lengths[1])
		tables, saved = append(tables, tab), append(saved, sv)
		old[s.name] = [][]uint64{make([]uint64, s.lengths[0]), make([]uint64, s.lengths[1])}
	}
	o := planned(t, 2, 3, 128, tables, saved)
	for name, want := range map[string]string{
		"first":  "[ab cd e]", // two extra: 0, 1
		"second": "[d? ? ?]",
		"third":  "[? ? ?]",
		"fourth": "[a  ]", // one extra: 0
	} {
		switch name {
		case "second":
			want = "[c d ab]" // one extra, to 2, where the rows begin
		case "third":
			want = "[a b c]" // none: the next begins at 0 still
		}
		if got := fmt.Sprint(lists(o, name, 3, old[name])); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// Rows keep their order, each goes to one subtask, and no subtask has more than
// one row more than another, over all states together.
func TestE61_SplitIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := rapid.IntRange(1, 9).Draw(t, "from"), rapid.IntRange(1, 12).Draw(t, "to")
		var tables []restore.Table
		var saved []manifest.Table
		var old [][][]uint64
		for k := range rapid.IntRange(1, 4).Draw(t, "states") {
			lengths := rapid.SliceOfN(rapid.IntRange(0, 7), from, from).Draw(t, "lengths")
			tab, sv := list(fmt.Sprint("s", k), false, operator.Split, lengths...)
			lists := make([][]uint64, from)
			for i, n := range lengths {
				lists[i] = make([]uint64, n)
			}
			tables, saved, old = append(tables, tab), append(saved, sv), append(old, lists)
		}
		o := planned(t, from, to, 128, tables, saved)
		pool := batch.NewPool(0, nil)
		sizes := make([]int, to)
		for k, lists := range old {
			n := len(slices.Concat(lists...))
			seen := make([]bool, n)
			for i := range to {
				got := kept(o, fmt.Sprint("s", k), i, pool, lists)
				if !slices.IsSorted(got) {
					t.Fatalf("subtask %d has %v", i, got)
				}
				for _, v := range got {
					if seen[v] {
						t.Fatalf("row %d is there twice", v)
					}
					seen[v] = true
				}
				sizes[i] += len(got)
				if from == to && len(got) != len(lists[i]) {
					t.Fatalf("with unchanged parallelism subtask %d has %d rows of its %d", i, len(got), len(lists[i]))
				}
			}
			if slices.Contains(seen, false) {
				t.Fatalf("a row is lost: %v", seen)
			}
		}
		if from != to && slices.Max(sizes)-slices.Min(sizes) > 1 {
			t.Fatalf("%d -> %d: %v", from, to, sizes)
		}
	})
}

// The rows of a list whose shards have deltas are counted by whoever merges.
func TestE61_RowsOfMergedShards(t *testing.T) {
	tab, saved := list("l", false, operator.Split, 3, 2)
	saved.Shards[0].Parts = append(saved.Shards[0].Parts, manifest.PartUse{Rows: 2, Delta: true})
	o := planned(t, 2, 1, 128, []restore.Table{tab}, []manifest.Table{saved})
	shares := o.Shares("l", 0, func(string, int) int64 { return 2 })
	if len(shares) != 2 || shares[0].End != 2 || shares[1].End != 2 || len(shares[0].Parts) != 2 {
		t.Errorf("%+v", shares)
	}
}

func TestE62_UnionState(t *testing.T) {
	old := [][]uint64{make([]uint64, 3), make([]uint64, 2)}
	for _, to := range []int{1, 2, 3} {
		tab, saved := list("l", false, operator.Union, 3, 2)
		o := planned(t, 2, to, 128, []restore.Table{tab}, []manifest.Table{saved})
		for i, got := range lists(o, "l", to, old) {
			if got != "abcde" {
				t.Errorf("%d subtasks: %d has %q", to, i, got)
			}
		}
	}
}

func TestE63_BroadcastState(t *testing.T) {
	old := [][]uint64{make([]uint64, 1), make([]uint64, 1), make([]uint64, 1)}
	for to, want := range map[int]string{2: "[a b]", 3: "[a b c]", 5: "[a b c a b]"} {
		tab, saved := list("l", false, operator.Broadcast, 1, 1, 1)
		o := planned(t, 3, to, 128, []restore.Table{tab}, []manifest.Table{saved})
		if got := fmt.Sprint(lists(o, "l", to, old)); got != want {
			t.Errorf("to %d: %s, want %s", to, got, want)
		}
	}
}
