package dataflow_test

import (
	"encoding/json"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// vector is one of the numbered examples of key groups in testdata.
type vector struct {
	ID, Kind string
	Cases    []struct {
		Max, P int
		Ranges [][2]int
	}
}

func vectorNamed(t *testing.T, id string) vector {
	t.Helper()
	data, err := os.ReadFile("testdata/keygroups.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if v.ID == id && len(v.Cases) > 0 {
			return v
		}
	}
	t.Fatalf("no cases of %s in testdata", id)
	return vector{}
}

func TestE46_KeyGroupRanges(t *testing.T) {
	for _, c := range vectorNamed(t, "E46").Cases {
		if len(c.Ranges) != c.P {
			t.Fatalf("%d ranges for %d subtasks", len(c.Ranges), c.P)
		}
		for i, want := range c.Ranges {
			got := dataflow.RangeOf(i, c.P, c.Max)
			if int(got.First) != want[0] || int(got.Last) != want[1] {
				t.Errorf("max %d, subtask %d of %d: %d-%d, want %d-%d", c.Max, i, c.P, got.First, got.Last, want[0], want[1])
			}
		}
	}
}

// TestE46_RangeContainsItsGroups: for all p <= max, the range of group*p/max
// contains the group, and no other range does.
func TestE46_RangeContainsItsGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxP := rapid.IntRange(1, 2000).Draw(t, "max")
		p := rapid.IntRange(1, maxP).Draw(t, "p")
		next := dataflow.KeyGroup(0)
		for i := range p {
			r := dataflow.RangeOf(i, p, maxP)
			if r.First != next || r.Last < r.First {
				t.Fatalf("subtask %d of %d owns %v, the one before ends at %d", i, p, r, next-1)
			}
			for g := r.First; g <= r.Last; g++ {
				if dataflow.SubtaskOf(g, p, maxP) != i || !r.Contains(g) {
					t.Fatalf("group %d is of subtask %d, but in the range of %d", g, dataflow.SubtaskOf(g, p, maxP), i)
				}
			}
			next = r.Last + 1
		}
		if int(next) != maxP {
			t.Fatalf("the ranges end at %d of %d", next, maxP)
		}
	})
}

func TestE48_DefaultMaxParallelism(t *testing.T) {
	for _, c := range vectorNamed(t, "E48").Cases {
		if got := dataflow.DefaultMaxParallelism(c.P); got != c.Max {
			t.Errorf("parallelism %d: %d key groups, want %d", c.P, got, c.Max)
		}
	}
}

func TestTimeSaturates(t *testing.T) {
	cases := []struct {
		t    dataflow.Time
		d    dataflow.Duration
		want dataflow.Time
	}{
		{5, 3, 8},
		{dataflow.MaxTime - 1, 5, dataflow.MaxTime},
		{dataflow.MinTime + 1, -5, dataflow.MinTime},
		{dataflow.MaxTime, -1, dataflow.MaxTime - 1},
		{dataflow.MinTime, 1, dataflow.MinTime + 1},
	}
	for _, c := range cases {
		if got := c.t.Add(c.d); got != c.want {
			t.Errorf("%d + %d = %d, want %d", int64(c.t), int64(c.d), int64(got), int64(c.want))
		}
	}
}

func TestCheckpointOrder(t *testing.T) {
	at := func(epoch, attempt, counter uint64) dataflow.CheckpointID {
		return dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: epoch, Attempt: attempt}, Counter: counter}
	}
	ascending := []dataflow.CheckpointID{{}, at(0, 0, 1), at(1, 1, 8), at(1, 1, 9), at(1, 2, 3), at(2, 0, 1)}
	for i, a := range ascending {
		for k, b := range ascending {
			if a.Less(b) != (i < k) {
				t.Errorf("%v < %v is %v", a, b, a.Less(b))
			}
		}
	}
}

func TestFencingTokenOrder(t *testing.T) {
	ascending := []dataflow.FencingToken{{}, {Epoch: 1, Site: "a", Attempt: 9}, {Epoch: 1, Site: "b", Attempt: 2}, {Epoch: 1, Site: "b", Attempt: 3}, {Epoch: 2}}
	for i, a := range ascending {
		for k, b := range ascending {
			if a.Less(b) != (i < k) {
				t.Errorf("%v < %v is %v", a, b, a.Less(b))
			}
		}
	}
}
