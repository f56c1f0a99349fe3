package decode

import "bytes"

// topicFields fills the columns that are levels of the topic. They belong to
// the payload itself, level 0, so they stand at its first row.
func (d *Decoder) topicFields(topic []byte) bool {
	d.at = d.base
	part, rest, more := 0, topic, len(topic) > 0
	for _, f := range d.topics {
		for ; more && part < f.part; part++ {
			var cut int
			if cut = bytes.IndexByte(rest, '/'); cut < 0 {
				more = false
				break
			}
			rest = rest[cut+1:]
		}
		if !more {
			d.failField(Missing, f.t.col, -1)
			d.err.Part = f.part
			return false
		}
		name := rest
		if cut := bytes.IndexByte(rest, '/'); cut >= 0 {
			name = rest[:cut]
		}
		d.field(f.t, name, false, -1)
	}
	return true
}
