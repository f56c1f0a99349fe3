package decode

import "bytes"

// byteOrderMark may stand at the beginning of a file.
const byteOrderMark = "\xef\xbb\xbf"

// Splitter cuts one stream of bytes into the records that Decode takes: lines
// for JSON and text, records for CSV, whose quoted fields may hold line ends.
// It remembers how far it looked, so a record that arrives in pieces is still
// gone over once.
type Splitter struct {
	format  Format
	begun   bool  // past the byte order mark
	skip    bool  // in the rest of a record that was too long
	scanned int   // bytes of the current record already looked at
	state   state // CSV: there
}

type state uint8

const (
	fieldStart state = iota
	inPlain
	inQuotes
	quoteInQuotes // the field's end, or the first of two
)

// NewSplitter makes a splitter for a stream of the format, at its beginning or
// after a whole record.
func NewSplitter(f Format) *Splitter { return &Splitter{format: f} }

// NextRecord finds the next record. data begins where the last call's advance
// left off and holds at least as many bytes as then; atEOF says that it is all
// there is. Drop advance bytes. If ok, record is a part of data without its
// line end (\n or \r\n); if not, more data is needed, or at the end there are
// no more records.
//
// Empty lines are records only in text. A record that is longer than
// MaxPayload is handed out cut to MaxPayload+1 bytes, so that Decode rejects
// it with TooLong, and the rest of it up to the next line end is dropped.
func (s *Splitter) NextRecord(data []byte, atEOF bool) (advance int, record []byte, ok bool) {
	from := 0
	if !s.begun {
		if len(data) < len(byteOrderMark) && !atEOF {
			return 0, nil, false
		}
		s.begun = true
		if bytes.HasPrefix(data, []byte(byteOrderMark)) {
			from = len(byteOrderMark)
		}
	}
	for {
		if s.skip {
			nl := bytes.IndexByte(data[from:], '\n')
			if nl < 0 {
				return len(data), nil, false
			}
			from += nl + 1
			s.skip = false
		}
		end := s.end(data[from:])
		rec, next := data[from:], len(data)
		switch {
		case end >= 0:
			rec, next = data[from:from+end], from+end+1
		case len(rec) > MaxPayload+1: // one more may be the \r of its line end
		case !atEOF || len(rec) == 0:
			return from, nil, false
		}
		s.scanned, s.state = 0, fieldStart
		if len(rec) > MaxPayload+1 {
			if end < 0 {
				s.skip = true
			}
			return next, rec[:MaxPayload+1], true
		}
		rec = bytes.TrimSuffix(rec, []byte{'\r'})
		if len(rec) > 0 || s.format == Text {
			return next, rec, true
		}
		if from = next; from == len(data) {
			return from, nil, false
		}
	}
}

// end is where the record at the beginning of data ends, at a \n, or -1 if it
// goes on.
func (s *Splitter) end(data []byte) int {
	if s.format != CSV {
		nl := bytes.IndexByte(data[s.scanned:], '\n')
		if nl < 0 {
			s.scanned = len(data)
			return -1
		}
		return s.scanned + nl
	}
	for i := s.scanned; i < len(data); i++ {
		c := data[i]
		switch s.state {
		case inQuotes:
			if c == '"' {
				s.state = quoteInQuotes
			}
			continue
		case quoteInQuotes:
			if c == '"' {
				s.state = inQuotes
				continue
			}
			s.state = inPlain
		case fieldStart:
			if c == '"' {
				s.state = inQuotes
				continue
			}
			s.state = inPlain
		}
		switch c {
		case '\n':
			return i
		case ',':
			s.state = fieldStart
		}
	}
	s.scanned = len(data)
	return -1
}
