package expr

import (
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// unit is a unit of time. The calendar is the proleptic Gregorian one, in UTC,
// without leap seconds.
type unit uint8

const (
	noUnit unit = iota
	microsecond
	millisecond
	second
	minute
	hour
	day
	week // begins on Monday; extract gives the ISO week
	month
	quarter
	year
	doy   // day of the year, from 1
	dow   // day of the week, Sunday 0
	epoch // seconds since 1970
	unitEnd
)

var unitNames = [...]string{
	microsecond: "microsecond", millisecond: "millisecond", second: "second", minute: "minute", hour: "hour", day: "day",
	week: "week", month: "month", quarter: "quarter", year: "year", doy: "doy", dow: "dow", epoch: "epoch",
}

// unitNamed knows the names in any case, in the singular and the plural.
func unitNamed(s string) unit {
	s = strings.ToLower(s)
	for u := microsecond; u < unitEnd; u++ {
		if s == unitNames[u] || s == unitNames[u]+"s" {
			return u
		}
	}
	return noUnit
}

func (u unit) truncates() bool { return microsecond <= u && u <= year }
func (u unit) extracts() bool  { return second <= u && u < unitEnd }

// spanOf is the length of a unit in microseconds, 0 if it has no fixed one.
func spanOf(u unit) int64 {
	switch u {
	case microsecond:
		return int64(dataflow.Microsecond)
	case millisecond:
		return int64(dataflow.Millisecond)
	case second:
		return int64(dataflow.Second)
	case minute:
		return int64(dataflow.Minute)
	case hour:
		return int64(dataflow.Hour)
	case day:
		return int64(dataflow.Day)
	case week:
		return 7 * int64(dataflow.Day)
	}
	return 0
}

func units(is func(unit) bool) []unit {
	var l []unit
	for u := microsecond; u < unitEnd; u++ {
		if is(u) {
			l = append(l, u)
		}
	}
	return l
}

func truncUnits() []unit    { return units(unit.truncates) }
func extractUnits() []unit  { return units(unit.extracts) }
func intervalUnits() []unit { return units(func(u unit) bool { return spanOf(u) != 0 }) }

func unitList(l []unit) string {
	var names []string
	for _, u := range l {
		names = append(names, unitNames[u])
	}
	return strings.Join(names, ", ")
}

const usPerDay = int64(dataflow.Day)

// floorDiv is x / y rounded down; y > 0.
func floorDiv(x, y int64) int64 {
	q := x / y
	if x%y < 0 {
		q--
	}
	return q
}

// civil is the date of a day counted from 1970-01-01 (Hinnant,
// "chrono-compatible low-level date algorithms").
func civil(days int64) (y, m, d int64) {
	days += 719468
	era := floorDiv(days, 146097)
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = doy - (153*mp+2)/5 + 1
	m = mp + 3
	if m > 12 {
		m -= 12
	}
	y = yoe + era*400
	if m <= 2 {
		y++
	}
	return y, m, d
}

// daysOf is the inverse of civil.
func daysOf(y, m, d int64) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	doy := (153*(m-3)+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - 719468
}

// weekday of a day counted from 1970-01-01, Monday 0.
func weekday(days int64) int64 { return days + 3 - floorDiv(days+3, 7)*7 }

// truncate rounds ts down to the unit; false if that is before the first
// timestamp there is.
func truncate(u unit, ts int64) (int64, bool) {
	t := ts
	switch span := spanOf(u); u {
	case week:
		days := floorDiv(ts, usPerDay)
		return daysToTime(days-weekday(days), ts)
	case month, quarter, year:
		y, m, _ := civil(floorDiv(ts, usPerDay))
		if u == quarter {
			m -= (m - 1) % 3
		} else if u == year {
			m = 1
		}
		return daysToTime(daysOf(y, m, 1), ts)
	default:
		r := ts % span
		if r < 0 {
			r += span
		}
		t = ts - r
	}
	return t, t <= ts
}

// daysToTime is the beginning of a day that is not after ts, in microseconds.
func daysToTime(days, ts int64) (int64, bool) {
	t := days * usPerDay
	return t, t <= ts && floorDiv(t, usPerDay) == days
}

// extractUnit is a field of a timestamp.
func extractUnit(u unit, ts int64) int64 {
	days := floorDiv(ts, usPerDay)
	rest := ts - days*usPerDay
	switch u {
	case second:
		return rest / 1_000_000 % 60
	case minute:
		return rest / 60_000_000 % 60
	case hour:
		return rest / 3_600_000_000
	case dow:
		return (weekday(days) + 1) % 7
	case epoch:
		return floorDiv(ts, 1_000_000)
	case week:
		thursday := days - weekday(days) + 3
		y, _, _ := civil(thursday)
		return (thursday-daysOf(y, 1, 1))/7 + 1
	}
	y, m, d := civil(days)
	switch u {
	case day:
		return d
	case month:
		return m
	case quarter:
		return (m + 2) / 3
	case doy:
		return days - daysOf(y, 1, 1) + 1
	}
	return y
}

// parseTimestamp reads RFC 3339, also with a space for the T, without a zone
// (then it is UTC), without seconds, or a date alone. Digits past the
// microsecond are cut off.
func parseTimestamp(s []byte) (int64, bool) {
	p := scanner{s: s}
	y, m, d := p.digits(4), p.after('-', 2), p.after('-', 2)
	if p.bad || m < 1 || m > 12 || d < 1 || d > 31 {
		return 0, false
	}
	days := daysOf(y, m, d)
	if _, _, back := civil(days); back != d {
		return 0, false // a 31st of April
	}
	ts := days * usPerDay
	if len(p.s) == 0 {
		return ts, true
	}
	if c := p.s[0]; c != 'T' && c != 't' && c != ' ' {
		return 0, false
	}
	p.s = p.s[1:]
	h, mi := p.digits(2), p.after(':', 2)
	var sec, us int64
	if len(p.s) > 0 && p.s[0] == ':' {
		sec, us = p.after(':', 2), p.fraction()
	}
	if p.bad || h > 23 || mi > 59 || sec > 59 {
		return 0, false
	}
	ts += h*3_600_000_000 + mi*60_000_000 + sec*1_000_000 + us
	offset, ok := p.zone()
	return ts - offset, ok
}

// scanner reads digits from the front of s; bad stays set once something else
// stood there.
type scanner struct {
	s   []byte
	bad bool
}

func (p *scanner) digits(n int) (v int64) {
	if len(p.s) < n {
		p.bad = true
		return 0
	}
	for _, c := range p.s[:n] {
		if !isDigit(c) {
			p.bad = true
			return 0
		}
		v = v*10 + int64(c-'0')
	}
	p.s = p.s[n:]
	return v
}

func (p *scanner) after(c byte, n int) int64 {
	if len(p.s) == 0 || p.s[0] != c {
		p.bad = true
		return 0
	}
	p.s = p.s[1:]
	return p.digits(n)
}

// fraction reads ".123" in microseconds, or nothing.
func (p *scanner) fraction() (us int64) {
	if len(p.s) == 0 || p.s[0] != '.' {
		return 0
	}
	p.s = p.s[1:]
	n := 0
	for ; len(p.s) > 0 && isDigit(p.s[0]); p.s = p.s[1:] {
		if n < 6 {
			us = us*10 + int64(p.s[0]-'0')
		}
		n++
	}
	if n == 0 {
		p.bad = true
	}
	for ; n < 6; n++ {
		us *= 10
	}
	return us
}

// zone reads Z, +hh:mm, or nothing, to the end.
func (p *scanner) zone() (offset int64, ok bool) {
	if len(p.s) == 0 || len(p.s) == 1 && (p.s[0] == 'Z' || p.s[0] == 'z') {
		return 0, true
	}
	sign := p.s[0]
	if sign != '+' && sign != '-' {
		return 0, false
	}
	h, m := p.after(sign, 2), p.after(':', 2)
	offset = h*3_600_000_000 + m*60_000_000
	if sign == '-' {
		offset = -offset
	}
	return offset, !p.bad && len(p.s) == 0 && h < 24 && m < 60
}
