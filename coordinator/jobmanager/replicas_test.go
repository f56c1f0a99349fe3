package jobmanager_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// replicas are the lines about jobs of other sites.
func replicas(c *coordinator.Command, w words) bool {
	from, epoch := mesh.Site(w.named["from"]), number(w.named["epoch"])
	switch w.at(0) {
	case "offered":
		o := &coordinator.ReplicaOffered{Job: coordinator.MovingJob{ID: w.job(1), Name: w.named["name"], Parallelism: int(number(w.named["p"]))}, From: from, Epoch: epoch, Moving: coordinator.MoveID(w.named["moving"])}
		for _, f := range w.list("feeds") {
			o.Job.Feeds = append(o.Job.Feeds, coordinator.MovingFeed{Name: f, Lineage: reigns(w.list("reigns")), Config: session(w.named["client"])})
		}
		for _, f := range w.list("stay") {
			o.Job.Feeds = append(o.Job.Feeds, coordinator.MovingFeed{Name: f, Stay: true, Lineage: reigns(w.list("reigns"))})
		}
		o.Job.Feeds = append(o.Job.Feeds, elsewhere(w.list("of"))...)
		o.Job.Reads = w.list("reads")
		c.ReplicaOffered = o
	case "next":
		c.ReplicaNext = &coordinator.ReplicaNext{Job: w.job(1), From: from, Epoch: epoch, Replace: w.at(4) == "replace"}
		if w.at(2) != "" {
			s := &coordinator.Snapshot{Name: w.at(2), Job: w.job(1), ID: idOf(1, w.number(3))}
			s.ID.Token.Epoch, s.ID.Token.Site = max(1, number(w.named["era"])), string(from)
			for _, p := range w.list("parts") {
				s.Copies = append(s.Copies, coordinator.PartCopies{Part: digest(p), Nodes: []mesh.NodeID{"x1"}})
			}
			c.ReplicaNext.Snapshot = s
		}
	case "advanced":
		c.ReplicaAdvanced = &coordinator.ReplicaAdvanced{Job: w.job(1), From: from, Epoch: epoch, Name: w.at(2)}
		for _, e := range w.list("ends") {
			feed, end, _ := strings.Cut(e, ":")
			c.ReplicaAdvanced.Ends = append(c.ReplicaAdvanced.Ends, coordinator.FeedEnd{Feed: feed, End: int64(number(end))})
		}
	case "dropped":
		c.ReplicaDropped = &coordinator.ReplicaDropped{Job: w.job(1), From: from, Epoch: epoch}
	case "later":
		c.ReplicaMoved = &coordinator.ReplicaMoved{Job: w.job(1), From: from, Epoch: epoch, To: coordinator.Tenure{Epoch: number(w.named["to"]), Site: mesh.Site(w.named["at"])}}
	case "over":
		c.JobFailedOver = &coordinator.JobFailedOver{Job: w.job(1), From: from, Was: epoch, Epoch: number(w.named["to"]), Snapshot: w.at(2), Forced: w.named["forced"] != ""}
	case "quarantined":
		c.JobQuarantined = &coordinator.JobQuarantined{Job: w.job(1), Epoch: epoch, Other: from}
	case "claimed":
		c.JobClaimed = &coordinator.JobClaimed{Job: w.job(1), Epoch: epoch, Term: number(w.named["term"])}
	case "isolated":
		c.LeaderBegan = &coordinator.LeaderBegan{Term: number(w.named["term"]), Node: "n1", Isolated: []coordinator.JobID{w.job(1)}}
	default:
		return false
	}
	return true
}

func showReplicas(s *coordinator.State) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s.Replicas)) {
		r := s.Replicas[id]
		fmt.Fprintf(&b, "    replica %s %q of %s, epoch %d, parallelism %d, moving %q, since %d, ends %v\n", id, r.Job.Name, r.From, r.Epoch, r.Job.Parallelism, r.Moving, r.Since, r.Ends)
		if r.Snapshot != nil {
			fmt.Fprintf(&b, "        complete %s%s\n", r.Snapshot.Name, copiesOf(r.Snapshot))
		}
		if r.Next != nil {
			fmt.Fprintf(&b, "        fetched %s%s\n", r.Next.Name, copiesOf(r.Next))
		}
	}
	return b.String()
}

func TestReplicasAreBounded(t *testing.T) {
	s := newSite(t)
	s.raise()
	for i := range jobmanager.MaxReplicated {
		s.do("offered j%d-b from=b epoch=1 @4", i)
	}
	if err := s.try("offered more-b from=b epoch=1 @4"); err == nil {
		t.Error("one too many was taken")
	}
	s.do("offered j7-b from=b epoch=2 @4")
}

// raise puts the level in force that this program knows.
func (s *site1) raise() { s.raiseTo(coordinator.Level) }

func (s *site1) raiseTo(level int) {
	for _, a := range slices.Collect(maps.Values(s.m.State().Agents)) {
		s.do("agent %s name=%s level=%d slots=%d", a.Node, a.Name, level, a.Slots)
	}
	s.do("level %d", level)
}

// Whatever is proposed in whatever order: what a job can be restored from is
// never taken away and never gets older, an epoch never goes down, what is
// complete has a copy of each part, and nobody changes what was handed out.
func TestReplicaInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSite(noFatal{})
		s.raise()
		m := s.m
		seen := make(map[string]*coordinator.Replica)
		for range rapid.IntRange(5, 60).Draw(t, "commands") {
			before := maps.Clone(m.State().Replicas)
			s.index++
			c := drawReplica(t, m.State())
			r, changes := m.Apply(s.index, c)
			for id, now := range m.State().Replicas {
				seen[fmt.Sprintf("%+v", *now)] = now
				was := before[id]
				if was != now && !slices.Contains(changes, jobmanager.Change{What: jobmanager.Replica, Name: string(id)}) {
					t.Fatalf("%s changed, and nobody was told", id)
				}
				if was != now && r.Err != nil {
					t.Fatalf("refused (%v), and changed", r.Err)
				}
				if now.Snapshot != nil {
					whole(t, m.State(), c, now)
				}
				if was == nil {
					continue
				}
				switch {
				case now.Epoch < was.Epoch:
					t.Fatalf("epoch %d after %d", now.Epoch, was.Epoch)
				case now.Epoch == was.Epoch && now.From != was.From:
					t.Fatalf("of %s and then of %s at one epoch", was.From, now.From)
				case was.Snapshot != nil && (now.Snapshot == nil || now.Snapshot.ID.Less(was.Snapshot.ID)):
					t.Fatalf("%v was complete, and then %v", was.Snapshot, now.Snapshot)
				case was.Epoch == now.Epoch && was.Next != nil && now.Next != nil && now.Next.ID.Less(was.Next.ID):
					t.Fatalf("%s was fetched, and then %s", was.Next.Name, now.Next.Name)
				case now.Next != nil && now.Snapshot != nil && now.Next.Name == now.Snapshot.Name:
					t.Fatalf("%s is complete, and fetched", now.Next.Name)
				}
			}
			for id := range before {
				if m.State().Replicas[id] == nil && c.ReplicaDropped == nil {
					t.Fatalf("%s is gone", id)
				}
			}
		}
		for was, v := range seen {
			if now := fmt.Sprintf("%+v", *v); now != was {
				t.Fatalf("what was kept changed:\n%s\nto\n%s", was, now)
			}
		}
	})
}

// whole: a snapshot that comes into force has a copy of each part at an agent.
func whole(t *rapid.T, s *coordinator.State, c *coordinator.Command, r *coordinator.Replica) {
	if c.ReplicaAdvanced == nil || r.Snapshot.Name != c.ReplicaAdvanced.Name || c.ReplicaAdvanced.Job != r.Job.ID {
		return // an agent may leave later on
	}
	for _, p := range r.Snapshot.Copies {
		if !slices.ContainsFunc(p.Nodes, func(n mesh.NodeID) bool { return s.Agents[n] != nil }) {
			t.Fatalf("%s is complete, and nobody has part %s", r.Snapshot.Name, p.Part)
		}
	}
}

// noFatal is of a site whose first lines cannot fail.
type noFatal struct{ testing.TB }

func (noFatal) Helper() {}

func drawReplica(t *rapid.T, s *coordinator.State) *coordinator.Command {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	id := coordinator.JobID(pick("job", "j1-b", "j2-b"))
	from, epoch := mesh.Site(pick("from", "b", "b", "b", "c")), uint64(rapid.IntRange(1, 3).Draw(t, "epoch"))
	r := s.Replicas[id]
	if r != nil && rapid.IntRange(0, 4).Draw(t, "present") > 0 {
		from, epoch = r.From, r.Epoch
	}
	c := &coordinator.Command{At: 100}
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 0, 1:
		c.ReplicaOffered = &coordinator.ReplicaOffered{Job: coordinator.MovingJob{ID: id, Parallelism: rapid.IntRange(0, 1).Draw(t, "parallelism")}, From: from, Epoch: epoch}
	case 2, 3, 4:
		n := uint64(rapid.IntRange(1, 9).Draw(t, "counter"))
		snap := &coordinator.Snapshot{Name: fmt.Sprintf("chk-%d-%s-%d", epoch, from, n), Job: id, ID: dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: epoch, Site: string(from), Attempt: 1}, Counter: n}}
		for d := n; d < n+3; d++ {
			snap.Copies = append(snap.Copies, coordinator.PartCopies{Part: store.Digest{byte(d)}, Nodes: []mesh.NodeID{"x1"}})
		}
		c.ReplicaNext = &coordinator.ReplicaNext{Job: id, From: from, Epoch: epoch, Snapshot: snap, Replace: rapid.Bool().Draw(t, "replace")}
	case 5, 6, 7:
		c.CopiesChanged = &coordinator.CopiesChanged{Job: id, Name: "chk"}
		if r != nil && r.Next != nil {
			c.CopiesChanged.Name = r.Next.Name
			for _, p := range r.Next.Copies {
				c.CopiesChanged.Copies = append(c.CopiesChanged.Copies, coordinator.PartCopies{Part: p.Part, Nodes: []mesh.NodeID{mesh.NodeID(pick("on", "n1", "n2"))}})
			}
		}
	case 8, 9:
		c.ReplicaAdvanced = &coordinator.ReplicaAdvanced{Job: id, From: from, Epoch: epoch, Name: "chk"}
		if r != nil && r.Next != nil {
			c.ReplicaAdvanced.Name = r.Next.Name
		}
	case 10:
		c.AgentLeft = &coordinator.AgentLeft{Node: mesh.NodeID(pick("node", "n1", "n2"))}
	case 11:
		c.ReplicaDropped = &coordinator.ReplicaDropped{Job: id, From: from, Epoch: epoch}
	}
	c.Level = c.Needs()
	return c
}

// What an arrival needs is not dropped before it is decided.
func TestArrivalKeepsItsReplica(t *testing.T) {
	s := newSite(t)
	s.raise()
	s.do("offered j7-b from=b epoch=1 moving=m9-b @4")
	arrival := &coordinator.Arrival{ID: "m9-b", Phase: coordinator.ArrivalReceiving}
	s.m.State().Moves.Arrivals["m9-b"] = arrival
	if err := s.try("dropped j7-b from=b epoch=1 @4"); !errors.Is(err, jobmanager.ErrStale) {
		t.Error(err)
	}
	s.m.State().Moves.Arrivals["m9-b"] = &coordinator.Arrival{ID: "m9-b", Phase: coordinator.ArrivalDropped}
	s.do("dropped j7-b from=b epoch=1 @4")
}
