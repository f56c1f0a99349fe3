package dataflow

import "math/bits"

// A KeyGroup is the unit in which keyed state is owned, stored and moved:
// hash(key) mod the job's max parallelism.
type KeyGroup int32

// MaxMaxParallelism is the largest number of key groups a job may have.
const MaxMaxParallelism = 32768

// KeyGroupOf maps the 64-bit hash of an encoded key to its group. The hash
// (xxh3-64) and this rule are part of the state format and never change.
func KeyGroupOf(hash uint64, maxParallelism int) KeyGroup {
	return KeyGroup(hash % uint64(maxParallelism))
}

// SubtaskOf tells which of parallelism subtasks owns the group.
func SubtaskOf(g KeyGroup, parallelism, maxParallelism int) int {
	return int(g) * parallelism / maxParallelism
}

// KeyGroupRange is a contiguous run of groups, both ends included. It is empty
// when Last < First.
type KeyGroupRange struct{ First, Last KeyGroup }

// RangeOf is the range that subtask i of p owns:
// [ceil(i*max/p), floor(((i+1)*max-1)/p)].
func RangeOf(subtask, parallelism, maxParallelism int) KeyGroupRange {
	return KeyGroupRange{
		First: KeyGroup((subtask*maxParallelism + parallelism - 1) / parallelism),
		Last:  KeyGroup(((subtask+1)*maxParallelism - 1) / parallelism),
	}
}

// Contains tells whether g lies in r.
func (r KeyGroupRange) Contains(g KeyGroup) bool { return r.First <= g && g <= r.Last }

// DefaultMaxParallelism is the number of key groups of a job that does not
// name one: min(max(nextPow2(p + p/2), 128), 32768).
func DefaultMaxParallelism(parallelism int) int {
	n := parallelism + parallelism/2
	if n < 1 {
		n = 1
	}
	p := 1 << bits.Len(uint(n-1))
	return min(max(p, 128), MaxMaxParallelism)
}
