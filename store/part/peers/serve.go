package peers

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// serve answers on a stream that a peer opened, until the peer ends it.
func (p *Peers) serve(s mesh.Stream) {
	defer s.Close()
	if !p.enter(s) {
		return
	}
	defer p.leave(s)
	c := &serving{p: p, s: idle{s, p.o}}
	err := c.all()
	if errors.Is(err, io.EOF) {
		return
	}
	// The peer may still be sending: what it sends is dropped until it has read why
	// it does so for nothing.
	if writeFrame(c.s, refused, encodeRefusal(err)) == nil && s.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, c.s)
	}
}

// serving is a stream that is answered.
type serving struct {
	p     *Peers
	s     idle
	whose beginning
	begun bool

	raw, packed []byte // of the last piece that was packed
}

// all answers until io.EOF, or what is to be refused.
func (c *serving) all() error {
	for {
		t, body, err := readFrame(c.s)
		if err != nil {
			return err
		}
		if (t == begin) == c.begun {
			return fmt.Errorf("parts: a frame of type %d in the wrong place", t)
		}
		switch at := c.s.Peer().Site; {
		case at != c.p.o.Site && (t == have || t == push):
			err = fmt.Errorf("%w: this node is of site %s, the other of site %s", errForeign, c.p.o.Site, at)
		default:
			err = c.answer(t, body)
		}
		if err != nil {
			return err
		}
	}
}

func (c *serving) answer(t frameType, body []byte) error {
	switch t {
	case begin:
		return c.begin(body)
	case have:
		return c.have(body)
	case push:
		return c.push(body)
	case fetch:
		return c.fetch(body)
	case fetchFrom:
		if c.whose.from {
			return c.fetchFrom(body)
		}
	case fetchSome:
		if c.whose.some {
			return c.fetchSome(body)
		}
	case fetchPacked:
		if c.whose.pack {
			return c.fetchPacked(body)
		}
	}
	return fmt.Errorf("parts: a frame of type %d, which this program does not know", t)
}

func (c *serving) begin(body []byte) (err error) {
	if c.whose, err = decodeBegin(body); err != nil {
		return err
	}
	c.begun = true
	if c.whose.job != "" && c.p.o.Fence != nil {
		if err := c.p.o.Fence(c.whose.job, c.whose.id.Token); err != nil {
			return fmt.Errorf("parts of job %s, attempt %d: %w: %w", c.whose.job, c.whose.id.Token.Attempt, ErrFenced, err)
		}
	}
	return nil
}

// errForeign: copies of parts are a site's own business.
var errForeign = errors.New("parts are pushed within a site; agents of other sites fetch them")

var errNobody = errors.New("parts: pushed for no job")

// have holds those that are here, and only then says so: they are durable.
func (c *serving) have(body []byte) error {
	parts, err := decodeParts(body)
	if err != nil {
		return err
	}
	if c.whose.job == "" {
		return errNobody
	}
	answer := make([]byte, len(parts))
	var here []store.Part
	for i, p := range parts {
		if c.p.o.Store.Pin(p) == nil {
			answer[i] = 1
			here = append(here, p)
		}
	}
	c.p.o.Holds.Take(c.whose.job, c.whose.id, here...)
	if err := c.p.o.Store.Settle(here...); err != nil {
		return err
	}
	return writeFrame(c.s, has, answer)
}

// push takes parts. Several are small, and are made durable together.
func (c *serving) push(body []byte) error {
	parts, err := decodeParts(body)
	if err != nil {
		return err
	}
	if c.whose.job == "" {
		return errNobody
	}
	var writes []func(io.Writer) error
	switch {
	case len(parts) == 1:
		writes = append(writes, func(w io.Writer) error { return receive(w, c.s, parts[0]) })
	case !oneBatch(parts):
		return fmt.Errorf("parts: %d parts in one piece have more than %d bytes", len(parts), batchBytes)
	default:
		for _, p := range parts {
			b := bytes.NewBuffer(make([]byte, 0, p.Size))
			if err := receive(b, c.s, p); err != nil {
				return err
			}
			writes = append(writes, func(w io.Writer) error { _, err := w.Write(b.Bytes()); return err })
		}
	}
	if _, err := c.p.o.Store.PutAll(writes); err != nil {
		return err
	}
	c.p.o.Holds.Take(c.whose.job, c.whose.id, parts...)
	return writeFrame(c.s, done, nil)
}

func (c *serving) fetch(body []byte) error {
	parts, err := decodeParts(body)
	if err != nil {
		return err
	}
	if len(parts) != 1 {
		return fmt.Errorf("parts: %d are to be fetched at once", len(parts))
	}
	return c.give(parts[0], 0)
}

func (c *serving) fetchFrom(body []byte) error {
	p, at, err := decodeRest(body)
	if err != nil {
		return err
	}
	return c.give(p, at)
}

// fetchSome sends a piece of a part. Who puts the pieces together sees whether they are whole.
func (c *serving) fetchSome(body []byte) error {
	p, at, n, err := decodeSome(body)
	if err != nil {
		return err
	}
	r, err := c.p.o.Store.Piece(p, at, n)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := writeFrame(c.s, given, nil); err != nil {
		return err
	}
	got, err := io.CopyBuffer(struct{ io.Writer }{c.s}, struct{ io.Reader }{r}, make([]byte, min(copyBytes, n)))
	if err == nil && got != n {
		err = fmt.Errorf("part %v: %w: it ends before %d", p.Digest, store.ErrCorrupt, at+n)
	}
	return err
}

// fetchPacked sends a piece in fewer bytes, if that can be.
func (c *serving) fetchPacked(body []byte) error {
	p, at, n, err := decodeSome(body)
	if err != nil {
		return err
	}
	if n > mostPiece {
		return fmt.Errorf("parts: a piece of %d bytes, packed; at most %d are possible", n, mostPiece)
	}
	r, err := c.p.o.Store.Piece(p, at, n)
	if err != nil {
		return err
	}
	defer r.Close()
	c.raw = slices.Grow(c.raw[:0], int(n))[:n]
	if _, err := io.ReadFull(r, c.raw); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("part %v: %w: it ends before %d", p.Digest, store.ErrCorrupt, at+n)
		}
		return err
	}
	packed, ok := c.p.o.Packer.Pack(c.packed[:0], c.raw)
	if c.packed = packed; !ok {
		packed = c.raw
	}
	if err := writeFrame(c.s, givenPacked, encodePacked(len(packed))); err != nil {
		return err
	}
	_, err = c.s.Write(packed)
	return err
}

// give sends a part but for its first bytes.
func (c *serving) give(one store.Part, at int64) error {
	r, err := c.p.o.Store.Open(one)
	if err != nil {
		return err
	}
	defer r.Close()
	if !c.p.o.Store.Has(one) { // of another size
		return fmt.Errorf("part %v: %w", one.Digest, store.ErrCorrupt)
	}
	if _, err := io.CopyN(io.Discard, r, at); err != nil {
		return err
	}
	if err := writeFrame(c.s, given, nil); err != nil {
		return err
	}
	return send(c.s, r, one, at)
}

// send copies a part from the disk to a stream, from a position on. That it is damaged is known when
// all of it was sent: the receiver finds the same.
func send(w io.Writer, r io.Reader, p store.Part, at int64) error {
	buf := make([]byte, min(copyBytes, max(1, p.Size-at)))
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf)
	if err == nil && at+n != p.Size {
		err = fmt.Errorf("part %v: %w: it has %d bytes, not %d", p.Digest, store.ErrCorrupt, at+n, p.Size)
	}
	return err
}

// receive copies a part from a stream, and verifies it before it gets its name.
func receive(w io.Writer, r io.Reader, p store.Part) error {
	sum := sha256.New()
	buf := make([]byte, min(copyBytes, p.Size))
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, sum)}, struct{ io.Reader }{io.LimitReader(r, p.Size)}, buf)
	if err == nil && n < p.Size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && store.Digest(sum.Sum(nil)) != p.Digest {
		err = fmt.Errorf("part %v: %w: what came has another digest", p.Digest, store.ErrCorrupt)
	}
	return err
}

// copyBytes is what is read and written at once: large pieces cost less.
const copyBytes = 256 << 10
