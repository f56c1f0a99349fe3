package decode

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// object is what fields ask of an object, and the keys it had the last time.
// Messages of one kind name their keys in the same order, so comparing each
// with its predecessor tells at once what its value is, and that it is a
// well-formed key with its colon.
type object struct {
	keys map[string]*target // by name, without escapes
	seen []prediction       // as they were last seen, in order
}

// The bounds of what an object remembers.
const (
	maxPredictions = 64
	maxKey         = 48 // bytes with quotes and colon; at most padding
)

// prediction is a key as it stands in the payload, `"temp":`.
type prediction struct {
	first, second         uint64 // its bytes up to the sixteenth
	firstMask, secondMask uint64
	n                     int
	t                     *target
	raw                   [maxKey]byte
}

// object decodes the object at i, the depth-th around its values.
func (d *Decoder) object(o *object, i, depth int) int {
	if depth > MaxDepth {
		return d.fail(TooDeep, i)
	}
	in := d.in
	if i++; in.at(i) != '"' {
		if i = d.space(i); in.at(i) == '}' {
			return i + 1
		}
	}
	for k := 0; ; {
		var t *target
		if k < len(o.seen) {
			p := &o.seen[k]
			if (in.word(i)^p.first)&p.firstMask|(in.word(i+8)^p.second)&p.secondMask == 0 && (p.n <= 16 || p.tail(in, i)) {
				t, i, k = p.t, i+p.n, k+1
			}
		}
		if t == nil {
			if t, i, k = d.key(o, i, k); i < 0 {
				return i
			}
		}
		if in.at(i) <= ' ' {
			i = d.space(i)
		}
		end := 0
		switch t.kind { // the usual ones, without a call between
		case kindString:
			end = d.str(t, i)
		case kindDouble:
			end = d.double(t, i)
		case kindInteger:
			end = d.integer(t, i)
		}
		if end == 0 {
			end = d.value(t, i, depth)
		}
		if i = end; i < 0 {
			return i
		}
		c := in.at(i)
		if c <= ' ' {
			i = d.space(i)
			c = in.at(i)
		}
		if c != ',' {
			if c == '}' {
				return i + 1
			}
			return d.fail(NotJSON, i)
		}
		if i++; in.at(i) <= ' ' {
			i = d.space(i)
		}
	}
}

// matches tells whether the key stands at i.
func (p *prediction) matches(in cursor, i int) bool {
	return (in.word(i)^p.first)&p.firstMask|(in.word(i+8)^p.second)&p.secondMask == 0 && (p.n <= 16 || p.tail(in, i))
}

// tail compares what is behind the sixteenth byte.
//
//go:noinline
func (p *prediction) tail(in cursor, i int) bool {
	for k := 16; k < p.n; k++ {
		if in.at(i+k) != p.raw[k] {
			return false
		}
	}
	return true
}

// key decodes a key that was not predicted at k, with its colon, and predicts
// it for the next object. It returns the next position and prediction.
func (d *Decoder) key(o *object, i, k int) (*target, int, int) {
	if k+1 < len(o.seen) { // one was left out
		if p := &o.seen[k+1]; p.matches(d.in, i) {
			return p.t, i + p.n, k + 2
		}
	}
	if d.buf[i] != '"' {
		return nil, d.fail(NotJSON, i), k
	}
	name, end := d.unescaped(i + 1)
	if end < 0 {
		return nil, end, k
	}
	t := o.keys[string(name)]
	if t == nil {
		t = d.none
	}
	j := d.space(end)
	if d.buf[j] != ':' {
		return nil, d.fail(NotJSON, j), k
	}
	if n := end + 1 - i; j == end && n <= maxKey && k < maxPredictions {
		if k == len(o.seen) {
			o.seen = append(o.seen, prediction{})
		}
		o.seen[k].set(d.buf[i:end+1], t)
		k++
	}
	return t, j + 1, k
}

func (p *prediction) set(key []byte, t *target) {
	p.n, p.t = len(key), t
	clear(p.raw[copy(p.raw[:], key):])
	p.first, p.second = binary.LittleEndian.Uint64(p.raw[:]), binary.LittleEndian.Uint64(p.raw[8:])
	p.firstMask, p.secondMask = mask(len(key)), mask(len(key)-8)
}

// mask has ones in the lowest n bytes.
func mask(n int) uint64 {
	switch {
	case n >= 8:
		return ^uint64(0)
	case n <= 0:
		return 0
	}
	return 1<<(8*n) - 1
}

// unescaped returns the string whose first byte is at i, and the position
// after its closing quote. Its bytes are valid until the next call. As in
// encoding/json, what is not UTF-8 and half surrogate pairs become U+FFFD.
func (d *Decoder) unescaped(i int) ([]byte, int) {
	buf, from := d.buf, i
	for {
		if m := special(d.in.word(i)); m != 0 {
			i += bits.TrailingZeros64(m) >> 3
			break
		}
		i += 8
	}
	if buf[i] == '"' {
		return buf[from:i], i + 1
	}
	out := append(d.text[:0], buf[from:i]...)
	for {
		switch c := buf[i]; {
		case c == '"':
			d.text = out
			return out, i + 1
		case c == '\\':
			r, n := escape(buf, i)
			if n == 0 {
				return nil, d.fail(NotJSON, i)
			}
			out = utf8.AppendRune(out, r)
			i += n
		case c < ' ':
			return nil, d.fail(NotJSON, i)
		case c < utf8.RuneSelf:
			out = append(out, c)
			i++
		default:
			r, n := utf8.DecodeRune(buf[i:])
			out = utf8.AppendRune(out, r)
			i += n
		}
	}
}

// escape is the rune that the escape at i stands for and its length; 0: it is
// none.
func escape(b []byte, i int) (rune, int) {
	switch b[i+1] {
	case '"', '\\', '/':
		return rune(b[i+1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hex4(b[i+2:])
		if r < 0 {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if b[i+6] == '\\' && b[i+7] == 'u' {
			if pair := utf16.DecodeRune(r, hex4(b[i+8:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return 0, 0
}

// hex4 is the number that four hexadecimal digits make, or -1.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
