package executor

import (
	"fmt"
	"slices"
	"testing"
)

// The first attempts have most of the memory; none is so late that it has nothing.
func TestMemory(t *testing.T) {
	x := &Executor{o: Options{Memory: 1600}, memory: 1600}
	var got []int64
	for range 20 {
		got = append(got, x.takeMemory())
	}
	if fmt.Sprint(got[:6]) != "[800 400 200 100 100 100]" || slices.Min(got) != 100 {
		t.Errorf("%v", got)
	}
	x.gone(&attempt{memory: 800})
	if n := x.takeMemory(); n != 100 {
		t.Errorf("%d: what is lent beyond the budget comes first", n)
	}
}
