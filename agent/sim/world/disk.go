package world

import (
	"errors"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// Disk is what a node has beyond its process. What was not synced when the
// process is killed is lost or kept.
type Disk struct {
	Parts      map[store.Digest][]byte
	Logs       map[string]*Log
	FS         *storetest.FS // of file sinks
	Snapshot   []byte        // of the replicated state
	SnapshotAt uint64

	fails   error // what every write ends with; nil: it works
	pending []*write
	last    dataflow.Time // when the last write is durable
}

// write is one that is on its way.
type write struct {
	apply func()
	done  bool
}

// ErrDisk is what a broken disk says.
var ErrDisk = errors.New("input/output error")

func newDisk() *Disk {
	return &Disk{Parts: make(map[store.Digest][]byte), Logs: make(map[string]*Log), FS: storetest.New()}
}

// crash is what the power's loss makes of it: of the writes under way the first
// few are there.
func (d *Disk) crash(rng *rand.Rand) {
	n := rng.IntN(len(d.pending) + 1)
	for i, x := range d.pending {
		x.done = true
		if i < n && d.fails == nil {
			x.apply()
		}
	}
	d.pending = nil
	d.FS = d.FS.Crash(rng.Uint64())
	if d.fails != nil {
		d.FS.FailFrom(1, d.fails)
	}
}

// Fail makes every write end with an error.
func (d *Disk) Fail(err error) {
	d.fails = err
	d.FS.FailFrom(1, err)
}

// Heal lets it work again.
func (d *Disk) Heal() {
	d.fails = nil
	d.FS.Heal()
}

// Write makes something durable, in order; done is told in the process.
func (p *Proc) Write(apply func(), done func(error)) {
	w, d := p.W, p.Disk
	x := &write{apply: apply}
	d.pending = append(d.pending, x)
	d.last = max(w.Soon(ms/2)+p.Slow, d.last)
	w.At(d.last, func() {
		if x.done {
			return
		}
		x.done = true
		for i, o := range d.pending {
			if o == x {
				d.pending = append(d.pending[:i:i], d.pending[i+1:]...)
				break
			}
		}
		err := d.fails
		if err == nil {
			x.apply()
		}
		p.Live(func() { done(err) })
	})
}
