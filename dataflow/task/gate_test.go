package task

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

func barrier(n uint64) dataflow.Barrier {
	return dataflow.Barrier{ID: dataflow.CheckpointID{Counter: n}}
}

// The scripts in testdata/gate say what each barrier and each end does.
func TestGateScripts(t *testing.T) {
	var g gate
	datadriven.RunTest(t, "testdata/gate", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "new" {
			n := 0
			d.ScanArgs(t, "channels", &n)
			g = newGate(n, d.HasArg("at-least-once"))
			return ""
		}
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			var c int
			var id uint64
			var ev gateEvent
			if n, _ := fmt.Sscanf(line, "barrier %d on %d", &id, &c); n == 2 {
				b := barrier(id)
				b.Full = strings.Contains(line, "full")
				for _, then := range []dataflow.Then{dataflow.Halt, dataflow.Drain} {
					if strings.Contains(line, then.String()) {
						b.Then = then
					}
				}
				ev = g.barrier(c, b)
			} else if n, _ := fmt.Sscanf(line, "end %d", &c); n == 1 {
				ev = g.end(c)
			} else {
				d.Fatalf(t, "unknown line %q", line)
			}
			fmt.Fprintf(&out, "%-18s %s\n", strings.TrimSpace(line), describeGate(ev, c, g.current))
		}
		return out.String()
	})
}

func describeGate(ev gateEvent, c int, current dataflow.Barrier) string {
	var parts []string
	if ev.aborted {
		parts = append(parts, fmt.Sprintf("abort %d", ev.gaveUp.ID.Counter))
	}
	if ev.complete {
		what := "complete"
		if current.Full {
			what += " full"
		}
		if current.Then != dataflow.GoOn {
			what += " " + current.Then.String()
		}
		parts = append(parts, what)
	}
	if ev.blocked {
		parts = append(parts, fmt.Sprintf("block %d", c))
	}
	if len(ev.unblock) > 0 {
		parts = append(parts, fmt.Sprintf("unblock %v", ev.unblock))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// Whatever order barriers and ends come in: a checkpoint completes at most
// once, ids that complete only grow, and when nothing is being aligned nothing
// is blocked.
func TestGateNeverCompletesTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "channels")
		g := newGate(n, rapid.Bool().Draw(t, "at least once"))
		blocked := make([]bool, n)
		ended := make([]bool, n)
		last := uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := rapid.IntRange(0, n-1).Draw(t, "channel")
			if ended[c] || blocked[c] {
				continue
			}
			var ev gateEvent
			if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
				ended[c] = true
				ev = g.end(c)
			} else {
				ev = g.barrier(c, barrier(rapid.Uint64Range(1, 12).Draw(t, "id")))
			}
			for _, u := range ev.unblock {
				if !blocked[u] && !ev.aborted {
					t.Fatalf("unblocked channel %d, which was not blocked", u)
				}
				blocked[u] = false
			}
			if ev.blocked {
				blocked[c] = true
			}
			if ev.complete {
				if g.current.ID.Counter <= last {
					t.Fatalf("checkpoint %d completed after %d", g.current.ID.Counter, last)
				}
				last = g.current.ID.Counter
			}
			for i := range n {
				if blocked[i] != g.isBlocked(i) {
					t.Fatalf("channel %d: driver holds %v, gate says %v", i, blocked[i], g.isBlocked(i))
				}
				if blocked[i] && !g.aligning {
					t.Fatalf("channel %d blocked while nothing is aligned", i)
				}
			}
		}
	})
}
