package encode

const (
	microsPerDay = 86400 * 1000000
	daysPerEra   = 146097 // 400 years
)

// appendInstant appends v, microseconds since 1970, as RFC 3339 in UTC. Years
// that RFC 3339 cannot write get a sign and six digits, as ISO 8601 expands
// them; decode reads those too.
func appendInstant(dst []byte, v int64) []byte {
	days := v / microsPerDay
	if v%microsPerDay < 0 {
		days--
	}
	micros := uint64(v - days*microsPerDay)
	year, month, day := dateOf(days)
	switch {
	case year < 0:
		dst = appendDigits(append(dst, '-'), uint64(-year), 6)
	case year > 9999:
		dst = appendDigits(append(dst, '+'), uint64(year), 6)
	default:
		dst = appendDigits(dst, uint64(year), 4)
	}
	dst = appendDigits(append(dst, '-'), month, 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	seconds := micros / 1000000
	dst = appendDigits(append(dst, 'T'), seconds/3600, 2)
	dst = appendDigits(append(dst, ':'), seconds/60%60, 2)
	dst = appendDigits(append(dst, ':'), seconds%60, 2)
	return append(appendFraction(dst, micros%1000000, 6), 'Z')
}

// dateOf is the date in the proleptic Gregorian calendar, in eras of 400 years
// that begin in March (H. Hinnant, "chrono-compatible low-level date
// algorithms").
func dateOf(days int64) (year int64, month, day uint64) {
	days += 719468
	era := days / daysPerEra
	if days < 0 {
		era = (days - daysPerEra + 1) / daysPerEra
	}
	ofEra := uint64(days - era*daysPerEra)
	inEra := (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*inEra + inEra/4 - inEra/100)
	shifted := (5*ofYear + 2) / 153
	day = ofYear - (153*shifted+2)/5 + 1
	year = int64(inEra) + era*400
	if month = shifted + 3; month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// appendDigits appends v with n digits, with zeroes before it.
func appendDigits(dst []byte, v uint64, n int) []byte {
	for range n {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; v > 0; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}
