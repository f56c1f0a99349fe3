package feed

import "maps"

// adopt pins what is needed and is not pinned: offsets by lane, under the names
// of pins. Who needs what the log has no more is of no use any more, and holds
// nothing; a lane that is not said is needed from its oldest entry on.
func (f *Feed) adopt(needed map[string]map[int]int64) error {
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	next := maps.Clone(f.pins)
	for name, from := range needed {
		if next[name] == nil {
			if at := f.wants(from); at != nil {
				next[name] = at
			}
		}
	}
	if len(next) == len(f.pins) {
		return nil
	}
	if err := writePins(f.owner.o, f.name, next); err != nil {
		return err
	}
	for name, at := range next {
		f.log.Pin(pinned+name, positions(at))
	}
	f.pins = next
	return nil
}

// wants is the pin of who reads on from the given offsets; nil: it cannot.
func (f *Feed) wants(from map[int]int64) map[int]int64 {
	at := make(map[int]int64)
	for lane := range f.config.Lanes {
		first := f.log.Lane(lane).First
		offset, said := from[lane]
		switch {
		case !said:
			at[lane] = first
		case offset < first:
			return nil
		default:
			at[lane] = offset
		}
	}
	return at
}
