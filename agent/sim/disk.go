package sim

import (
	"errors"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// disk is what an agent has beyond its process. What was not synced when the
// process is killed is lost or kept.
type disk struct {
	parts      map[store.Digest][]byte
	logs       map[string]*flog
	fs         *storetest.FS // of file sinks
	snapshot   []byte        // of the replicated state
	snapshotAt uint64
	fails      error // what every write ends with; nil: it works
	pending    []*write
	last       dataflow.Time // when the last write is durable
}

// write is one that is on its way.
type write struct {
	apply func()
	done  bool
}

var errDisk = errors.New("input/output error")

func newDisk() *disk {
	return &disk{parts: make(map[store.Digest][]byte), logs: make(map[string]*flog), fs: storetest.New()}
}

// crash is what the power's loss makes of it: of the writes under way the first
// few are there.
func (d *disk) crash(rng *rand.Rand) {
	n := rng.IntN(len(d.pending) + 1)
	for i, x := range d.pending {
		x.done = true
		if i < n && d.fails == nil {
			x.apply()
		}
	}
	d.pending = nil
	d.fs = d.fs.Crash(rng.Uint64())
	if d.fails != nil {
		d.fs.FailFrom(1, d.fails)
	}
}

func (d *disk) fail(err error) {
	d.fails = err
	d.fs.FailFrom(1, err)
}

func (d *disk) heal() {
	d.fails = nil
	d.fs.Heal()
}

// write makes something durable, in order; done is told in the process.
func (p *proc) write(apply func(), done func(error)) {
	w, d := p.n.w, p.n.disk
	x := &write{apply: apply}
	d.pending = append(d.pending, x)
	d.last = max(w.soon(ms/2)+p.n.slow, d.last)
	w.at(d.last, func() {
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
		p.live(func() { done(err) })
	})
}
