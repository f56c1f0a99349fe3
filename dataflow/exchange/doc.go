// Package exchange owns what lies between two subtasks. Here stand the
// partitioners, which deal the rows of an output out to its channels; the
// channel protocol (frames, their order, the fence by attempt) belongs here too.
//
// A partitioner is pure and belongs to one subtask: it sees batches in order
// and says which rows go where. It opens no channel and knows no network; the
// channels inside a process are dataflow/runtime's, the wire form of a batch is
// dataflow/batch's. Which subtasks are connected at all is decided by
// dataflow/graph (Connection.Targets).
package exchange
