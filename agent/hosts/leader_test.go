//go:build hosts

package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestHostsSiteLeaderWithoutSlots: three agents without slots lead, two work. The
// leader is killed again and again while rows flow: no task notices.
//
// No other test runs beside it: that no task notices is so only if another agent
// leads before the workers' leases end, which are 3 s.
func TestHostsSiteLeaderWithoutSlots(t *testing.T) {
	const kills = 20
	s := plan(t, 5)
	for i, a := range s.nodes {
		slots := 0
		if i >= 3 {
			slots = 3
		}
		a.args = []string{"--config", "agent.yaml"}
		if err := os.WriteFile(filepath.Join(a.dir, "agent.yaml"), fmt.Appendf(nil, "voters: 3\nslots: %d\n", slots), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.found(t)
	all := s.nodes
	s.nodes = all[:3]
	s.open(t) // these vote, and so there is no vote left for the others
	s.nodes = all
	for _, a := range all[3:] {
		a.start(t, s)
	}
	s.awaitMembers(t, 5)
	s.awaitVoters(t, 3)

	r := s.startBroker(t)
	size := scale{publishers: 2, devices: 5, intervals: 4 * kills, readings: 11}
	f := newFleet(size, r.url(), 1)
	s.nodes[0].submit(t, siteJob(s.broker.url(), 1))
	s.awaitJob(t, "crash", "running")
	s.awaitSubscribed(t)
	f.hello(t, size)
	total := size.messages() / size.publishers
	for k := range kills {
		wait := f.sending(max(size.devices, total*(k+1)/(kills+1)))
		victim := s.leader(t)
		if victim == all[3] || victim == all[4] {
			t.Skipf("after %d kills a worker leads: this machine was so slow that a killed agent lost its vote", k)
		}
		victim.kill(t)
		victim.start(t, s)
		s.awaitMembers(t, 5)
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	f.send(t, total)
	s.lastWindows(t, size)
	if j, ok := s.job(t, "crash"); !ok || j.Status != "running" || j.Attempt != 1 || j.Restarts != 0 {
		t.Errorf("a task was started again: %+v\n%s", j, s.said())
	}
	s.nodes[4].cli(t, "job", "stop", "crash")
	f.compareAll(t, s, size)
}
