package channel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
)

func schema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "key", Type: batch.String}, batch.Field{Name: "x", Type: batch.Bigint}, batch.Field{Name: "y", Type: batch.Double})
}

func hello(s *batch.Schema) Hello {
	return Hello{
		Job: "j7", Token: dataflow.FencingToken{Epoch: 1, Site: "north", Attempt: 3},
		From: dataflow.SubtaskID{Task: "read", Index: 1}, To: dataflow.SubtaskID{Task: "sums", Index: 300}, Channel: 2, Schema: SchemaDigest(s),
	}
}

// rows makes a batch with marks; alike makes values that pack well.
func rows(p *batch.Pool, s *batch.Schema, n int, r *rand.Rand, alike bool) *batch.Batch {
	bl := batch.NewBuilder(p, s)
	for i := range n {
		key, x, y := fmt.Sprintf("%08x", r.Uint32()), r.Int64(), r.Float64()
		if alike {
			key, x, y = fmt.Sprintf("sensor-%d", i%50), 7, 0.5
		}
		bl.SetString(0, key)
		bl.SetInt(1, x)
		bl.SetDouble(2, y)
		bl.EndRow(dataflow.Time(i))
		if i%100 == 99 {
			bl.Mark(batch.Mark{Watermark: dataflow.Time(i), Arrival: dataflow.Time(i + 5)})
		}
	}
	bl.Mark(batch.Mark{Watermark: dataflow.Time(n), Arrival: dataflow.Time(n + 5)})
	return bl.Take()
}

// inlet is an inbox with one channel.
type inlet struct {
	pool   *batch.Pool
	schema *batch.Schema
	depth  int
	room   chan struct{}

	mu     sync.Mutex
	queue  []runtime.Message
	filled sync.Cond
}

func newInlet(s *batch.Schema, depth int) *inlet {
	in := &inlet{pool: batch.NewPool(0, nil), schema: s, depth: depth, room: make(chan struct{}, 1)}
	in.filled.L = &in.mu
	in.pool.PoisonReleased()
	return in
}

func (in *inlet) Offer(m runtime.Message) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) == in.depth {
		return false
	}
	in.queue = append(in.queue, m)
	in.filled.Signal()
	return true
}

func (in *inlet) Room() <-chan struct{} { return in.room }

func (in *inlet) Pool() *batch.Pool { return in.pool }

func (in *inlet) Schema() *batch.Schema { return in.schema }

// poll waits for a message.
func (in *inlet) poll() runtime.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.queue) == 0 {
		in.filled.Wait()
	}
	m := in.queue[0]
	in.queue = in.queue[1:]
	signal(in.room)
	return m
}

func (in *inlet) waiting() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue)
}

// drop releases what nobody will poll.
func (in *inlet) drop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range in.queue {
		if m.Batch != nil {
			m.Batch.Release()
		}
	}
	in.queue = nil
}

// world is a sender on a and a receiver on b.
type world struct {
	t       *testing.T
	net     *simnet.Net
	a, b    *simnet.Transport
	sender  *Sender
	in      *inlet
	pool    *batch.Pool // of the sender
	refuse  error
	attempt context.Context
	end     context.CancelFunc // of the receiver's attempt
	stop    context.CancelFunc // of the receiver

	mu       sync.Mutex
	hellos   []Hello
	sendErrs []error // what failed was told
	recvErrs []error
}

func newWorld(t *testing.T, depth int) *world {
	w := &world{t: t, net: simnet.New(), in: newInlet(schema(), depth), pool: batch.NewPool(0, nil)}
	w.pool.PoisonReleased()
	w.a, w.b = w.net.New("a", "north"), w.net.New("b", "north")
	w.attempt, w.end = context.WithCancel(context.Background())
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.b.Handle(mesh.Channel, Handler(ctx, w))
	w.a.Start()
	w.b.Start()
	w.sender = NewSender(w.a, func(peer mesh.NodeID, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.sendErrs = append(w.sendErrs, err); peer != "b" {
			t.Errorf("failed says node %q", peer)
		}
	})
	return w
}

func (w *world) Accept(_ context.Context, from mesh.NodeID, h Hello) (Accepted, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hellos = append(w.hellos, h); from != "a" {
		w.t.Errorf("a channel from node %q", from)
	}
	return Accepted{Inlet: w.in, Attempt: w.attempt, Failed: func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.recvErrs = append(w.recvErrs, err)
	}}, w.refuse
}

// close ends all and checks that no batch was lost.
func (w *world) close() {
	w.sender.Close()
	w.end()
	w.stop()
	if err := errors.Join(w.a.Close(), w.b.Close()); err != nil {
		w.t.Error(err)
	}
	w.in.drop()
	if w.pool.Out() != 0 || w.in.pool.Out() != 0 {
		w.t.Errorf("%d batches of the sender and %d of the receiver were not released", w.pool.Out(), w.in.pool.Out())
	}
}

func (w *world) errs() (send, recv []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sendErrs, w.recvErrs
}

// offer waits for room.
func offerTo(o *Outlet, m runtime.Message) {
	for !o.Offer(m) {
		<-o.Room()
	}
}
