package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// grammar is built from the tags once, at its first use; it never changes.
var grammar = sync.OnceValue(func() *participle.Parser[astSelect] {
	return participle.MustBuild[astSelect](participle.Lexer(lexDefinition{}))
})

// parse makes the syntax tree of a list of expressions.
func parse(src string) (*astSelect, *Error) {
	tokens, bad := tokenize(src)
	if bad != nil {
		return nil, bad
	}
	if len(tokens) == 1 {
		return nil, &Error{Source: src, Msg: "the expression is empty"}
	}
	lex, err := lexer.Upgrade(&tokenList{tokens: tokens})
	if err != nil {
		return nil, &Error{Source: src, Msg: err.Error()}
	}
	tree, err := grammar().ParseFromLexer(lex)
	if err != nil {
		return nil, syntaxError(src, tokens, err)
	}
	return tree, nil
}

// syntaxError puts participle's complaint in our words.
func syntaxError(src string, tokens []lexer.Token, err error) *Error {
	var unexpected *participle.UnexpectedTokenError
	if errors.As(err, &unexpected) {
		t := unexpected.Unexpected
		e := &Error{Source: src, Pos: t.Pos.Offset, Msg: fmt.Sprintf("unexpected %q", t.Value)}
		switch {
		case t.EOF():
			e.Msg = "the expression ends too soon"
		case t.Type == tokKeyword && slices.Contains([]string{"as", "cast", "distinct", "escape", "from"}, t.Value):
			e.Hint = "it is a keyword; a column of that name stands in double quotes"
		case !afterOperand(tokens, t):
		case t.Type == tokCompare:
			e.Hint = "comparisons do not chain: write a < b and b < c"
		case t.Type == tokString || t.Type == tokNumber || t.Type == tokIdent || t.Type == tokQuoted:
			e.Hint = "an operator or a comma may be missing before it"
		}
		return e
	}
	e := &Error{Source: src, Msg: err.Error()}
	var positioned participle.Error
	if errors.As(err, &positioned) {
		e.Pos, e.Msg = min(positioned.Position().Offset, len(src)), positioned.Message()
	}
	return e
}

// afterOperand tells whether the token before t ends an operand.
func afterOperand(tokens []lexer.Token, t lexer.Token) bool {
	for i := 1; i < len(tokens); i++ {
		if tokens[i].Pos.Offset != t.Pos.Offset {
			continue
		}
		before := tokens[i-1]
		switch before.Type {
		case tokIdent, tokQuoted, tokNumber, tokString:
			return true
		}
		return before.Value == ")" || before.Value == "end"
	}
	return false
}

// single is the only expression of a list, which has no name.
func (t *astSelect) single(src string) (*astExpr, *Error) {
	if as := t.Items[0].As; as != nil {
		return nil, &Error{Source: src, Pos: as.Pos.Offset, Msg: `"as" has no place here`, Hint: "the name is the key before the expression"}
	}
	if len(t.Items) > 1 {
		return nil, &Error{Source: src, Pos: t.Items[1].Pos.Offset, Msg: "one expression was expected, here begins another"}
	}
	return t.Items[0].Expr, nil
}

// Identifiers lists the column names that src mentions, each once, in order of
// appearance; no schema is needed. An error is always an *Error.
func Identifiers(src string) ([]string, error) {
	tree, err := parse(src)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, it := range tree.Items {
		it.Expr.names(func(n *astName) {
			if name := n.text(); n.Call == nil && n.Literal == "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		})
	}
	return names, nil
}

// text is the name without quotes.
func (n *astName) text() string {
	if n.Name[0] == '"' {
		return unquote(n.Name)
	}
	return n.Name
}

// function is the name as that of a function.
func (n *astName) function() string { return strings.ToLower(n.Name) }

// names calls visit for each name in e, from left to right: columns, calls and
// typed literals. The first argument of extract is no column and left out.
func (e *astExpr) names(visit func(*astName)) {
	if e == nil {
		return
	}
	for _, and := range e.Or {
		for _, not := range and.And {
			not.Pred.Left.names(visit)
			if t := not.Pred.Test; t != nil {
				for _, c := range []*astConcat{t.Right, t.Like, t.Low, t.High} {
					c.names(visit)
				}
				for _, x := range t.In {
					x.names(visit)
				}
			}
		}
	}
}

func (c *astConcat) names(visit func(*astName)) {
	if c == nil {
		return
	}
	c.Left.names(visit)
	for _, r := range c.Rest {
		r.Right.names(visit)
	}
}

func (s *astSum) names(visit func(*astName)) {
	s.Left.names(visit)
	for _, r := range s.Rest {
		r.Right.names(visit)
	}
}

func (t *astTerm) names(visit func(*astName)) {
	t.Left.Primary.names(visit)
	for _, r := range t.Rest {
		r.Right.Primary.names(visit)
	}
}

func (p *astPrimary) names(visit func(*astName)) {
	switch {
	case p.Case != nil:
		p.Case.Of.names(visit)
		for _, w := range p.Case.Whens {
			w.Cond.names(visit)
			w.Then.names(visit)
		}
		p.Case.Else.names(visit)
	case p.Cast != nil:
		p.Cast.Expr.names(visit)
	case p.Paren != nil:
		p.Paren.names(visit)
	case p.Name != nil:
		visit(p.Name)
		if c := p.Name.Call; c != nil {
			if c.From == nil {
				for _, x := range c.all() {
					x.names(visit)
				}
			}
			c.From.names(visit)
		}
	}
}

// bare is the primary that e consists of, or nil if there is more to e.
func (e *astExpr) bare() *astPrimary {
	if len(e.Or) != 1 || len(e.Or[0].And) != 1 {
		return nil
	}
	not := e.Or[0].And[0]
	p := not.Pred
	c := p.Left
	if len(not.Nots) > 0 || p.Test != nil || len(p.Is) > 0 || len(c.Rest) > 0 || len(c.Left.Rest) > 0 || len(c.Left.Left.Rest) > 0 {
		return nil
	}
	u := c.Left.Left.Left
	if len(u.Signs) > 0 || len(u.Casts) > 0 {
		return nil
	}
	return u.Primary
}

// call is the call of a function that e consists of, or nil.
func (e *astExpr) call() *astName {
	if p := e.bare(); p != nil && p.Name != nil && p.Name.Call != nil {
		return p.Name
	}
	return nil
}
