package storetest

import (
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"unsafe"

	bolt "go.etcd.io/bbolt"
)

// pageBytes is the size of a bbolt page here; the first two are metas.
func pageBytes() int { return os.Getpagesize() }

// PageWrite is a write to a bbolt file: pages that follow each other.
type PageWrite struct {
	At   int64
	Data []byte
}

// Meta tells whether it is the write that makes a transaction count. Before it
// bbolt syncs all other pages, after it the meta.
func (w PageWrite) Meta() bool { return w.At < int64(2*pageBytes()) }

// Pages sees all writes to an open bbolt database, and makes them fail. It
// reaches into the database: bbolt takes real files only. No transaction may run
// while its methods are called.
type Pages struct {
	// Fail is asked before each write; its error ends it, half done.
	Fail func(PageWrite) error
	// FailSync is asked after each write whether the next sync fails. Restore
	// must be called before the database is closed.
	FailSync func(PageWrite) bool

	file   **os.File
	real   *os.File
	broken *os.File // its sync fails
	writes []PageWrite
}

// WatchPages begins to see the writes to db.
func WatchPages(db *bolt.DB) *Pages {
	v := reflect.ValueOf(db).Elem()
	p := &Pages{file: (**os.File)(unsafe.Pointer(v.FieldByName("file").UnsafeAddr()))}
	p.real = *p.file
	writeAt := (*func([]byte, int64) (int, error))(unsafe.Pointer(v.FieldByName("ops").FieldByName("writeAt").UnsafeAddr()))
	*writeAt = p.writeAt
	return p
}

func (p *Pages) writeAt(b []byte, at int64) (int, error) {
	w := PageWrite{at, slices.Clone(b)}
	if p.Fail != nil {
		if err := p.Fail(w); err != nil {
			n, e := p.real.WriteAt(b[:len(b)/2], at)
			return n, errors.Join(&os.PathError{Op: "write", Path: p.real.Name(), Err: err}, e)
		}
	}
	p.writes = append(p.writes, w)
	n, err := p.real.WriteAt(b, at)
	if p.FailSync != nil && p.FailSync(w) && p.broken == nil {
		r, broken, e := os.Pipe()
		if e != nil {
			return n, e
		}
		_ = r.Close()
		p.broken = broken
		*p.file = broken
	}
	return n, err
}

// Restore lets syncs succeed again.
func (p *Pages) Restore() {
	if p.broken != nil {
		*p.file = p.real
		_ = p.broken.Close()
		p.broken = nil
	}
}

// Take is the writes since the last Take.
func (p *Pages) Take() []PageWrite {
	w := p.writes
	p.writes = nil
	return w
}

// PageImage is a bbolt file as it may be found after the power failed during
// writes, when base is the file before them. Of the transaction in which it
// failed either any pages are there, some torn, but not its meta, or all pages
// and any sectors of the meta. whole is the number of transactions that are in
// the image to the end.
func PageImage(base []byte, writes []PageWrite, r *rand.Rand) (image []byte, whole int) {
	image = slices.Clone(base)
	metas := 0
	for _, w := range writes {
		if w.Meta() {
			metas++
		}
	}
	last := r.IntN(metas + 1)
	withMeta := r.IntN(2) == 0
	keep := r.Float64()
	for _, w := range writes {
		switch {
		case whole < last:
			image = w.put(image, 0, len(w.Data))
			if w.Meta() {
				whole++
			}
		case w.Meta():
			if withMeta && whole == last {
				image = w.some(image, 0.5, r)
			}
			return image, whole
		case withMeta:
			image = w.put(image, 0, len(w.Data))
		default:
			image = w.some(image, keep, r)
		}
	}
	return image, whole
}

// some puts any of the write's sectors, or all of some pages.
func (w PageWrite) some(image []byte, keep float64, r *rand.Rand) []byte {
	step := sector
	switch {
	case w.Meta() && r.IntN(2) == 0:
		step = 8 // harsher than disks are
	case r.IntN(2) == 0:
		step = pageBytes()
	}
	for at := 0; at < len(w.Data); at += step {
		if r.Float64() < keep {
			image = w.put(image, at, min(at+step, len(w.Data)))
		}
	}
	return image
}

func (w PageWrite) put(image []byte, from, to int) []byte {
	if need := w.At + int64(to); int64(len(image)) < need {
		image = append(image, make([]byte, need-int64(len(image)))...)
	}
	copy(image[w.At+int64(from):], w.Data[from:to])
	return image
}
