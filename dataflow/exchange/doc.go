// Package exchange owns what stands before the channels between subtasks: the
// partitioners, which deal the rows of an output out to its channels.
//
// A partitioner is pure and belongs to one subtask: it sees batches in order
// and says which rows go where. It opens no channel and knows no network; the
// channels inside a process are dataflow/runtime's, those to other agents
// agent/channel's, the wire form of a batch is dataflow/batch's. Which subtasks
// are connected at all is decided by dataflow/graph (Connection.Targets).
package exchange
