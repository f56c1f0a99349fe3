package node_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// slowJob takes five minutes at its first rate, in which it is stopped.
const slowJob = `name: slow
parallelism: 2
checkpoint: {interval: 1s}
sources:
  in: {generate: {rate: %d, keys: 20, rows: 30000, seed: 7}, parallelism: 1, event_time: ts, watermark: {bounded: 10ms}}
steps:
  - {id: counts, from: in, key_by: [key], select: {n: count(*)}}
sinks:
  - {id: out, from: counts, file: {path: %s.jsonl}}
`

// TestCopiesAreMadeAnew: of a savepoint with two copies one agent after the other
// is lost for good, by its removal or with its parts. Each time the state soon
// names two again that have them. In the end none of those is left that had it at
// first, and it is restored exactly.
func TestCopiesAreMadeAnew(t *testing.T) {
	all := site(t, 4)
	id := run(t, all, api.Submission{Spec: fmt.Sprintf(slowJob, 100, "first")})
	await(t, "some rows to come out", func() bool { return len(out(t, all, "first.jsonl")) > 0 })
	name := stop(t, all, id)
	saved := func() (s *coordinator.Snapshot) {
		leading(t, all).View(func(st *coordinator.State) { s = st.Savepoints[name] })
		return s
	}
	// Whoever leads runs out of holders last: that costs the test fewer elections.
	holder := func() *box {
		lead := leading(t, all)
		holders := nodesOf(saved())
		for _, b := range all {
			if b != lead && holders[b.Self()] {
				return b
			}
		}
		return lead
	}
	gone := make(map[string]bool)
	whole(t, all, name, saved)
	rows := make(map[string]int) // of boxes that are gone
	remove := func() {
		b := holder()
		self := b.Self()
		others := slices.DeleteFunc(slices.Clone(all), func(o *box) bool { return o == b })
		await(t, b.name+" to be removed", func() bool {
			err := leading(t, all).Remove(context.Background(), self)
			here := true
			leading(t, all).View(func(st *coordinator.State) { here = st.Agents[self] != nil })
			return err == nil || !here
		})
		b.end()
		count(t, rows, b)
		all = others
		gone[b.name] = true
		whole(t, all, name, saved)
	}
	remove()
	wiped := holder()
	wiped.end()
	if err := os.RemoveAll(filepath.Join(wiped.dir, "parts")); err != nil {
		t.Fatal(err)
	}
	wiped.start("", "")
	whole(t, all, name, saved)
	remove()

	shown, err := ask(t, all, func(c *api.Client) (api.Snapshot, error) { return c.Savepoint(t.Context(), name) })
	if err != nil || shown.Copies != 2 || len(shown.Where) != 2 || slices.ContainsFunc(shown.Where, func(n string) bool { return gone[n] }) {
		t.Errorf("it is shown with %d copies on %v, %v", shown.Copies, shown.Where, err)
	}
	request := rand.Text()
	next, err := ask(t, all, func(c *api.Client) (api.Submitted, error) {
		return c.Submit(t.Context(), api.Submission{Spec: fmt.Sprintf(slowJob, 1_000_000, "second"), From: name, Request: request})
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it to finish", func() bool {
		j := current(t, all, coordinator.JobID(next.ID))
		if j.Status == coordinator.Failed {
			t.Fatal(j.Why)
		}
		return j.Status == coordinator.Finished
	})
	for _, b := range all {
		count(t, rows, b)
	}
	most := make(map[string]int)
	for row, times := range rows {
		key, n := parseRow(t, row)
		if most[key] = max(most[key], n); times != 1 {
			t.Errorf("%d times: %s", times, row)
		}
	}
	sum := 0
	for _, n := range most {
		sum += n
	}
	if len(rows) != 30000 || sum != 30000 {
		t.Errorf("%d rows that count to %d, want 30000", len(rows), sum)
	}
}

// nodesOf are the agents that are said to have something of a snapshot.
func nodesOf(s *coordinator.Snapshot) map[mesh.NodeID]bool {
	all := make(map[mesh.NodeID]bool)
	for _, p := range s.Copies {
		for _, n := range p.Nodes {
			all[n] = true
		}
	}
	return all
}

// whole waits until the state names two agents for each part of a snapshot, which
// are there and have it.
func whole(t *testing.T, all []*box, name string, saved func() *coordinator.Snapshot) {
	t.Helper()
	boxes := make(map[mesh.NodeID]*box)
	for _, b := range all {
		boxes[b.Self()] = b
	}
	wants := func(s *coordinator.Snapshot) error {
		m, err := manifest.Decode(s.Manifest)
		if err != nil {
			return err
		}
		nodes := make(map[store.Digest][]mesh.NodeID)
		for _, c := range s.Copies {
			nodes[c.Part] = c.Nodes
		}
		for _, p := range manifest.Needed(m) {
			if len(nodes[p.Digest]) != 2 {
				return fmt.Errorf("part %v is on %v", p.Digest, nodes[p.Digest])
			}
			for _, n := range nodes[p.Digest] {
				if boxes[n] == nil {
					return fmt.Errorf("part %v is on an agent that is gone", p.Digest)
				}
				if err := part.View(disk.Group, filepath.Join(boxes[n].dir, "parts")).Verify(p); err != nil {
					return fmt.Errorf("%s: %w", boxes[n].name, err)
				}
			}
		}
		return nil
	}
	err := errors.New("not looked yet")
	defer func() {
		if err != nil {
			t.Logf("savepoint %s: %v", name, err)
		}
	}()
	await(t, "two copies of everything", func() bool { err = wants(saved()); return err == nil })
}

// count counts the rows of both jobs that a box has.
func count(t *testing.T, rows map[string]int, b *box) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.dir, "out", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(text)) {
			rows[l]++
		}
	}
}

func parseRow(t *testing.T, row string) (string, int) {
	t.Helper()
	var r struct {
		Key any `json:"key"`
		N   int `json:"n"`
	}
	if err := json.Unmarshal([]byte(row), &r); err != nil || r.N == 0 {
		t.Fatalf("%s: %v", row, err)
	}
	return fmt.Sprint(r.Key), r.N
}
