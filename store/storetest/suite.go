package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/tidemark-mesh/tidemark/store"
)

// Bytes writes data as a part.
func Bytes(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// PartOf is the part that data is.
func PartOf(data []byte) store.Part {
	return store.Part{Digest: sha256.Sum256(data), Size: int64(len(data))}
}

// ReadPart reads a part to its end.
func ReadPart(s store.Parts, p store.Part) ([]byte, error) {
	r, err := s.Open(p)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// Run is what every store.Parts must do. fresh makes an empty one.
func Run(t *testing.T, fresh func(t *testing.T) store.Parts) {
	t.Run("every size", func(t *testing.T) { everySize(t, fresh(t)) })
	t.Run("written in pieces", func(t *testing.T) { inPieces(t, fresh(t)) })
	t.Run("equal bytes are one part", func(t *testing.T) { equalBytes(t, fresh(t)) })
	t.Run("what is not there", func(t *testing.T) { notThere(t, fresh(t)) })
	t.Run("a write that fails", func(t *testing.T) { failingWrite(t, fresh(t)) })
	t.Run("many at a time", func(t *testing.T) { manyAtATime(t, fresh(t)) })
}

func everySize(t *testing.T, s store.Parts) {
	for _, n := range []int{0, 1, 4095, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20} {
		data := sample(n, byte(n))
		put(t, s, data)
		if n > 4096 {
			continue
		}
		if err := iotest.TestReader(must(s.Open(PartOf(data)))(t), data); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func inPieces(t *testing.T, s store.Parts) {
	data := sample(200<<10, 3)
	p, err := s.Put(func(w io.Writer) error {
		for rest, n := data, 1; len(rest) > 0; n = n*3 + 1 {
			k := min(n, len(rest))
			if _, err := w.Write(rest[:k]); err != nil {
				return err
			}
			rest = rest[k:]
		}
		return nil
	})
	if err != nil || p != PartOf(data) {
		t.Fatalf("put %v, %v, want %v", p, err, PartOf(data))
	}
	holds(t, s, data)
}

func equalBytes(t *testing.T, s store.Parts) {
	data := sample(100, 1)
	put(t, s, data)
	put(t, s, data)
	holds(t, s, data)
}

func notThere(t *testing.T, s store.Parts) {
	p := PartOf([]byte("x"))
	if _, err := s.Open(p); !errors.Is(err, store.ErrMissing) {
		t.Errorf("error %v, want store.ErrMissing", err)
	}
	if s.Has(p) {
		t.Error("it has what was never put")
	}
	put(t, s, []byte("x"))
	if p.Size = 7; s.Has(p) {
		t.Error("it has a part of another size")
	}
	if _, err := ReadPart(s, p); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a part of another size: error %v, want store.ErrCorrupt", err)
	}
}

func failingWrite(t *testing.T, s store.Parts) {
	mine := errors.New("mine")
	for _, n := range []int{0, 10, 100 << 10} {
		data := sample(n, 9)
		_, err := s.Put(func(w io.Writer) error {
			if _, err := w.Write(data); err != nil {
				return err
			}
			return mine
		})
		if err != mine {
			t.Errorf("error %v, want the writer's own", err)
		}
		if s.Has(PartOf(data)) {
			t.Error("what failed can be seen")
		}
	}
}

func manyAtATime(t *testing.T, s store.Parts) {
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 20 {
				data := fmt.Appendf(nil, "part %d", (g+i)%24)
				if p, err := s.Put(Bytes(data)); err != nil || p != PartOf(data) {
					t.Errorf("put %v, %v", p, err)
				}
				if got, err := ReadPart(s, PartOf(data)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %q, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

func must(r io.ReadCloser, err error) func(t *testing.T) io.Reader {
	return func(t *testing.T) io.Reader {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
}

func put(t *testing.T, s store.Parts, data []byte) {
	t.Helper()
	p, err := s.Put(Bytes(data))
	if err != nil || p != PartOf(data) {
		t.Fatalf("put %v, %v, want %v", p, err, PartOf(data))
	}
	if !s.Has(p) {
		t.Errorf("%v is not there", p)
	}
	holds(t, s, data)
}

func holds(t *testing.T, s store.Parts, data []byte) {
	t.Helper()
	if got, err := ReadPart(s, PartOf(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(data))
	}
}

// sample is n bytes that look like nothing.
func sample(n int, seed byte) []byte {
	data := make([]byte, n)
	x := uint32(seed) + 1
	for i := range data {
		x = x*1664525 + 1013904223
		data[i] = byte(x >> 24)
	}
	return data
}
