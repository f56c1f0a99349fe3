package executor

import "testing"

// All slots that the scheduler may fill make up the budget, and no more.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		memory      int64
		slots, used int
		want        int64
	}{
		{256 << 20, 4, 1, 64 << 20},
		{256 << 20, 4, 4, 256 << 20},
		{256 << 20, 4, 0, 64 << 20}, // a part of a slot that is another agent's
		{3 << 20, 4096, 1, 1 << 20}, // three slots are filled
		{3 << 20, 4096, 3, 3 << 20},
		{1 << 10, 2, 1, 1 << 10},
	} {
		x := &Executor{o: Options{Memory: c.memory, Slots: c.slots}}
		if got := x.memoryOf(c.used); got != c.want {
			t.Errorf("%d slots of %d, %d bytes: %d, want %d", c.used, c.slots, c.memory, got, c.want)
		}
	}
}
