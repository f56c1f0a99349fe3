package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

type sizeUnit struct {
	name  string
	bytes int64
}

// sizeUnits lists the units of a size, greatest first of each kind: powers of
// a thousand, and of 1,024.
func sizeUnits() [9]sizeUnit {
	return [...]sizeUnit{
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"B", 1},
	}
}

// ParseSize reads a job's sizes: 512MB, 10GB, 64KiB. kB, MB, GB and TB are
// powers of a thousand, KiB, MiB, GiB and TiB of 1,024; case does not matter.
func ParseSize(s string) (int64, error) {
	digits := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		return 0, fmt.Errorf("%q has no unit; write %[1]sMB, or one of B, kB, GB, TB, KiB, MiB, GiB, TiB", s)
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	unit := strings.TrimSpace(s[digits:])
	switch {
	case strings.HasPrefix(unit, "."):
		return 0, fmt.Errorf("%q is not a whole number; write 1500MB for 1.5GB", s)
	case err != nil:
		return 0, fmt.Errorf("%q is not a size; write a whole number and a unit: 512MB, 10GB, 64KiB", s)
	}
	for _, u := range sizeUnits() {
		if !strings.EqualFold(u.name, unit) {
			continue
		}
		if n > math.MaxInt64/u.bytes {
			return 0, fmt.Errorf("%q is too much", s)
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("%q has an unknown unit %q; the units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB", s, unit)
}

// FormatSize is the shortest form that ParseSize reads back: 10GB, 256MiB.
func FormatSize(n int64) string {
	best := strconv.FormatInt(n, 10) + "B"
	for _, u := range sizeUnits() {
		if n == 0 || n%u.bytes != 0 {
			continue
		}
		if s := strconv.FormatInt(n/u.bytes, 10) + u.name; len(s) < len(best) {
			best = s
		}
	}
	return best
}

// size is a number of bytes, at least least.
func (v value) size(least int64) (int64, bool) {
	if v.node == nil {
		return 0, false
	}
	if v.node.Kind != yaml.ScalarNode {
		v.fail("", "must be a size like 512MB, not %s", kindOf(v.node))
		return 0, false
	}
	n, err := ParseSize(v.node.Value)
	if err != nil {
		v.fail("", "%s", err)
		return 0, false
	}
	if n < least {
		v.fail("", "must be at least %s, not %s", FormatSize(least), v.node.Value)
		return 0, false
	}
	return n, true
}
