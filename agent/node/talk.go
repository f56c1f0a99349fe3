package node

import (
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// Control frames: docs/WIRE.md.
const (
	controlFrame = 1
	maxUnsent    = 4096 // messages that wait for a stream. Full: the stream is given up, and both sides begin again
)

// talk is one end of a control stream: messages out in the order in which they
// were said, messages in to its owner, each in its turn, until the stream ends.
// One goroutine writes, one reads. The next message is read when the owner has
// taken the one before: a peer that says more than that waits, by the stream's
// window.
type talk struct {
	stream mesh.Stream
	owner  *mailbox[func()]
	out    *mailbox[[]byte]
	done   sync.WaitGroup
	quit   chan struct{} // closed when the stream has ended
	once   sync.Once
}

// newTalk begins a talk. hear is called by the reading goroutine, and returns what
// the owner is to do about a message; ended is posted to it, once, when nothing
// follows.
func newTalk(s mesh.Stream, owner *mailbox[func()], hear func(message []byte) (func(), error), ended func()) *talk {
	t := &talk{stream: s, owner: owner, out: newMailbox[[]byte](maxUnsent), quit: make(chan struct{})}
	t.done.Go(func() { t.write() })
	t.done.Go(func() {
		t.read(hear)
		t.end()
		owner.post(ended)
	})
	return t
}

// say sends a message, whose bytes it keeps; it never blocks. A talk that has
// ended, or whose peer does not listen, drops it.
func (t *talk) say(message []byte) {
	if !t.out.post(message) {
		t.end()
	}
}

// end ends the talk now; close waits for it too.
func (t *talk) end() {
	t.once.Do(func() {
		close(t.quit)
		_ = t.stream.Close()
	})
}

func (t *talk) close() {
	t.end()
	t.done.Wait()
}

func (t *talk) write() {
	var buf []byte
	for {
		select {
		case <-t.out.filled:
		case <-t.quit:
			return
		}
		buf = buf[:0]
		for _, m := range t.out.take() {
			buf = wire.Append(buf, controlFrame, m)
		}
		if _, err := t.stream.Write(buf); err != nil {
			t.end()
			return
		}
	}
}

// read reads until the stream ends, or a message is not understood.
func (t *talk) read(hear func([]byte) (func(), error)) {
	in := wire.NewReader(t.stream, wire.Limit{Kind: controlFrame, Bytes: codec.MaxMessage})
	for {
		_, m, err := in.Next()
		if err != nil {
			return
		}
		f, err := hear(m)
		if err != nil {
			return
		}
		taken := make(chan struct{})
		if !t.owner.post(func() { defer close(taken); f() }) {
			return
		}
		select {
		case <-taken:
		case <-t.quit: // the owner may be waiting for this goroutine
			return
		}
	}
}
