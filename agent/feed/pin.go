package feed

import (
	"maps"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// Need is what somebody needs of a log: what follows the least of the places from which
// he may read on. A place is offsets by lane; a lane that it does not name is needed
// from its oldest entry on. A place that the log has no more is of no use any more, and
// holds nothing.
type Need struct {
	From []map[int]int64
	All  bool // with no place left, all of the log is needed
}

// at is what is pinned for a need; nil: nothing.
func (f *Feed) at(n Need) map[int]int64 {
	var at map[int]int64
	for _, from := range n.From {
		of := f.wants(from)
		if at == nil {
			at = of
			continue
		}
		for lane, offset := range of {
			at[lane] = min(at[lane], offset)
		}
	}
	if at == nil && n.All {
		at = f.wants(nil)
	}
	return at
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

// steady has nothing of the log go until what it returns is called: who looks at where
// the log begins can pin what he finds.
func (f *Feed) steady() (end func()) {
	all := make([]sensors.Position, f.config.Lanes)
	for lane := range all {
		all[lane].Split = lane
	}
	f.log.Pin(settling, all)
	return func() { f.log.Unpin(settling) }
}

// adopt pins what is needed and is not pinned, under the names of pins.
func (f *Feed) adopt(needed map[string]Need) error {
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	defer f.steady()()
	needs := maps.Clone(f.needs)
	if needs == nil {
		needs = make(map[string]Need, len(needed))
	}
	maps.Copy(needs, needed)
	fresh := make(map[string]map[int]int64)
	for name, n := range needed {
		if f.pins[name] == nil {
			if at := f.at(n); at != nil {
				fresh[name] = at
			}
		}
	}
	if len(fresh) > 0 {
		next := maps.Clone(f.pins)
		maps.Copy(next, fresh)
		if err := writePins(f.owner.o, f.name, next); err != nil {
			return err
		}
		f.pins = next
	}
	for name, at := range fresh {
		f.log.Pin(pinned+name, positions(at))
	}
	f.needs = needs
	return nil
}

// SetPins makes the pins those of want, in one step; of other names those that
// keep tells to stay, stay. What a pin that is new holds is held before another
// lets it go. After an error all is as it was, or, where the disk does not say, as
// it shall be.
func (f *Feed) SetPins(want map[string]Need, keep func(name string) bool) error {
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	defer f.steady()()
	next := make(map[string]map[int]int64, len(want))
	for name, n := range want {
		if at := f.at(n); at != nil {
			next[name] = at
		}
	}
	was := f.pins
	for name, at := range was {
		if _, wanted := want[name]; !wanted && keep(name) {
			next[name] = at
		}
	}
	if maps.EqualFunc(was, next, maps.Equal) {
		f.needs = maps.Clone(want)
		return nil
	}
	if err := writePins(f.owner.o, f.name, next); err != nil {
		return err
	}
	f.pins, f.needs = next, maps.Clone(want)
	for name, at := range next {
		f.log.Pin(pinned+name, positions(at))
	}
	for name := range was {
		if next[name] == nil {
			f.log.Unpin(pinned + name)
		}
	}
	return nil
}

// anew has the log begin with head, and be pinned for who can read on still. What
// pins.json says beyond that only holds more, until the next SetPins.
func (f *Feed) anew(head []byte) error {
	f.pinMu.Lock()
	defer f.pinMu.Unlock()
	if err := f.log.Replace(head); err != nil {
		return err
	}
	next := make(map[string]map[int]int64, len(f.pins))
	for name, at := range f.pins {
		n, known := f.needs[name]
		if !known {
			n.From = []map[int]int64{at}
		}
		if at = f.at(n); at == nil {
			f.log.Unpin(pinned + name)
			continue
		}
		next[name] = at
		f.log.Pin(pinned+name, positions(at))
	}
	f.pins = next
	return nil
}
