package decode

import "math"

// parseInstant reads a time of RFC 3339 in microseconds since 1970, cut to the
// microsecond, or a plain date, which is its midnight in UTC. "t", a space and
// "z" may stand for "T" and "Z" as the RFC permits; a time without an offset
// is refused, for nobody knows which one was meant. Years beyond 9999 and
// before 0 have a sign and six digits, as ISO 8601 expands them.
func parseInstant(b []byte) (int64, Kind) {
	year, b, ok := parseYear(b)
	if !ok || len(b) < 6 || b[0] != '-' || b[3] != '-' {
		return 0, WrongType
	}
	month, ok1 := two(b[1:])
	day, ok2 := two(b[4:])
	if !ok1 || !ok2 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, WrongType
	}
	days := daysSince1970(year, month, day)
	seconds, micros := int64(0), int64(0)
	if b = b[6:]; len(b) > 0 {
		if seconds, micros, ok = parseClock(b); !ok {
			return 0, WrongType
		}
	}
	return inMicros(seconds+days*86400, micros)
}

// inMicros is seconds and micros of a second (never negative) together. The
// ends of int64 mean "before" and "after all time" and are no instants.
func inMicros(seconds, micros int64) (int64, Kind) {
	const most = math.MaxInt64 / 1000000 // 775807 µs of the second after it fit too
	switch {
	case seconds < -most-1 || seconds == -most-1 && micros <= 1000000-775808,
		seconds > most || seconds == most && micros >= 775807:
		return 0, OutOfRange
	case seconds < 0:
		return (seconds+1)*1000000 + (micros - 1000000), 0
	}
	return seconds*1000000 + micros, 0
}

// parseYear reads four digits, or a sign and six.
func parseYear(b []byte) (year int64, rest []byte, ok bool) {
	n, neg := 4, false
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		neg = b[0] == '-'
		n, b = 6, b[1:]
	}
	if len(b) < n {
		return 0, nil, false
	}
	for _, c := range b[:n] {
		if !isDigit(c) {
			return 0, nil, false
		}
		year = year*10 + int64(c-'0')
	}
	if neg {
		year = -year
	}
	return year, b[n:], true
}

// parseClock reads "T15:04:05.999999Z" or with an offset "+01:00", as seconds
// since that day's midnight in UTC, and microseconds.
func parseClock(b []byte) (seconds, micros int64, ok bool) {
	if len(b) < 10 || b[0]|0x20 != 't' && b[0] != ' ' || b[3] != ':' || b[6] != ':' {
		return 0, 0, false
	}
	h, ok1 := two(b[1:])
	m, ok2 := two(b[4:])
	s, ok3 := two(b[7:])
	if !ok1 || !ok2 || !ok3 || h > 23 || m > 59 || s > 59 {
		return 0, 0, false
	}
	seconds = h*3600 + m*60 + s
	b = b[9:]
	if b[0] == '.' {
		n, unit := 1, int64(100000)
		for ; n < len(b) && isDigit(b[n]); n++ {
			micros += int64(b[n]-'0') * unit
			unit /= 10
		}
		if b = b[n:]; n == 1 {
			return 0, 0, false
		}
	}
	offset, ok := parseOffset(b)
	return seconds - offset, micros, ok
}

// parseOffset reads "Z" or "+01:00" in seconds.
func parseOffset(b []byte) (int64, bool) {
	if len(b) == 1 && b[0]|0x20 == 'z' {
		return 0, true
	}
	if len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	h, ok1 := two(b[1:])
	m, ok2 := two(b[4:])
	if !ok1 || !ok2 || h > 23 || m > 59 {
		return 0, false
	}
	if b[0] == '-' {
		return -(h*3600 + m*60), true
	}
	return h*3600 + m*60, true
}

func two(b []byte) (int64, bool) {
	return int64(b[0]-'0')*10 + int64(b[1]-'0'), isDigit(b[0]) && isDigit(b[1])
}

func leap(year int64) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(year, month int64) int64 {
	switch month {
	case 2:
		if leap(year) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts days of the proleptic Gregorian calendar, in eras of 400
// years that begin in March (H. Hinnant, "chrono-compatible low-level date
// algorithms").
func daysSince1970(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	inEra := year - era*400
	ofYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + inEra*365 + inEra/4 - inEra/100 + ofYear - 719468
}
