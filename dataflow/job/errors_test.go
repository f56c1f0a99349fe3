package job

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// slowDistance is the definition: the fewest insertions, deletions, changes and
// swaps of neighbours, no letter touched twice.
func slowDistance(a, b string) int {
	switch {
	case a == "":
		return len(b)
	case b == "":
		return len(a)
	}
	cost := 1
	if a[len(a)-1] == b[len(b)-1] {
		cost = 0
	}
	d := min(slowDistance(a[:len(a)-1], b)+1, slowDistance(a, b[:len(b)-1])+1, slowDistance(a[:len(a)-1], b[:len(b)-1])+cost)
	if n, m := len(a), len(b); n > 1 && m > 1 && a[n-1] == b[m-2] && a[n-2] == b[m-1] {
		d = min(d, slowDistance(a[:n-2], b[:m-2])+1)
	}
	return d
}

func TestDistance(t *testing.T) {
	word := rapid.StringMatching(`[abc]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, most := word.Draw(t, "a"), word.Draw(t, "b"), rapid.IntRange(0, 7).Draw(t, "most")
		want := slowDistance(a, b)
		switch got := distance(a, b, most); {
		case want <= most && got != want:
			t.Fatalf("%q to %q is %d, want %d", a, b, got, want)
		case want > most && got <= most:
			t.Fatalf("%q to %q is %d, want more than %d", a, b, got, most)
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"parallelism", "sources", "steps", "sinks", "temp"}
	for name, want := range map[string]string{
		"paralellism": "parallelism", "source": "sources", "Steps": "steps", "tmep": "temp", "snk": "", "x": "", "completely": "",
		strings.Repeat("s", 100): "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
}
