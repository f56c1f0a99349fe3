package part

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Exported is an export that is read where it is. Any goroutine may call it.
type Exported struct {
	f     *os.File
	parts map[store.Digest]*io.SectionReader
}

// OpenExport opens a file that Export wrote and reads its manifest. What is no
// export, or not a whole one, is store.ErrCorrupt; the bytes of parts are
// verified when they are read.
func OpenExport(name string) (*Exported, manifest.Manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, manifest.Manifest{}, kinds(err, "opening", name)
	}
	x := &Exported{f: f, parts: make(map[store.Digest]*io.SectionReader)}
	m, err := x.index()
	if err != nil {
		return nil, m, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return x, m, nil
}

// index finds the parts: the archive's reader stands where each begins.
func (x *Exported) index() (manifest.Manifest, error) {
	t := tar.NewReader(x.f)
	m, err := importManifest(t)
	if err != nil {
		return m, err
	}
	info, err := x.f.Stat()
	if err != nil {
		return m, err
	}
	for _, p := range manifest.Needed(m) {
		if err := nextFile(t, exported(p), p.Size); err != nil {
			return m, err
		}
		at, err := x.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return m, err
		}
		if at+p.Size > info.Size() {
			return m, broken(io.ErrUnexpectedEOF, exported(p))
		}
		x.parts[p.Digest] = io.NewSectionReader(x.f, at, p.Size)
	}
	if _, err := t.Next(); err != io.EOF {
		return m, errMore
	}
	return m, nil
}

// Open is store.Parts'.
func (x *Exported) Open(p store.Part) (io.ReadCloser, error) {
	s := x.parts[p.Digest]
	if s == nil {
		return nil, fmt.Errorf("%s: part %v is %w", x.f.Name(), p.Digest, store.ErrMissing)
	}
	return &reader{f: section{s}, name: x.f.Name() + ": " + exported(p), part: p, sum: sha256.New()}, nil
}

// section is a piece of a file that stays open.
type section struct{ io.ReaderAt }

func (section) Close() error { return nil }

// Verify reads a part to see whether it is what its name says.
func (x *Exported) Verify(p store.Part) error { return verify(x, p) }

// Close closes the file.
func (x *Exported) Close() error { return x.f.Close() }
