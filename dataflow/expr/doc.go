// Package expr owns SQL scalar expressions: it parses them, checks their types
// against a schema, and runs them as loops over columns.
//
// It never evaluates a row at a time outside its tests, and it allocates
// nothing for a row. Its grammar is in grammar.go, its kernels in kernel*.go.
//
// It is large because each function has a kernel for each type of its arguments.
package expr
