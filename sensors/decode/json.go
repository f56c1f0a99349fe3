package decode

import (
	"math/bits"
	"unsafe"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// The scanner goes over the payload once, with one function for each thing
// that may stand there. A function is given the position where it begins and
// returns the one after it, or -1 with the error set. A value of a wrong type
// is only noted (spoil): the payload may yet break the grammar, which is the
// better reason, or name the key again.

// padding is how many zero bytes stand behind the payload. No token goes over
// them, so the scanner looks for its end only when it is done.
const padding = 64

// document decodes a JSON payload.
func (d *Decoder) document(payload []byte) bool {
	n := len(payload)
	if cap(d.buf) < n+padding {
		d.buf = make([]byte, n+n/4+padding)
	}
	d.buf = d.buf[:n+padding]
	copy(d.buf, payload)
	*(*[padding]byte)(d.buf[n:]) = [padding]byte{}
	d.n, d.in = n, cursor{unsafe.Pointer(&d.buf[0])}

	i := 0
	if d.in.at(0) <= ' ' {
		i = d.space(0)
	}
	switch c := d.in.at(i); {
	case c == '{' && d.root.kind == kindObject:
		i = d.object(d.root.obj, i, 1)
	case c == '[' && d.root.kind == kindArray:
		i = d.array(d.root, i, 1)
	default:
		return d.wrongRoot(i)
	}
	return i == n || i > 0 && d.end(i)
}

// end checks that nothing but space stands from i on.
func (d *Decoder) end(i int) bool {
	if i = d.space(i); i != d.n {
		d.fail(NotJSON, i)
		return false
	}
	return true
}

// wrongRoot rejects a payload that begins with something else than the fields
// ask for: with that reason if it is JSON at all.
func (d *Decoder) wrongRoot(i int) bool {
	j := d.skip(i, 0)
	if j < 0 || !d.end(j) {
		return false
	}
	kind := NotObject
	if d.root.kind == kindArray {
		kind = NotArray
	}
	d.fail(kind, i)
	return false
}

// space skips white space.
func (d *Decoder) space(i int) int {
	for ; d.in.at(i) <= ' '; i++ {
		if c := d.in.at(i); c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			break
		}
	}
	return i
}

// value decodes the value at i, around which depth containers stand.
func (d *Decoder) value(t *target, i, depth int) int {
	c := d.buf[i]
	end := 0
	switch t.kind {
	case kindSkip:
		return d.skip(i, depth)
	case kindString:
		end = d.str(t, i)
	case kindInteger:
		end = d.integer(t, i)
	case kindDouble:
		end = d.double(t, i)
	case kindBoolean:
		end = d.boolean(t, i)
	case kindObject:
		d.forget(t)
		if c == '{' {
			return d.object(t.obj, i, depth+1)
		}
	case kindArray:
		d.forget(t)
		if c == '[' {
			return d.array(t, i, depth+1)
		}
	}
	if end != 0 {
		return end
	}
	return d.other(t, i, depth)
}

// other decodes what the quick ways of value leave: nulls, rarer forms of a
// column's values, wrong types, and what is no JSON.
func (d *Decoder) other(t *target, i, depth int) int {
	switch c := d.buf[i]; {
	case c == 'n':
		if t.kind >= kindBoolean {
			d.seen[t.word] &^= t.bit
			d.bad[t.word] &^= t.bit
		}
		return d.literal(i, "null")
	case (c == '-' || '0' <= c && c <= '9') && (t.kind == kindInteger || t.kind == kindDouble):
		j := d.skipNumber(i)
		if j > 0 {
			v, _ := parseDecimal(d.buf[i:j])
			d.fromDecimal(t, v, d.buf[i:j], i)
		}
		return j
	case c == '"' && (t.stamp || t.kind == kindBytes):
		text, j := d.unescaped(i + 1)
		if j > 0 {
			d.fromText(t, text, i)
		}
		return j
	}
	j := d.skip(i, depth)
	if j < 0 {
		return j
	}
	switch t.kind {
	case kindObject:
		d.spoilAll(t, NotObject, i)
	case kindArray:
		d.spoilAll(t, NotArray, i)
	default:
		d.spoil(t, WrongType, i)
	}
	return j
}

func (d *Decoder) spoilAll(t *target, kind Kind, at int) {
	for _, col := range t.below {
		d.spoil(d.leaves[col], kind, at)
	}
}

// forget takes back what an earlier value of the same key in this element gave:
// the last one counts, as a whole. What is lost in it so far can only come from
// the one chain of arrays, which t is part of.
func (d *Decoder) forget(t *target) {
	d.seen.remove(t.mask)
	d.bad.remove(t.mask)
	if !t.rows {
		return
	}
	if d.lost >= 0 && d.loss.at >= d.began {
		d.lost = -1
	}
	if d.row != d.at {
		for _, col := range t.below {
			d.cols[col].PutValid(d.at, d.row)
		}
		d.row = d.at
	}
}

// array decodes an array whose elements become rows.
func (d *Decoder) array(t *target, i, depth int) int {
	if depth > MaxDepth {
		return d.fail(TooDeep, i)
	}
	i = d.space(i + 1)
	if d.buf[i] == ']' {
		return i + 1
	}
	outer, began, deepest := d.at, d.began, t.level == len(d.levels)-1
	for {
		if deepest && d.row >= batch.MaxRows {
			d.noRoomOr(TooMany)
			return -1
		}
		first := d.row
		d.at, d.began = first, i
		d.seen.remove(d.levels[t.level].rest)
		if i = d.value(t.elem, i, depth); i < 0 {
			return i
		}
		d.at = first
		if !d.endElement(t.level, first) {
			return -1
		}
		i = d.space(i)
		switch d.buf[i] {
		case ',':
			i = d.space(i + 1)
		case ']':
			d.seen.remove(d.levels[t.level].rest)
			d.at, d.began = outer, began
			return i + 1
		default:
			return d.fail(NotJSON, i)
		}
	}
}

// boolean decodes true and false; 0: it is something else.
func (d *Decoder) boolean(t *target, i int) int {
	x := d.in.word(i)
	switch {
	case x&0xffffffff == 0x65757274: // "true"
		d.cols[t.col].PutBool(d.at, true)
		i += 4
	case x&0xffffffffff == 0x65736c6166: // "false"
		d.cols[t.col].PutBool(d.at, false)
		i += 5
	default:
		return 0
	}
	d.seen[t.word] |= t.bit
	return i
}

// integer decodes a whole number without exponent that needs no care; 0: it is
// something else.
func (d *Decoder) integer(t *target, i int) int {
	in, j := d.in, i
	if in.at(i) == '-' {
		j++
	}
	v, n := digits(in, j)
	if n == 8 {
		w, k := digits(in, j+8)
		v, n = v*tens[k]+w, 8+k
		if k == 8 {
			if w, k = digits(in, j+16); k > 2 { // 19 digits and more may not fit
				return 0
			}
			v, n = v*tens[k]+w, 16+k
		}
	}
	if n == 0 || v > t.most || n > 1 && in.at(j) == '0' {
		return 0
	}
	if c := in.at(j + n); c == '.' || c|0x20 == 'e' || t.times == 0 {
		return 0
	}
	x := int64(v) * t.times
	if j != i {
		x = -x
	}
	d.cols[t.col].PutInt(d.at, x)
	d.seen[t.word] |= t.bit
	return j + n
}

// double decodes a number that a division of two exact doubles gives exactly;
// 0: it is something else.
func (d *Decoder) double(t *target, i int) int {
	in, j := d.in, i
	if in.at(i) == '-' {
		j++
	}
	v, n := digits(in, j)
	if n == 0 || n == 8 || n > 1 && in.at(j) == '0' {
		return 0
	}
	j += n
	x := float64(v)
	c := in.at(j)
	if c == '.' {
		f, k := digits(in, j+1)
		if k == 0 || k == 8 {
			return 0
		}
		x = float64(v*tens[k]+f) / floatTens[k]
		j += k + 1
		c = in.at(j)
	}
	if c|0x20 == 'e' {
		return 0
	}
	if in.at(i) == '-' {
		x = -x
	}
	d.cols[t.col].PutDouble(d.at, x)
	d.seen[t.word] |= t.bit
	return j
}

// str decodes a string into a string column, copying eight bytes at a time
// while it looks for the end; 0: it is something else.
func (d *Decoder) str(t *target, i int) int {
	in := d.in
	if in.at(i) != '"' {
		return 0
	}
	i++
	c := d.cols[t.col]
	if d.at+1 >= len(c.Offsets) || int(c.Offsets[d.at])+d.n-i+8 > len(c.Data) {
		c.Room(d.at, d.n-i+8)
	}
	out := cursor{unsafe.Pointer(&c.Data[c.Offsets[d.at]])}
	j := 0
	for {
		x := in.word(i + j)
		out.put(j, x)
		if m := special(x); m != 0 {
			j += bits.TrailingZeros64(m) >> 3
			break
		}
		j += 8
	}
	if in.at(i+j) == '"' {
		c.EndBytes(d.at, j)
		d.seen[t.word] |= t.bit
		return i + j + 1
	}
	text, end := d.unescaped(i)
	if end > 0 {
		c.PutBytes(d.at, text)
		d.seen[t.word] |= t.bit
	}
	return end
}

// floatTens are the powers of ten that a double holds exactly.
var floatTens = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// tens are the powers of ten that 64 bits hold.
var tens = [...]uint64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
	1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}
