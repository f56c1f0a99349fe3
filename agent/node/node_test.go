package node_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// patience only decides how long a failing test takes.
const patience = 60 * time.Second

// box is a machine of the test: its folder outlives its agents.
type box struct {
	t     *testing.T
	name  string
	dir   string
	level uint32 // feature level; 0: the first
	site  string // that it is to be of; empty: any
	bind  string
	clock func() time.Time // nil: the machine's
	up    func() dataflow.Time
	ends  time.Duration // how long it hands over; 0: patience
	stop  context.CancelFunc
	// unsure: another box has its identity, and it may end because of it.
	unsure bool
	*node.Node

	mu  sync.Mutex // guards log
	log []string
}

func newBox(t *testing.T, name string) *box {
	t.Helper()
	return &box{t: t, name: name, dir: t.TempDir(), bind: freePorts(t)}
}

// freePorts is an address of loopback whose port and the two after nobody has. They
// are below those that systems give to whoever asks for any port. The port before
// them is held until the test ends, so that no other test takes or tries them: an
// agent that starts again finds them free.
func freePorts(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 20000 + 4*rand.IntN(3000)
		held, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if addr := fmt.Sprintf("127.0.0.1:%d", port+1); isFree(addr) && isFree(fmt.Sprintf("127.0.0.1:%d", port+2)) && isFree(fmt.Sprintf("127.0.0.1:%d", port+3)) {
			t.Cleanup(func() { _ = held.Close() })
			return addr
		}
		_ = held.Close()
	}
	t.Fatal("no three free ports side by side")
	return ""
}

// isFree tells whether nobody has a port, of UDP or TCP.
func isFree(addr string) bool {
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	defer u.Close()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func (b *box) options(joinAt, token string) node.Options {
	c := config.Default()
	c.Name, c.DataDir, c.Slots, c.HTTP.Bind = b.name, b.dir, 2, "127.0.0.1:0"
	c.Bind, c.Site = b.bind, b.site
	if joinAt != "" {
		c.Join, c.Token = []string{joinAt}, token
	}
	if err := c.Check(); err != nil {
		b.t.Fatal(err)
	}
	timing := leader.DefaultTiming()
	timing.Gather = 100 * dataflow.Millisecond // copies are made anew so soon
	return node.Options{Config: c, Version: "test", Level: max(b.level, coordinator.Level), Secrets: job.Resolver{}, Clock: b.clock, Uptime: b.up, HandOver: cmp.Or(b.ends, patience), Timing: &timing, Events: func(e api.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.log = append(b.log, fmt.Sprintf("%s %s %s", e.What, e.Job, e.Text))
	}}
}

func (b *box) start(joinAt, token string) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n, err := node.Start(ctx, b.options(joinAt, token))
	if err != nil {
		cancel()
		b.t.Fatalf("%s: %v\n%s", b.name, err, b.said())
	}
	b.Node, b.stop = n, cancel
	b.t.Cleanup(func() { b.end() })
}

func (b *box) end() {
	b.stop()
	if err := b.Wait(); err != nil && !(b.unsure && errors.Is(err, mesh.ErrTwin)) {
		b.t.Errorf("%s: %v", b.name, err)
	}
	if b.t.Failed() {
		b.t.Logf("--- %s\n%s", b.name, b.said())
	}
}

func (b *box) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.log, "\n")
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for left := patience / every; !ok(); <-tick.C { // a machine that stands still waits no less often
		if left--; left < 0 {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// site is n boxes, the first of which founds.
func site(t *testing.T, n int) []*box {
	t.Helper()
	first := newBox(t, "n1")
	_, token, err := node.Found(first.dir, "test", "plant", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	all := []*box{first}
	for i := 2; i <= n; i++ {
		b := newBox(t, fmt.Sprintf("n%d", i))
		b.start(first.Link(), token.String())
		all = append(all, b)
	}
	for _, b := range all {
		await(t, b.name+" to know all", func() bool {
			agents := 0
			b.View(func(st *coordinator.State) { agents = len(st.Agents) })
			return agents == n && b.Leader() != "" && b.Health().Ready
		})
	}
	return all
}

// leading is the box that leads.
func leading(t *testing.T, all []*box) *box {
	t.Helper()
	var found *box
	await(t, "a leader", func() bool {
		for _, b := range all {
			if l := b.Leader(); l == b.Self() && b.Current(context.Background()) == nil {
				found = b
			}
		}
		return found != nil
	})
	return found
}

// propose submits a job. A slow machine may change its leader at any moment, and
// then nobody knows whether the command was accepted: the state does.
func propose(t *testing.T, all []*box, c coordinator.JobSubmitted) (id coordinator.JobID) {
	t.Helper()
	before := make(map[coordinator.JobID]bool) // some may have its name
	leading(t, all).View(func(st *coordinator.State) {
		for known := range st.Jobs {
			before[known] = true
		}
	})
	await(t, "the job to be submitted", func() bool {
		lead := leading(t, all)
		var err error
		if id, err = lead.Propose(t.Context(), coordinator.Command{JobSubmitted: &c}); err == nil {
			return true
		}
		t.Logf("%s: %v", lead.name, err)
		lead.View(func(st *coordinator.State) {
			for _, j := range st.Jobs {
				if j.Name == c.Name && !before[j.ID] {
					id = j.ID
				}
			}
		})
		return id != ""
	})
	return id
}

func TestSiteOfOne(t *testing.T) {
	all := site(t, 1)
	runWords(t, all)
}

func TestSiteOfThree(t *testing.T) {
	all := site(t, 3)
	runWords(t, all)
}

// runWords submits a bounded job and compares its output.
func runWords(t *testing.T, all []*box) {
	t.Helper()
	in := filepath.Join(t.TempDir(), "in.txt")
	var text strings.Builder
	want := make(map[string]int)
	for i := range 3000 {
		w := fmt.Sprintf("w%d", i%7)
		want[w]++
		fmt.Fprintln(&text, w)
	}
	if err := os.WriteFile(in, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := fmt.Sprintf(`
name: words
parallelism: 2
checkpoint: {interval: 1s}
sources:
  lines: {file: {path: %q}, format: text, parallelism: 1, event_time: ingestion}
steps:
  - {id: counts, from: lines, key_by: [line], select: {n: count(*)}}
sinks:
  - {id: out, from: counts, file: {path: counts.jsonl}}
`, in)
	id := propose(t, all, coordinator.JobSubmitted{Namespace: coordinator.DefaultNamespace, Name: "words", Spec: []byte(spec)})
	await(t, "the job to finish", func() bool {
		var j *coordinator.Job
		all[0].View(func(st *coordinator.State) { j = st.Jobs[id] })
		if j != nil && j.Status == coordinator.Failed {
			t.Fatalf("it failed: %s", j.Why)
		}
		return j != nil && j.Status == coordinator.Finished
	})
	lines := 0
	for _, b := range all {
		out, err := os.ReadFile(filepath.Join(b.dir, "out", "counts.jsonl"))
		if err == nil {
			lines += strings.Count(string(out), "\n")
		}
	}
	if lines != 3000 {
		t.Errorf("%d lines came out of 3000", lines)
	}
}

// TestARemovedAgentStaysOut: its certificate is right, and it says Hello again.
func TestARemovedAgentStaysOut(t *testing.T) {
	all := site(t, 2)
	lead := leading(t, all)
	other := all[0]
	if lead == other {
		other = all[1]
	}
	if err := lead.Remove(context.Background(), other.Self()); err != nil {
		t.Fatal(err)
	}
	agents := func() (n int) {
		lead.View(func(st *coordinator.State) { n = len(st.Agents) })
		return n
	}
	await(t, "it to be removed", func() bool { return agents() == 1 })
	await(t, "the Raft group to be without it", func() bool { return len(lead.Group()) == 1 })
	// Both say why, the others see it no more, and it does not try again and again.
	const why = "was taken out of site plant"
	says := func(b *box, what string) (n int) {
		for _, l := range strings.Split(b.said(), "\n") {
			if strings.Contains(l, what) && strings.Contains(l, why) {
				n++
			}
		}
		return n
	}
	await(t, "both to say why", func() bool { return says(other, "") > 0 && says(lead, " refused") > 0 })
	for _, m := range lead.Members() {
		if m.Node == other.Self() {
			t.Errorf("the removed one is still seen: %+v", m)
		}
	}
	if n := says(other, "was refused"); n > 3 {
		t.Errorf("it said so %d times", n)
	}
	other.end()
	if strings.Contains(other.said(), "in time") { // there is nobody to hand over to
		t.Errorf("it did not end before it had waited for as long as it may:\n%s", other.said())
	}
	other.start("", "")
	// An agent that joins meanwhile is let in: whatever the removed one said before came first.
	token, stored, err := lead.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lead.Propose(context.Background(), coordinator.Command{TokenCreated: &stored}); err != nil {
		t.Fatal(err)
	}
	third := newBox(t, "n3")
	third.start(lead.Link(), token)
	await(t, "the third to be ready", func() bool { return third.Health().Ready })
	lead.View(func(st *coordinator.State) {
		if st.Agents[other.Self()] != nil || st.Agents[third.Self()] == nil {
			t.Errorf("agents %v; removed was %s, joined %s", st.Agents, other.Self(), third.Self())
		}
	})
}

// TestDamagedFeedFolder: an agent runs with the logs that can be opened.
func TestDamagedFeedFolder(t *testing.T) {
	b := newBox(t, "n1")
	if _, _, err := node.Found(b.dir, "test", "plant", time.Now()); err != nil {
		t.Fatal(err)
	}
	// Where a file is to be there is a folder.
	if err := os.MkdirAll(filepath.Join(b.dir, "feeds", "mill", "PROMISE"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.start("", "")
	await(t, "it to be ready", func() bool { return b.Health().Ready })
	if !strings.Contains(b.said(), `feed "mill"`) {
		t.Errorf("nothing is told of the log:\n%s", b.said())
	}
}
