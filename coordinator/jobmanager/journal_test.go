package jobmanager

import (
	"slices"
	"testing"
)

// A journal tells each change once, and everything to who has seen nothing.
func TestJournal(t *testing.T) {
	j := NewJournal()
	a, b := Change{Job, "a"}, Change{Feed, "a"}
	take := func(all bool, want ...Change) {
		t.Helper()
		if c := j.Take(); c.All != all || !slices.Equal(c.Names, want) {
			t.Errorf("%+v, want %v %v", c, all, want)
		}
	}
	j.Add([]Change{a})
	take(true)
	take(false)
	j.Add([]Change{b, a})
	j.Add([]Change{a, b})
	take(false, b, a)
	j.Add([]Change{a})
	j.AddAll()
	j.Add([]Change{b})
	take(true)
	j.Add([]Change{a})
	take(false, a)
}
