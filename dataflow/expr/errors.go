package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error says where and why an expression is refused.
type Error struct {
	Source string // the text of the whole expression
	Pos    int    // byte offset in Source, from 0
	Msg    string
	Hint   string // how to mend it; may be empty
}

// Error is "column N: message; hint", N counted in characters from 1.
func (e *Error) Error() string {
	s := fmt.Sprintf("column %d: %s", utf8.RuneCountInString(e.Source[:e.Pos])+1, e.Msg)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// suggest is a hint that names the candidate nearest to name, or those that
// there are.
func suggest(name string, candidates []string) string {
	best, least := "", max(len(name)/3, 1)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(c), least); d < least {
			best, least = c, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if len(candidates) == 0 {
		return ""
	}
	const most = 12
	if len(candidates) > most {
		return "there are " + strings.Join(candidates[:most], ", ") + ", ..."
	}
	return "there are " + strings.Join(candidates, ", ")
}

// distance is the number of characters to insert, delete, replace or swap
// with their neighbour to make b of a (optimal string alignment), or some
// number >= most.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most || len(a) > 200 {
		return most
	}
	s, t := []rune(a), []rune(b)
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := range s {
		row[0] = i + 1
		for j := range t {
			cost := 1
			if s[i] == t[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}
