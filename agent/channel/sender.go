package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// Limits of a sender.
const (
	depth     = 8        // messages that wait in an outlet; then the subtask waits
	writeSize = 64 << 10 // bytes that are gathered for one Write
	openTime  = 10 * time.Second
	openPause = 200 * time.Millisecond
)

// Opener opens streams; a mesh.Transport, as a rule.
type Opener interface {
	Open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error)
}

// Sender has the sending ends of the channels that lead from an attempt on this
// agent to other agents.
type Sender struct {
	net    Opener
	failed func(peer mesh.NodeID, err error)
	ctx    context.Context
	stop   context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	outlets []*Outlet
}

// NewSender makes a sender. failed is called at most once, when a channel fails
// before it is delivered: it must not block, nor call the sender.
func NewSender(net Opener, failed func(peer mesh.NodeID, err error)) *Sender {
	s := &Sender{net: net, failed: failed}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Outlet begins to open a channel to an agent. It can be offered messages at
// once.
func (s *Sender) Outlet(to mesh.NodeID, h Hello) *Outlet {
	o := &Outlet{s: s, to: to, hello: h, room: make(chan struct{}, 1), filled: make(chan struct{}, 1), done: make(chan struct{})}
	s.mu.Lock()
	s.outlets = append(s.outlets, o)
	s.mu.Unlock()
	s.wg.Go(func() {
		pprof.Do(s.ctx, pprof.Labels("job", h.Job, "channel", h.From.String()+" to "+h.To.String()), o.run)
	})
	return o
}

// Drain waits until each channel is delivered whose end was offered, and returns
// the error of one that was not. Call it when the job's part has ended well.
func (s *Sender) Drain(ctx context.Context) error {
	s.mu.Lock()
	outlets := s.outlets
	s.mu.Unlock()
	var errs []error
	for _, o := range outlets {
		select {
		case <-o.done:
			errs = append(errs, o.err)
		case <-ctx.Done():
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return errors.Join(errs...)
}

// Close gives up what is not delivered, quietly, and waits for the goroutines.
func (s *Sender) Close() {
	s.stop()
	s.wg.Wait()
}

// Outlet is the sending end of a channel: a runtime.Outlet.
type Outlet struct {
	s     *Sender
	to    mesh.NodeID
	hello Hello

	mu      sync.Mutex // guards what follows; never held while waiting
	ring    [depth]runtime.Message
	head, n int
	over    bool // nothing is taken any more

	room   chan struct{} // 1: the ring may have room
	filled chan struct{} // 1: a message may be there
	done   chan struct{} // closed when it is delivered, or has failed
	err    error         // valid once done is closed
}

var _ runtime.Outlet = (*Outlet)(nil)

// Offer takes a message if there is room.
func (o *Outlet) Offer(m runtime.Message) bool {
	o.mu.Lock()
	if o.over || o.n == depth {
		o.mu.Unlock()
		return false
	}
	o.ring[(o.head+o.n)%depth] = m
	o.n++
	o.mu.Unlock()
	signal(o.filled)
	return true
}

// Room has a token when there may be room again.
func (o *Outlet) Room() <-chan struct{} { return o.room }

func (o *Outlet) poll() (m runtime.Message, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 0 {
		return m, false
	}
	m = o.ring[o.head]
	o.ring[o.head] = runtime.Message{}
	o.head = (o.head + 1) % depth
	o.n--
	signal(o.room)
	return m, true
}

// signal leaves a token that a waiter will find; one is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run is the outlet's goroutine.
func (o *Outlet) run(ctx context.Context) {
	err := o.carry(ctx)
	if err != nil {
		err = fmt.Errorf("%s, to node %s: %w", o.hello, o.to, err)
	}
	o.mu.Lock()
	o.over = true
	for ; o.n > 0; o.n-- {
		if b := o.ring[o.head].Batch; b != nil {
			b.Release()
		}
		o.ring[o.head] = runtime.Message{}
		o.head = (o.head + 1) % depth
	}
	o.mu.Unlock()
	o.err = err
	close(o.done)
	if err != nil && ctx.Err() == nil {
		o.s.once.Do(func() { o.s.failed(o.to, err) })
	}
}

// carry opens the stream and sends all up to the end.
func (o *Outlet) carry(ctx context.Context) error {
	s, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // all is delivered, or lost anyway
	quiet := context.AfterFunc(ctx, func() { s.Close() })
	defer quiet()

	w := wire.NewWriter(s, writeSize)
	answers := wire.NewReader(s, toSender()...)
	if err := w.End(appendHello(w.Begin(frameOpen), o.hello)); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return firstOf(answers, err)
	}
	if err := expect(answers, frameAccepted); err != nil {
		return err
	}
	// From now on the receiver speaks when all is taken, or when it fails.
	taken := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.Close() //nolint:errcheck // it ends the reader
	wg.Go(func() { taken <- expect(answers, frameTaken) })
	if err := o.send(ctx, s, w, taken); err != nil {
		return err
	}
	select {
	case err := <-taken:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open tries again where the agent is not reached for a moment: nothing has been
// sent yet.
func (o *Outlet) open(ctx context.Context) (mesh.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	for {
		s, err := o.s.net.Open(ctx, o.to, mesh.Channel)
		if err == nil || errors.Is(err, mesh.ErrRefused) {
			return s, err
		}
		t := time.NewTimer(openPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

// send writes messages as they come, several at a time if they have gathered.
func (o *Outlet) send(ctx context.Context, s mesh.Stream, w *wire.Writer, taken <-chan error) error {
	pack := packer{max: maxBatch}
	for {
		m, ok := o.poll()
		if !ok {
			if err := w.Flush(); err != nil {
				return whichever(taken, err)
			}
			select {
			case <-o.filled:
			case err := <-taken: // before the end
				return early(err)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		var err error
		switch {
		case m.Batch != nil:
			err = pack.write(w, m.Batch)
			m.Batch.Release()
		case m.Barrier != nil:
			err = w.End(appendBarrier(w.Begin(frameBarrier), *m.Barrier))
		default:
			if err = w.Frame(frameEnd, nil); err == nil {
				err = w.Flush()
			}
			if err == nil {
				s.CloseWrite() //nolint:errcheck // the receiver may have taken the end already, and gone
				return nil
			}
		}
		if err != nil {
			return whichever(taken, err)
		}
	}
}

// whichever is why a write failed: what the receiver said, if it said something.
func whichever(taken <-chan error, err error) error {
	if errors.Is(err, errTooLarge) {
		return err
	}
	// The reader ends too: the stream is of no use.
	if said := <-taken; said != nil {
		return said
	}
	return err
}

func early(err error) error {
	if err == nil {
		err = fmt.Errorf("%w: all is said to be taken before the end", errFormat)
	}
	return err
}

// firstOf is what the receiver said before it closed the stream, if anything.
func firstOf(answers *wire.Reader, err error) error {
	var r *Refusal
	if said := expect(answers, frameAccepted); errors.As(said, &r) {
		return said
	}
	return err
}

// expect waits for a frame of a kind, or the refusal.
func expect(answers *wire.Reader, want byte) error {
	kind, p, err := answers.Next()
	switch {
	case err == io.EOF:
		return fmt.Errorf("%w: the receiver ended the channel", mesh.ErrUnreachable)
	case err != nil:
		return err
	case kind == frameRefused:
		r, err := parseRefusal(p)
		if err != nil {
			return err
		}
		return r
	case kind != want:
		return fmt.Errorf("%w: frame %d instead of %d", errFormat, kind, want)
	}
	return nil
}
