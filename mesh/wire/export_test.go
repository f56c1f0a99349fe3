package wire

// Capacity is the size of the reader's buffer.
func (d *Reader) Capacity() int { return len(d.buf) }

// Again lets the reader go on after its stream had ended.
func (d *Reader) Again() { d.err = nil }
