package channel

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// Batches of packFrom bytes or more are packed where it pays: one in packTry is
// tried, and the following ones are packed as long as the result has at most ¾
// of the bytes. Less would cost more time than it saves.
const (
	packFrom = 4 << 10
	packTry  = 64
)

// packer encodes the batches of one channel, and remembers whether packing pays.
type packer struct {
	max   int    // bytes of a payload; larger batches are cut in two
	small []byte // of batches tried
	tried int
	pays  bool
}

// errTooLarge: a row does not fit a frame.
var errTooLarge = errors.New("a row is too large to be sent to another agent")

// write puts a batch into frames. It borrows b. The hashes of keys stay here: to
// compute them again costs a tenth of what eight bytes a row cost on the way.
func (k *packer) write(w *wire.Writer, b *batch.Batch) error {
	if b.Hashes != nil {
		bare := b.Pool().DeriveAll(b)
		bare.Hashes, bare.HashedColumn, bare.ColumnHashes = nil, nil, nil
		defer bare.Release()
		b = bare
	}
	buf := w.Begin(frameBatch)
	at := len(buf)
	buf = batch.Encode(buf, b)
	plain := buf[at:]
	if len(plain) > k.max {
		return k.halves(w, b, len(plain))
	}
	if len(plain) >= packFrom {
		try := k.tried == 0
		if k.tried++; k.tried == packTry {
			k.tried = 0
		}
		if try || k.pays {
			k.small = s2.Encode(k.small[:cap(k.small)], plain)
			if k.pays = len(k.small) <= len(plain)/4*3; k.pays {
				return w.Frame(framePacked, k.small) // in place of the one begun
			}
		}
	}
	return w.End(buf)
}

// halves writes the rows of b in two batches.
func (k *packer) halves(w *wire.Writer, b *batch.Batch, size int) error {
	c := b.Compact()
	defer c.Release()
	if c.Rows < 2 {
		return fmt.Errorf("%w: it has %d bytes, at most %d go", errTooLarge, size, k.max)
	}
	rows := make([]int32, c.Rows)
	for i := range rows {
		rows[i] = int32(i)
	}
	mid := int32(c.Rows / 2)
	var first, second []batch.Mark
	for _, m := range c.Marks {
		if m.Row <= mid {
			first = append(first, m)
			continue
		}
		m.Row -= mid
		second = append(second, m)
	}
	for i, marks := range [][]batch.Mark{first, second} {
		part := rows[:mid]
		if i == 1 {
			part = rows[mid:]
		}
		half := c.Gather(part, marks)
		err := k.write(w, half)
		half.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// unpack is the payload of a packed batch, at most limit bytes, in buf if that
// is large enough.
func unpack(buf, payload []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(payload)
	if err != nil || n > limit {
		return buf, fmt.Errorf("%w: packed batch of %d bytes", errFormat, n)
	}
	out, err := s2.Decode(buf[:cap(buf)], payload)
	if err != nil {
		return buf, fmt.Errorf("%w: packed batch: %w", errFormat, err)
	}
	return out, nil
}
