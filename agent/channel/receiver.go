package channel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// How long a stream may take to say what it is for, and the receiver to let it
// in.
const (
	helloTime  = 10 * time.Second
	acceptTime = 10 * time.Second
)

// Inlet is the receiving end inside the job: a *runtime.Inlet.
type Inlet interface {
	// Offer takes m, and the reference of its batch, if there is room (true). It
	// never blocks.
	Offer(m runtime.Message) bool
	Room() <-chan struct{} // has a token when there may be room again
	Pool() *batch.Pool
	Schema() *batch.Schema
}

// Accepted is a channel that was let in.
type Accepted struct {
	Inlet Inlet
	// Attempt ends with the attempt: the channel is given up then, quietly.
	Attempt context.Context
	// Failed is called at most once, if the channel fails before its end. It must
	// not block.
	Failed func(err error)
}

// Receiver knows the attempts on this agent.
type Receiver interface {
	// Accept says where a channel leads, or refuses it: a *Refusal says why. It
	// may wait until ctx ends, for an attempt that is being prepared. A channel is
	// accepted once: a second one is refused (NoChannel).
	Accept(ctx context.Context, from mesh.NodeID, h Hello) (Accepted, error)
}

// Handler takes streams of the kind mesh.Channel, until ctx ends. Each call of
// what it returns ends with its stream.
func Handler(ctx context.Context, r Receiver) func(mesh.Stream) {
	return func(s mesh.Stream) {
		defer s.Close() //nolint:errcheck // what matters is written before CloseWrite
		stop := context.AfterFunc(ctx, func() { s.Close() })
		defer stop()
		receive(ctx, s, r)
	}
}

func receive(ctx context.Context, s mesh.Stream, r Receiver) {
	s.SetDeadline(time.Now().Add(helloTime)) //nolint:errcheck // a stream that is over fails below
	frames := wire.NewReader(s, toReceiver()...)
	kind, p, err := frames.Next()
	if err != nil {
		return
	}
	s.SetDeadline(time.Time{}) //nolint:errcheck // a stream that is over fails below
	var h Hello
	if kind != frameOpen {
		err = fmt.Errorf("%w: it begins with frame %d", errFormat, kind)
	} else {
		h, err = parseHello(p)
	}
	var a Accepted
	if err == nil {
		a, err = accept(ctx, s, r, h)
	}
	if err != nil {
		refuse(s, err)
		return
	}
	// A read that waits for the sender is woken by the attempt's end.
	stop := context.AfterFunc(a.Attempt, func() { s.Close() })
	defer stop()
	if err = answer(s, frameAccepted); err == nil {
		err = take(frames, a)
	}
	if err == nil {
		err = answer(s, frameTaken)
	}
	if err == nil {
		s.CloseWrite() //nolint:errcheck // the sender has failed already, then
		return
	}
	if a.Attempt.Err() == nil && ctx.Err() == nil {
		a.Failed(fmt.Errorf("%s, from node %s: %w", h, s.Peer().Node, err))
	}
	refuse(s, err)
}

// accept asks the receiver, and compares the columns.
func accept(ctx context.Context, s mesh.Stream, r Receiver, h Hello) (Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	a, err := r.Accept(ctx, s.Peer().Node, h)
	if err == nil && SchemaDigest(a.Inlet.Schema()) != h.Schema {
		err = &Refusal{OtherSchema, fmt.Sprintf("%s: the receiver's columns are %s", h, a.Inlet.Schema())}
		a.Failed(err)
	}
	return a, err
}

// answer sends a frame that says all by its kind.
func answer(s mesh.Stream, kind byte) error {
	_, err := s.Write(wire.Append(nil, kind, nil))
	return err
}

// refuse says why the channel ends; the sender may be gone.
func refuse(s mesh.Stream, why error) {
	if _, err := s.Write(wire.Append(nil, frameRefused, appendRefusal(nil, refusalOf(why)))); err == nil {
		s.CloseWrite() //nolint:errcheck // the sender may be gone
	}
}

// errEnded: the attempt ended before the channel.
var errEnded = errors.New("the attempt has ended here")

// take hands the subtask everything up to the end.
func take(frames *wire.Reader, a Accepted) error {
	var plain []byte
	for {
		kind, p, err := frames.Next()
		if err != nil {
			return err
		}
		var m runtime.Message
		switch kind {
		case frameBatch:
			m.Batch, err = batch.Decode(a.Inlet.Pool(), a.Inlet.Schema(), p)
		case framePacked:
			if plain, err = unpack(plain, p, maxBatch); err == nil {
				m.Batch, err = batch.Decode(a.Inlet.Pool(), a.Inlet.Schema(), plain)
			}
		case frameBarrier:
			b, wrong := parseBarrier(p)
			m.Barrier, err = &b, wrong
		case frameEnd:
		default:
			err = fmt.Errorf("%w: frame %d in a channel that is open", errFormat, kind)
		}
		if err != nil {
			return err
		}
		if err := offer(a, m); err != nil || kind == frameEnd {
			return err
		}
	}
}

// offer waits for room. Nothing is read from the stream meanwhile, so that the
// sender comes to wait too.
func offer(a Accepted, m runtime.Message) error {
	for !a.Inlet.Offer(m) {
		select {
		case <-a.Inlet.Room():
		case <-a.Attempt.Done():
			if m.Batch != nil {
				m.Batch.Release()
			}
			return errEnded
		}
	}
	return nil
}
