package expr

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

type opcode uint8

const (
	opConst opcode = iota
	opColumn
)

type node struct {
	op  opcode
	typ batch.Type
	col int
}
