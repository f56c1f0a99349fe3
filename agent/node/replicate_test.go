package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// What is needed to go on with a job comes to the other site, and goes on coming
// whoever is restarted: the leader of either site, or all agents of one. At each time
// the replica's parts are whole there, and its log reaches to where it stands.
func TestReplication(t *testing.T) {
	t.Parallel()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	plant, first := twoSites(t, 2)
	made, err := first.client(t).CreateToken(t.Context(), api.NewToken{Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	second := newBox(t, "d2")
	second.start(first.Link(), made.Token)
	depot := []*box{first, second}
	await(t, "both sites to be of the new level", func() bool { return levelOf(leading(t, plant)) && levelOf(leading(t, depot)) })

	id := submit(t, plant, fmt.Sprintf(strings.Replace(countsJob, "replicas: 2", "replicas: 2\nreplicate_to: [depot]", 1), b.Addr()))
	await(t, "the job to run", func() bool { return current(t, plant, id).Status == coordinator.Running })
	await(t, "the feed to be subscribed", func() bool { return b.Stats().Subscriptions > 0 })
	p := newPublisher(t, b.Addr())
	var last *coordinator.Snapshot
	advances := func(what string) {
		t.Helper()
		p.publish(100)
		await(t, "all to come out after "+what, func() bool { return bytes.Count(out(t, plant, "raw.jsonl"), []byte("\n")) >= p.next })
		r := keeps(t, depot, plant, id)
		if last != nil && !last.ID.Less(r.Snapshot.ID) {
			t.Errorf("after %s: %s is kept, and %s was", what, r.Snapshot.Name, last.Name)
		}
		last = r.Snapshot
		if r.From != "plant" || len(r.Ends) != 1 || r.Ends[0].End < stands(t, last) {
			t.Errorf("after %s: of %s, its log ends at %v, and the job stands at %d", what, r.From, r.Ends, stands(t, last))
		}
		kept(t, depot, id)
	}
	restart := func(b *box) { b.end(); b.start("", "") }
	advances("it came")
	shown(t, plant, depot, id)
	restart(leading(t, plant))
	advances("its site has another leader")
	restart(leading(t, depot))
	advances("the site that keeps it has another leader")
	for _, b := range plant {
		b.end()
	}
	kept(t, depot, id) // while its site is away
	for _, b := range plant {
		b.start("", "")
	}
	advances("its site was away")
}

func levelOf(b *box) (new bool) {
	b.View(func(st *coordinator.State) { new = st.Level >= coordinator.SitesLevel })
	return new
}

// replica is what the leader of a site has on record to keep of another site's job.
func replica(t *testing.T, all []*box, id coordinator.JobID) (r *coordinator.Replica) {
	t.Helper()
	leading(t, all).View(func(st *coordinator.State) {
		if has := st.Replicas[id]; has != nil {
			as := *has // as it is now
			r = &as
		}
	})
	return r
}

// keeps waits until a site keeps a checkpoint of a job that has all that had come out of it
// at its own site before. How far a checkpoint stands in a log does not say so: ticks of
// the log's clock are counted there, too.
func keeps(t *testing.T, at, of []*box, id coordinator.JobID) (r *coordinator.Replica) {
	t.Helper()
	since := current(t, of, id).Newest().ID
	await(t, at[0].name+" to keep all that had come out of "+string(id), func() bool {
		r = replica(t, at, id)
		return r != nil && r.Restorable() != nil && !r.Snapshot.ID.Less(since)
	})
	return r
}

// stands is how far in their logs all sources of a snapshot are, together.
func stands(t *testing.T, s *coordinator.Snapshot) (most int64) {
	t.Helper()
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range m.Operators {
		for _, at := range o.Positions {
			if _, ok := ingestlog.LaneOf(at.Split); ok {
				most = max(most, at.Offset)
			}
		}
	}
	return most
}

// kept checks that who is said to have a part of what is kept of a job has it. Parts go
// when something newer is kept: then that is looked at.
func kept(t *testing.T, all []*box, id coordinator.JobID) {
	t.Helper()
	var lost []string
	await(t, "what is kept to be looked at", func() bool {
		r := replica(t, all, id)
		if r == nil || r.Snapshot == nil {
			t.Fatalf("nothing is kept of %s", id)
		}
		lost = lacks(t, all, r.Snapshot)
		now := replica(t, all, id)
		return len(lost) == 0 || now != nil && now.Snapshot != nil && now.Snapshot.Name == r.Snapshot.Name
	})
	for _, l := range lost {
		t.Error(l)
	}
}

// lacks says which parts of a snapshot are not where they are said to be.
func lacks(t *testing.T, all []*box, s *coordinator.Snapshot) (lost []string) {
	t.Helper()
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, need := range manifest.Needed(m) {
		i := slices.IndexFunc(s.Copies, func(p coordinator.PartCopies) bool { return p.Part == need.Digest })
		if i < 0 || len(s.Copies[i].Nodes) == 0 {
			lost = append(lost, fmt.Sprintf("%s: nobody has part %s", s.Name, need.Digest))
			continue
		}
		for _, n := range s.Copies[i].Nodes {
			err := errors.New("it is no agent of the site")
			for _, b := range all {
				if b.Self() == mesh.NodeID(n) {
					err = part.View(disk.Group, filepath.Join(b.dir, "parts")).Verify(need)
				}
			}
			if err != nil {
				lost = append(lost, fmt.Sprintf("%s: part %s on %s: %v", s.Name, need.Digest, n, err))
			}
		}
	}
	return lost
}

// shown checks that both sites say what is kept where, and that it is not far behind
// the 100 messages that were published. It is never quite there: each checkpoint adds
// to the log, and each site knows of the other's what was said some time ago.
func shown(t *testing.T, plant, depot []*box, id coordinator.JobID) {
	t.Helper()
	var said string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sites said last: %s", said)
		}
	})
	await(t, "the plant to show what is kept of its job", func() bool {
		j, err := leading(t, plant).client(t).Job(t.Context(), string(id))
		if err != nil || len(j.Replicas) != 1 {
			return false
		}
		r := j.Replicas[0]
		said = fmt.Sprintf("%+v", r)
		return r.To == "depot" && r.Restorable && r.Entries < 100
	})
	near := func(all []*box, lag func(*api.Site) string) bool {
		list, err := leading(t, all).client(t).Sites(t.Context(), false)
		if err != nil || len(list) != 2 {
			return false
		}
		said = lag(&list[1])
		var entries int
		_, err = fmt.Sscanf(said, "%d entries", &entries)
		return err == nil && entries < 100 && !strings.Contains(said, "not restorable")
	}
	await(t, "the plant to list the lag of the depot", func() bool {
		return near(plant, func(s *api.Site) string { return s.LagTo })
	})
	await(t, "the depot to list its lag", func() bool {
		return near(depot, func(s *api.Site) string { return s.LagFrom })
	})
}
