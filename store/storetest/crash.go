package storetest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
)

const sector = 512 // what a disk writes whole

// Crash is the file system as it may be found after the power is back. What was
// durable is there. Of what was not, the seed says: nothing (0), everything (1),
// or any part of it: each name stands where any of its unsynced changes put it,
// and of each file's unsynced writes any are there, some torn at a sector. f
// stays as it is; its files are not the new one's.
func (f *FS) Crash(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := crasher{seed: seed, r: rand.New(rand.NewPCG(seed, 0x5eed)), made: make(map[*node]*node)}
	return &FS{root: c.node(f.root)}
}

type crasher struct {
	seed uint64
	r    *rand.Rand
	made map[*node]*node // a file of two names stays one file
}

// some draws how many of n unsynced changes are there.
func (c *crasher) some(n int) int {
	switch c.seed {
	case 0:
		return 0
	case 1:
		return n
	}
	return c.r.IntN(n + 1)
}

func (c *crasher) node(n *node) *node {
	if m := c.made[n]; m != nil {
		return m
	}
	if n.dir == nil {
		data := c.bytes(n)
		m := &node{data: data, durable: slices.Clone(data)}
		c.made[n] = m
		return m
	}
	m := newDir()
	c.made[n] = m
	names := make(map[string]*node, len(n.durableDir))
	for name, child := range n.durableDir {
		names[name] = child
	}
	byName := make(map[string][]dirOp)
	for _, op := range n.pendingDirs {
		byName[op.name] = append(byName[op.name], op)
	}
	for _, name := range sorted(byName) {
		for _, op := range byName[name][:c.some(len(byName[name]))] {
			apply(names, op)
		}
	}
	for _, name := range sorted(names) {
		m.dir[name] = c.node(names[name])
		m.durableDir[name] = m.dir[name]
	}
	return m
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// bytes are a file's after the crash.
func (c *crasher) bytes(n *node) []byte {
	data := slices.Clone(n.durable)
	if len(n.pending) == 0 {
		return data
	}
	prefix := c.r.IntN(2) == 0 // of the writes a prefix is there, or any subset
	kept := c.some(len(n.pending))
	for i, op := range n.pending {
		switch {
		case c.seed > 1 && !prefix && c.r.IntN(2) == 0, prefix && i > kept, c.seed == 0:
			continue
		case c.seed > 1 && prefix && i == kept, c.seed > 1 && c.r.IntN(4) == 0:
			data = c.torn(op, data)
		default:
			data = op.apply(data)
		}
	}
	return data
}

// torn does a part of a write: sectors from its front, or any of them.
func (c *crasher) torn(op fileOp, data []byte) []byte {
	if op.size >= 0 || len(op.data) == 0 {
		return data
	}
	if c.r.IntN(2) == 0 {
		op.data = op.data[:c.r.IntN(len(op.data)+1)]
		return op.apply(data)
	}
	for at := 0; at < len(op.data); at += sector {
		if c.r.IntN(2) == 0 {
			data = fileOp{at: op.at + int64(at), data: op.data[at:min(at+sector, len(op.data))], size: -1}.apply(data)
		}
	}
	return data
}

// Damage changes the bytes of a file as a bad disk does, behind everybody's
// back: durably and without an operation. change may keep its argument.
func (f *FS) Damage(name string, change func(data []byte) []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(name)
	if n == nil || n.dir != nil {
		return pathError("damage", name, os.ErrNotExist)
	}
	n.data = change(slices.Clone(n.data))
	n.durable, n.pending = slices.Clone(n.data), nil
	return nil
}

// Files are the names of all files, in order.
func (f *FS) Files() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	var walk func(dir string, n *node)
	walk = func(dir string, n *node) {
		for _, name := range sorted(n.dir) {
			if path := filepath.Join(dir, name); n.dir[name].dir != nil {
				walk(path, n.dir[name])
			} else {
				list = append(list, path)
			}
		}
	}
	walk("/", f.root)
	return list
}
