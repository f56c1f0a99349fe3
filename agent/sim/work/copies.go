package work

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// copy gets parts that the leader wants here too, one after the other, as
// agent/executor does. Another order ends it.
func (x *executor) copy(c *worker.Copy) {
	x.copying = c
	said := &coordinator.Copied{Order: c.Order.Order, Name: c.Order.Name, Job: c.Order.Job}
	parts := c.Order.Parts
	if x.p.W.Bugs.CopiedEarly {
		for _, p := range parts {
			said.Parts = append(said.Parts, p.Part)
		}
		x.p.Tell(worker.Event{Copied: said})
	}
	var next func()
	got := func(p coordinator.PartCopies, why string) {
		if said.Why == "" {
			said.Why = why
		}
		if why == "" {
			said.Parts = append(said.Parts, p.Part)
		}
		parts = parts[1:]
		next()
	}
	next = func() {
		switch {
		case x.p.W.Bugs.CopiedEarly && len(parts) == 0:
		case len(parts) == 0:
			x.p.Tell(worker.Event{Copied: said})
		case x.copying != c:
			said.Why = "another order came"
			x.p.Tell(worker.Event{Copied: said})
		case x.p.Disk.Parts[parts[0].Part] != nil:
			got(parts[0], "")
		default:
			x.copyOne(parts[0], parts[0].Nodes, said, func(why string) { got(parts[0], why) })
		}
	}
	next()
}

// copyOne gets a part from the first agent that gives it.
func (x *executor) copyOne(p coordinator.PartCopies, from []mesh.NodeID, said *coordinator.Copied, then func(why string)) {
	if len(from) == 0 {
		then("no agent gave it")
		return
	}
	x.p.Call(from[0], "part", p.Part, func(answer any) {
		data := answer.([]byte)
		if data == nil {
			said.Lacks = append(said.Lacks, coordinator.PartCopies{Part: p.Part, Nodes: from[:1]})
			x.copyOne(p, from[1:], said, then)
			return
		}
		x.p.Write(func() { x.p.Disk.Parts[p.Part] = data }, func(err error) {
			if err != nil {
				then(err.Error())
				return
			}
			then("")
		})
	}, func(string) { x.copyOne(p, from[1:], said, then) })
}
