package decode

import "math"

// field puts a piece of text, a level of the topic or a field of a record,
// into its column. Nothing is null, except that a column of strings or bytes
// takes a quoted nothing for the empty value.
func (d *Decoder) field(t *target, text []byte, quoted bool, at int) {
	if len(text) == 0 && !(quoted && (t.kind == kindString || t.kind == kindBytes)) {
		return // not seen: null
	}
	d.fromText(t, text, at)
}

// fromText puts the value that text stands for into column t.
func (d *Decoder) fromText(t *target, text []byte, at int) {
	c := d.cols[t.col]
	kind := Kind(0)
	switch t.kind {
	case kindString:
		c.PutBytes(d.at, text)
	case kindBytes:
		n, ok := unbase64(c.Room(d.at, len(text)), text)
		if kind = unless(ok); ok {
			c.EndBytes(d.at, n)
		}
	case kindBoolean:
		v, ok := boolean(text)
		if kind = unless(ok); ok {
			c.PutBool(d.at, v)
		}
	case kindInstant:
		var v int64
		if v, kind = parseInstant(text); kind == 0 {
			c.PutInt(d.at, v)
		}
	default:
		dec, ok := parseDecimal(text)
		if !ok {
			kind = WrongType
			break
		}
		d.fromDecimal(t, dec, text, at)
		return
	}
	d.note(t, kind, at)
}

// fromDecimal puts the number dec, written as tok, into a numeric column.
func (d *Decoder) fromDecimal(t *target, dec decimal, tok []byte, at int) {
	c := d.cols[t.col]
	if t.kind == kindDouble {
		v, ok := dec.double(tok)
		if !ok {
			d.spoil(t, OutOfRange, at)
			return
		}
		c.PutDouble(d.at, v)
		d.seen[t.word] |= t.bit
		return
	}
	v, kind := dec.integer(t.scale, t.stamp)
	if t.stamp && kind == 0 && (v == math.MinInt64 || v == math.MaxInt64) {
		kind = OutOfRange // those two mean "before" and "after all time"
	}
	if kind == 0 {
		c.PutInt(d.at, v)
	}
	d.note(t, kind, at)
}

// note says that the column has its value, or what was wrong with it.
func (d *Decoder) note(t *target, kind Kind, at int) {
	if kind != 0 {
		d.spoil(t, kind, at)
		return
	}
	d.seen[t.word] |= t.bit
}

func unless(ok bool) Kind {
	if ok {
		return 0
	}
	return WrongType
}

// boolean reads true and false, as programs spell them.
func boolean(text []byte) (v, ok bool) {
	switch string(text) {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	return false, false
}

// unbase64 decodes RFC 4648's standard alphabet with padding into dst, which has
// room for len(text) bytes. It is strict: no line ends, and the bits that the
// padding leaves over are zero.
func unbase64(dst, text []byte) (n int, ok bool) {
	if len(text)%4 != 0 {
		return 0, false
	}
	for len(text) > 0 {
		var q uint32
		pads := 0
		for i, c := range text[:4] {
			v, ok := sextet(c)
			switch {
			case c == '=' && len(text) == 4 && i >= 2:
				pads++
			case !ok || pads > 0:
				return 0, false
			}
			q = q<<6 | v
		}
		if q&(1<<(8*pads)-1) != 0 {
			return 0, false
		}
		dst[n], dst[n+1], dst[n+2] = byte(q>>16), byte(q>>8), byte(q)
		n += 3 - pads
		text = text[4:]
	}
	return n, true
}

func sextet(c byte) (uint32, bool) {
	switch {
	case 'A' <= c && c <= 'Z':
		return uint32(c - 'A'), true
	case 'a' <= c && c <= 'z':
		return uint32(c-'a') + 26, true
	case '0' <= c && c <= '9':
		return uint32(c-'0') + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}
