package statedb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

var _ operator.Backing = (*DB)(nil)

// Options of a DB.
type Options struct {
	Memory int64 // bytes of its state that the operator may keep itself; 0: DefaultMemory
	Limit  int64 // bytes that the file may have; 0: as the disk allows
}

// DefaultMemory is what an operator of a subtask keeps in memory if nobody says
// otherwise.
const DefaultMemory = 64 << 20

// DB is one operator's state on disk. It belongs to the goroutine of the subtask.
type DB struct {
	path string
	opt  Options
	db   *bbolt.DB
	tx   *bbolt.Tx // while Scan is under way

	puts    list
	wants   list
	got     list
	cleared [maxTables]bool
	err     error // the file is as it should be only while this is nil
}

const maxTables = 4

// list is entries one after the other, their bytes in one piece of memory.
type list struct {
	entries []entry
	data    []byte
	last    int32 // seq of the last entry
}

type entry struct {
	table    int32
	key, end int // of the key in data; the value follows
	value    int // its end; -1: none
	seq      int32
}

func (l *list) add(table int, key, value []byte) {
	l.last++
	e := entry{table: int32(table), key: len(l.data), value: -1, seq: l.last}
	l.data = append(l.data, key...)
	e.end = len(l.data)
	if value != nil {
		l.data = append(l.data, value...)
		e.value = len(l.data)
	}
	l.entries = append(l.entries, e)
}

func (l *list) keyOf(e *entry) []byte { return l.data[e.key:e.end:e.end] }

func (l *list) valueOf(e *entry) []byte {
	if e.value < 0 {
		return nil
	}
	return l.data[e.end:e.value:e.value]
}

// reset empties the list and keeps its memory, up to so many bytes.
func (l *list) reset(keep int64) {
	if int64(cap(l.data)) > keep {
		l.data = nil
	}
	if int64(cap(l.entries)) > keep/48 {
		l.entries = nil
	}
	l.entries, l.data, l.last = l.entries[:0], l.data[:0], 0
}

// sort orders by table and key; of equal ones only the last stays.
func (l *list) sort() {
	slices.SortFunc(l.entries, func(a, b entry) int {
		switch {
		case a.table != b.table:
			return int(a.table - b.table)
		default:
			if c := bytes.Compare(l.keyOf(&a), l.keyOf(&b)); c != 0 {
				return c
			}
			return int(b.seq - a.seq)
		}
	})
	l.entries = slices.CompactFunc(l.entries, func(a, b entry) bool {
		return a.table == b.table && bytes.Equal(l.keyOf(&a), l.keyOf(&b))
	})
}

// Open makes an empty file at path; one that is there is removed.
func Open(path string, opt Options) (*DB, error) {
	if opt.Memory == 0 {
		opt.Memory = DefaultMemory
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("statedb: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("statedb: remove what an earlier run left: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoSync: true, NoGrowSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		MaxSize: int(opt.Limit), NoStatistics: true,
	})
	if err != nil {
		return nil, fmt.Errorf("statedb: open %s: %w", path, kind(err))
	}
	d := &DB{path: path, opt: opt, db: db}
	err = db.Update(func(tx *bbolt.Tx) error {
		for i := range maxTables {
			if _, err := tx.CreateBucket(bucket(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(d.failed("create", err), d.Close())
	}
	return d, nil
}

func bucket(table int) []byte { return []byte{byte(table)} }

// kind makes a full disk known as such.
func kind(err error) error {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return store.Full(err)
	}
	return disk.Full(err)
}

func (d *DB) failed(what string, err error) error {
	if d.err == nil {
		d.err = fmt.Errorf("statedb: %s %s: %w", what, d.path, kind(err))
	}
	return d.err
}

// Memory is operator.Backing's.
func (d *DB) Memory() int64 { return d.opt.Memory }

// Want is operator.Backing's.
func (d *DB) Want(table int, key []byte) { d.wants.add(table, key, nil) }

// Put is operator.Backing's.
func (d *DB) Put(table int, key, value []byte) { d.puts.add(table, key, value) }

// Clear is operator.Backing's.
func (d *DB) Clear(table int) {
	d.puts.entries = slices.DeleteFunc(d.puts.entries, func(e entry) bool { return int(e.table) == table })
	d.cleared[table] = true
}

// Take is operator.Backing's.
func (d *DB) Take(f func(table int, key, value []byte)) {
	for i := range d.got.entries {
		e := &d.got.entries[i]
		f(int(e.table), d.got.keyOf(e), d.got.valueOf(e))
	}
	d.got.reset(d.keep())
}

// keep is how much memory of a list stays for the next time: of what an operator
// puts at once, about.
func (d *DB) keep() int64 { return max(1<<20, d.opt.Memory/4) }

// Sync writes what was put and reads what is wanted. Its work is bounded by what
// was noted since the last Sync; with nothing noted it costs nothing.
func (d *DB) Sync(ctx context.Context) error {
	if err := d.write(); err != nil {
		return err
	}
	if len(d.wants.entries) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.read()
}

// perTx is how many entries one transaction writes: each may change a page, and
// a transaction has its pages in memory until its end.
const perTx = 4096

func (d *DB) write() error {
	if d.err != nil {
		return d.err
	}
	for i := range d.cleared {
		if d.cleared[i] {
			if err := d.clear(i); err != nil {
				return d.failed("clear", err)
			}
		}
	}
	if len(d.puts.entries) == 0 {
		return nil
	}
	d.puts.sort()
	for rest := d.puts.entries; len(rest) > 0; {
		n := min(len(rest), perTx)
		if err := d.db.Update(func(tx *bbolt.Tx) error { return d.writeSome(tx, rest[:n]) }); err != nil {
			return d.failed("write", err)
		}
		rest = rest[n:]
	}
	d.puts.reset(d.keep())
	return nil
}

func (d *DB) clear(table int) error {
	d.cleared[table] = false
	return d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket(table))
		if k, _ := b.Cursor().First(); k == nil {
			return nil
		}
		if err := tx.DeleteBucket(bucket(table)); err != nil {
			return err
		}
		_, err := tx.CreateBucket(bucket(table))
		return err
	})
}

// writeSome writes entries, which are in order. What goes behind all that is
// there fills its pages; among others it leaves room.
func (d *DB) writeSome(tx *bbolt.Tx, entries []entry) error {
	var b *bbolt.Bucket
	table := int32(-1)
	for i := range entries {
		e := &entries[i]
		key := d.puts.keyOf(e)
		if e.table != table {
			table = e.table
			b = tx.Bucket(bucket(int(table)))
			last, _ := b.Cursor().Last()
			b.FillPercent = 0.75
			if bytes.Compare(key, last) > 0 {
				b.FillPercent = 1
			}
		}
		var err error
		if v := d.puts.valueOf(e); v == nil {
			err = b.Delete(key)
		} else {
			err = b.Put(key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *DB) read() error {
	d.wants.sort()
	err := d.db.View(func(tx *bbolt.Tx) error {
		var b *bbolt.Bucket
		var last []byte
		table := int32(-1)
		for i := range d.wants.entries {
			e := &d.wants.entries[i]
			if e.table != table {
				table = e.table
				b = tx.Bucket(bucket(int(table)))
				last, _ = b.Cursor().Last()
			}
			key, value := d.wants.keyOf(e), []byte(nil)
			if bytes.Compare(key, last) <= 0 { // new keys often come in order
				value = b.Get(key)
			}
			d.got.add(int(table), key, value)
		}
		return nil
	})
	d.wants.reset(d.keep())
	if err != nil {
		return d.failed("read", err)
	}
	return nil
}

// Get is operator.Backing's. What was put is written first.
func (d *DB) Get(table int, key []byte) (value []byte, err error) {
	if d.tx != nil {
		return d.tx.Bucket(bucket(table)).Get(key), nil
	}
	if err := d.write(); err != nil {
		return nil, err
	}
	err = d.db.View(func(tx *bbolt.Tx) error {
		value = bytes.Clone(tx.Bucket(bucket(table)).Get(key))
		return nil
	})
	if err != nil {
		return nil, d.failed("read", err)
	}
	return value, nil
}

// Scan is operator.Backing's. What was put is written first.
func (d *DB) Scan(table int, f func(key, value []byte) error) error {
	if err := d.write(); err != nil {
		return err
	}
	return d.db.View(func(tx *bbolt.Tx) error {
		d.tx = tx
		defer func() { d.tx = nil }()
		return tx.Bucket(bucket(table)).ForEach(f)
	})
}

// Size is how many bytes the file has.
func (d *DB) Size() int64 {
	i, err := os.Stat(d.path)
	if err != nil {
		return 0
	}
	return i.Size()
}

// Close removes the file.
func (d *DB) Close() error {
	err := d.db.Close()
	if rm := os.Remove(d.path); !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	if err != nil {
		return fmt.Errorf("statedb: close: %w", err)
	}
	return nil
}
