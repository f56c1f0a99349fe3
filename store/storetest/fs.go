package storetest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tidemark-mesh/tidemark/store"
)

// ErrPower is what every operation ends with when the power is off.
var ErrPower = errors.New("storetest: the power is off")

// FS is a file system in memory that knows what of it is durable. Any goroutine
// may use it.
//
// Operations that change something are counted: a creation, a write, a
// truncation, a sync, a rename, a removal, each is one. Faults are set by their
// number.
type FS struct {
	mu       sync.Mutex // guards everything below, and the tree
	root     *node
	ops      int
	off      bool  // the power is
	powerAt  int   // the operation that it goes off at; 0: none
	failAt   int   // the operation that fails; 0: none
	forever  bool  // and those after it
	failWith error // how
	readWith error // how every read fails; nil: none does
	capacity int64 // bytes that files may have in all; 0: no bound
}

var _ store.FS = (*FS)(nil)

// node is a file or a folder: an inode. Names point to it.
type node struct {
	dir map[string]*node // a folder's names now; nil: it is a file

	durableDir  map[string]*node
	pendingDirs []dirOp // not durable, in order

	data    []byte // a file's bytes now
	durable []byte
	pending []fileOp // not durable, in order
}

type dirOp struct {
	name string
	node *node // nil: the name is removed
}

// fileOp is a write, or, if size is not negative, a truncation.
type fileOp struct {
	at   int64
	data []byte
	size int64
	lost bool // a sync failed: a later one does not make it durable
}

// New makes an empty file system.
func New() *FS { return &FS{root: newDir()} }

func newDir() *node { return &node{dir: make(map[string]*node), durableDir: make(map[string]*node)} }

// Ops is the number of changing operations so far.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// PowerOffAt cuts the power during the n-th changing operation from now, 1 the
// next one: whether it still takes place is Crash's seed's. Everything after it
// fails.
func (f *FS) PowerOffAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.powerAt = f.ops + n
}

// FailAt makes the n-th changing operation from now fail with err, such as
// syscall.ENOSPC or syscall.EIO. Of a write, half is done.
func (f *FS) FailAt(n int, err error) { f.fail(n, err, false) }

// FailFrom is FailAt for that operation and all after it, until Heal.
func (f *FS) FailFrom(n int, err error) { f.fail(n, err, true) }

func (f *FS) fail(n int, err error, forever bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.failWith, f.forever = f.ops+n, err, forever
}

// FailReads makes every read of a file fail, until Heal.
func (f *FS) FailReads(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readWith = err
}

// SetCapacity bounds the bytes of all files: a write beyond it writes what fits
// and fails with syscall.ENOSPC. 0: no bound.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// Heal takes all faults back, except a power cut.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.forever, f.readWith, f.capacity = 0, false, nil, 0
}

// Off tells whether the power is off.
func (f *FS) Off() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off
}

// change counts an operation. done: it may take place, though err is returned:
// the power went off during it.
func (f *FS) change() (done bool, err error) {
	if f.off {
		return false, ErrPower
	}
	f.ops++
	if f.powerAt == f.ops {
		f.off = true
		return true, ErrPower
	}
	if f.failAt > 0 && (f.ops == f.failAt || f.forever && f.ops > f.failAt) {
		return false, f.failWith
	}
	return true, nil
}

func pathError(op, name string, err error) error {
	if err == nil || errors.Is(err, ErrPower) {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func elements(name string) []string {
	name = strings.Trim(filepath.ToSlash(filepath.Clean(name)), "/")
	if name == "" || name == "." {
		return nil
	}
	return strings.Split(name, "/")
}

// find returns the node of a name; nil if it is not there.
func (f *FS) find(name string) *node {
	n := f.root
	for _, e := range elements(name) {
		if n == nil || n.dir == nil {
			return nil
		}
		n = n.dir[e]
	}
	return n
}

// parent is the folder of a name, and its last element.
func (f *FS) parent(name string) (*node, string) {
	e := elements(name)
	if len(e) == 0 {
		return nil, ""
	}
	n := f.find(strings.Join(e[:len(e)-1], "/"))
	if n == nil || n.dir == nil {
		return nil, ""
	}
	return n, e[len(e)-1]
}

// set points a name of folder d to n, or removes it; it is not durable.
func (d *node) set(name string, n *node) {
	if n == nil {
		delete(d.dir, name)
	} else {
		d.dir[name] = n
	}
	d.pendingDirs = append(d.pendingDirs, dirOp{name, n})
}

// Open is os.OpenFile.
func (f *FS) Open(name string, flag int) (store.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, ErrPower
	}
	n := f.find(name)
	switch {
	case n != nil && n.dir != nil:
		return nil, pathError("open", name, syscall.EISDIR)
	case n != nil && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, pathError("open", name, fs.ErrExist)
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathError("open", name, fs.ErrNotExist)
	case n == nil:
		d, last := f.parent(name)
		if d == nil {
			return nil, pathError("open", name, fs.ErrNotExist)
		}
		done, err := f.change()
		if done {
			n = &node{}
			d.set(last, n)
		}
		if err != nil {
			return nil, pathError("open", name, err)
		}
	case flag&os.O_TRUNC != 0 && len(n.data) > 0:
		done, err := f.change()
		if done {
			n.truncate(0)
		}
		if err != nil {
			return nil, pathError("open", name, err)
		}
	}
	return &file{fs: f, node: n, name: name, writable: flag&(os.O_WRONLY|os.O_RDWR) != 0}, nil
}

// Stat is os.Stat.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(name)
	switch {
	case f.off:
		return nil, ErrPower
	case n == nil:
		return nil, pathError("stat", name, fs.ErrNotExist)
	}
	return info{filepath.Base(name), int64(len(n.data)), n.dir != nil}, nil
}

// ReadDir is os.ReadDir.
func (f *FS) ReadDir(dir string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(dir)
	switch {
	case f.off:
		return nil, ErrPower
	case n == nil:
		return nil, pathError("open", dir, fs.ErrNotExist)
	case n.dir == nil:
		return nil, pathError("readdir", dir, syscall.ENOTDIR)
	}
	var list []fs.DirEntry
	for name, c := range n.dir {
		list = append(list, fs.FileInfoToDirEntry(info{name, int64(len(c.data)), c.dir != nil}))
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// MkdirAll is os.MkdirAll.
func (f *FS) MkdirAll(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return ErrPower
	}
	n := f.root
	for _, e := range elements(dir) {
		c := n.dir[e]
		if c == nil {
			done, err := f.change()
			if c = newDir(); done {
				n.set(e, c)
			}
			if err != nil {
				return pathError("mkdir", dir, err)
			}
		}
		if c.dir == nil {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		n = c
	}
	return nil
}

// Remove is os.Remove.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(name)
	d, last := f.parent(name)
	switch {
	case f.off:
		return ErrPower
	case n == nil || d == nil:
		return pathError("remove", name, fs.ErrNotExist)
	case len(n.dir) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	done, err := f.change()
	if done {
		d.set(last, nil)
	}
	return pathError("remove", name, err)
}

// Rename is os.Rename. The new name may be durable without the loss of the old
// one, and the other way round.
func (f *FS) Rename(oldname, newname string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(oldname)
	from, oldLast := f.parent(oldname)
	to, newLast := f.parent(newname)
	switch {
	case f.off:
		return ErrPower
	case n == nil || to == nil:
		return pathError("rename", oldname, fs.ErrNotExist)
	case to.dir[newLast] != nil && to.dir[newLast].dir != nil:
		return pathError("rename", newname, fs.ErrExist)
	}
	done, err := f.change()
	if done {
		to.set(newLast, n)
		from.set(oldLast, nil)
	}
	return pathError("rename", newname, err)
}

// SyncDir makes the names in dir durable.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(dir)
	switch {
	case f.off:
		return ErrPower
	case n == nil:
		return pathError("sync", dir, fs.ErrNotExist)
	case n.dir == nil:
		return pathError("sync", dir, syscall.ENOTDIR)
	}
	if _, err := f.change(); err != nil {
		return pathError("sync", dir, err)
	}
	for _, op := range n.pendingDirs {
		apply(n.durableDir, op)
	}
	n.pendingDirs = nil
	return nil
}

func apply(names map[string]*node, op dirOp) {
	if op.node == nil {
		delete(names, op.name)
		return
	}
	names[op.name] = op.node
}

// info is what Stat says.
type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string     { return i.name }
func (i info) Size() int64      { return i.size }
func (info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool      { return i.dir }
func (info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

// file is an open file.
type file struct {
	fs       *FS
	node     *node
	name     string
	writable bool
	closed   bool // guarded by fs.mu
}

func (h *file) ready(write bool) error {
	switch {
	case h.fs.off:
		return ErrPower
	case h.closed:
		return pathError("use", h.name, fs.ErrClosed)
	case write && !h.writable:
		return pathError("write", h.name, syscall.EBADF)
	}
	return nil
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(false); err != nil {
		return 0, err
	}
	if h.fs.readWith != nil {
		return 0, pathError("read", h.name, h.fs.readWith)
	}
	if off < 0 {
		return 0, pathError("read", h.name, syscall.EINVAL)
	}
	if off >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(true); err != nil {
		return 0, err
	}
	done, err := h.fs.change()
	n := len(p)
	if !done {
		n /= 2
	}
	if room := h.fs.room(h.node, off); err == nil && int64(n) > room {
		n, err = int(room), syscall.ENOSPC
	}
	if n > 0 {
		h.node.write(fileOp{at: off, data: slices.Clone(p[:n]), size: -1})
	}
	if err != nil {
		return n, pathError("write", h.name, err)
	}
	return n, nil
}

// room is how many bytes can be written to a file at off.
func (f *FS) room(n *node, off int64) int64 {
	if f.capacity == 0 {
		return 1 << 62
	}
	return max(0, f.capacity-f.root.bytes()+int64(len(n.data))-off)
}

func (n *node) bytes() int64 {
	sum := int64(len(n.data))
	for _, c := range n.dir {
		sum += c.bytes()
	}
	return sum
}

func (h *file) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(true); err != nil {
		return err
	}
	done, err := h.fs.change()
	if done {
		h.node.truncate(size)
	}
	return pathError("truncate", h.name, err)
}

func (n *node) truncate(size int64) { n.write(fileOp{size: size}) }

func (n *node) write(op fileOp) {
	n.data = op.apply(n.data)
	n.pending = append(n.pending, op)
}

// apply does the operation to data.
func (op fileOp) apply(data []byte) []byte {
	end := op.size
	if op.size < 0 {
		end = max(int64(len(data)), op.at+int64(len(op.data)))
	}
	if grow := end - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	data = data[:end]
	if op.size < 0 {
		copy(data[op.at:], op.data)
	}
	return data
}

func (h *file) Stat() (fs.FileInfo, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(false); err != nil {
		return nil, err
	}
	return info{filepath.Base(h.name), int64(len(h.node.data)), false}, nil
}

// Sync makes the bytes durable. What was written before one that failed is
// never made durable by another.
func (h *file) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(false); err != nil {
		return err
	}
	n := h.node
	if _, err := h.fs.change(); err != nil {
		for i := range n.pending {
			n.pending[i].lost = true
		}
		return pathError("sync", h.name, err)
	}
	for _, op := range n.pending {
		if !op.lost {
			n.durable = op.apply(n.durable)
		}
	}
	n.pending = nil
	return nil
}

func (h *file) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return pathError("close", h.name, fs.ErrClosed)
	}
	h.closed = true
	return nil
}
