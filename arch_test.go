// Package tidemark holds no code: this test keeps the rules by which all other
// packages are built. docs/ARCHITECTURE.md says what the layers are, layers_test.go
// which package is where.
package tidemark

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/tidemark-mesh/tidemark"

// impure are the standard packages that a pure or vocabulary package may not
// import, and why.
var impure = map[string]string{
	"net":       "pure code knows no network; a driver sends what it decides",
	"os":        "pure code touches no disk and no environment",
	"context":   "pure code never blocks, so there is nothing to cancel",
	"log":       "pure code returns what happened; listeners log it",
	"io/ioutil": "pure code touches no disk",
	"os/exec":   "pure code starts nothing",
}

// allowedImpure are the exceptions, each with its reason.
var allowedImpure = map[string]string{
	"sensors context": "the contracts of drivers are vocabulary, and drivers block",
	"mesh context":    "so does the contract of a transport",
}

// allowedClock are the files that may read the clock though they are no
// driver's, each with its reason.
var allowedClock = map[string]string{
	"sensors/clock.go": "the real one of the clocks that drivers are given",
}

// clock are the functions of package time that read or wait for the wall clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// longFiles may have more than maxLines lines, for the reason given.
var longFiles = map[string]string{}

// Limits of size. Tests may have long functions: tables are long.
const (
	maxLines     = 600
	maxFuncLines = 70
)

// fixed are the functions whose results a package variable may hold: values
// that nobody can change.
var fixed = []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "strings.NewReplacer", "batch.MustSchema", "participle.MustBuild",
	"lexer.MustSimple", "lexer.MustStateful", "reflect.TypeFor", "sync.OnceValue"}

// violations walks a source tree and says all that is against the rules.
func violations(tree fs.FS) ([]string, error) {
	c := &checker{fset: token.NewFileSet(), packages: make(map[string]*pkg)}
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && p != "." || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(p) != ".go":
			return nil
		}
		src, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		return c.add(p, src)
	})
	if err != nil {
		return nil, err
	}
	for _, dir := range sortedKeys(c.packages) {
		c.checkPackage(c.packages[dir])
	}
	sort.Strings(c.found)
	return c.found, nil
}

type checker struct {
	fset     *token.FileSet
	packages map[string]*pkg
	found    []string
}

type pkg struct {
	dir   string
	files []*ast.File // without tests
	doc   bool
}

func (c *checker) add(p string, src []byte) error {
	f, err := parser.ParseFile(c.fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if n := strings.Count(string(src), "\n"); n > maxLines && longFiles[p] == "" {
		c.say(p, "%d lines, at most %d: cut it in two, or say in longFiles why not", n, maxLines)
	}
	dir := path.Dir(p)
	if strings.HasSuffix(p, "_test.go") {
		c.checkTest(f)
		return nil
	}
	k := c.packages[dir]
	if k == nil {
		k = &pkg{dir: dir}
		c.packages[dir] = k
	}
	k.files = append(k.files, f)
	k.doc = k.doc || f.Doc != nil
	return nil
}

func (c *checker) say(where, format string, args ...any) {
	c.found = append(c.found, where+": "+fmt.Sprintf(format, args...))
}

func (c *checker) at(n ast.Node) string {
	p := c.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// checkTest: a test never waits for the wall clock to have gone on. In the
// bubble of synctest.Test time is virtual, and Sleep is exact.
func (c *checker) checkTest(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		if isCall(n, "synctest", "Test") {
			return false
		}
		if isCall(n, "time", "Sleep") {
			c.say(c.at(n), "time.Sleep in a test: wait for the event itself, or use testing/synctest")
		}
		return true
	})
}

func (c *checker) checkPackage(k *pkg) {
	if !k.doc {
		c.say(k.dir, "no package comment: say what it owns, what it never does, and where to read next")
	}
	l, ok := layers[k.dir]
	if !ok {
		c.say(k.dir, "not in the table of layers_test.go: decide there what it may know")
	}
	written := writtenNames(k.files)
	for _, f := range k.files {
		c.checkImports(k, l, f)
		c.checkDecls(f, written)
		if l == vocabulary || l == pure {
			c.checkPure(f)
		}
	}
}

func (c *checker) checkImports(k *pkg, l layer, f *ast.File) {
	for _, spec := range f.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		if p == "testing" && l != support {
			c.say(c.at(spec), "imports testing outside a test")
		}
		to, own := strings.CutPrefix(p, module+"/")
		if own {
			c.checkArrow(k, l, spec, to)
			continue
		}
		if l != vocabulary && l != pure {
			continue
		}
		for _, bad := range sortedKeys(impure) {
			if (p == bad || strings.HasPrefix(p, bad+"/")) && allowedImpure[k.dir+" "+p] == "" {
				c.say(c.at(spec), "%s is %s and imports %s: %s", k.dir, layerNames[l], p, impure[bad])
			}
		}
	}
}

// checkArrow: cmd -> agent -> drivers -> ground -> pure -> vocabulary.
func (c *checker) checkArrow(k *pkg, from layer, spec ast.Node, to string) {
	target, ok := layers[to]
	if !ok || from == 0 {
		return // reported where it stands
	}
	where := c.at(spec)
	top := func(p string) string { return strings.Split(p, "/")[0] }
	switch {
	case target == support && from != support:
		c.say(where, "%s imports %s, which is for tests only", k.dir, to)
	case k.dir == "dataflow":
		c.say(where, "dataflow imports %s: the vocabulary of the engine imports nothing of Tidemark", to)
	case from == support && target <= driver:
	case from < target:
		c.say(where, "%s is %s and imports %s, which is %s: imports point down", k.dir, layerNames[from], to, layerNames[target])
	case from == driver && target == driver && top(k.dir) != top(to):
		c.say(where, "the drivers %s and %s are of different folders: they meet only in agent", k.dir, to)
	case top(k.dir) == "dataflow" && top(to) == "mesh":
		c.say(where, "%s imports %s: dataflow never learns what a network is", k.dir, to)
	case top(k.dir) == "mesh" && top(to) != "mesh" && to != "store" && target != ground:
		c.say(where, "%s imports %s: mesh never learns what a job is", k.dir, to)
	}
}

func (c *checker) checkPure(f *ast.File) {
	file := c.fset.Position(f.Pos()).Filename
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			c.say(c.at(n), "a go statement: pure code has no goroutines, its driver does")
		case *ast.CallExpr:
			for _, name := range clock {
				if isCall(n, "time", name) && allowedClock[file] == "" {
					c.say(c.at(n), "time.%s: pure code is told the time, by marks or arguments", name)
				}
			}
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" && len(n.Args) == 1 {
				if _, lit := n.Args[0].(*ast.FuncLit); lit {
					c.say(c.at(n), "starts a goroutine: pure code has none, its driver does")
				}
			}
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && isIdent(s.X, "rand") && !strings.HasPrefix(s.Sel.Name, "New") {
				c.say(c.at(n), "rand.%s is global: take a seeded generator as an argument", s.Sel.Name)
			}
		}
		return true
	})
}

func (c *checker) checkDecls(f *ast.File, written map[string]bool) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if n := c.fset.Position(d.End()).Line - c.fset.Position(d.Pos()).Line + 1; n > maxFuncLines {
				c.say(c.at(d), "%s has %d lines, at most %d: name its parts", d.Name.Name, n, maxFuncLines)
			}
			if d.Recv == nil && d.Name.Name == "init" {
				c.say(c.at(d), "an init function: nothing registers itself, agent wires")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR || embedded(d) {
				continue
			}
			for _, spec := range d.Specs {
				c.checkVar(spec.(*ast.ValueSpec), written)
			}
		}
	}
}

// checkVar: a package variable is an error, a table that is never written, or
// another value that cannot change.
func (c *checker) checkVar(v *ast.ValueSpec, written map[string]bool) {
	for i, name := range v.Names {
		switch {
		case name.Name == "_":
		case len(v.Values) <= i:
			c.say(c.at(v), "package variable %s has no value: state belongs to a struct, not to a package", name.Name)
		case written[name.Name]:
			c.say(c.at(v), "package variable %s is written to: state belongs to a struct, not to a package", name.Name)
		case !constant(v.Values[i]):
			c.say(c.at(v), "package variable %s is neither an error nor a table: if its value cannot change, add its maker to `fixed`", name.Name)
		}
	}
}

// constant tells whether an initial value is one that stays as it is if nobody
// assigns to the variable.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.CompositeLit, *ast.FuncLit, *ast.Ident, *ast.SelectorExpr, *ast.BinaryExpr:
		return true
	case *ast.UnaryExpr:
		return constant(e.X)
	case *ast.CallExpr:
		fun := e.Fun
		if x, ok := fun.(*ast.IndexExpr); ok {
			fun = x.X
		}
		if _, conversion := fun.(*ast.ArrayType); conversion {
			return true
		}
		if s, ok := fun.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				return slices.Contains(fixed, x.Name+"."+s.Sel.Name)
			}
		}
	}
	return false
}

func embedded(d *ast.GenDecl) bool {
	return d.Doc != nil && strings.Contains(d.Doc.List[len(d.Doc.List)-1].Text, "//go:embed")
}

// writtenNames are the names, not of the function's own, that functions assign
// to, count up, delete from or clear: by them or by something inside them.
func writtenNames(files []*ast.File) map[string]bool {
	names := make(map[string]bool)
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			own := ownNames(fn)
			written := func(e ast.Expr) {
				if name := rootName(e); name != "" && !own[name] {
					names[name] = true
				}
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, l := range n.Lhs {
						written(l)
					}
				case *ast.IncDecStmt:
					written(n.X)
				case *ast.CallExpr:
					if isIdent(n.Fun, "delete") || isIdent(n.Fun, "clear") {
						written(n.Args[0])
					}
				}
				return true
			})
		}
	}
	return names
}

// ownNames are all names that a function defines: receiver, parameters,
// results, and variables anywhere in it.
func ownNames(fn *ast.FuncDecl) map[string]bool {
	own := make(map[string]bool)
	add := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok {
			own[id.Name] = true
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				own[id.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, l := range n.Lhs {
					add(l)
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				add(n.Key)
				add(n.Value)
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				own[id.Name] = true
			}
		}
		return true
	})
	return own
}

// rootName is the variable that an expression begins with, or "".
func rootName(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x.Name
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		default:
			return ""
		}
	}
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// isCall tells whether n calls function name of package p.
func isCall(n ast.Node, p, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := call.Fun.(*ast.SelectorExpr)
	return ok && s.Sel.Name == name && isIdent(s.X, p)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// TestArchitecture checks the whole tree.
func TestArchitecture(t *testing.T) {
	found, err := violations(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

// TestArchitectureTablesAreAlive: an exception or a layer for what does not
// exist any more is taken out.
func TestArchitectureTablesAreAlive(t *testing.T) {
	for _, dir := range sortedKeys(layers) {
		if files, err := fs.Glob(os.DirFS("."), dir+"/*.go"); err != nil || len(files) == 0 {
			t.Errorf("layers names %s, which has no Go file", dir)
		}
	}
	for _, file := range sortedKeys(allowedClock) {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("allowedClock names %s, which does not exist", file)
		}
	}
	for _, file := range sortedKeys(longFiles) {
		if src, err := os.ReadFile(file); err != nil || strings.Count(string(src), "\n") <= maxLines {
			t.Errorf("longFiles names %s, which is not long", file)
		}
	}
}

// TestArchitectureRulesBite breaks each rule once.
func TestArchitectureRulesBite(t *testing.T) {
	const head = "// Package x is.\npackage x\n"
	imports := func(p string) string { return head + "import _ \"" + p + "\"\n" }
	cases := []struct{ file, src, want string }{
		{"dataflow/expr/a.go", head, ""},
		{"dataflow/expr/a.go", "package x\n", "no package comment"},
		{"dataflow/new/a.go", head, "not in the table of layers"},
		{"dataflow/expr/a.go", imports("net/http"), "imports net/http"},
		{"dataflow/expr/a.go", imports("os"), "touches no disk"},
		{"dataflow/expr/a.go", imports("context"), "nothing to cancel"},
		{"dataflow/expr/a.go", imports("log/slog"), "listeners log it"},
		{"sensors/a.go", imports("context"), ""},
		{"sensors/mqtt/a.go", imports("net"), ""},
		{"dataflow/expr/a.go", imports("testing"), "imports testing outside a test"},
		{"dataflow/a.go", imports(module + "/dataflow/batch"), "imports nothing of Tidemark"},
		{"dataflow/expr/a.go", imports(module + "/dataflow/batch"), ""},
		{"dataflow/expr/a.go", imports(module + "/dataflow/runtime"), "imports point down"},
		{"dataflow/batch/a.go", imports(module + "/dataflow/expr"), "imports point down"},
		{"dataflow/runtime/a.go", imports(module + "/sensors/mqtt"), "they meet only in agent"},
		{"sensors/file/a.go", imports(module + "/sensors/generate"), ""},
		{"agent/a.go", imports(module + "/cmd/tidemark"), "imports point down"},
		{"agent/a.go", imports(module + "/sensors/mqtt"), ""},
		{"dataflow/expr/a.go", imports(module + "/dataflow/optest"), "for tests only"},
		{"dataflow/expr/a.go", head + "import \"time\"\nfunc f() { time.Now() }\n", "told the time"},
		{"dataflow/runtime/a.go", head + "import \"time\"\nfunc f() { time.Now() }\n", ""},
		{"dataflow/expr/a.go", head + "func f() { go f() }\n", "a go statement"},
		{"dataflow/expr/a.go", head + "func f(wg W) { wg.Go(func() {}) }\n", "starts a goroutine"},
		{"dataflow/expr/a.go", head + "import \"math/rand\"\nfunc f() { rand.Int() }\n", "rand.Int is global"},
		{"dataflow/expr/a.go", head + "func init() {}\n", "an init function"},
		{"agent/a.go", head + "var n int\n", "n has no value"},
		{"agent/a.go", head + "var n = 1\nfunc f() { n++ }\n", "n is written to"},
		{"agent/a.go", head + "var n = map[int]int{}\nfunc f() { n[1] = 2 }\n", "n is written to"},
		{"agent/a.go", head + "var n = map[int]int{}\nfunc f() { delete(n, 1) }\n", "n is written to"},
		{"agent/a.go", head + "var n = [...]int{1}\nfunc f() { n := 1; n = 2 }\n", ""},
		{"agent/a.go", head + "var n = make(chan int)\n", "neither an error nor a table"},
		{"agent/a.go", head + "var errX = errors.New(\"x\")\nvar _ I = T{}\n", ""},
		{"agent/a_test.go", head + "import \"time\"\nfunc f() { time.Sleep(1) }\n", "time.Sleep in a test"},
		{"agent/a_test.go", head + "import \"time\"\nvar n int\nfunc f() { time.Now() }\n", ""},
		{"agent/a_test.go", head + "func f() { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }\n", ""},
		{"sensors/clock.go", head + "func f() { time.Now() }\n", ""},
		{"sensors/other.go", head + "func f() { time.Now() }\n", "told the time"},
		{"agent/a.go", head + "func f() {" + strings.Repeat("\n", maxFuncLines) + "}\n", "f has 71 lines, at most 70"},
		{"agent/a.go", head + strings.Repeat("\n", maxLines), "lines, at most 600"},
	}
	for _, c := range cases {
		found, err := violations(fstest.MapFS{c.file: {Data: []byte(c.src)}})
		if err != nil {
			t.Errorf("%s: %v\n%s", c.file, err, c.src)
		}
		all := strings.Join(found, "\n")
		if c.want == "" && len(found) > 0 || !strings.Contains(all, c.want) {
			t.Errorf("%s:\n%sfound %q, want %q", c.file, c.src, all, c.want)
		}
	}
}
