package expr

import (
	"fmt"
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
