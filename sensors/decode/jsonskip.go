package decode

import "math/bits"

// skip goes over the value at i, checking its grammar; depth containers stand
// around it.
func (d *Decoder) skip(i, depth int) int {
	switch c := d.buf[i]; c {
	case '"':
		return d.skipString(i + 1)
	case '{':
		return d.skipObject(i, depth+1)
	case '[':
		return d.skipArray(i, depth+1)
	case 't':
		return d.literal(i, "true")
	case 'f':
		return d.literal(i, "false")
	case 'n':
		return d.literal(i, "null")
	default:
		return d.skipNumber(i)
	}
}

func (d *Decoder) literal(i int, word string) int {
	if string(d.buf[i:i+len(word)]) != word {
		return d.fail(NotJSON, i)
	}
	return i + len(word)
}

// skipString goes over the string whose first byte is at i.
func (d *Decoder) skipString(i int) int {
	buf := d.buf
	for {
		// Bytes that are not ASCII do not matter here; they may flag one after
		// them wrongly.
		x := d.in.word(i)
		m := special(x&^highs) &^ x
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		switch buf[i] {
		case '"':
			return i + 1
		case '\\':
			_, n := escape(buf, i)
			if n == 0 {
				return d.fail(NotJSON, i)
			}
			i += n
		default:
			if buf[i] < ' ' {
				return d.fail(NotJSON, i)
			}
			i++
		}
	}
}

// skipNumber goes over a number: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
func (d *Decoder) skipNumber(i int) int {
	buf := d.buf
	j := i
	if buf[j] == '-' {
		j++
	}
	switch {
	case buf[j] == '0':
		j++
	case isDigit(buf[j]):
		j = d.skipDigits(j)
	default:
		return d.fail(NotJSON, j)
	}
	if buf[j] == '.' {
		if j++; !isDigit(buf[j]) {
			return d.fail(NotJSON, j)
		}
		j = d.skipDigits(j)
	}
	if buf[j]|0x20 == 'e' {
		if j++; buf[j] == '+' || buf[j] == '-' {
			j++
		}
		if !isDigit(buf[j]) {
			return d.fail(NotJSON, j)
		}
		j = d.skipDigits(j)
	}
	return j
}

func (d *Decoder) skipDigits(i int) int {
	for isDigit(d.buf[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// skipObject goes over the object at i, the depth-th around its values.
func (d *Decoder) skipObject(i, depth int) int {
	if depth > MaxDepth {
		return d.fail(TooDeep, i)
	}
	if i = d.space(i + 1); d.buf[i] == '}' {
		return i + 1
	}
	for {
		if d.buf[i] != '"' {
			return d.fail(NotJSON, i)
		}
		if i = d.skipString(i + 1); i < 0 {
			return i
		}
		if i = d.space(i); d.buf[i] != ':' {
			return d.fail(NotJSON, i)
		}
		if i = d.skip(d.space(i+1), depth); i < 0 {
			return i
		}
		switch i = d.space(i); d.buf[i] {
		case ',':
			i = d.space(i + 1)
		case '}':
			return i + 1
		default:
			return d.fail(NotJSON, i)
		}
	}
}

// skipArray goes over the array at i, the depth-th around its elements.
func (d *Decoder) skipArray(i, depth int) int {
	if depth > MaxDepth {
		return d.fail(TooDeep, i)
	}
	if i = d.space(i + 1); d.buf[i] == ']' {
		return i + 1
	}
	for {
		if i = d.skip(i, depth); i < 0 {
			return i
		}
		switch i = d.space(i); d.buf[i] {
		case ',':
			i = d.space(i + 1)
		case ']':
			return i + 1
		default:
			return d.fail(NotJSON, i)
		}
	}
}
