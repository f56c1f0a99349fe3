package ingestlog

import (
	"context"
	"errors"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// Reader reads some lanes of a log: split i is the i-th of them. It is a
// sensors.Reader and a sensors.SplitNamer; one goroutine calls it, Close any.
//
// Entries come commit by commit, within a commit lane by lane, within a lane in
// order: so what is delivered depends on the log and the offsets only, not on
// max, nor on whether it came from memory or from disk. Ticks and changes of
// hearing are Records without rows; notes are skipped, so Next may pass over
// offsets. At the end of the log Read waits.
type Reader struct{}

// NewReader makes a reader of the given lanes, from their oldest entries on if
// Seek says nothing else.
func (l *Log) NewReader(lanes []int) *Reader { return &Reader{} }

// Splits is the number of lanes that it reads.
func (r *Reader) Splits() int { return 0 }

// SplitName is "lane-3" for lane 3.
func (r *Reader) SplitName(split int) string { return "" }

// Read is sensors.Reader's.
func (r *Reader) Read(ctx context.Context, out *sensors.Records, max int) error {
	return errors.ErrUnsupported
}

// Ack does nothing: what is read stays until retention lets it go.
func (r *Reader) Ack(sensors.Position) {}

// Seek sets the offset of a split before the first Read. One that retention has
// passed is an error that wraps store.ErrMissing and says from where the lane
// can be read; one behind the end, too.
func (r *Reader) Seek(p sensors.Position) error { return errors.ErrUnsupported }

// Close ends a Read that waits. It may be called twice.
func (r *Reader) Close() error { return nil }
