package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// write writes the manifest of a checkpoint of which all shares are on disk.
func (c *Checkpointer) write(id dataflow.CheckpointID, what checkpoint.What) {
	m, err := c.manifest(id, what)
	if err != nil {
		panic(err) // all shares are of one job
	}
	savepoint := m
	if what.Savepoint {
		savepoint.Kind, savepoint.Name = manifest.Savepoint, newSavepointName()
		c.began[id.Counter].savepoint = savepoint.Name
	}
	c.outcome = Outcome{Finished: what.Finished, Drained: what.Drained, Checkpoint: m.Name, Savepoint: c.began[id.Counter].savepoint, Commits: what.Checkpoint}
	var held []store.Part
	if what.Savepoint {
		held = c.shares.hold()
	}
	c.jobs <- func() {
		var mergers []merger
		var err, unsaved error
		if what.Savepoint {
			mergers, err = c.whole(m)
			c.state.parts.Unpin(held...)
		}
		if err != nil && what.Checkpoint { // its last checkpoint stands without
			what.Savepoint, unsaved, err = false, err, nil
		}
		if err == nil {
			err = c.publish(m, savepoint, what)
		}
		posted := c.post(func() {
			for _, one := range mergers {
				if p := c.began[id.Counter]; p != nil {
					p.delta, p.parts = p.delta+one.use.Size, p.parts+1
				}
				c.shares.merged(one.at, one.of, one.use)
			}
			if unsaved != nil {
				c.began[id.Counter].unsaved, c.began[id.Counter].savepoint, c.outcome.Savepoint = unsaved, "", ""
			}
			e := checkpoint.Event{Kind: checkpoint.Written, ID: id}
			if err != nil {
				e.Kind, e.Failure, e.Err = checkpoint.Failed, checkpoint.IO, err
			}
			c.step(e)
		})
		if !posted {
			for _, one := range mergers {
				c.state.parts.Unpin(one.use.Part)
			}
		}
	}
}

// whole makes one part of each chain that a savepoint has, as a savepoint stands
// alone, and puts them in m. It is bounded by what is left of the checkpoint's time.
func (c *Checkpointer) whole(m manifest.Manifest) (done []merger, err error) {
	stop, ended := make(chan struct{}), make(chan struct{})
	defer close(ended)
	var late <-chan time.Time
	if c.o.Config.Timeout > 0 {
		late = c.o.Clock.After(max(0, c.o.Config.Timeout-m.Took))
	}
	var why error // set before stop is closed
	go func() {
		select {
		case <-ended:
			return
		case <-c.shares.quit:
			why = errQuit
		case <-late:
			why = fmt.Errorf("it took longer than %v", c.o.Config.Timeout)
		}
		close(stop)
	}()
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for i := range t.Shards {
				sh := &t.Shards[i]
				if len(sh.Parts) < 2 {
					continue
				}
				one, err := c.wholeShard(place{o.ID, t.Name, sh.Subtask}, sh, stop)
				if errors.Is(err, errQuit) {
					err = why
				}
				if err != nil {
					return done, fmt.Errorf("merging %d parts of state %q of operator %q: %w", len(sh.Parts), t.Name, o.ID, err)
				}
				done = append(done, one)
			}
		}
	}
	return done, nil
}

func (c *Checkpointer) wholeShard(at place, sh *manifest.Shard, stop <-chan struct{}) (merger, error) {
	of := sh.Parts
	_, table := c.shares.tableOf(at)
	use, err := c.state.merge(table, of, stop)
	if err != nil {
		return merger{}, err
	}
	sh.Parts = nil
	if use.Rows > 0 {
		sh.Parts = []manifest.PartUse{use}
	}
	return merger{at, of, use}, nil
}

// merger is a chain and the part that was made of it, which is pinned.
type merger struct {
	at  place
	of  []manifest.PartUse
	use manifest.PartUse
}

// publish makes the manifests visible: first a savepoint's, so that a job that
// says it stopped has one.
func (c *Checkpointer) publish(m, savepoint manifest.Manifest, what checkpoint.What) error {
	keep := func(m *manifest.Manifest) error {
		if c.o.Keep == nil {
			return nil
		}
		return c.o.Keep(m)
	}
	if what.Savepoint {
		err := c.state.Still(func() error {
			if err := keep(&savepoint); err != nil {
				return err
			}
			return c.state.savepoints.Put(savepoint)
		})
		if err != nil {
			return err
		}
	}
	if !what.Checkpoint {
		return nil
	}
	if err := keep(&m); err != nil {
		return err
	}
	return c.job.checkpoints.Put(m)
}

// newSavepointName is a name that nobody has. It is short enough to be typed.
func newSavepointName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "sp-" + hex.EncodeToString(b[:])
}

// manifest is what is on disk now. No share of a later barrier is in the chains,
// as none is triggered before this one is written.
func (c *Checkpointer) manifest(id dataflow.CheckpointID, what checkpoint.What) (manifest.Manifest, error) {
	m := manifest.Manifest{
		Kind: manifest.Checkpoint, Name: checkpoint.Name(id), Job: c.job.name, ID: id, Created: c.o.Clock.Now(), Took: c.took(id), MaxParallelism: c.o.MaxParallelism,
		Mode: manifest.ExactlyOnce, Drained: what.Drained, Finished: what.Finished,
	}
	if c.o.AtLeastOnce {
		m.Mode = manifest.AtLeastOnce
	}
	var shares []manifest.Share
	for _, sub := range c.o.Config.Subtasks {
		shares = append(shares, manifest.Share{Subtask: sub.Index, Manifest: manifest.Manifest{Operators: c.shares.Operators(sub)}})
	}
	return manifest.Assemble(m, shares)
}

// took is how long a checkpoint took so far.
func (c *Checkpointer) took(id dataflow.CheckpointID) dataflow.Duration {
	if p := c.began[id.Counter]; p != nil {
		return max(0, dataflow.Duration(c.now()-p.began))
	}
	return 0
}
