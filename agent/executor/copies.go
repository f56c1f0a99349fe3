package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// copier gets the parts that the leader wants here too, in one goroutine and one
// part at a time, so that it takes little from live work. The keeper hands it an
// order, and so the manifest of the snapshot is on this disk before: what comes is
// named by it, and collected when the snapshot is not kept any more. Where it could
// not be written nothing is collected.
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
	away := make(map[mesh.NodeID]bool) // were not reached: each is waited for once
	for _, want := range o.Order.Parts {
		p, known := parts[want.Part]
		switch {
		case !known:
			err = fmt.Errorf("%s names no part %s", o.Order.Name, want.Part)
		case c.replaced():
			err = errReplaced
		default:
			err = c.get(p, want.Nodes, away, &said)
		}
		switch {
		case err == nil:
			said.Parts = append(said.Parts, p.Digest)
		case said.Why == "":
			said.Why = err.Error()
		}
		if c.ctx.Err() != nil || errors.Is(err, errReplaced) || errors.Is(err, errNoRoom) {
			break
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

// get makes sure that a part is here and whole. One that was merged elsewhere is
// merged again, if all that it was made of is here: that may be far less than to
// fetch it.
func (c *copier) get(n named, from []mesh.NodeID, away map[mesh.NodeID]bool, said *coordinator.Copied) error {
	parts, p := c.x.o.State.Parts(), n.Part
	if parts.Pin(p) == nil {
		defer parts.Unpin(p)
		err := errors.Join(parts.Verify(p), parts.Settle(p))
		if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrMissing) {
			return err
		}
		c.x.o.Tell(fmt.Sprintf("part %s is damaged here, and fetched anew: %v", p.Digest, err))
	}
	switch err := c.x.o.State.Remake(n.table, n.PartUse, c.ctx.Done()); {
	case err == nil:
		parts.Unpin(p) // a manifest here names it
		return nil
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	case errors.Is(err, store.ErrFull):
		return fmt.Errorf("%w: %w", errNoRoom, err)
	case !errors.Is(err, store.ErrMissing):
		c.x.o.Tell(fmt.Sprintf("a part is fetched, as it could not be merged here: %v", err))
	}
	var errs []error
	for _, node := range from {
		switch {
		case node == c.x.o.Node:
			continue
		case away[node]:
			errs = append(errs, fmt.Errorf("part %s: agent %s was not reached", p.Digest, node))
			continue
		}
		err := c.x.peers.Replace(c.ctx, []mesh.NodeID{node}, p)
		switch {
		case err == nil:
			parts.Unpin(p) // a manifest here names it
			return nil
		case c.ctx.Err() != nil:
			return err
		case errors.Is(err, store.ErrFull):
			return fmt.Errorf("%w: %w", errNoRoom, err)
		case errors.Is(err, store.ErrMissing), errors.Is(err, store.ErrCorrupt):
			said.Lacks = append(said.Lacks, coordinator.PartCopies{Part: p.Digest, Nodes: []mesh.NodeID{node}})
		default:
			away[node] = true
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
