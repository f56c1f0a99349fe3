package decode

import (
	"errors"
	"strconv"
)

// ErrNoRoom says that the payload's rows do not fit into what is left of the
// batch. Nothing was appended; the caller takes the batch and decodes the same
// payload again into the empty builder, where it fits or is an *Error.
var ErrNoRoom = errors.New("decode: the batch has no room for the payload's rows: take it and decode again")

// Kind is what is wrong with a payload.
type Kind uint8

// The kinds of rejection; docs/PAYLOADS.md lists them with examples.
const (
	NotJSON    Kind = iota + 1 // breaks JSON's grammar, ends early, or goes on after its end
	TooDeep                    // objects and arrays nested deeper than MaxDepth
	TooLong                    // longer than MaxPayload, or its rows are larger than a batch may be
	TooMany                    // more readings than a batch has rows
	NotObject                  // an object was needed here
	NotArray                   // an array was needed here
	WrongType                  // the value is not of the field's type
	OutOfRange                 // a number or time that the type cannot hold
	Missing                    // the topic or the record has no such part
	Extra                      // the record has more fields than columns
	NotCSV                     // breaks RFC 4180's quoting, or is more than one record
	NoHeader                   // the split's header has not been seen
)

// Error is why a payload was rejected. Decode returns a pointer to the
// decoder's own: it is valid until the next call, so that a flood of bad
// payloads costs no memory.
type Error struct {
	Kind  Kind
	Field string // the column, "" if it is not about one
	At    int    // byte of the payload, -1 if it is not about one
	Part  int    // Missing: the level of the topic, -1 if it is not about that
	want  string // WrongType: what the field is
}

// Error is the reason with the package's name before it.
func (e *Error) Error() string { return "decode: " + e.Reason() }

// Reason is the reason as SOURCE.rejected shows it, "not JSON at byte 17".
func (e *Error) Reason() string { return string(e.AppendReason(nil)) }

// AppendReason appends Reason to dst without allocating.
func (e *Error) AppendReason(dst []byte) []byte {
	if e.Field != "" {
		dst = append(dst, "field "...)
		dst = append(dst, e.Field...)
		dst = append(dst, ": "...)
	}
	switch e.Kind {
	case NotJSON:
		dst = append(dst, "not JSON"...)
	case TooDeep:
		dst = append(dst, "nested deeper than "...)
		dst = strconv.AppendInt(dst, MaxDepth, 10)
	case TooLong:
		dst = append(dst, "too long"...)
	case TooMany:
		dst = append(dst, "more readings than a batch has rows"...)
	case NotObject:
		dst = append(dst, "not an object"...)
	case NotArray:
		dst = append(dst, "not an array"...)
	case WrongType:
		dst = append(dst, "not a "...)
		dst = append(dst, e.want...)
	case OutOfRange:
		dst = append(dst, "out of range"...)
	case Missing:
		return e.appendMissing(dst)
	case Extra:
		dst = append(dst, "more fields than columns"...)
	case NotCSV:
		dst = append(dst, "not CSV"...)
	case NoHeader:
		dst = append(dst, "no header seen"...)
	}
	// An offset helps where no field's name does.
	if e.At >= 0 && e.Field == "" {
		dst = append(dst, " at byte "...)
		dst = strconv.AppendInt(dst, int64(e.At), 10)
	}
	return dst
}

func (e *Error) appendMissing(dst []byte) []byte {
	if e.Part >= 0 {
		dst = append(dst, "the topic has no level "...)
		return strconv.AppendInt(dst, int64(e.Part), 10)
	}
	return append(dst, "missing"...)
}
