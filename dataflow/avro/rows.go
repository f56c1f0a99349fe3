package avro

import (
	"io"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
)

// Rows writes the rows that rd still has as JSON lines: the columns in the form
// that sinks use, and in a delta, first, `"row_kind":"delete"` for a row that is
// removed. It returns how many there were.
func Rows(w io.Writer, rd *Reader) (rows int64, err error) {
	enc := encode.NewJSON(rd.Schema(), encode.Options{})
	var buf []byte
	err = each(rd, func(b *batch.Batch) error {
		defer b.Release()
		buf = buf[:0]
		for row := range b.Rows {
			if b.Kinds != nil && b.Kinds[row] == batch.Delete {
				buf = appendRemoved(buf, enc, b, row)
			} else {
				buf = enc.AppendRow(buf, b, row)
			}
			buf = append(buf, '\n')
		}
		rows += int64(b.Rows)
		_, err := w.Write(buf)
		return err
	})
	return rows, err
}

func appendRemoved(buf []byte, enc *encode.Encoder, b *batch.Batch, row int) []byte {
	buf = append(buf, `{"row_kind":"delete"`...)
	at := len(buf)
	if buf = enc.AppendRow(buf, b, row); len(buf) == at+len("{}") {
		return append(buf[:at], '}')
	}
	buf[at] = ',' // in place of the brace
	return buf
}
