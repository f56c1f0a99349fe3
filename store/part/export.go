package part

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Export writes a manifest and all parts that it names as one file: a tar
// archive of NAME.manifest and parts/<digest>.avro in order of digests. Equal
// manifests make equal bytes. A part that is missing or damaged is an error, and
// what was written until then is no export.
func Export(w io.Writer, m manifest.Manifest, parts opener) error {
	data, err := manifest.Encode(m)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	if err := addFile(t, m.Name+manifestExt, int64(len(data)), bytes.NewReader(data)); err != nil {
		return err
	}
	for _, p := range manifest.Needed(m) {
		r, err := parts.Open(p)
		if err != nil {
			return err
		}
		err = addFile(t, exported(p), p.Size, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return t.Close()
}

func exported(p store.Part) string { return "parts/" + p.Digest.String() + ext }

// addFile adds a file; everything that is not its name and bytes is fixed.
func addFile(t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o640, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	n, err := io.Copy(t, r)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes in place of %d: %w", name, n, size, store.ErrCorrupt)
	}
	return err
}

// Import stores what Export wrote: its parts, and then its manifest, under
// another name if one is given. A checkpoint becomes a savepoint, with a name that
// is always the same one of its bytes: no job here lets it go by itself, and jobs'
// own checkpoints have names like it. Every part is verified; what is missing,
// damaged or too much is store.ErrCorrupt, and then no manifest is stored.
func Import(r io.Reader, into *Manifests, name string) (manifest.Manifest, error) {
	var stored []store.Part
	defer func() { into.parts.Unpin(stored...) }() // the manifest names them, or a collection takes them
	m, err := ImportTo(r, name, func(p store.Part, write func(io.Writer) error) error {
		_, err := into.parts.Put(write)
		if err == nil {
			stored = append(stored, p)
		}
		return err
	})
	if err != nil {
		return manifest.Manifest{}, err
	}
	return m, into.Put(m)
}

// ImportTo reads what Export wrote, and has put store each part: write writes
// its bytes, and is store.ErrCorrupt if they are not the part. The manifest is
// returned, under another name if one is given, when all are stored.
func ImportTo(r io.Reader, name string, put func(p store.Part, write func(io.Writer) error) error) (manifest.Manifest, error) {
	t := tar.NewReader(r)
	m, err := importManifest(t)
	if err == nil {
		m, err = asSavepoint(m)
	}
	if err != nil {
		return manifest.Manifest{}, err
	}
	if name != "" {
		m.Name = name
	}
	if err := manifest.CheckName(m.Name); err != nil {
		return manifest.Manifest{}, err
	}
	if strings.HasPrefix(m.Name, manifest.CheckpointPrefix) {
		return manifest.Manifest{}, fmt.Errorf("export: a savepoint cannot be called %q, as checkpoints are; choose another name", m.Name)
	}
	for _, p := range manifest.Needed(m) {
		if err := nextFile(t, exported(p), p.Size); err != nil {
			return manifest.Manifest{}, err
		}
		if err := put(p, func(w io.Writer) error { return copyPart(w, t, p) }); err != nil {
			return manifest.Manifest{}, err
		}
	}
	if _, err := t.Next(); err != io.EOF {
		return manifest.Manifest{}, errMore
	}
	return m, nil
}

var errMore = fmt.Errorf("export: %w: there is more in it than its manifest names", store.ErrCorrupt)

func importManifest(t *tar.Reader) (manifest.Manifest, error) {
	h, err := t.Next()
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("export: %w: not an archive of a savepoint: %v", store.ErrCorrupt, err)
	}
	data, err := io.ReadAll(io.LimitReader(t, manifest.MaxBytes+1))
	if err != nil {
		return manifest.Manifest{}, broken(err, h.Name)
	}
	m, err := manifest.Decode(data)
	if err != nil {
		return m, fmt.Errorf("export: %s: %w", h.Name, err)
	}
	if h.Name != m.Name+manifestExt {
		return m, fmt.Errorf("export: %w: the manifest %q is in a file %s", store.ErrCorrupt, m.Name, h.Name)
	}
	return m, nil
}

// ImportManifest is the manifest that Import would store of what Export wrote. It reads
// no parts.
func ImportManifest(r io.Reader) (manifest.Manifest, error) {
	m, err := importManifest(tar.NewReader(r))
	if err == nil {
		m, err = asSavepoint(m)
	}
	return m, err
}

// asSavepoint is what an exported manifest is here.
func asSavepoint(m manifest.Manifest) (manifest.Manifest, error) {
	if m.Kind == manifest.Savepoint {
		return m, nil
	}
	data, err := manifest.Encode(m)
	if err != nil {
		return m, err
	}
	sum := sha256.Sum256(data)
	m.Kind, m.Name = manifest.Savepoint, "sp-"+hex.EncodeToString(sum[:8])
	return m, nil
}

// broken is an error while reading a file of an archive.
func broken(err error, name string) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("export: %w: it ends within %s, or is no archive there", store.ErrCorrupt, name)
	}
	return fmt.Errorf("export: reading %s: %w", name, err)
}

func nextFile(t *tar.Reader, name string, size int64) error {
	h, err := t.Next()
	switch {
	case err != nil:
		return broken(err, name)
	case h.Typeflag != tar.TypeReg || h.Name != name || h.Size != size:
		return fmt.Errorf("export: %w: %s of %d bytes stands where %s of %d should", store.ErrCorrupt, h.Name, h.Size, name, size)
	}
	return nil
}

// copyPart copies a part and verifies it before it gets its name.
func copyPart(w io.Writer, t *tar.Reader, p store.Part) error {
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), t); err != nil {
		return broken(err, exported(p))
	}
	if store.Digest(sum.Sum(nil)) != p.Digest {
		return fmt.Errorf("export: %s: %w: its bytes have another digest", exported(p), store.ErrCorrupt)
	}
	return nil
}
