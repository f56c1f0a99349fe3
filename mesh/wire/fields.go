package wire

import "encoding/binary"

// Fields takes values off the front of a payload. After the first that is not
// there, or is not as short as it can be, it yields zeros: who reads asks Whole
// at the end, once.
type Fields struct {
	b   []byte
	bad bool
}

// FieldsOf reads b, which the caller keeps.
func FieldsOf(b []byte) Fields { return Fields{b: b} }

// Uvarint is a number in LEB128.
func (f *Fields) Uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || n > 1 && f.b[n-1] == 0 { // as short as it goes
		f.Fail()
		return 0
	}
	f.b = f.b[n:]
	return v
}

// Take is the next n bytes, in place; nil if they are not there.
func (f *Fields) Take(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.Fail()
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

// Sized is bytes behind their number, in place.
func (f *Fields) Sized() []byte {
	n := f.Uvarint()
	if n > uint64(len(f.b)) {
		f.Fail()
		return nil
	}
	return f.Take(int(n))
}

// Rest is all that is left, in place; nothing is left then.
func (f *Fields) Rest() []byte {
	b := f.b
	f.b = nil
	return b
}

// Fail says that a value which was there is none that can be.
func (f *Fields) Fail() { f.b, f.bad = nil, true }

// Failed tells whether anything was not there.
func (f *Fields) Failed() bool { return f.bad }

// Whole tells whether all was there, and nothing is left.
func (f *Fields) Whole() bool { return !f.bad && len(f.b) == 0 }
