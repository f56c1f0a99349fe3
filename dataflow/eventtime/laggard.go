package eventtime

// laggard finds the device that is last, by watermark or by when it was heard of,
// where both mostly grow: a tree of lower bounds. Slots lie in groups of sixteen; the lowest level
// has a bound for each group, each level above one for each sixteen of the level
// below, and the highest has sixteen at most.
//
// A device runs ahead of its group's bound at no cost, until the
// bound is the least of all: then the group is looked at, and its bound raised.
// So a device that is not the last costs nothing, and groups are looked at about
// once each time all their devices have gone on. Devices that go on in the order
// of their slots take turns within a group, where the tree is not even asked.
type laggard struct {
	levels [][]int64 // the first is the groups'
	group  int       // where the last search ended; -1: search
	rest   int64     // bound of all slots that are not in it
}

const fan = 16

// least is the least value and a group that has it; none if there is no value.
// of looks at the slots of a group.
func (l *laggard) least(of func(group int) int64) (group int, value int64) {
	for {
		if l.group < 0 && !l.search() {
			return -1, none
		}
		v := of(l.group)
		if v <= l.rest {
			return l.group, v
		}
		l.set(l.group, v)
		l.group = -1
	}
}

// search finds the group with the least bound. False: there are no groups.
func (l *laggard) search() bool {
	if len(l.levels) == 0 {
		return false
	}
	at, rest := 0, int64(none)
	for i := len(l.levels) - 1; i >= 0; i-- {
		from := at * fan
		nodes := l.levels[i][from:min(from+fan, len(l.levels[i]))]
		best, second := int64(none), int64(none)
		for _, v := range nodes { // without a branch: which is least cannot be foreseen
			second = min(second, max(best, v))
			best = min(best, v)
		}
		rest = min(rest, second)
		at = from
		for nodes[at-from] != best {
			at++
		}
	}
	l.group, l.rest = at, rest
	return true
}

// set gives a group another bound.
func (l *laggard) set(group int, bound int64) {
	at := group
	for i := range l.levels {
		if l.levels[i][at] == bound {
			return
		}
		l.levels[i][at] = bound
		at /= fan
		if i+1 < len(l.levels) {
			bound = leastOf(l.levels[i], at)
		}
	}
}

// lower says that a slot now has value v, which may be less than before.
func (l *laggard) lower(slot int32, v int64) {
	group := int(slot) / fan
	l.cover(group + 1)
	if v < l.levels[0][group] {
		l.set(group, v)
	}
	if group != l.group {
		l.rest = min(l.rest, v)
	}
}

// cover makes room for groups; new ones have no value.
func (l *laggard) cover(groups int) {
	for i := 0; ; i++ {
		if i == len(l.levels) {
			l.levels = append(l.levels, nil)
			l.group = -1
		}
		for at := len(l.levels[i]); at < groups; at++ {
			bound := int64(none)
			if i > 0 {
				bound = leastOf(l.levels[i-1], at)
			}
			l.levels[i] = append(l.levels[i], bound)
		}
		if len(l.levels[i]) <= fan {
			return
		}
		groups = (len(l.levels[i]) + fan - 1) / fan
	}
}

// leastOf is the least of the nodes under node at of the level above.
func leastOf(level []int64, at int) int64 {
	v := int64(none)
	for _, n := range level[at*fan : min(at*fan+fan, len(level))] {
		v = min(v, n)
	}
	return v
}
