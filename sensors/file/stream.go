package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

const maxStreamed = 64 << 10

// ErrNobodyReads means that the other end of the stream was closed, as by head.
var ErrNobodyReads = errors.New("nobody reads any more")

// Stream writes rows to a stream such as stdout. A stream cannot take back
// what was written: rows appear at Commit, or earlier when more than 64 KiB of
// them wait, or at once if it is live; never half a row in one write.
type Stream struct {
	w       io.Writer
	encoder Encoder
	live    bool
	pending []byte
}

var _ sensors.Writer = (*Stream)(nil)

// NewStream makes a writer to w; live: a person watches. Several subtasks may
// share a w whose Write may be called from several goroutines, as *os.File's
// may; only one of them should be given a header.
func NewStream(w io.Writer, e Encoder, live bool) *Stream {
	return &Stream{w: w, encoder: e, live: live, pending: e.AppendHeader(nil)}
}

// Write takes the rows of b.
func (s *Stream) Write(_ context.Context, b *batch.Batch) error {
	if len(s.pending) >= maxStreamed {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.pending = s.encoder.Append(s.pending, b)
	if !s.live {
		return nil
	}
	if err := s.flush(); !errors.Is(err, sensors.ErrFull) {
		return err
	}
	return nil // b is taken; the next flush will say that there is no room
}

// Commit writes out what waits.
func (s *Stream) Commit(context.Context) error { return s.flush() }

// Close gives up what waits and leaves the stream open: it is the caller's.
func (s *Stream) Close() error { return nil }

func (s *Stream) flush() error {
	if len(s.pending) == 0 {
		return nil
	}
	n, err := s.w.Write(s.pending)
	if err == nil && n < len(s.pending) {
		err = io.ErrShortWrite
	}
	s.pending = append(s.pending[:0], s.pending[min(max(n, 0), len(s.pending)):]...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("stdout: %w: %w", ErrNobodyReads, err)
	case disk.IsFull(err):
		return fmt.Errorf("stdout: %w", sensors.Full(err))
	}
	return fmt.Errorf("stdout: %w", err)
}

// Blackhole counts rows and forgets them. The count may be read by others.
type Blackhole struct{ rows atomic.Int64 }

var _ sensors.Writer = (*Blackhole)(nil)

// Write counts the rows of b.
func (h *Blackhole) Write(_ context.Context, b *batch.Batch) error {
	h.rows.Add(int64(b.Len()))
	return nil
}

// Commit does nothing.
func (h *Blackhole) Commit(context.Context) error { return nil }

// Close does nothing.
func (h *Blackhole) Close() error { return nil }

// Rows is the number of rows written.
func (h *Blackhole) Rows() int64 { return h.rows.Load() }
