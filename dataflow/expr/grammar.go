package expr

import "github.com/alecthomas/participle/v2/lexer"

// The grammar, as participle reads it from the tags. One token is always
// enough to choose, so a parse never goes back and takes linear time. Each
// type below binds tighter than the one above it. Keywords come from the lexer
// in lower case.

type astSelect struct {
	Items []*astItem `parser:"@@ ( ',' @@ )*"`
}

type astItem struct {
	Pos  lexer.Position
	Expr *astExpr `parser:"@@"`
	As   *astAs   `parser:"@@?"`
}

type astAs struct {
	Pos  lexer.Position
	Name string `parser:"'as' @( Ident | Quoted )"`
}

type astExpr struct {
	Pos lexer.Position
	Or  []*astAnd `parser:"@@ ( 'or' @@ )*"`
}

type astAnd struct {
	And []*astNot `parser:"@@ ( 'and' @@ )*"`
}

type astNot struct {
	Pos  lexer.Position
	Nots []string      `parser:"@'not'*"`
	Pred *astPredicate `parser:"@@"`
}

type astPredicate struct {
	Pos  lexer.Position
	Left *astConcat `parser:"@@"`
	Test *astTest   `parser:"@@?"`
	Is   []*astIs   `parser:"@@*"`
}

// astTest is a comparison, or one of the tests that `not` may precede.
type astTest struct {
	Pos    lexer.Position
	Op     string     `parser:"( @Compare"`
	Right  *astConcat `parser:"  @@"`
	Not    bool       `parser:"| @'not'?"`
	Like   *astConcat `parser:"  ( 'like' @@"`
	Escape *astEscape `parser:"      @@?"`
	In     []*astExpr `parser:"  | 'in' '(' @@ ( ',' @@ )* ')'"`
	Low    *astConcat `parser:"  | 'between' @@"`
	High   *astConcat `parser:"    'and' @@ ) )"`
}

type astEscape struct {
	Pos lexer.Position
	S   string `parser:"'escape' @String"`
}

type astIs struct {
	Pos  lexer.Position
	Not  bool   `parser:"'is' @'not'?"`
	What string `parser:"@( 'null' | 'true' | 'false' )"`
}

type astConcat struct {
	Left *astSum        `parser:"@@"`
	Rest []*astConcatOp `parser:"@@*"`
}

type astConcatOp struct {
	Pos   lexer.Position
	Right *astSum `parser:"'||' @@"`
}

type astSum struct {
	Left *astTerm    `parser:"@@"`
	Rest []*astSumOp `parser:"@@*"`
}

type astSumOp struct {
	Pos   lexer.Position
	Op    string   `parser:"@( '+' | '-' )"`
	Right *astTerm `parser:"@@"`
}

type astTerm struct {
	Left *astUnary    `parser:"@@"`
	Rest []*astTermOp `parser:"@@*"`
}

type astTermOp struct {
	Pos   lexer.Position
	Op    string    `parser:"@( '*' | '/' | '%' )"`
	Right *astUnary `parser:"@@"`
}

type astUnary struct {
	Pos     lexer.Position
	Signs   []string    `parser:"@( '-' | '+' )*"`
	Primary *astPrimary `parser:"@@"`
	Casts   []*astType  `parser:"( '::' @@ )*"`
}

type astType struct {
	Pos  lexer.Position
	Name string `parser:"@( Ident | Quoted )"`
}

type astPrimary struct {
	Pos    lexer.Position
	Number string   `parser:"  @Number"`
	String string   `parser:"| @String"`
	Word   string   `parser:"| @( 'true' | 'false' | 'null' )"`
	Case   *astCase `parser:"| @@"`
	Cast   *astCast `parser:"| @@"`
	Name   *astName `parser:"| @@"`
	Paren  *astExpr `parser:"| '(' @@ ')'"`
}

type astCase struct {
	Pos   lexer.Position
	Of    *astExpr   `parser:"'case' @@?"`
	Whens []*astWhen `parser:"@@+"`
	Else  *astExpr   `parser:"( 'else' @@ )? 'end'"`
}

type astWhen struct {
	Cond *astExpr `parser:"'when' @@"`
	Then *astExpr `parser:"'then' @@"`
}

type astCast struct {
	Pos  lexer.Position
	Expr *astExpr `parser:"'cast' '(' @@"`
	To   *astType `parser:"'as' @@ ')'"`
}

// astName is a column, a call, or a literal with a type before it.
type astName struct {
	Pos     lexer.Position
	Name    string   `parser:"@( Ident | Quoted )"`
	Call    *astArgs `parser:"( @@"`
	Literal string   `parser:"| @String"`
	Unit    string   `parser:"  @Ident? )?"`
}

type astArgs struct {
	Pos      lexer.Position
	Open     bool       `parser:"@'('"`
	Star     bool       `parser:"( @'*'"`
	Distinct bool       `parser:"| @'distinct'?"`
	Args     []*astExpr `parser:"  @@"`
	From     *astExpr   `parser:"  ( 'from' @@"`
	More     []*astExpr `parser:"  | ( ',' @@ )+ )? )? ')'"`
}

// all lists the arguments that stand between commas.
func (a *astArgs) all() []*astExpr { return append(a.Args[:len(a.Args):len(a.Args)], a.More...) }
