package decode

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// records knows which field of a record goes where.
type records struct {
	byName  map[string]*target // by the header's name; nil once the layout is fixed
	wanted  []string           // the names in byName, in the order of the fields
	splits  map[int]*layout
	current *layout // nil: no header seen
}

// layout is what the fields of a record are, in order.
type layout struct {
	names []string
	cols  []*target // nil: no column
}

func (r *records) plan(spec *Spec, p *plan) error {
	r.byName, r.splits = make(map[string]*target), make(map[int]*layout)
	for i := range spec.Fields {
		f := &spec.Fields[i]
		if f.Topic >= 0 {
			continue
		}
		path := f.path()
		if len(path) != 1 {
			return fmt.Errorf("decode: field %q: a path in CSV is the name of one column, not %q", f.Name, f.where())
		}
		if r.byName[path[0]] != nil {
			return fmt.Errorf("decode: field %q: another field takes column %q; copy it with select instead", f.Name, path[0])
		}
		r.byName[path[0]] = p.leaves[i]
		r.wanted = append(r.wanted, path[0])
	}
	switch {
	case spec.Header && len(spec.Columns) > 0:
		return errors.New("decode: CSV has either header: true or columns:, not both")
	case !spec.Header && len(spec.Columns) == 0:
		return errors.New("decode: CSV needs header: true, or columns: with their names in order")
	case spec.Header:
		return nil
	}
	var err error
	r.current, err = r.layout(spec.Columns)
	r.splits = nil
	return err
}

// layout finds the fields among names.
func (r *records) layout(names []string) (*layout, error) {
	l := &layout{names: names}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("decode: CSV has two columns named %q", name)
		}
		l.cols = append(l.cols, r.byName[name])
	}
	for _, name := range r.wanted {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("decode: CSV has no column %q; it has %s", name, strings.Join(names, ", "))
		}
	}
	return l, nil
}

// Header takes the first record of a split, which names its columns, and goes
// on with that split. An error names the column that is missing or there
// twice; the split's records are then rejected with NoHeader.
func (d *Decoder) Header(split int, record []byte) error {
	if d.csv.splits == nil {
		return errors.New("decode: a header, but the format is not CSV with header: true")
	}
	d.csv.current = nil
	delete(d.csv.splits, split)
	record = lineOf(bytes.TrimPrefix(record, []byte(byteOrderMark)))
	var names []string
	for i := 0; ; i++ {
		text, end, _ := d.next(record, i)
		if end < 0 {
			return fmt.Errorf("decode: the header is not CSV at byte %d", d.err.At)
		}
		names = append(names, string(text))
		if i = end; i == len(record) {
			break
		}
	}
	l, err := d.csv.layout(names)
	if err != nil {
		return err
	}
	d.csv.splits[split], d.csv.current = l, l
	return nil
}

// Split says which split the next payloads are from. Only CSV with a header
// needs it: each split has its own.
func (d *Decoder) Split(split int) {
	if d.csv.splits != nil {
		d.csv.current = d.csv.splits[split]
	}
}

// record decodes a payload that is one record of RFC 4180, with or without its
// line end.
func (d *Decoder) record(rec []byte) bool {
	l := d.csv.current
	if l == nil {
		d.fail(NoHeader, -1)
		return false
	}
	rec = lineOf(rec)
	k := 0
	for i := 0; ; i++ {
		text, end, quoted := d.next(rec, i)
		if end < 0 {
			return false
		}
		if k == len(l.cols) {
			d.fail(Extra, i)
			return false
		}
		if t := l.cols[k]; t != nil {
			d.field(t, text, quoted, i)
		}
		k++
		if i = end; i == len(rec) {
			break
		}
	}
	if k < len(l.cols) {
		d.fail(Missing, -1)
		d.err.Field = l.names[k]
		return false
	}
	return true
}

// lineOf is a record without its line end.
func lineOf(rec []byte) []byte {
	rec = bytes.TrimSuffix(rec, []byte{'\n'})
	return bytes.TrimSuffix(rec, []byte{'\r'})
}

// next is the field at i and where it ends, at a comma or the end; -1: an
// error. A field with quotes may hold commas, line ends and doubled quotes.
func (d *Decoder) next(rec []byte, i int) (text []byte, end int, quoted bool) {
	if i < len(rec) && rec[i] == '"' {
		text, end = d.quoted(rec, i+1)
		return text, end, true
	}
	for end = i; end < len(rec) && rec[end] != ','; end++ {
		if c := rec[end]; c == '"' || c == '\n' {
			return nil, d.fail(NotCSV, end), false
		}
	}
	return rec[i:end], end, false
}

// quoted is next after an opening quote.
func (d *Decoder) quoted(rec []byte, i int) ([]byte, int) {
	doubled := false
	d.text = d.text[:0]
	for {
		q := bytes.IndexByte(rec[i:], '"')
		if q < 0 {
			return nil, d.fail(NotCSV, len(rec))
		}
		part, after := rec[i:i+q], i+q+1
		switch {
		case after < len(rec) && rec[after] == '"':
			d.text = append(append(d.text, part...), '"')
			doubled = true
			i = after + 1
			continue
		case after < len(rec) && rec[after] != ',':
			return nil, d.fail(NotCSV, after)
		case doubled:
			d.text = append(d.text, part...)
			return d.text, after
		}
		return part, after
	}
}

// checkText refuses fields that a line of text cannot fill.
func checkText(spec *Spec) error {
	n := 0
	for _, f := range spec.Fields {
		if f.Topic < 0 {
			n++
		}
	}
	if n > 1 {
		return errors.New("decode: text has one column, line; take others from the topic, or use json or csv")
	}
	return nil
}

// line decodes a payload that is one value: the line itself.
func (d *Decoder) line(payload []byte) bool {
	for _, t := range d.leaves {
		switch {
		case t.fromTopic:
		case t.kind == kindString || t.kind == kindBytes:
			d.cols[t.col].PutBytes(d.at, payload)
			d.seen[t.word] |= t.bit
		default:
			d.field(t, payload, false, 0)
		}
	}
	return true
}
