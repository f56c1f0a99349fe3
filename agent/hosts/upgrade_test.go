//go:build hosts

package hosts

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// nextRelease is the binary of a release that is to come: it knows a feature
// level more, and as soon as that is in force its leaders write something into
// every command that the present one cannot read.
func nextRelease(t *testing.T) string {
	t.Helper()
	agent, state := source(t, "cmd/tidemark/agent.go"), source(t, "coordinator/state.go")
	leader, command := source(t, "coordinator/leader/leader.go"), source(t, "coordinator/command.go")
	return variant(t, map[string]string{
		agent: patched(t, agent, `cmp.Or(version, "dev"), Level`, `cmp.Or("next", version), Level`),
		state: patched(t, state, "\tLevel = SettledLevel\n", "\tLevel = SettledLevel + 1\n"),
		leader: patched(t, leader, "c.Level, c.At = c.Needs(), l.wall\n",
			"c.Level, c.At = l.st.Level, l.wall\n\tc.News = c.Level == coordinator.Level\n"),
		command: patched(t, command, "\n\tLeaderBegan      *LeaderBegan ", "\n\tNews bool `cbor:\"9,keyasint,omitempty\"`\n\tLeaderBegan      *LeaderBegan "),
	})
}

// TestHostsSiteUpgrade: the agents of a site get the next release, one after the
// other, while rows flow. What only that can read is not written before the last
// has it; after that the old release is refused.
func TestHostsSiteUpgrade(t *testing.T) {
	t.Parallel()
	next := nextRelease(t)
	s := newSite(t, 3, "--slots", "3")
	r := s.startBroker(t)
	size := scale{publishers: 2, devices: 5, intervals: 60, readings: 11}
	f := newFleet(size, r.url(), 1)
	s.nodes[0].submit(t, siteJob(s.broker.url(), 1))
	s.awaitJob(t, "crash", "running")
	s.awaitSubscribed(t)
	f.hello(t, size)
	total := size.messages() / size.publishers
	await(t, "the level of the present release", func() bool { return s.level(t) == coordinator.Level }, s.said)
	for k, a := range s.nodes {
		if got := s.level(t); got != coordinator.Level {
			t.Fatalf("level %d is in force, and %d of 3 agents know it", got, k)
		}
		wait := f.sending(max(size.devices, total*(k+1)/5))
		a.stop(t)
		a.program = next
		a.start(t, s)
		s.awaitWhole(t)
		s.awaitCheckpoints(t, 1)
		s.awaitJob(t, "crash", "running")
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the new level", func() bool { return s.level(t) == coordinator.Level+1 }, s.said)
	for _, a := range s.nodes {
		if a.ended() {
			t.Errorf("%s ended:\n%s", a.name, tail(a.output()))
		}
	}
	wait := f.sending(total * 4 / 5)
	s.awaitCheckpoints(t, 2) // they are commands of the new level
	s.refusesOld(t)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	s.awaitWhole(t)
	f.send(t, total)
	s.lastWindows(t, size)
	s.nodes[0].cli(t, "job", "stop", "crash")
	f.compareAll(t, s, size)
}

// refusesOld starts the old release in the folder of an agent of the new one, and
// as one that wants to join; and then the new one again.
func (s *site) refusesOld(t *testing.T) {
	t.Helper()
	a := s.nodes[2]
	a.stop(t)
	next := a.program
	a.program = tidemark
	a.start(t, s)
	if code := a.exit(t); code == 0 || !strings.Contains(a.output(), "newer program") {
		t.Errorf("the old release in a folder of the new one: exit code %d\n%s", code, tail(a.output()))
	}
	fresh := &node{host: a.host, name: "n4", dir: t.TempDir(), args: a.args, program: tidemark, via: s.nodes[0]}
	fresh.start(t, s)
	if code := fresh.exit(t); code == 0 || !strings.Contains(fresh.output(), fmt.Sprintf("level %d is in force", coordinator.Level+1)) {
		t.Errorf("the old release wants to join: exit code %d\n%s", code, tail(fresh.output()))
	}
	a.program = next
	a.start(t, s)
}

// stop is SIGTERM, as when a service is restarted.
func (a *node) stop(t *testing.T) {
	t.Helper()
	a.signal(t, syscall.SIGTERM)
	if code := a.exit(t); code != 0 {
		t.Fatalf("%s after SIGTERM: exit code %d\n%s", a.name, code, tail(a.output()))
	}
}

// level is the feature level in force.
func (s *site) level(t *testing.T) (level int) {
	t.Helper()
	var said string
	await(t, "the site's level", func() bool {
		for _, a := range s.nodes {
			if a.ended() {
				continue
			}
			out, stderr, code := a.try("site", "list", "--output", "json")
			var shown struct {
				Level int `json:"level"`
			}
			if said = stderr; code == 0 && json.Unmarshal(out, &shown) == nil && shown.Level > 0 {
				level = shown.Level
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprintf("%s\n%s", said, s.said()) })
	return level
}
