package part

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/tidemark-mesh/tidemark/store"
)

const bufferBytes = 64 << 10

// tempFile is a part while it is written: in memory up to bufferBytes, then in
// a file that has no name of a part yet.
type tempFile struct {
	s    *Store
	name string
	f    store.File
	sum  hash.Hash
	buf  []byte
	size int64 // written to the file
	err  error // of the disk; it stays
}

func (t *tempFile) Write(p []byte) (int, error) {
	for rest := p; t.err == nil && len(rest) > 0; {
		if t.buf == nil {
			t.buf = make([]byte, 0, min(bufferBytes, max(4<<10, len(rest))))
		}
		if len(t.buf) == 0 && len(rest) >= bufferBytes {
			t.put(rest)
			break
		}
		n := min(len(rest), bufferBytes-len(t.buf))
		t.buf = append(t.buf, rest[:n]...)
		if rest = rest[n:]; len(t.buf) == bufferBytes {
			t.put(t.buf)
			t.buf = t.buf[:0]
		}
	}
	if t.err != nil {
		return 0, t.err
	}
	return len(p), nil
}

// put writes to the file and adds to the digest.
func (t *tempFile) put(p []byte) {
	if t.sum == nil {
		t.sum = sha256.New()
	}
	t.sum.Write(p)
	if t.f == nil {
		t.create()
	}
	if t.err != nil {
		return
	}
	n, err := t.f.WriteAt(p, t.size)
	t.size += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	t.err = written(err, "writing", t.name)
}

func (t *tempFile) create() {
	t.name = t.s.tempName()
	t.f, t.err = t.s.fs.Open(t.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if errors.Is(t.err, os.ErrNotExist) {
		if t.err = t.s.again(); t.err == nil {
			t.f, t.err = t.s.fs.Open(t.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		}
	}
	t.err = written(t.err, "making", t.name)
}

// flush ends the part; its digest is known then. What fits into the buffer is
// still only there.
func (t *tempFile) flush() error {
	if t.err == nil && t.f != nil && len(t.buf) > 0 {
		t.put(t.buf)
		t.buf = t.buf[:0]
	}
	return t.err
}

func (t *tempFile) part() store.Part {
	if t.sum == nil {
		return store.Part{Digest: sha256.Sum256(t.buf), Size: int64(len(t.buf))}
	}
	p := store.Part{Size: t.size}
	t.sum.Sum(p.Digest[:0])
	return p
}

// close makes the bytes durable.
func (t *tempFile) close() error {
	if t.f == nil {
		t.put(t.buf)
	}
	if t.err == nil {
		t.err = written(t.f.Sync(), "syncing", t.name)
	}
	if t.f != nil {
		err := t.f.Close()
		t.f = nil
		if t.err == nil {
			t.err = written(err, "closing", t.name)
		}
	}
	return t.err
}

// drop gives the part up.
func (t *tempFile) drop() {
	if t.f != nil {
		_ = t.f.Close()
	}
	if t.name != "" {
		_ = t.s.fs.Remove(t.name) // Open removes it if this fails
	}
}

// Open reads a part; see store.Parts.
func (s *Store) Open(p store.Part) (io.ReadCloser, error) {
	_, name := s.path(p.Digest)
	f, err := s.fs.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, kinds(err, "opening part", name)
	}
	return &reader{f: f, name: name, part: p, sum: sha256.New()}, nil
}

// Piece reads n bytes of a part, from at on, and verifies nothing: that takes the
// whole part. ErrCorrupt: the part has another size; ErrMissing as from Open.
func (s *Store) Piece(p store.Part, at, n int64) (io.ReadCloser, error) {
	_, name := s.path(p.Digest)
	f, err := s.fs.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, kinds(err, "opening part", name)
	}
	if !s.Has(p) {
		_ = f.Close()
		return nil, fmt.Errorf("part %v: %w", p.Digest, store.ErrCorrupt)
	}
	return piece{io.NewSectionReader(f, at, n), f}, nil
}

type piece struct {
	io.Reader
	io.Closer
}

// reader hands out a part's bytes and verifies them at the end.
type reader struct {
	f interface {
		io.ReaderAt
		io.Closer
	}
	name string
	part store.Part
	sum  hash.Hash
	at   int64
	err  error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.f.ReadAt(p, r.at)
	r.at += int64(n)
	r.sum.Write(p[:n])
	switch {
	case r.at > r.part.Size:
		r.err = r.damaged("it has more bytes")
	case err == io.EOF:
		r.err = r.verdict()
	case err != nil:
		r.err = kinds(err, "reading part", r.name)
	}
	return n, r.err
}

// verdict is what the end of the file means.
func (r *reader) verdict() error {
	if r.at < r.part.Size {
		return r.damaged(fmt.Sprintf("it has %d bytes", r.at))
	}
	if [32]byte(r.sum.Sum(nil)) != r.part.Digest {
		return r.damaged("its bytes have another digest")
	}
	return io.EOF
}

func (r *reader) damaged(how string) error {
	return fmt.Errorf("part %s is %w: %s, and was written with %d", r.name, store.ErrCorrupt, how, r.part.Size)
}

func (r *reader) Close() error { return r.f.Close() }

// Verify reads a part to see whether it is what its name says: store.ErrCorrupt
// or store.ErrMissing if it is not.
func (s *Store) Verify(p store.Part) error { return verify(s, p) }

// opener is what parts are read from.
type opener interface {
	Open(p store.Part) (io.ReadCloser, error)
}

func verify(from opener, p store.Part) error {
	r, err := from.Open(p)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}
