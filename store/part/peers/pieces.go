package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// A large part of another site comes in pieces, over several streams: where packets
// get lost one connection carries little, so each stream may have one of its own.

// A stream has asked for its next piece before the one before has come, so that it
// never waits for a round trip.
const (
	leastPiece = 64 << 10
	mostPiece  = 256 << 10
	wideBytes  = 4 * leastPiece // a part with fewer comes in one
	pieceAhead = 2              // requests of a stream that are not answered
)

// pieces are those of a part that are on their way.
type pieces struct {
	p    *Peers
	g    *getting
	size int64 // of each but the last
	most int64 // bytes that may be on their way, or wait for some before them

	mu      sync.Mutex // guards what follows
	changed sync.Cond  // came, g.at or err
	next    int64      // what begins here nobody has asked for
	came    map[int64][]byte
	err     error // it is over
}

// pieces gets what is missing of a part over so many streams; first is one to the node
// that has it.
func (p *Peers) pieces(ctx context.Context, node mesh.NodeID, g *getting, first idle, ways int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	streamsAhead := int64(ways) * pieceAhead
	size := min(max((g.part.Size-g.at)/streamsAhead, leastPiece), mostPiece)
	w := &pieces{p: p, g: g, size: size, most: 2 * streamsAhead * size, next: g.at, came: make(map[int64][]byte)}
	w.changed.L = &w.mu
	stop := context.AfterFunc(ctx, func() {
		w.fail(context.Cause(ctx))
		_ = first.Close()
	})
	defer stop()
	var streams sync.WaitGroup
	for i := range ways {
		streams.Go(func() {
			err := error(nil)
			if i == 0 {
				err = w.carry(first)
			} else {
				err = p.ask(ctx, node, beginning{from: true, some: true, pack: g.packed}, w.carry)
			}
			if err != nil {
				cancel(err) // what came in order stays
			}
		})
	}
	err := w.write()
	cancel(err)
	streams.Wait()
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.lacking()
	}
	return err
}

// lacking is an error if not all has come. w.mu is held.
func (w *pieces) lacking() error {
	if w.g.at < w.g.part.Size {
		return fmt.Errorf("part %v: %w", w.g.part.Digest, io.ErrUnexpectedEOF)
	}
	return nil
}

// fail ends it.
func (w *pieces) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
}

// take is the next piece to ask for; wait: when there may be one. n is 0 if there is
// none, now or at all.
func (w *pieces) take(wait bool) (at, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && w.next < w.g.part.Size {
		if w.next < w.g.at+w.most {
			at, n = w.next, min(w.size, w.g.part.Size-w.next)
			w.next += n
			return at, n
		}
		if !wait {
			return 0, 0
		}
		w.changed.Wait()
	}
	return 0, 0
}

// carry asks for pieces over a stream until there are none.
func (w *pieces) carry(s idle) error {
	type piece struct{ at, n int64 }
	var asked []piece
	var packed []byte
	ask := fetchSome
	if w.g.packed {
		ask = fetchPacked
	}
	for {
		for len(asked) < pieceAhead {
			at, n := w.take(len(asked) == 0)
			if n == 0 {
				break
			}
			if err := writeFrame(s, ask, encodeSome(w.g.part, at, n)); err != nil {
				return told(s, err)
			}
			asked = append(asked, piece{at, n})
		}
		if len(asked) == 0 {
			return nil
		}
		b, err := w.piece(s, asked[0].n, &packed)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.came[asked[0].at] = b
		w.changed.Broadcast()
		w.mu.Unlock()
		asked = asked[1:]
	}
}

// piece reads the answer that is a piece of n bytes; packed is memory for it.
func (w *pieces) piece(s idle, n int64, packed *[]byte) ([]byte, error) {
	b := make([]byte, n)
	if !w.g.packed {
		if _, err := answered(s, given); err != nil {
			return nil, err
		}
		_, err := io.ReadFull(s, b)
		return b, err
	}
	body, err := answered(s, givenPacked)
	if err != nil {
		return nil, err
	}
	sent, err := decodePacked(body, n)
	if err != nil {
		return nil, err
	}
	if sent == n {
		_, err := io.ReadFull(s, b)
		return b, err
	}
	*packed = slices.Grow((*packed)[:0], int(sent))[:sent]
	if _, err := io.ReadFull(s, *packed); err != nil {
		return nil, err
	}
	if b, err = w.p.o.Packer.Unpack(b, *packed, int(n)); err == nil && int64(len(b)) != n {
		err = fmt.Errorf("parts: %d bytes were packed, not %d", len(b), n)
	}
	return b, err
}

// write writes pieces in their order until all are there.
func (w *pieces) write() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.g.at < w.g.part.Size {
		b := w.came[w.g.at]
		if b == nil {
			if w.err != nil {
				return w.err
			}
			w.changed.Wait()
			continue
		}
		delete(w.came, w.g.at)
		w.mu.Unlock()
		w.g.sum.Write(b) //nolint:errcheck // always nil
		_, err := w.g.to.Write(b)
		w.mu.Lock()
		if err != nil {
			w.g.here = err
			return err
		}
		w.g.at += int64(len(b))
		w.changed.Broadcast()
	}
	return nil
}
