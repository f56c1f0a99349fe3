package decode

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// decimals draws numbers as people and programs write them, many of them near
// the ends of their types.
func decimals() *rapid.Generator[string] {
	zeros := rapid.Custom(func(t *rapid.T) string { return strings.Repeat("0", rapid.IntRange(0, 30).Draw(t, "zeros")) })
	return rapid.Custom(func(t *rapid.T) string {
		s := rapid.SampledFrom([]string{"", "", "-", "+"}).Draw(t, "sign")
		s += rapid.OneOf(rapid.StringMatching(`[0-9]{0,25}`), rapid.StringMatching(`[0-9]{1,4}`), zeros, rapid.SampledFrom([]string{"9223372036854775807", "9223372036854775808", "9223372036854775809", "18446744073709551616", "9007199254740993"})).Draw(t, "whole")
		if rapid.Bool().Draw(t, "point") {
			s += "." + zeros.Draw(t, "zeros") + rapid.StringMatching(`[0-9]{0,22}`).Draw(t, "part") + zeros.Draw(t, "more")
		}
		if rapid.Bool().Draw(t, "exp") {
			s += rapid.SampledFrom([]string{"e", "E", "e+", "e-"}).Draw(t, "e") + strconv.Itoa(rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 400)).Draw(t, "n"))
		}
		return s
	})
}

func TestNumbersAreExact(t *testing.T) {
	fields := []Field{leaf("v", batch.Bigint, ""), leaf("v", batch.Double, ""), unit(leaf("v", batch.Timestamp, ""), Seconds), leaf("v", batch.Timestamp, ""),
		unit(leaf("v", batch.Timestamp, ""), Microseconds), unit(leaf("v", batch.Timestamp, ""), Nanoseconds)}
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(fields).Draw(t, "field")
		s := decimals().Draw(t, "number")
		if s == "" {
			return // null
		}
		want, ok := convertNumber(s, f)
		check := func(format Format, payload string) {
			d, bl := newDecoder(Spec{Format: format, Fields: []Field{f}})
			_, err := d.Decode(nil, []byte(payload), bl)
			if (err == nil) != ok {
				t.Fatalf("%s as %v: %v, want %v", payload, f.Type, err, want)
			}
			if ok {
				if got := cell(bl.Take().Cols[0], 0); !sameCell(got, want) {
					t.Fatalf("%s as %v: %v, want %v", payload, f.Type, got, want)
				}
			}
		}
		check(Text, s)
		if json.Valid([]byte(s)) {
			check(JSON, `{"v":`+s+`}`)
		}
	})
}

// Exponents may shift a number back that its zeroes have shifted away.
func TestHugeExponents(t *testing.T) {
	for s, want := range map[string]float64{
		"0." + strings.Repeat("0", 5000) + "1e5001": 1,
		"1" + strings.Repeat("0", 5000) + "e-5000":  1,
		"0e99999999999999999999":                    0,
		"1e-99999999999999999999":                   0,
	} {
		v, ok := parseDecimal([]byte(s))
		got, fits := v.double([]byte(s))
		if !ok || !fits || got != want {
			t.Errorf("%.20s: %v %v", s, got, fits)
		}
	}
	for s, want := range map[string]Kind{"1e99999999999999999999": OutOfRange, "1e-99999999999999999999": WrongType, "0e99999999999999999999": 0, "-9223372036854775808": 0, "-9223372036854775809": OutOfRange} {
		v, _ := parseDecimal([]byte(s))
		if _, kind := v.integer(0, false); kind != want {
			t.Errorf("%s: %v", s, kind)
		}
	}
}

func FuzzInstant(f *testing.F) {
	for _, s := range []string{"2025-06-15", "2025-06-15T12:00:00Z", "2024-02-29t23:59:59.999999999+14:00", "1900-02-29 00:00:00z", "0000-01-01T00:00:00-23:59", "2025-06-15T12:00:00", "2025-06-15T24:00:00Z", "2016-12-31T23:59:60Z", "2025-13-01", "2025-06-15T12:00:00.Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
			return // expanded years, which time.Parse does not know
		}
		got, kind := parseInstant([]byte(s))
		want, ok := convertInstant(s)
		if (kind == 0) != ok || ok && got != want.(int64) {
			t.Fatalf("%q: %d %v, want %v %v", s, got, kind, want, ok)
		}
	})
}

func TestEndsOfTime(t *testing.T) {
	for s, want := range map[string]int64{
		"+294247-01-10T04:00:54.775806Z": math.MaxInt64 - 1,
		"-290308-12-21T19:59:05.224193Z": math.MinInt64 + 1,
		"+002025-06-15":                  time.Date(2025, 6, 15, 0, 0, 0, 0, time.UTC).UnixMicro(),
		"-000001-12-31T23:59:59.5Z":      time.Date(-1, 12, 31, 23, 59, 59, 5e8, time.UTC).UnixMicro(),
	} {
		if got, kind := parseInstant([]byte(s)); kind != 0 || got != want {
			t.Errorf("%s: %d %v, want %d", s, got, kind, want)
		}
	}
	for _, s := range []string{"+294247-01-10T04:00:54.775807Z", "-290308-12-21T19:59:05.224192Z", "-290308-12-21T19:59:04.999999Z", "+999999-01-01", "-999999-01-01"} {
		if _, kind := parseInstant([]byte(s)); kind != OutOfRange {
			t.Errorf("%s: %v", s, kind)
		}
	}
}
