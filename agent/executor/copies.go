package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part/peers"
)

// copier gets the parts that the leader wants here too, in one goroutine: small ones
// several at a time from one node, large ones one at a time, so that it takes little from
// live work. The keeper hands it an order, and so the manifest of the snapshot is on this
// disk before: what comes is named by it, and collected when the snapshot is not kept any
// more. Where it could not be written collections spare what it names.
type copier struct {
	x      *Executor
	ctx    context.Context // of fetches
	cancel context.CancelFunc
	signal chan struct{} // 1: something is asked for
	done   sync.WaitGroup

	mu    sync.Mutex // guards asked
	asked *worker.Copy
}

func newCopier(x *Executor) *copier {
	c := &copier{x: x, signal: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.done.Go(c.run)
	return c
}

func (c *copier) close() {
	c.cancel()
	c.done.Wait()
}

// ask takes the place of what was asked before. It never blocks.
func (c *copier) ask(o *worker.Copy) {
	c.mu.Lock()
	c.asked = o
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

func (c *copier) next() *worker.Copy {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.asked
	c.asked = nil
	return o
}

// replaced tells whether something else was asked for meanwhile.
func (c *copier) replaced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked != nil
}

func (c *copier) run() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.signal:
		}
		if o := c.next(); o != nil {
			said := c.copy(o)
			if c.ctx.Err() == nil && c.x.o.Copied != nil {
				c.x.o.Copied(said)
			}
		}
	}
}

// copy gets all parts that can be got.
func (c *copier) copy(o *worker.Copy) coordinator.Copied {
	said := coordinator.Copied{Order: o.Order.Order, Name: o.Order.Name, Job: o.Order.Job}
	m, err := manifest.Decode(o.Snapshot.Manifest)
	if err != nil {
		said.Why = err.Error()
		return said
	}
	parts := make(map[store.Digest]named)
	for _, op := range m.Operators {
		for _, t := range op.Tables {
			for _, s := range t.Shards {
				for _, u := range s.Parts {
					parts[u.Digest] = named{t, u}
				}
			}
		}
	}
	f := &fetching{c: c, said: &said, away: make(map[mesh.NodeID]bool), come: make(map[store.Digest]error), alone: make(map[store.Digest]bool), later: make(map[store.Digest]bool)}
	for _, want := range o.Order.Parts {
		if p, known := parts[want.Part]; known {
			f.lacks = append(f.lacks, lacking{p, want.Nodes})
		} else {
			f.come[want.Part] = fmt.Errorf("%s names no part %s", o.Order.Name, want.Part)
		}
	}
	f.all()
	for _, want := range o.Order.Parts {
		switch err, looked := f.come[want.Part]; {
		case !looked:
		case err == nil:
			said.Parts = append(said.Parts, want.Part)
		case said.Why == "":
			said.Why = err.Error()
		}
	}
	return said
}

// named is a part as a manifest names it.
type named struct {
	table manifest.Table
	manifest.PartUse
}

var (
	errReplaced = errors.New("the leader has asked for something else meanwhile")
	errNoRoom   = errors.New("no room on this disk")
)

// fetching is an order that is being done.
type fetching struct {
	c     *copier
	said  *coordinator.Copied
	lacks []lacking // nothing is known of them yet
	come  map[store.Digest]error
	alone map[store.Digest]bool // are not got with others
	later map[store.Digest]bool // were merged of some that are lacking too
	away  map[mesh.NodeID]bool  // were not reached: each is waited for once
	broke int                   // how often it was of no use to get several at a time
}

// lacking is a part that is not here, and who has it.
type lacking struct {
	named
	from []mesh.NodeID
}

// mostBroke is how often several parts may break off; then they come one at a time.
const mostBroke = 4

// all gets what can be got: first all small parts that the same node has, several at a
// time, then the others one at a time, in the order's order.
func (f *fetching) all() {
	all, asked := f.lacks, make(map[store.Digest]bool)
	f.lacks = nil
	for _, l := range all {
		if asked[l.Digest] {
			continue
		}
		asked[l.Digest] = true
		here, err := false, errReplaced
		if !f.c.replaced() {
			here, err = f.c.here(l.named)
		}
		if here || err != nil {
			if f.come[l.Digest] = err; f.over(err) {
				break
			}
			continue
		}
		f.later[l.Digest] = slices.ContainsFunc(f.lacks, func(o lacking) bool { return slices.Contains(l.From, o.Digest) })
		f.lacks = append(f.lacks, l)
	}
	for len(f.lacks) > 0 {
		one := f.lacks[0]
		if node, some := f.together(); len(some) > 1 && !f.c.replaced() {
			if f.several(node, some) == nil {
				continue
			}
			f.broke++
			i := slices.IndexFunc(some, func(l lacking) bool { _, come := f.come[l.Digest]; return !come })
			if i < 0 {
				continue
			}
			one = some[i] // what is wrong with it is told now
		}
		err := errReplaced
		if !f.c.replaced() {
			err = f.get(one)
		}
		if f.come[one.Digest] = err; f.over(err) {
			return
		}
		f.rest()
	}
}

// over tells whether nothing more of the order is done.
func (f *fetching) over(err error) bool {
	return f.c.ctx.Err() != nil || errors.Is(err, errReplaced) || errors.Is(err, errNoRoom)
}

// rest forgets what is not lacking any more.
func (f *fetching) rest() {
	f.lacks = slices.DeleteFunc(f.lacks, func(l lacking) bool { _, come := f.come[l.Digest]; return come })
}

// together are parts that can be got at a time, from one node.
func (f *fetching) together() (node mesh.NodeID, some []lacking) {
	if f.broke == mostBroke {
		return "", nil
	}
	for _, l := range f.lacks {
		i := slices.IndexFunc(l.from, func(n mesh.NodeID) bool { return n != f.c.x.o.Node && !f.away[n] })
		if i < 0 || l.Size > peers.SmallBytes || f.alone[l.Digest] || f.later[l.Digest] || node != "" && node != l.from[i] {
			continue
		}
		node, some = l.from[i], append(some, l)
	}
	return node, some
}

// several gets parts from a node. Those that it does not give are got alone, as then
// others are asked for them.
func (f *fetching) several(node mesh.NodeID, some []lacking) error {
	parts := make([]store.Part, len(some))
	for i, l := range some {
		parts[i] = l.Part
	}
	err := f.c.x.peers.Several(f.c.ctx, node, parts, func() bool { return !f.c.replaced() }, func(i int, err error) {
		if err != nil {
			f.alone[parts[i].Digest] = true
			return
		}
		f.come[parts[i].Digest] = nil
		f.c.x.o.State.Parts().Unpin(parts[i]) // a manifest here names it
	})
	f.rest()
	return err
}

// here makes sure that a part is here and whole, if it need not be fetched. One that was
// merged elsewhere is merged again, if all that it was made of is here: that may be far
// less than to fetch it.
func (c *copier) here(n named) (bool, error) {
	parts, p := c.x.o.State.Parts(), n.Part
	if parts.Pin(p) == nil {
		defer parts.Unpin(p)
		err := errors.Join(parts.Verify(p), parts.Settle(p))
		if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrMissing) {
			return err == nil, err
		}
		c.x.o.Tell(fmt.Sprintf("part %s is damaged here, and fetched anew: %v", p.Digest, err))
	}
	switch err := c.x.o.State.Remake(n.table, n.PartUse, c.ctx.Done()); {
	case err == nil:
		parts.Unpin(p) // a manifest here names it
		return true, nil
	case c.ctx.Err() != nil:
		return false, c.ctx.Err()
	case errors.Is(err, store.ErrFull):
		return false, fmt.Errorf("%w: %w", errNoRoom, err)
	case !errors.Is(err, store.ErrMissing):
		c.x.o.Tell(fmt.Sprintf("a part is fetched, as it could not be merged here: %v", err))
	}
	return false, nil
}

// get gets one part from any that have it.
func (f *fetching) get(l lacking) error {
	c, p := f.c, l.Part
	if f.later[p.Digest] {
		if here, err := c.here(l.named); here || err != nil {
			return err
		}
	}
	var errs []error
	for _, node := range l.from {
		switch {
		case node == c.x.o.Node:
			continue
		case f.away[node]:
			errs = append(errs, fmt.Errorf("part %s: agent %s was not reached", p.Digest, node))
			continue
		}
		err := c.x.peers.Replace(c.ctx, []mesh.NodeID{node}, p)
		switch {
		case err == nil:
			c.x.o.State.Parts().Unpin(p) // a manifest here names it
			return nil
		case c.ctx.Err() != nil:
			return err
		case errors.Is(err, store.ErrFull):
			return fmt.Errorf("%w: %w", errNoRoom, err)
		case errors.Is(err, store.ErrMissing), errors.Is(err, store.ErrCorrupt):
			f.said.Lacks = append(f.said.Lacks, coordinator.PartCopies{Part: p.Digest, Nodes: []mesh.NodeID{node}})
		default:
			f.away[node] = true
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return fmt.Errorf("part %s: %w: no other node is known to have it", p.Digest, store.ErrMissing)
	}
	return errors.Join(errs...)
}

// missing tells of the parts of kept snapshots that the state says are here, and
// that are not: by their names and sizes, which is quick.
func (x *Executor) missing(kept worker.Kept, ms []manifest.Manifest) {
	if x.o.Copied == nil {
		return
	}
	for i, s := range kept.Snapshots {
		here := make(map[store.Digest]bool)
		for _, p := range s.Copies {
			for _, node := range p.Nodes {
				here[p.Part] = here[p.Part] || node == x.o.Node
			}
		}
		said := coordinator.Copied{Name: s.Name, Job: kept.Job}
		for _, p := range manifest.Needed(ms[i]) {
			if here[p.Digest] && !x.o.State.Parts().Has(p) {
				said.Lacks = append(said.Lacks, coordinator.PartCopies{Part: p.Digest, Nodes: []mesh.NodeID{x.o.Node}})
			}
		}
		if len(said.Lacks) > 0 {
			x.o.Tell(fmt.Sprintf("%d parts of %s are not on this disk, and should be", len(said.Lacks), s.Name))
			x.o.Copied(said)
		}
	}
}
