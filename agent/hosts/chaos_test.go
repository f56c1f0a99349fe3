//go:build hosts

package hosts

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
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

const brokerKilled = "the broker killed"

// quiet tells whether nothing may be on its way to the broker: publishers would
// send it twice, and no QoS 1 makes one of it.
func (f fault) quiet() bool { return f.name == brokerKilled }

// chaos is a site under faults.
type chaos struct {
	*site
	rng   *rand.Rand
	count map[string]int
}

// any is an agent that runs.
func (c *chaos) any() *node { return c.nodes[c.rng.IntN(len(c.nodes))] }

// faults are what may happen to a site. Every one is undone before the next of
// the same agent begins, and the site is whole for a while now and then.
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
	}
}

func (c *chaos) cutOff(t *testing.T, d direction) func() {
	t.Helper()
	a := c.any()
	a.cut(t, d)
	return func() { a.mend(t) }
}

// wait lets up to d pass. Nothing is expected of when it ends: the moment is
// what is random here.
func (c *chaos) wait(d time.Duration) { <-time.After(time.Duration(c.rng.Int64N(int64(d)) + 1)) }

// pause stops the agent's process where it is, or lets it go on.
func (a *node) pause(t *testing.T, stop bool) {
	t.Helper()
	s := syscall.SIGCONT
	if stop {
		s = syscall.SIGSTOP
	}
	a.signal(t, s)
}

// chaosFor is how long faults go on. TIDEMARK_CHAOS is the long tier's.
func chaosFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("TIDEMARK_CHAOS")
	if text == "" {
		return 2 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TIDEMARK_CHAOS=%s is no duration", text)
	}
	return d
}

// TestHostsSiteChaos: five agents, and one fault after the other, at random
// moments, while publishers that know nothing of it go on. All that the site
// wrote in the end is what was published, once.
func TestHostsSiteChaos(t *testing.T) {
	s := newSite(t, 5, "--slots", "2")
	c := &chaos{site: s, rng: rand.New(rand.NewPCG(seed(t), 4)), count: make(map[string]int)}
	r := s.startBroker(t)
	span := chaosFor(t)
	size := scale{publishers: 4, devices: 5, intervals: max(100, int(span/time.Second)), readings: 11}
	f := newFleet(size, r.url(), 1)
	s.nodes[0].submit(t, siteJob(s.broker.url(), 1))
	s.awaitJob(t, "crash", "running")
	s.awaitSubscribed(t)
	f.hello(t, size)

	total := size.messages() / size.publishers
	sent := size.devices
	all := faults()
	began := time.Now()
	for time.Since(began) < span {
		sent = min(total, max(sent, int(float64(total)*float64(time.Since(began))/float64(span))))
		wait := f.sending(sent)
		k := all[c.rng.IntN(len(all))]
		if k.quiet() {
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			wait = func() error { return nil }
		}
		undo := k.do(t, c)
		c.wait(k.most)
		undo()
		c.count[k.name]++
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		c.wait(4 * time.Second)
	}
	s.awaitMembers(t, len(s.nodes))
	s.awaitJob(t, "crash", "running")
	f.send(t, total)
	s.lastWindows(t, size)
	s.nodes[0].cli(t, "job", "stop", "crash")
	f.compareAll(t, s, size)
	t.Logf("%d messages in %v; %v; %d restarts", size.messages(), span, c.count, s.awaitJob(t, "crash", "stopped").Restarts)
}

// siteJob is crashJob, with two copies of everything.
func siteJob(broker string, qos byte) string {
	return strings.Replace(crashJob(broker, qos), "checkpoint: {interval: 150ms}", "replicas: 2\ncheckpoint: {interval: 500ms}\nrestart: {strategy: exponential-delay, initial: 100ms, max: 1s}", 1)
}

// awaitSubscribed waits until a feed of the site is connected to its broker.
func (s *site) awaitSubscribed(t *testing.T) {
	t.Helper()
	var said []byte
	await(t, "a feed that hears its broker", func() bool {
		out, _, code := s.nodes[0].try("feed", "list", "--output", "json")
		said = out
		return code == 0 && bytes.Contains(out, []byte(`"state":"connected"`))
	}, func() string { return fmt.Sprintf("%s\n%s", said, s.said()) })
}

// lastWindows waits until the windows of the last interval are there.
func (s *site) lastWindows(t *testing.T, size scale) {
	t.Helper()
	last := fmt.Appendf(nil, `"window_start":%d,`, firstTime+(size.intervals-1)*interval)
	got := 0
	await(t, "the last windows", func() bool {
		got = bytes.Count(s.file(t, "windows.jsonl"), last)
		return got == size.publishers*size.devices
	}, func() string { return fmt.Sprintf("%d of %d\n%s", got, size.publishers*size.devices, s.said()) })
}

// TestHostsSiteKill: the agent that runs the job is killed, and comes back;
// then another one, for good with its disk.
func TestHostsSiteKill(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, "--slots", "3")
	r := s.startBroker(t)
	size := scale{publishers: 2, devices: 5, intervals: 60, readings: 11}
	f := newFleet(size, r.url(), 1)
	s.nodes[0].submit(t, siteJob(s.broker.url(), 1))
	j := s.awaitJob(t, "crash", "running")
	s.awaitSubscribed(t)
	f.hello(t, size)
	total := size.messages() / size.publishers
	wait := f.sending(total / 2)
	victim := s.byName(t, j.Subtasks[0].Agent)
	victim.kill(t)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	await(t, "the next attempt", func() bool {
		j, ok := s.job(t, "crash")
		return ok && j.Status == "running" && j.Attempt > 1
	}, s.said)
	victim.start(t, s)
	s.awaitMembers(t, 3)
	f.send(t, total)
	s.lastWindows(t, size)
	s.nodes[0].cli(t, "job", "stop", "crash")
	f.compareAll(t, s, size)
}

func (s *site) byName(t *testing.T, name string) *node {
	t.Helper()
	for _, a := range s.nodes {
		if a.name == name {
			return a
		}
	}
	t.Fatalf("no agent %q", name)
	return nil
}
