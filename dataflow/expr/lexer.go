package expr

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/participle/v2/lexer"
)

// Limits on a source text, so that a hostile one is refused and not suffered.
const (
	maxSource = 64 << 10 // bytes
	maxDepth  = 64       // open parentheses and cases
	maxOps    = 1000     // operations of one expression
)

const (
	tokIdent   lexer.TokenType = iota + 1
	tokQuoted                  // "identifier", with its quotes
	tokKeyword                 // in lower case
	tokNumber
	tokString  // 'text', with its quotes
	tokCompare // = <> != < <= > >=
	tokOther
)

// keywords are reserved; a column of such a name is written in double quotes.
var keywords = [...]string{
	"and", "as", "between", "case", "cast", "distinct", "else", "end", "escape", "false", "from", "in", "is", "like",
	"not", "null", "or", "then", "true", "when",
}

// tokenList hands the tokens of one source to participle.
type tokenList struct {
	tokens []lexer.Token
	next   int
}

// Next gives the next token.
func (l *tokenList) Next() (lexer.Token, error) {
	t := l.tokens[l.next]
	if l.next+1 < len(l.tokens) {
		l.next++
	}
	return t, nil
}

// lexDefinition tells participle the names of the tokens.
type lexDefinition struct{}

// Symbols names the token types for the grammar.
func (lexDefinition) Symbols() map[string]lexer.TokenType {
	return map[string]lexer.TokenType{
		"EOF": lexer.EOF, "Ident": tokIdent, "Quoted": tokQuoted, "Keyword": tokKeyword, "Number": tokNumber,
		"String": tokString, "Compare": tokCompare, "Other": tokOther,
	}
}

// Lex cuts the whole of r into tokens.
func (lexDefinition) Lex(_ string, r io.Reader) (lexer.Lexer, error) {
	src, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	tokens, lexErr := tokenize(string(src))
	if lexErr != nil {
		return nil, lexErr
	}
	return &tokenList{tokens: tokens}, nil
}

// tokenize cuts src into tokens, the last of them EOF, and bounds its nesting.
func tokenize(src string) ([]lexer.Token, *Error) {
	if len(src) > maxSource {
		return nil, &Error{Source: src, Msg: fmt.Sprintf("the expression has %d bytes", len(src)), Hint: fmt.Sprintf("at most %d are allowed", maxSource)}
	}
	var out []lexer.Token
	depth := 0
	for i := 0; i < len(src); {
		if strings.IndexByte(" \t\r\n", src[i]) >= 0 {
			i++
			continue
		}
		typ, end, err := scan(src, i)
		if err != nil {
			return nil, err
		}
		v := src[i:end]
		if low := strings.ToLower(v); typ == tokIdent && slices.Contains(keywords[:], low) {
			typ, v = tokKeyword, low
		}
		switch v {
		case "(", "case":
			depth++
		case ")", "end":
			depth--
		}
		if depth > maxDepth {
			return nil, &Error{Source: src, Pos: i, Msg: "too deeply nested", Hint: fmt.Sprintf("at most %d levels are allowed", maxDepth)}
		}
		out = append(out, lexer.Token{Type: typ, Value: v, Pos: lexer.Position{Offset: i, Line: 1, Column: i + 1}})
		i = end
	}
	return append(out, lexer.EOFToken(lexer.Position{Offset: len(src), Line: 1, Column: len(src) + 1})), nil
}

// scan finds the type and the end of the token that begins at i.
func scan(src string, i int) (typ lexer.TokenType, end int, err *Error) {
	c, size := utf8.DecodeRuneInString(src[i:])
	switch {
	case c == '\'' || c == '"':
		return scanQuoted(src, i)
	case isDigit(src[i]), src[i] == '.' && i+1 < len(src) && isDigit(src[i+1]):
		return scanNumber(src, i)
	case c == '_' || unicode.IsLetter(c):
		end = i + size
		for end < len(src) {
			c, size := utf8.DecodeRuneInString(src[end:])
			if c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
				break
			}
			end += size
		}
		return tokIdent, end, nil
	}
	if i+1 < len(src) {
		switch two := src[i : i+2]; two {
		case "<>", "!=", "<=", ">=":
			return tokCompare, i + 2, nil
		case "||", "::":
			return tokOther, i + 2, nil
		case "==":
			return 0, 0, &Error{Source: src, Pos: i, Msg: `"==" is no operator`, Hint: `write "="`}
		case "&&":
			return 0, 0, &Error{Source: src, Pos: i, Msg: `"&&" is no operator`, Hint: `write "and"`}
		}
	}
	switch c {
	case '=', '<', '>':
		return tokCompare, i + 1, nil
	case '+', '-', '*', '/', '%', '(', ')', ',':
		return tokOther, i + 1, nil
	case '!':
		return 0, 0, &Error{Source: src, Pos: i, Msg: `"!" is no operator`, Hint: `write "not"`}
	}
	return 0, 0, &Error{Source: src, Pos: i, Msg: fmt.Sprintf("unexpected character %q", src[i:i+size])}
}

// scanQuoted reads 'text' or "name"; the quote itself stands in it doubled.
func scanQuoted(src string, i int) (lexer.TokenType, int, *Error) {
	typ, what := tokString, "text"
	if src[i] == '"' {
		typ, what = tokQuoted, "name"
	}
	for end := i + 1; end < len(src); end++ {
		if src[end] != src[i] {
			continue
		}
		if end+1 < len(src) && src[end+1] == src[i] {
			end++
			continue
		}
		return typ, end + 1, nil
	}
	return 0, 0, &Error{Source: src, Pos: i, Msg: fmt.Sprintf("the %s that begins here has no end", what), Hint: fmt.Sprintf("close it with %c; one within it is written twice", src[i])}
}

func scanNumber(src string, i int) (lexer.TokenType, int, *Error) {
	end := i
	digits := func() {
		for end < len(src) && isDigit(src[end]) {
			end++
		}
	}
	digits()
	if end < len(src) && src[end] == '.' {
		end++
		digits()
	}
	if end < len(src) && (src[end] == 'e' || src[end] == 'E') {
		mantissa := end
		end++
		if end < len(src) && (src[end] == '+' || src[end] == '-') {
			end++
		}
		if end == len(src) || !isDigit(src[end]) {
			end = mantissa
		}
		digits()
	}
	if c, _ := utf8.DecodeRuneInString(src[end:]); end < len(src) && (c == '_' || unicode.IsLetter(c)) {
		return 0, 0, &Error{Source: src, Pos: i, Msg: "a number runs into a name", Hint: "separate them, or write a name that begins with a digit in double quotes"}
	}
	return tokNumber, end, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// unquote takes the quotes off a tokString or tokQuoted.
func unquote(s string) string {
	q := s[:1]
	return strings.ReplaceAll(s[1:len(s)-1], q+q, q)
}
