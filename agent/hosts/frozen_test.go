//go:build hosts

package hosts

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// standstill is longer than a site goes on with its jobs without asking those that keep
// them: a lease, and a minute (Lapse of leader.Timing).
const standstill = 70 * time.Second

// TestHostsTwoSitesFrozen: a site stands still, its job goes on at the other one, and it
// goes on where it was: with sessions, attempts and rows that were to be committed. None
// of its agents says anything to the broker again, and none writes to a file.
func TestHostsTwoSitesFrozen(t *testing.T) {
	if _, long := moves(t, 0); !long {
		t.Skip("a site stands still for more than a minute: TIDEMARK_MOVES=1 has it do so")
	}
	t.Parallel()
	s := newKept(t)
	if len(s.connected(s.plant, 0)) == 0 {
		t.Fatalf("the broker does not say who connects:\n%s", tail(s.broker.output()))
	}

	for _, a := range s.plant.nodes {
		a.pause(t, true)
	}
	stopped := time.Now()
	if err := s.numbers.publish(load); err != nil { // they are sent to the plant, which acknowledges none
		t.Fatal(err)
	}
	f := s.failover(t, s.depot)
	end := s.numbers.flow(t, load)
	s.depot.awaitJob(t, "numbers", "running")
	s.caughtUp(t)
	t.Logf("failover: rows came again %v after the standstill began; %v", time.Since(stopped).Round(time.Millisecond), f.Text)
	<-time.After(time.Until(stopped.Add(standstill)))

	before, said := s.plant.file(t, "rows.jsonl"), len(s.broker.output())
	for _, a := range s.plant.nodes {
		a.pause(t, false)
	}
	goes := time.Now()
	s.awaitFenced(t, s.plant)
	t.Logf("fenced %v after it went on", time.Since(goes).Round(time.Millisecond))
	if out := string(s.plant.nodes[1].cli(t, "job", "list")); !strings.Contains(out, "moved") || !strings.Contains(out, "depot") {
		t.Errorf("job list at the plant:\n%s", out)
	}
	s.awaitSeen(t)
	s.caughtUp(t)
	s.awaitOnly(t, s.depot)
	end()
	s.finish(t, "numbers", s.depot)
	if again := s.connected(s.plant, said); len(again) > 0 {
		t.Errorf("the plant connected again:\n%s", strings.Join(again, "\n"))
	}
	if text := s.broker.output()[said:]; strings.Contains(text, "already connected") {
		t.Errorf("a session was taken over:\n%s", text)
	}
	if after := s.plant.file(t, "rows.jsonl"); !bytes.Equal(before, after) {
		t.Errorf("the plant wrote %d bytes to its file", len(after)-len(before))
	}
}

// connected is what the broker said since then of clients that connected from a site.
func (s *twoSites) connected(x *site, since int) (lines []string) {
	from := "New client connected from " + strings.TrimSuffix(x.sw.ip, "1")
	for line := range strings.Lines(s.broker.output()[since:]) {
		if strings.Contains(line, from) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestHostsTwoSitesWiped: a site is lost with all its disks, and its job goes on at the
// other one. What comes back of it belongs to no mesh; as the site that it was it is not
// founded again, and under another name it takes the job home.
func TestHostsTwoSitesWiped(t *testing.T) {
	if _, long := moves(t, 0); !long {
		t.Skip("a site is founded three times: TIDEMARK_MOVES=1 has it be so")
	}
	t.Parallel()
	s := newKept(t)
	first, depot := s.plant.nodes[0], s.depot.nodes[0]
	key := filepath.Join(t.TempDir(), "root.key") // which is never on an agent alone
	if text, err := os.ReadFile(filepath.Join(first.data(), "identity", "root.key")); err != nil || os.WriteFile(key, text, 0o600) != nil {
		t.Fatalf("the root key: %v", err)
	}
	for _, a := range s.plant.nodes {
		a.kill(t)
		a.emptyDisk(t)
	}
	f := s.failover(t, s.depot)
	end := s.numbers.flow(t, load)
	s.depot.awaitJob(t, "numbers", "running")
	s.caughtUp(t)
	t.Logf("failover: %v", f.Text)

	for _, a := range s.plant.nodes {
		a.start(t, s.plant)
	}
	first.says(t, "belongs to no mesh yet")
	first.exit(t)
	for _, a := range s.plant.nodes[1:] {
		a.says(t, "not reached.*trying again")
		a.kill(t)
		a.emptyDisk(t)
	}
	founder := first.args
	found := func(name string) {
		var made struct {
			Token string `json:"token"`
		}
		decode(t, depot.cli(t, "site", "create", name, "--root-key", key, "--output", "json"), &made)
		first.emptyDisk(t)
		s.plant.token, first.via, first.args = made.Token, depot, append(slices.Clip(founder), "--site", name)
		first.start(t, s.plant)
	}
	if _, said, code := depot.try("site", "create", "plant", "--root-key", key); code == 0 || !strings.Contains(said, "is of a site plant that was there before") {
		t.Fatalf("a token for another plant: exit %d, %s", code, said)
	}
	s.rebuilt = "mill"
	found(s.rebuilt)
	var made struct {
		Token string `json:"token"`
	}
	await(t, "the mill to be founded", func() bool {
		out, _, code := first.try("token", "create", "--ttl", "1h", "--uses", "2", "--output", "json")
		return code == 0 && json.Unmarshal(out, &made) == nil
	}, s.plant.said)
	s.plant.token = made.Token
	for _, a := range s.plant.nodes[1:] {
		a.start(t, s.plant)
	}
	s.plant.awaitWhole(t)
	await(t, "the mill to be reached", func() bool {
		return strings.Contains(string(depot.cli(t, "site", "list", "--output", "json")), `"mill"`)
	}, s.said)
	depot.cli(t, "job", "migrate", "numbers", "--to", s.rebuilt, "--set", "replicate_to=[depot]")
	s.plant.awaitJob(t, "numbers", "running")
	end()
	s.caughtUp(t)
	first.cli(t, "job", "stop", "numbers")
	s.numbers.compare(t, "published", s.results.heard())
}

// emptyDisk empties an agent's data folder, which is a file system of its own.
func (a *node) emptyDisk(t *testing.T) {
	t.Helper()
	inside, err := filepath.Glob(filepath.Join(a.data(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range inside {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
	}
}
