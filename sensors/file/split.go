package file

import "bytes"

// SplitFunc finds the first record in data, in the manner of bufio.SplitFunc:
// it returns how many bytes the record takes with its ending, and the record
// without it. (0, nil, nil) asks for more data; a nil record with an advance
// is skipped; an empty one that is not nil is a record. At the end of input a
// last record may lack its ending. An error is final for the whole source.
type SplitFunc func(data []byte, atEOF bool) (advance int, record []byte, err error)

// Lines cuts at line feeds and takes a carriage return before them away; an
// empty line is a record. For text.
func Lines(data []byte, atEOF bool) (advance int, record []byte, err error) {
	end := bytes.IndexByte(data, '\n')
	advance = end + 1
	if end < 0 {
		if !atEOF || len(data) == 0 {
			return 0, nil, nil
		}
		end, advance = len(data), len(data)
	}
	if end > 0 && data[end-1] == '\r' {
		end--
	}
	return advance, data[:end:end], nil
}

// FilledLines is Lines without the empty ones. For JSON lines.
func FilledLines(data []byte, atEOF bool) (advance int, record []byte, err error) {
	advance, record, err = Lines(data, atEOF)
	if len(record) == 0 {
		return advance, nil, err
	}
	return advance, record, err
}
