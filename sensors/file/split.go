package file

import "github.com/tidemark-mesh/tidemark/sensors/decode"

// SplitFunc finds the first record in data, in the manner of bufio.SplitFunc:
// it returns how many bytes the record takes with its ending, and the record
// without it. (0, nil, nil) asks for more data; a nil record with an advance
// is skipped; an empty one that is not nil is a record. At the end of input a
// last record may lack its ending. It remembers nothing between calls, as one
// serves all splits. An error is final for the whole source.
type SplitFunc func(data []byte, atEOF bool) (advance int, record []byte, err error)

// SplitFor cuts as the decoder of the format wants it: at line ends, in CSV
// only at those that no quotes enclose; empty lines are records in text alone.
func SplitFor(f decode.Format) SplitFunc {
	fresh := *decode.NewSplitter(f)
	fresh.NextRecord([]byte("past the beginning\n"), false) // where a byte order mark may stand: that is the Reader's, which knows where a file begins
	return func(data []byte, atEOF bool) (int, []byte, error) {
		s := fresh // on the stack: a splitter that remembers nothing of the record before
		n, record, ok := s.NextRecord(data, atEOF)
		if !ok {
			return n, nil, nil
		}
		return n, record, nil
	}
}
