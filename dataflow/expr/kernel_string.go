package expr

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// maxText is the most bytes of a text that an expression makes: MaxRows of
// them fit the offsets of a column. A longer one is a row error.
const maxText = 256 << 10

const tooLong = "the text would have more than 256 KiB"

// padTo gives dst empty values before position p.
func padTo(dst *batch.Column, p int) {
	for len(dst.Offsets) <= p {
		dst.Offsets = append(dst.Offsets, int32(len(dst.Data)))
	}
}

// endText ends the value at p, of which the bytes are in dst.Data.
func (e *Eval) endText(dst *batch.Column, p int) {
	if from := int(dst.Offsets[p]); len(dst.Data)-from > maxText {
		dst.Data = dst.Data[:from]
		e.fail(dst, p, tooLong)
	}
	dst.Offsets = append(dst.Offsets, int32(len(dst.Data)))
}

// texts reads a string argument by position without spreading a constant.
type texts struct {
	col   *batch.Column
	konst []byte
	fixed bool
}

func (t texts) at(p int) []byte {
	if t.fixed {
		return t.konst
	}
	return t.col.At(p)
}

// texts evaluates argument i of n.
func (e *Eval) texts(n *node, i int, sel []int32) texts {
	a := n.args[i]
	if a.isConst() && !a.val.null {
		return texts{konst: a.bytes, fixed: true}
	}
	return texts{col: e.eval(a, sel)}
}

func (e *Eval) doneTexts(n *node, i int, t texts) {
	if !t.fixed {
		e.done(n.args[i], t.col)
	}
}

// validTexts makes dst null where one of the arguments is.
func (e *Eval) validTexts(dst *batch.Column, args ...texts) {
	first := true
	for _, t := range args {
		switch {
		case t.col == nil || t.col.Valid == nil:
		case first:
			e.valid(dst, t.col)
			first = false
		default:
			for i, w := range t.col.Valid[:batch.Words(e.n)] {
				dst.Valid[i] &= w
			}
		}
	}
}

func (e *Eval) stringFunction(n *node, sel []int32, dst *batch.Column) {
	switch n.op {
	case opLower, opUpper, opTrim:
		e.stringOfOne(n, sel, dst)
	case opLength:
		e.length(n, sel, dst)
	case opSubstr, opSplitPart:
		e.part(n, sel, dst)
	case opReplace:
		e.replace(n, sel, dst)
	case opConcat, opConcatSkip:
		e.concat(n, sel, dst)
	case opStartsWith:
		x, y := e.texts(n, 0, sel), e.texts(n, 1, sel)
		e.validTexts(dst, x, y)
		for k := range e.count(sel) {
			p := k
			if sel != nil {
				p = int(sel[k])
			}
			dst.Bits.Put(p, bytes.HasPrefix(x.at(p), y.at(p)))
		}
		e.doneTexts(n, 0, x)
		e.doneTexts(n, 1, y)
	}
}

func (e *Eval) stringOfOne(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	e.valid(dst, x)
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		padTo(dst, p)
		switch v := x.At(p); n.op {
		case opLower:
			dst.Data = appendLower(dst.Data, v)
		case opUpper:
			dst.Data = appendUpper(dst.Data, v)
		default:
			dst.Data = append(dst.Data, bytes.Trim(v, " ")...)
		}
		e.endText(dst, p)
	}
	padTo(dst, e.n)
	e.done(n.args[0], x)
}

// appendLower maps ASCII by the byte and the rest by Unicode's simple rules.
// Bytes that are no UTF-8 stay as they are.
func appendLower(dst, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c >= utf8.RuneSelf {
			return appendMapped(dst, v[i:], unicode.ToLower)
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func appendUpper(dst, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c >= utf8.RuneSelf {
			return appendMapped(dst, v[i:], unicode.ToUpper)
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func appendMapped(dst, v []byte, to func(rune) rune) []byte {
	for len(v) > 0 {
		r, size := utf8.DecodeRune(v)
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, v[0])
		} else {
			dst = utf8.AppendRune(dst, to(r))
		}
		v = v[size:]
	}
	return dst
}

func (e *Eval) length(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	e.valid(dst, x)
	inBytes := x.Type == batch.Bytes
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		if v := x.At(p); inBytes {
			dst.Ints[p] = int64(len(v))
		} else {
			dst.Ints[p] = int64(utf8.RuneCount(v))
		}
	}
	e.done(n.args[0], x)
}

// part is substr and split_part: a text and numbers that say which part of it.
func (e *Eval) part(n *node, sel []int32, dst *batch.Column) {
	x := e.texts(n, 0, sel)
	var sep texts
	var length *batch.Column
	numberAt := 1
	if n.op == opSplitPart {
		sep = e.texts(n, 1, sel)
		numberAt = 2
	}
	number := e.eval(n.args[numberAt], sel)
	bounded := n.op == opSubstr && len(n.args) == 3
	e.validTexts(dst, x, sep, texts{col: number})
	if bounded {
		length = e.eval(n.args[2], sel)
		e.validTexts(dst, x, texts{col: number}, texts{col: length})
	}
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		padTo(dst, p)
		if !dst.IsNull(p) {
			v := x.at(p)
			switch {
			case n.op == opSplitPart:
				v = splitPart(v, sep.at(p), number.Ints[p])
			case bounded:
				v = substr(v, number.Ints[p], length.Ints[p], true)
			default:
				v = substr(v, number.Ints[p], 0, false)
			}
			dst.Data = append(dst.Data, v...)
		}
		e.endText(dst, p)
	}
	padTo(dst, e.n)
	e.doneTexts(n, 0, x)
	if n.op == opSplitPart {
		e.doneTexts(n, 1, sep)
	}
	e.done(n.args[numberAt], number)
	if bounded {
		e.done(n.args[2], length)
	}
}

// substr is the characters from start (the first is 1) on, or length of them.
// A start before the first counts towards the length, as in standard SQL.
func substr(v []byte, start, length int64, bounded bool) []byte {
	if bounded {
		if length <= 0 {
			return nil
		}
		if end := start + length; start < 1 {
			if length = end - 1; length <= 0 {
				return nil
			}
		}
	}
	v = v[skip(v, max(start, 1)-1):]
	if bounded {
		v = v[:skip(v, length)]
	}
	return v
}

// skip is the number of bytes of the first n characters, at most all.
func skip(v []byte, n int64) int {
	i := 0
	for ; n > 0 && i < len(v); n-- {
		if v[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, size := utf8.DecodeRune(v[i:])
		i += size
	}
	return i
}

// splitPart is part k between separators, the first is 1, the last -1; empty
// if there is none. An empty separator separates nothing.
func splitPart(v, sep []byte, k int64) []byte {
	if len(sep) == 0 {
		if k == 1 || k == -1 {
			return v
		}
		return nil
	}
	for ; k > 0; k-- {
		i := bytes.Index(v, sep)
		switch {
		case k == 1 && i < 0:
			return v
		case k == 1:
			return v[:i]
		case i < 0:
			return nil
		}
		v = v[i+len(sep):]
	}
	for ; k < 0; k++ {
		i := bytes.LastIndex(v, sep)
		switch {
		case k == -1 && i < 0:
			return v
		case k == -1:
			return v[i+len(sep):]
		case i < 0:
			return nil
		}
		v = v[:i]
	}
	return nil
}

func (e *Eval) replace(n *node, sel []int32, dst *batch.Column) {
	x, from, to := e.texts(n, 0, sel), e.texts(n, 1, sel), e.texts(n, 2, sel)
	e.validTexts(dst, x, from, to)
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		padTo(dst, p)
		if !dst.IsNull(p) {
			dst.Data = appendReplaced(dst.Data, x.at(p), from.at(p), to.at(p))
		}
		e.endText(dst, p)
	}
	padTo(dst, e.n)
	e.doneTexts(n, 0, x)
	e.doneTexts(n, 1, from)
	e.doneTexts(n, 2, to)
}

// appendReplaced appends v with each from, left to right, replaced by to. It
// stops once the text is too long, before it costs memory.
func appendReplaced(dst, v, from, to []byte) []byte {
	if len(from) == 0 {
		return append(dst, v...)
	}
	limit := len(dst) + maxText
	for len(dst) <= limit {
		i := bytes.Index(v, from)
		if i < 0 {
			break
		}
		dst = append(append(dst, v[:i]...), to...)
		v = v[i+len(from):]
	}
	return append(dst, v...)
}

func (e *Eval) concat(n *node, sel []int32, dst *batch.Column) {
	base := len(e.parts)
	for i := range n.args {
		t := e.texts(n, i, sel)
		e.parts = append(e.parts, t)
	}
	parts := e.parts[base:]
	strict := n.op == opConcat
	if strict {
		e.validTexts(dst, parts...)
	}
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		padTo(dst, p)
		if !strict || !dst.IsNull(p) {
			for _, t := range parts {
				if t.fixed {
					dst.Data = append(dst.Data, t.konst...)
				} else if !t.col.IsNull(p) {
					dst.Data = append(dst.Data, t.col.At(p)...)
				}
			}
		}
		e.endText(dst, p)
	}
	padTo(dst, e.n)
	for i, t := range parts {
		e.doneTexts(n, i, t)
	}
	e.parts = e.parts[:base]
}

// matcher is a constant like pattern. Most are one text with % at its ends.
type matcher struct {
	kind matchKind
	text string
}

type matchKind uint8

const (
	matchGeneral matchKind = iota
	matchEqual
	matchPrefix
	matchSuffix
	matchContains
)

func newMatcher(pattern string, escape rune) *matcher {
	body := strings.TrimPrefix(pattern, "%")
	front := len(body) < len(pattern)
	pattern = strings.TrimSuffix(body, "%")
	back := len(pattern) < len(body)
	m := &matcher{text: pattern}
	switch {
	case strings.ContainsAny(pattern, "%_"), escape != noEscape && strings.ContainsRune(pattern, escape), escape == '%':
		return m
	case front && back:
		m.kind = matchContains
	case front:
		m.kind = matchSuffix
	case back:
		m.kind = matchPrefix
	default:
		m.kind = matchEqual
	}
	return m
}

func (m *matcher) match(v []byte) bool {
	switch m.kind {
	case matchEqual:
		return string(v) == m.text
	case matchPrefix:
		return len(v) >= len(m.text) && string(v[:len(m.text)]) == m.text
	case matchSuffix:
		return len(v) >= len(m.text) && string(v[len(v)-len(m.text):]) == m.text
	}
	return strings.Contains(view(v), m.text)
}

func (e *Eval) likeTest(n *node, sel []int32, dst *batch.Column) {
	x := e.texts(n, 0, sel)
	if n.like != nil && n.like.kind != matchGeneral {
		e.validTexts(dst, x)
		for k := range e.count(sel) {
			p := k
			if sel != nil {
				p = int(sel[k])
			}
			dst.Bits.Put(p, n.like.match(x.at(p)))
		}
		e.doneTexts(n, 0, x)
		return
	}
	pattern := e.texts(n, 1, sel)
	e.validTexts(dst, x, pattern)
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		dst.Bits.Put(p, like(x.at(p), pattern.at(p), n.escape))
	}
	e.doneTexts(n, 0, x)
	e.doneTexts(n, 1, pattern)
}

// like matches v with a pattern: % is any text, _ any character, and what
// follows the escape character stands for itself. After a mismatch only the
// last % need be tried again, one character further.
func like(v, pattern []byte, escape rune) bool {
	i, p := 0, 0
	lastI, lastP := 0, -1
	for i < len(v) || p < len(pattern) {
		if p < len(pattern) {
			r, size := utf8.DecodeRune(pattern[p:])
			switch {
			case r == escape && escape != noEscape:
				q := p + size
				if q == len(pattern) {
					q = p // at the end it stands for itself
				}
				_, size = utf8.DecodeRune(pattern[q:])
				if bytes.HasPrefix(v[i:], pattern[q:q+size]) {
					i, p = i+size, q+size
					continue
				}
			case r == '%':
				lastI, lastP = i, p+1
				p++
				continue
			case i == len(v):
				return false // what is left of the pattern needs a character
			case r == '_':
				_, step := utf8.DecodeRune(v[i:])
				i, p = i+step, p+1
				continue
			case bytes.HasPrefix(v[i:], pattern[p:p+size]):
				i, p = i+size, p+size
				continue
			}
		}
		if lastP < 0 || lastI >= len(v) {
			return false
		}
		_, step := utf8.DecodeRune(v[lastI:])
		lastI += step
		i, p = lastI, lastP
	}
	return true
}
