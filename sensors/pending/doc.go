// Package pending owns the bytes that a transactional sink has encoded and not
// committed: Queue, a queue of bytes with a bounded head in memory and the rest
// in a scratch file, and Transactions, which knows where each transaction ends.
//
// It never makes anything durable: what must survive is in checkpoints, and the
// scratch file of a process that died is removed by the next. It knows no
// sink. Read queue.go, then transactions.go; docs/FILES.md says where the
// scratch file of a file sink lies.
package pending
