package node_test

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// decides has a leader enter a command, at the time that it takes it to be.
func decides(t *testing.T, b *box) {
	t.Helper()
	await(t, "something to be decided", func() bool {
		_, stored, err := b.NewToken()
		if err == nil {
			_, err = b.Propose(t.Context(), coordinator.Command{TokenCreated: &stored})
		}
		return err == nil
	})
}

// The clock of a leader is years ahead for a moment. Nothing is left of that when it is
// right again: no certificate begins then, and no time that the agent would go by.
func TestAClockAheadForAMoment(t *testing.T) {
	var ahead atomic.Int64
	began := time.Now()
	first := newBox(t, "n1")
	first.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	first.up = func() dataflow.Time {
		return dataflow.Time(5*dataflow.Day) + dataflow.Time(time.Since(began).Microseconds())
	}
	_, token, err := node.Found(first.dir, "test", "plant", first.clock())
	if err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	await(t, "the founder to lead", func() bool { return first.Health().Ready })
	box := newBox(t, "n2")
	box.start(first.Link(), token.String())
	await(t, "it to be ready", func() bool { return box.Health().Ready })
	box.end()

	ahead.Store(int64(2 * 365 * 24 * time.Hour))
	decides(t, first)
	await(t, "the leader to have another certificate", func() bool { return strings.Contains(first.said(), "certificate of this agent was renewed") })
	ahead.Store(0)
	if end, _, _ := first.Identity().Expires(); end.After(time.Now().Add(366 * 24 * time.Hour)) {
		t.Errorf("its certificate ends on %s", end)
	}
	if text, err := os.ReadFile(first.dir + "/identity/seen"); err == nil {
		seen, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
		if err != nil || seen.After(time.Now()) {
			t.Errorf("remembered is %s (%v)", text, err)
		}
	}
	first.end()
	first.start("", "")
	box.start("", "")
	await(t, "both to be ready", func() bool { return first.Health().Ready && box.Health().Ready })
}

// A site of one agent on a machine without a clock of its own is off for longer than its
// certificate is valid. It starts in 1970, and a time server sets it soon after: it gets a
// new certificate from itself, as nobody else can give it one.
func TestAloneAndOffForLong(t *testing.T) {
	var wall atomic.Pointer[time.Time]
	set := func(at time.Time) { wall.Store(&at) }
	set(time.Now())
	began := time.Now()
	box := newBox(t, "n1")
	box.clock = func() time.Time { return *wall.Load() }
	box.up = func() dataflow.Time {
		return dataflow.Time(5*dataflow.Minute) + dataflow.Time(time.Since(began).Microseconds())
	}
	if _, _, err := node.Found(box.dir, "test", "plant", box.clock()); err != nil {
		t.Fatal(err)
	}
	box.start("", "")
	await(t, "it to lead", func() bool { return box.Health().Ready })
	box.end()
	set(time.Unix(60, 0))
	box.start("", "")
	await(t, "it to lead again", func() bool { return box.Health().Ready })
	now := time.Now().Add(400 * 24 * time.Hour)
	set(now)
	await(t, "it to have another certificate", func() bool { end, _, _ := box.Identity().Expires(); return end.After(now) })
	box.end()
	box.start("", "")
	await(t, "it to lead with that", func() bool { return box.Health().Ready })
}

// A machine that starts in 1970 each time joins, talks to the others, and gets
// another certificate when the site's time says so: it does not lock itself out.
func TestWithoutAClock(t *testing.T) {
	var ahead atomic.Int64
	first := newBox(t, "n1")
	first.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	_, token, err := node.Found(first.dir, "test", "plant", first.clock())
	if err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	await(t, "the founder to lead", func() bool { return first.Health().Ready })
	box := newBox(t, "n2")
	box.clock = func() time.Time { return time.Unix(60, 0) }
	box.start(first.Link(), token.String())
	await(t, "it to be ready", func() bool { return box.Health().Ready })
	box.end()
	box.start("", "")
	await(t, "it to be ready again", func() bool { return box.Health().Ready })

	old, _, _ := box.Identity().Expires()
	first.end() // for the winter: a clock that was set while the agent runs would have to stand
	ahead.Store(int64(300 * 24 * time.Hour))
	first.start("", "")
	decides(t, first)
	await(t, "it to have another certificate", func() bool {
		now, _, _ := box.Identity().Expires()
		return now.After(old.Add(200 * 24 * time.Hour))
	})
	box.end()
	box.start("", "")
	await(t, "it to be ready with that", func() bool { return box.Health().Ready })
}
