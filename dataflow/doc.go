// Package dataflow is the vocabulary of the engine: event time, key groups,
// and the typed ids that name the parts of a running job.
//
// It owns no behaviour beyond the arithmetic of those nouns and imports
// nothing of Tidemark. Columns live in dataflow/batch, the operator contract
// in dataflow/operator; read those two next.
package dataflow
