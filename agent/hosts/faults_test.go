//go:build hosts

package hosts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// fault is something that is done to a site, and undone.
type fault struct {
	name string
	do   func(t *testing.T, c *chaos) (undo func())
	most time.Duration // it lasts, at most
}

const (
	brokerKilled = "the broker killed"
	diskWiped    = "a disk wiped"
)

// quiet tells whether nothing may be on its way to the broker: publishers would
// send it twice, and no QoS 1 makes one of it.
func (f fault) quiet() bool { return f.name == brokerKilled }

// final tells whether it takes copies for good, so that there must be others.
func (f fault) final() bool { return f.name == diskWiped }

// faults are what may happen to a site. Every one but a wrong clock is undone
// before the next begins.
func faults() []fault {
	second := time.Second
	killed := func(t *testing.T, c *chaos, a *node) func() {
		a.kill(t)
		return func() { a.start(t, c.site) }
	}
	return []fault{
		{"an agent killed", func(t *testing.T, c *chaos) func() { return killed(t, c, c.any()) }, 4 * second},
		{"the leader killed", func(t *testing.T, c *chaos) func() { return killed(t, c, c.leader(t)) }, 4 * second},
		{"an agent paused", func(t *testing.T, c *chaos) func() {
			a := c.any()
			a.pause(t, true)
			return func() { a.pause(t, false) }
		}, 30 * second},
		{"cut off", func(t *testing.T, c *chaos) func() { return c.cutOff(t, both) }, 8 * second},
		{"deaf", func(t *testing.T, c *chaos) func() { return c.cutOff(t, inbound) }, 8 * second},
		{"mute", func(t *testing.T, c *chaos) func() { return c.cutOff(t, outbound) }, 8 * second},
		{"all links flap", func(t *testing.T, c *chaos) func() {
			for range 3 {
				for _, a := range c.nodes {
					a.cut(t, both)
				}
				c.wait(500 * time.Millisecond)
				for _, a := range c.nodes {
					a.mend(t)
				}
				c.wait(500 * time.Millisecond)
			}
			return func() {}
		}, second},
		{brokerKilled, func(t *testing.T, c *chaos) func() {
			c.broker.save(t)
			c.broker.end(t, syscall.SIGTERM)
			return func() { c.broker.start(t) }
		}, 3 * second},
		{"a disk full", func(t *testing.T, c *chaos) func() { return fill(t, c.small.data(), 0) }, 8 * second},
		{"a clock set", func(t *testing.T, c *chaos) func() { return c.clock.set(t, c.rng.IntN(3)-1) }, second},
		{diskWiped, func(t *testing.T, c *chaos) func() { return c.wipe(t) }, 4 * second},
	}
}

func (c *chaos) cutOff(t *testing.T, d direction) func() {
	t.Helper()
	a := c.any()
	a.cut(t, d)
	return func() { a.mend(t) }
}

// pause stops the agent's process where it is, or lets it go on.
func (a *node) pause(t *testing.T, stop bool) {
	t.Helper()
	s := syscall.SIGCONT
	if stop {
		s = syscall.SIGSTOP
	}
	a.signal(t, s)
}

// wipe kills an agent and empties its disk. It is taken out of the site, as
// docs/AGENT.md says, and comes back as a new one with a new token. Only the
// agent with the files of the sinks is spared: what is committed there has no
// copy.
func (c *chaos) wipe(t *testing.T) func() {
	t.Helper()
	a, other := c.any(), c.any()
	for a == c.keeper {
		a = c.any()
	}
	for other == a {
		other = c.any()
	}
	a.kill(t)
	inside, err := filepath.Glob(filepath.Join(a.data(), "*")) // it may be a mount point itself
	if err != nil || len(inside) == 0 {
		t.Fatalf("the disk of %s: %d entries, %v", a.name, len(inside), err)
	}
	for _, name := range inside {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		c.dismiss(t, other, a)
		var made struct {
			Token string `json:"token"`
		}
		decode(t, c.insist(t, other, "token", "create", "--ttl", "12h", "--uses", "1", "--output", "json"), &made)
		a.via, c.token = other, made.Token
		a.start(t, c.site)
		c.awaitWhole(t)
	}
}

// dismiss takes a dead agent out of the site.
func (c *chaos) dismiss(t *testing.T, by, dead *node) {
	t.Helper()
	var stderr string
	await(t, dead.name+" to be taken out", func() bool {
		_, said, code := by.try("member", "leave", dead.name)
		stderr = said
		// The answer may be lost with a leader.
		all := by.members(t)
		return code == 0 || len(all) > 0 && !slices.ContainsFunc(all, func(m memberShown) bool { return m.Name == dead.name })
	}, func() string { return stderr + c.said() })
}

// insist runs a verb until the site takes it.
func (c *chaos) insist(t *testing.T, a *node, args ...string) (stdout []byte) {
	t.Helper()
	var stderr string
	await(t, fmt.Sprintf("tidemark %v on %s", args, a.name), func() bool {
		var code int
		stdout, stderr, code = a.try(args...)
		return code == 0
	}, func() string { return stderr + c.said() })
	return stdout
}

// settle waits until all that the site has is there twice: the log, because what
// was sent last has come out; the parts of checkpoints, by what docs/AGENT.md
// says to do before another agent goes for good.
func (c *chaos) settle(t *testing.T, sent int) {
	t.Helper()
	c.awaitWhole(t)
	c.awaitRaw(t, sent)
	c.insist(t, c.nodes[0], "savepoint", "create", "crash")
	c.awaitCheckpoints(t, 2)
	c.awaitWhole(t)
}

// awaitRaw waits until the site has written so many messages.
func (s *site) awaitRaw(t *testing.T, n int) {
	t.Helper()
	got := 0
	await(t, fmt.Sprintf("%d messages in the file", n), func() bool {
		got = bytes.Count(s.file(t, "raw.jsonl"), []byte("\n"))
		return got >= n
	}, func() string { return fmt.Sprintf("%d\n%s", got, s.said()) })
}

// awaitCheckpoints waits until n checkpoints have completed that are not there
// now.
func (s *site) awaitCheckpoints(t *testing.T, n int) {
	t.Helper()
	seen := make(map[string]bool)
	look := func() {
		for _, id := range s.checkpoints(t) {
			seen[id] = true
		}
	}
	await(t, "a list of checkpoints", func() bool { look(); return len(seen) > 0 }, s.said)
	before := len(seen)
	await(t, fmt.Sprintf("%d checkpoints more", n), func() bool { look(); return len(seen) >= before+n }, s.said)
}

// checkpoints are the ids of those that are kept, as an agent that runs says.
func (s *site) checkpoints(t *testing.T) (ids []string) {
	t.Helper()
	for _, a := range s.nodes {
		if a.process == nil || a.ended() {
			continue
		}
		if out, _, code := a.try("checkpoint", "list", "crash", "--output", "json"); code == 0 {
			for _, one := range decodeLines[struct {
				ID string `json:"id"`
			}](t, out) {
				ids = append(ids, one.ID)
			}
			return ids
		}
	}
	return nil
}

// clock is the wall clock of one agent's machine, which is another than that of
// the machine here: its binary is built with a WallTime that adds what stands in
// a file. The time since boot is as it is.
type clock struct{ path string }

// newClock gives an agent that does not run yet a clock of its own.
func newClock(t *testing.T, a *node) *clock {
	t.Helper()
	k := &clock{path: filepath.Join(t.TempDir(), "clock")}
	k.put(t, 0)
	now, err := os.ReadFile(filepath.Join("testdata", "clock", "wall.go"))
	if err != nil {
		t.Fatal(err)
	}
	right := source(t, "sensors/clock.go")
	a.program = variant(t, map[string]string{
		right:                               patched(t, right, "\nfunc WallTime() time.Time {", "\nfunc rightTime() time.Time {"),
		source(t, "sensors/clock_hosts.go"): string(now),
	})
	a.env = append(a.env, "TIDEMARK_HOSTS_CLOCK="+k.path)
	return k
}

// set makes the clock wrong by some hours, at once; so it stays until it is set
// again, whatever else happens.
func (k *clock) set(t *testing.T, hours int) (undo func()) {
	t.Helper()
	k.put(t, int64(hours)*3600)
	return func() {}
}

func (k *clock) put(t *testing.T, seconds int64) {
	t.Helper()
	f, err := os.OpenFile(k.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// In one write, so that nobody sees half of it.
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(seconds)), 0); err != nil {
		t.Fatal(err)
	}
}
