package durable

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// SavedIn is a checkpoint or savepoint whose parts open finds, wherever they are.
// What it reads of a part is compared with the part's digest.
func SavedIn(m manifest.Manifest, open func(store.Part) (io.ReadCloser, error)) *Saved {
	return &Saved{Manifest: m, from: opened(open)}
}

// opened reads parts through a function.
type opened func(store.Part) (io.ReadCloser, error)

// Open is store.Parts'.
func (o opened) Open(p store.Part) (io.ReadCloser, error) {
	r, err := o(p)
	if err != nil {
		return nil, err
	}
	return &compared{r: r, part: p, sum: sha256.New()}, nil
}

// Verify reads a part to its end.
func (o opened) Verify(p store.Part) error {
	r, err := o.Open(p)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// compared is store.ErrCorrupt in place of io.EOF if what was read is not the
// part.
type compared struct {
	r    io.ReadCloser
	part store.Part
	sum  hash.Hash
	n    int64
}

func (c *compared) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	if err == io.EOF && (c.n != c.part.Size || store.Digest(c.sum.Sum(nil)) != c.part.Digest) {
		err = fmt.Errorf("part %v: %w: its %d bytes have another digest, or are not the %d that it has", c.part.Digest, store.ErrCorrupt, c.n, c.part.Size)
	}
	return n, err
}

func (c *compared) Close() error { return c.r.Close() }
