package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestFields(t *testing.T) {
	b := append(binary.AppendUvarint(nil, 1<<40), 3, 'a', 'b', 'c', 7, 8, 9)
	f := FieldsOf(b)
	if v, s, p := f.Uvarint(), f.Sized(), f.Take(1); v != 1<<40 || string(s) != "abc" || !bytes.Equal(p, []byte{7}) || f.Whole() || f.Failed() {
		t.Errorf("%d, %q, %v, %+v", v, s, p, f)
	}
	if p := f.Rest(); !bytes.Equal(p, []byte{8, 9}) || !f.Whole() {
		t.Errorf("%v, %+v", p, f)
	}
	for name, take := range map[string]func(*Fields){
		"a number that is longer than need be": func(f *Fields) { f.Uvarint() },
		"more bytes than there are":            func(f *Fields) { f.Take(3) },
		"fewer than none":                      func(f *Fields) { f.Take(-1) },
		"a size beyond the end":                func(f *Fields) { f.Take(1); f.Sized() },
	} {
		f := FieldsOf([]byte{0x81, 0})
		if name == "a size beyond the end" {
			f = FieldsOf([]byte{0, 1})
		}
		take(&f)
		if !f.Failed() || f.Whole() || f.Uvarint() != 0 || f.Sized() != nil || f.Take(1) != nil || f.Rest() != nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
