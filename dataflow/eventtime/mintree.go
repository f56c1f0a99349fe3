package eventtime

import "math"

// none is the key of a leaf that does not count.
const none = math.MaxInt64

// minTree is the least of n keys, each of which may change: a tournament. Leaf
// i is node n+i, the parent of node i is node i/2, and node 1 is the winner.
type minTree struct {
	n     int
	nodes []int64
}

func newMinTree(n int) minTree {
	t := minTree{n: n, nodes: make([]int64, max(2*n, 2))}
	for i := range t.nodes {
		t.nodes[i] = none
	}
	return t
}

// set gives leaf i a key, and stops climbing where nothing changes.
func (t *minTree) set(i int, key int64) {
	i += t.n
	if t.nodes[i] == key {
		return
	}
	t.nodes[i] = key
	for i > 1 {
		key = min(t.nodes[i], t.nodes[i^1])
		i /= 2
		if t.nodes[i] == key {
			return
		}
		t.nodes[i] = key
	}
}

// least is the least key, or none.
func (t *minTree) least() int64 { return t.nodes[1] }
