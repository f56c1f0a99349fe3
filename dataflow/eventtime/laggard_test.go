package eventtime

import (
	"testing"

	"pgregory.net/rapid"
)

// TestLaggardFindsTheLeast against a look at every slot, while values grow, slots
// empty, and new ones come at any value.
func TestLaggardFindsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l laggard
		var values []int64
		of := func(group int) int64 { return leastOf(values, group) }
		most := rapid.SampledFrom([]int{3, 16, 17, 300, 5000}).Draw(t, "most")
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			v := rapid.Int64Range(-50, 50).Draw(t, "v")
			switch op := rapid.IntRange(0, 3).Draw(t, "op"); {
			case op == 0 || len(values) == 0: // new slots
				for range rapid.IntRange(1, most).Draw(t, "n") {
					if len(values) < most {
						values = append(values, v)
						l.lower(int32(len(values)-1), v)
					}
				}
			case op == 1: // one grows, or empties
				at := rapid.IntRange(0, len(values)-1).Draw(t, "at")
				values[at] = max(values[at], v)
				if v == 0 {
					values[at] = none
				}
			case op == 2: // the least grows
				if group, w := l.least(of); w != none {
					for at := group * fan; ; at++ {
						if values[at] == w {
							values[at] = max(w, v)
							break
						}
					}
				}
			default: // a slot is used again
				at := rapid.IntRange(0, len(values)-1).Draw(t, "at")
				values[at] = v
				l.lower(int32(at), v)
			}
			want := int64(none)
			for _, v := range values {
				want = min(want, v)
			}
			group, got := l.least(of)
			if got != want || got != none && leastOf(values, group) != got {
				t.Fatalf("least %d in group %d, want %d", got, group, want)
			}
		}
	})
}
