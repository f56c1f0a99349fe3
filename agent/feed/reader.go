package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// keepEvery is how many entries a reader goes on before it lets the log know
// that those behind it are needed no more.
const keepEvery = 4096

// Reader is a sensors.Reader of a feed's log, with named splits.
type Reader struct {
	*ingestlog.Reader
	feed  *Feed
	who   string
	lanes []int
	pin   string         // what keeps the log for it
	kept  int64          // entries read since the pin was moved
	at    []atomic.Int64 // by split: the next entry
}

// SplitName is the name of the lane: "lane-3".
func (r *Reader) SplitName(split int) string { return r.Reader.SplitName(split) }

// Read is sensors.Reader's.
func (r *Reader) Read(ctx context.Context, out *sensors.Records, max int) error {
	if err := r.Reader.Read(ctx, out, max); err != nil {
		if errors.Is(err, ingestlog.ErrClosed) && r.feed.ended() {
			return fmt.Errorf("feed %q: %w", r.feed.name, r.feed.reason())
		}
		return err
	}
	r.kept += out.Next - r.at[out.Split].Swap(out.Next)
	if r.kept >= keepEvery {
		r.keep()
	}
	return nil
}

// Seek is sensors.Reader's.
func (r *Reader) Seek(p sensors.Position) error {
	if err := r.Reader.Seek(p); err != nil {
		return fmt.Errorf("feed %q: %w", r.feed.name, err)
	}
	r.at[p.Split].Store(p.Offset)
	r.keep()
	return nil
}

// keep moves the pin to where the reader is.
func (r *Reader) keep() {
	r.kept = 0
	at := make([]sensors.Position, len(r.lanes))
	for k, l := range r.lanes {
		at[k] = sensors.Position{Split: l, Offset: r.at[k].Load()}
	}
	r.feed.log.Pin(r.pin, at)
}

// Close ends a Read that waits, and lets the log go. It may be called twice.
func (r *Reader) Close() error {
	f := r.feed
	f.mu.Lock()
	if i := slices.Index(f.readers, r); i >= 0 {
		f.readers = slices.Delete(f.readers, i, i+1)
	}
	f.reading.Store(int32(len(f.readers)))
	f.mu.Unlock()
	err := r.Reader.Close()
	f.log.Unpin(r.pin)
	return err
}
