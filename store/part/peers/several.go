package peers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// Small parts are asked for before those before them have come: else each would cost a
// round trip, however few bytes it has.

// SmallBytes: a part with more is no small one.
const SmallBytes = batchBytes

// What a stream has asked for and has no answer to: so many parts, and so many bytes
// of them or one part, as no more can be on their way (link.Window). What has come
// waits in memory until it is so much, or nothing else is on its way, and is made
// durable together.
const (
	smallAhead = 64
	bytesAhead = 256 << 10
	settleAt   = 256 << 10
)

// Came is told of each part that Several has an answer to: i is its place, and it is
// here and pinned, or err says why it is not. One goroutine at a time calls it; it must
// not block.
type Came func(i int, err error)

// Several gets small parts from a node and asks for them in their order, for some
// before those before them have come: where it is of another site over several streams,
// if they are much together. more is asked before each whether it is still wanted, and
// must not block; what was asked for comes. One that the node lacks, or has damaged,
// takes nothing away from the others. An error means that it could not go on: what came
// was not told of has not come.
func (p *Peers) Several(ctx context.Context, node mesh.NodeID, parts []store.Part, more func() bool, came Came) error {
	for _, one := range parts {
		if one.Size > SmallBytes {
			return fmt.Errorf("part %v: %d bytes are too many to get it with others; at most %d are possible", one.Digest, one.Size, SmallBytes)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &several{p: p, node: node, parts: parts, came: came, more: more, ctx: ctx, cancel: cancel}
	v.streams.Go(v.run)
	v.streams.Wait()
	return context.Cause(ctx)
}

// several are parts on their way.
type several struct {
	p       *Peers
	node    mesh.NodeID
	parts   []store.Part
	ctx     context.Context
	cancel  context.CancelCauseFunc
	streams sync.WaitGroup
	telling sync.Mutex // held while came is called
	came    Came

	mu    sync.Mutex // guards what follows
	more  func() bool
	next  int   // nobody has asked for this one and those behind it
	back  []int // nor for these: their stream has ended
	begun bool  // the first stream is open
	plain bool  // no packed pieces are asked for
}

// run has one stream after the other, until there is nothing more to ask for.
func (v *several) run() {
	for v.ctx.Err() == nil && v.lacks() {
		packed := false
		err := v.p.askAs(v.ctx, v.node, func(s idle) beginning {
			packed = v.open(s)
			return beginning{from: packed, some: packed, pack: packed}
		}, func(s idle) error { return v.carry(s, packed) })
		switch {
		case packed && errors.Is(err, errVersion):
			v.mu.Lock()
			v.plain = true
			v.mu.Unlock()
		case err != nil:
			v.cancel(err)
		}
	}
}

// open says whether pieces are packed on a stream. The first one brings the others.
func (v *several) open(s idle) (packed bool) {
	away := s.Peer().Site != v.p.o.Site
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.begun && away {
		var bytes int64
		for _, p := range v.parts {
			bytes += p.Size
		}
		for range min(int64(v.p.o.Ways), bytes/wideBytes) - 1 {
			v.streams.Go(v.run)
		}
	}
	v.begun = true
	return away && !v.plain && v.p.o.Packs(v.node)
}

func (v *several) lacks() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.back) > 0 || v.next < len(v.parts)
}

// take is the next part to ask for, of at most so many bytes; false: there is none.
func (v *several) take(room int64) (i int, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i = v.next; len(v.back) > 0 {
		i = v.back[0]
	}
	if i == len(v.parts) || v.parts[i].Size > room {
		return 0, false
	}
	if !v.more() {
		v.back, v.next = nil, len(v.parts)
		return 0, false
	}
	if len(v.back) > 0 {
		v.back = v.back[1:]
	} else {
		v.next++
	}
	return i, true
}

// tell tells what became of parts.
func (v *several) tell(err error, parts ...int) {
	v.telling.Lock()
	defer v.telling.Unlock()
	for _, i := range parts {
		v.came(i, err)
	}
}

// small is what a stream has got, and waits to be made durable.
type small struct {
	v     *several
	parts []int
	data  [][]byte
	bytes int64
}

// settle makes it durable.
func (m *small) settle() error {
	parts, data := m.parts, m.data
	if *m = (small{v: m.v}); len(parts) == 0 {
		return nil
	}
	var writes []func(io.Writer) error
	for _, b := range data {
		writes = append(writes, func(w io.Writer) error { _, err := w.Write(b); return err })
	}
	if _, err := m.v.p.o.Store.PutAll(writes); err != nil {
		return err
	}
	m.v.tell(nil, parts...)
	return nil
}

// carry asks over a stream until there is nothing more to ask for, or a part was refused
// or damaged: that ends the stream.
func (v *several) carry(s idle, packed bool) (err error) {
	var asked []int // in their order
	var ahead int64 // bytes of them
	got := &small{v: v}
	defer func() {
		if e := got.settle(); err == nil {
			err = e
		}
		v.mu.Lock()
		v.back = append(v.back, asked...)
		v.mu.Unlock()
	}()
	w := &pieces{p: v.p, g: &getting{packed: packed}}
	var buf []byte
	for {
		for len(asked) < smallAhead {
			room := bytesAhead - ahead
			if len(asked) == 0 {
				room = SmallBytes
			}
			i, ok := v.take(room)
			if !ok {
				break
			}
			asked, ahead = append(asked, i), ahead+v.parts[i].Size
			if err := v.ask(s, v.parts[i], packed); err != nil {
				return err
			}
		}
		if len(asked) == 0 {
			return nil
		}
		one := v.parts[asked[0]]
		b, err := w.small(s, one, &buf)
		if err != nil {
			return v.refused(err, &asked)
		}
		i := asked[0]
		asked, ahead = asked[1:], ahead-one.Size
		if store.Digest(sha256.Sum256(b)) != one.Digest {
			v.tell(fmt.Errorf("part %v: %w: what came has another digest", one.Digest, store.ErrCorrupt), i)
			return nil // what comes next is that the node has seen it, too
		}
		got.parts, got.data, got.bytes = append(got.parts, i), append(got.data, b), got.bytes+one.Size
		if got.bytes >= settleAt || len(asked) == 0 {
			if err := got.settle(); err != nil {
				return err
			}
		}
	}
}

// refused judges why there is no answer. If it is because of the part whose turn it was
// the others can be asked for on another stream.
func (v *several) refused(err error, asked *[]int) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if !errors.As(err, new(refusal)) || errors.Is(err, errVersion) {
		return err
	}
	v.tell(fmt.Errorf("parts: node %s: %w", v.node, err), (*asked)[0])
	*asked = (*asked)[1:]
	if errors.Is(err, store.ErrMissing) || errors.Is(err, store.ErrCorrupt) {
		return nil
	}
	return err
}

// ask asks for a part, packed in pieces.
func (v *several) ask(s idle, one store.Part, packed bool) error {
	if !packed {
		return writeFrame(s, fetch, encodeParts([]store.Part{one}))
	}
	for at := int64(0); at < one.Size; at += mostPiece {
		if err := writeFrame(s, fetchPacked, encodeSome(one, at, min(mostPiece, one.Size-at))); err != nil {
			return err
		}
	}
	return nil
}

// small reads the answers that are a part; buf is memory for what is packed.
func (w *pieces) small(s idle, one store.Part, buf *[]byte) ([]byte, error) {
	if !w.g.packed || one.Size <= mostPiece {
		return w.piece(s, one.Size, buf)
	}
	all := make([]byte, 0, one.Size)
	for int64(len(all)) < one.Size {
		b, err := w.piece(s, min(mostPiece, one.Size-int64(len(all))), buf)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}
