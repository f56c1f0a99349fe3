package pending

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/tidemark-mesh/tidemark/store"
)

const copyBuffer = 256 << 10

// Queue holds the bytes from First to End, counted from some beginning of the
// owner's. They enter at the end and leave at the front. At most Max bytes and
// one append stay in memory; when Room is asked for more, they go to the
// scratch file, which becomes at most about twice as long as what it holds.
type Queue struct {
	fs    store.FS
	name  string // of the scratch file; "": there is none, all stays in memory
	max   int
	first int64

	// The bytes are those of spill from at to at+spilled, then mem.
	spill   store.File // nil: not open
	at      int64
	spilled int64
	mem     []byte
}

// NewQueue makes a queue that begins at first. The scratch file of a process
// that was killed is removed.
func NewQueue(fsys store.FS, scratch string, max int, first int64) (*Queue, error) {
	if scratch != "" {
		if err := fsys.Remove(scratch); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return &Queue{fs: fsys, name: scratch, max: max, first: first}, nil
}

// First is where the oldest byte stands.
func (q *Queue) First() int64 { return q.first }

// End is behind the newest byte.
func (q *Queue) End() int64 { return q.first + q.spilled + int64(len(q.mem)) }

// Tail is what is in memory. The caller may append to it and give it back to
// SetTail, and must not change what is there.
func (q *Queue) Tail() []byte { return q.mem }

// SetTail takes back what Tail gave, longer.
func (q *Queue) SetTail(b []byte) { q.mem = b }

// Room makes room in memory for another append, if it is used up and there is
// a scratch file. After an error nothing has changed.
func (q *Queue) Room() error {
	if len(q.mem) < q.max || q.name == "" {
		return nil
	}
	if q.spill == nil {
		f, err := q.fs.Open(q.name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		q.spill = f
	}
	if err := q.moveDown(); err != nil {
		return err
	}
	end := q.at + q.spilled
	if err := WriteAt(q.spill, q.mem, end); err != nil {
		return errors.Join(err, q.spill.Truncate(end)) // gives back the room; were that to fail, the next write goes over it
	}
	q.spilled += int64(len(q.mem))
	q.mem = q.mem[:0]
	return nil
}

// moveDown uses the room before the bytes again once it is as long as they
// are: so each byte is moved once at most for each byte that left.
func (q *Queue) moveDown() error {
	if q.at == 0 || q.at < q.spilled { // copies must not overlap
		return nil
	}
	if err := copySpan(q.spill, 0, q.spill, q.at, q.spilled); err != nil {
		return err
	}
	q.at = 0
	_ = q.spill.Truncate(q.spilled) // only gives room back: what would stay is written over
	return nil
}

// Read fills p with the bytes from off on; all of them must be there.
func (q *Queue) Read(p []byte, off int64) error {
	off -= q.first
	if off < q.spilled {
		part := p[:min(int64(len(p)), q.spilled-off)]
		if err := readAt(q.spill, part, q.at+off); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	if len(p) == 0 {
		return nil
	}
	if n := copy(p, q.mem[min(off-q.spilled, int64(len(q.mem))):]); n < len(p) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// CopyTo writes the bytes from First to to into f, at at.
func (q *Queue) CopyTo(f io.WriterAt, at, to int64) error {
	n := to - q.first
	if k := min(n, q.spilled); k > 0 {
		if err := copySpan(f, at, q.spill, q.at, k); err != nil {
			return err
		}
		at, n = at+k, n-k
	}
	return WriteAt(f, q.mem[:n], at)
}

func copySpan(dst io.WriterAt, to int64, src io.ReaderAt, from, n int64) error {
	buf := make([]byte, min(copyBuffer, n))
	for done := int64(0); done < n; {
		part := buf[:min(int64(len(buf)), n-done)]
		if err := readAt(src, part, from+done); err != nil {
			return err
		}
		if err := WriteAt(dst, part, to+done); err != nil {
			return err
		}
		done += int64(len(part))
	}
	return nil
}

// Drop forgets what stands before to.
func (q *Queue) Drop(to int64) {
	n := to - q.first
	q.first = to
	k := min(n, q.spilled)
	q.at, q.spilled, n = q.at+k, q.spilled-k, n-k
	if q.spilled == 0 && q.at > 0 {
		q.at = 0
		_ = q.spill.Truncate(0) // only gives room back
	}
	if n > 0 {
		q.mem = q.mem[:copy(q.mem, q.mem[n:])]
	}
}

// Close forgets everything and removes the scratch file.
func (q *Queue) Close() error {
	q.first, q.at, q.spilled, q.mem = q.End(), 0, 0, nil
	if q.spill == nil {
		return nil
	}
	err := errors.Join(q.spill.Close(), q.fs.Remove(q.name))
	q.spill = nil
	return err
}

// WriteAt writes all of p.
func WriteAt(f io.WriterAt, p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := f.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

func readAt(f io.ReaderAt, p []byte, at int64) error {
	n, err := f.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
