package leader_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// push has a part on this disk and on those of others that are seen to be there, so
// many in all; 0: two. It says who has it.
func (x *executor) push(part store.Digest, replicas int) []mesh.NodeID {
	x.n.parts[part] = true
	nodes := []mesh.NodeID{x.n.id}
	for _, o := range x.n.site.sorted() {
		if len(nodes) < max(replicas, 1) || replicas == 0 && len(nodes) < 2 {
			if o != x.n && o.up && !o.frozen && !x.alone && !x.n.cut(o.id) && !o.exec.full {
				o.parts[part] = true
				nodes = append(nodes, o.id)
			}
		}
	}
	return nodes
}

// judgeCopies: a checkpoint that is to count has as many copies of each part as
// agents were there for it. That an agent has just come the leader may not know
// when all shares are there.
func (s *site) judgeCopies(l *lead, d *coordinator.CheckpointDone) {
	for _, c := range []*coordinator.Snapshot{d.Checkpoint, d.Savepoint} {
		if c == nil {
			continue
		}
		st := l.node.machine.State()
		parsed, err := leader.Parse(st.Jobs[c.Job])
		if err != nil {
			s.fail("%v", err)
			continue
		}
		want := cmp.Or(parsed.Replicas, 2)
		for _, p := range c.Copies {
			for _, n := range s.sorted() {
				there := n.up && !n.leaving && n.stream != nil && !n.stream.dead && n.stream.to == l && s.now >= n.stream.since+5000*ms && st.Agents[n.id] != nil
				if !parsed.Degrade && there && len(p.Nodes) < want && !slices.Contains(p.Nodes, n.id) {
					s.fail("part %.12s of %s is to count on %v, and %s was there for a copy", p.Part, c.Name, p.Nodes, n.id)
				}
			}
		}
	}
}

// copy fetches parts, as one that has nothing else to do.
func (x *executor) copy(c *worker.Copy) {
	s, o := x.n.site, c.Order
	s.trace("%s: copy %d parts of %s from %v, order %d", x.n.id, len(o.Parts), o.Name, o.Parts[0].Nodes, o.Order)
	if s.state().Of(o.Job, o.Name) == nil {
		return // it went meanwhile
	}
	said := &coordinator.Copied{Order: o.Order, Name: o.Name, Job: o.Job}
	fetch := func() {
		for _, p := range o.Parts {
			for _, from := range p.Nodes {
				switch of := s.find(from); {
				case x.full:
					said.Why = "disk full"
				case of == nil || !of.up || of.frozen || x.n.cut(from):
					said.Why = "no way to " + string(from)
				case !of.parts[p.Part]:
					said.Lacks = append(said.Lacks, coordinator.PartCopies{Part: p.Part, Nodes: []mesh.NodeID{from}})
					said.Why = string(from) + " does not have it"
				default:
					if of.site != s && !x.n.parts[p.Part] {
						s.crossed[p.Part]++
					}
					x.n.parts[p.Part] = true
					said.Parts = append(said.Parts, p.Part)
				}
				if x.n.parts[p.Part] {
					break
				}
			}
		}
	}
	if x.early { // a bug: it is said before it is so
		for _, p := range o.Parts {
			said.Parts = append(said.Parts, p.Part)
		}
		s.after(5*ms, x.n.life(func() { x.n.step(worker.Event{Copied: said}) }))
		return
	}
	s.after(300*ms, x.n.life(func() {
		if fetch(); !x.noCopied {
			x.n.step(worker.Event{Copied: said})
		}
	}))
}

// keep tells what a disk that was wiped lacks.
func (x *executor) keep(k *worker.Kept) {
	if !x.n.wiped {
		return
	}
	for _, c := range k.Snapshots {
		said := &coordinator.Copied{Name: c.Name, Job: k.Job}
		for _, p := range c.Copies {
			if slices.Contains(p.Nodes, x.n.id) && !x.n.parts[p.Part] {
				said.Lacks = append(said.Lacks, coordinator.PartCopies{Part: p.Part, Nodes: []mesh.NodeID{x.n.id}})
			}
		}
		if len(said.Lacks) > 0 {
			x.n.site.after(5*ms, x.n.life(func() { x.n.step(worker.Event{Copied: said}) }))
		}
	}
}

// copiesThere: who is said to have a part has it, but for one whose disk was lost.
func (s *site) copiesThere(c *coordinator.CopiesChanged) {
	for _, p := range c.Copies {
		for _, node := range p.Nodes {
			if n := s.nodes[node]; !n.parts[p.Part] && !n.wiped {
				s.fail("part %.12s of %s is said to be on %s, and is not", p.Part, c.Name, node)
			}
		}
	}
}

// sayCopies tells where the parts of kept snapshots are.
func (s *script) sayCopies() {
	st := s.state()
	show := func(of string, c *coordinator.Snapshot) {
		by := make(map[string]int)
		for _, p := range c.Copies {
			by[fmt.Sprint(p.Nodes)]++
		}
		var all []string
		for nodes, n := range by {
			all = append(all, fmt.Sprintf("%d on %s", n, nodes))
		}
		slices.Sort(all)
		fmt.Fprintf(&s.out, "%s%s: %s\n", of, c.Name, strings.Join(all, ", "))
	}
	for _, name := range []string{"files", "loose", "bounded", "one", "three"} {
		if j := s.job(name); j != nil {
			for _, c := range j.Checkpoints {
				show(name+" ", c)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(st.Savepoints)) {
		show("", st.Savepoints[name])
	}
}

// TestCopiesSaidTooEarly: who says that it has a copy that is not durable is found
// out by what judges the other tests.
func TestCopiesSaidTooEarly(t *testing.T) {
	var found []string
	s := newSite(nil, func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }, func(string, ...any) {})
	s.level = coordinator.Level
	for _, id := range []mesh.NodeID{"n1", "n2"} {
		s.add(id, 2).start()
		s.nodes[id].exec.early, s.nodes[id].exec.alone = true, true
	}
	s.lead("n1")
	s.submit("loose", jobs["loose"], "")
	s.run(60_000 * ms)
	if len(found) == 0 || !strings.Contains(found[0], "is said to be on") {
		t.Errorf("nobody noticed: %q", found)
	}
}
