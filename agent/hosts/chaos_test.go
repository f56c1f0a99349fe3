//go:build hosts

package hosts

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// chaos is a site under faults.
type chaos struct {
	*site
	rng    *rand.Rand
	keeper *node  // has the files of all sinks
	small  *node  // has the small disk
	clock  *clock // of one agent
	deck   []fault
	count  map[string]int
}

// newChaos is a site of five, of which nothing runs yet but what makes it fit to
// be broken: one agent's disk is small, one's clock can be set.
func newChaos(t *testing.T) *chaos {
	t.Helper()
	c := &chaos{site: plan(t, 5, "--slots", "2"), rng: rand.New(rand.NewPCG(seed(t), 4)), count: make(map[string]int)}
	c.keeper, c.small = c.any(), c.any()
	c.keeper.args = append(slices.Clip(c.keeper.args), "--label", "keeps=files")
	if err := os.MkdirAll(c.small.data(), 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, c.small.data(), "192m")
	c.clock = newClock(t, c.any())
	c.found(t)
	c.open(t)
	return c
}

// draw is the next fault: all come once before any comes again.
func (c *chaos) draw() fault {
	if len(c.deck) == 0 {
		c.deck = faults()
		c.rng.Shuffle(len(c.deck), func(i, j int) { c.deck[i], c.deck[j] = c.deck[j], c.deck[i] })
	}
	f := c.deck[0]
	c.deck = c.deck[1:]
	return f
}

// any is an agent that runs.
func (c *chaos) any() *node { return c.nodes[c.rng.IntN(len(c.nodes))] }

// wait lets up to d pass. Nothing is expected of when it ends: the moment is
// what is random here.
func (c *chaos) wait(d time.Duration) { <-time.After(time.Duration(c.rng.Int64N(int64(d)) + 1)) }

// chaosFor is how long faults go on. TIDEMARK_CHAOS is the long tier's.
func chaosFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("TIDEMARK_CHAOS")
	if text == "" {
		return 5 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TIDEMARK_CHAOS=%s is no duration", text)
	}
	return d
}

// back is within what time after the last fault the job must run again.
const back = 30 * time.Second

// TestHostsSiteChaos: five agents, and one fault after the other, at random
// moments, while publishers that know nothing of it go on. The job runs soon after
// the last, and all that the site wrote in the end is what was published, once.
func TestHostsSiteChaos(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	r := c.startBroker(t)
	span := chaosFor(t)
	size := scale{publishers: 4, devices: 5, intervals: max(100, int(span/time.Second)), readings: 11}
	f := newFleet(size, r.url(), 1)
	c.nodes[0].submit(t, pinned(siteJob(c.broker.url(), 1)))
	c.awaitJob(t, "crash", "running")
	c.awaitSubscribed(t)
	f.hello(t, size)

	total := size.messages() / size.publishers
	sent := size.devices
	began := time.Now()
	for time.Since(began) < span || len(c.deck) > 0 {
		sent = min(total, max(sent, int(float64(total)*float64(time.Since(began))/float64(span))))
		wait := f.sending(sent)
		k := c.draw()
		if k.quiet() || k.final() {
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			wait = func() error { return nil }
		}
		if k.final() {
			c.settle(t, sent*size.publishers)
			sent = min(total, sent+size.devices*50)
			wait = f.sending(sent)
		}
		undo := k.do(t, c)
		c.wait(k.most)
		undo()
		c.count[k.name]++
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if len(c.deck) > 0 || time.Since(began) < span {
			c.wait(4 * time.Second)
		}
	}
	took := c.awaitBack(t)
	c.awaitWhole(t)
	f.send(t, total)
	c.lastWindows(t, size)
	c.nodes[0].cli(t, "job", "stop", "crash")
	f.compareAll(t, c.site, size)
	t.Logf("%d messages in %v; %v; the job ran again after %v; %d restarts", size.messages(), span, c.count, took, c.awaitJob(t, "crash", "stopped").Restarts)
}

// awaitBack waits until the job runs, which only a checkpoint shows: for it all
// subtasks have to answer.
func (c *chaos) awaitBack(t *testing.T) (took time.Duration) {
	t.Helper()
	began := time.Now()
	c.awaitCheckpoints(t, 1)
	c.awaitJob(t, "crash", "running")
	if took = time.Since(began); took > back {
		t.Errorf("the job ran %v after the last fault; %v at most were to pass\n%s", took, back, c.said())
	}
	return took
}

// pinned makes a job's sinks stay with the agent that keeps files.
func pinned(job string) string {
	return strings.ReplaceAll(job, "timestamps: ms}}", "timestamps: ms}, constraints: {labels: {keeps: files}}}")
}

// siteJob is crashJob, with two copies of everything.
func siteJob(broker string, qos byte) string {
	return strings.Replace(crashJob(broker, qos), "checkpoint: {interval: 150ms}", "replicas: 2\ncheckpoint: {interval: 500ms}\nrestart: {strategy: exponential-delay, initial: 100ms, max: 1s}", 1)
}

// awaitSubscribed waits until a feed of the site hears its broker: one that is
// only connected does not yet, and the broker keeps nothing for it.
func (s *site) awaitSubscribed(t *testing.T) {
	t.Helper()
	await(t, "a feed that hears its broker", func() bool {
		return slices.ContainsFunc(s.nodes, func(a *node) bool { return strings.Contains(a.output(), ": subscribed ") })
	}, s.said)
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

// TestHostsSiteKill: the agent that runs the job is killed, and comes back.
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
