package ingestlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

const (
	suffix    = ".log"
	newSuffix = ".new" // of a segment that is being made
	// growBytes is by how much a segment's file grows; what is not written takes
	// no room on disk.
	growBytes = 16 << 20
	// lockPatience is how long a reader waits for a segment that its writer is
	// about to close.
	lockPatience = 10 * time.Second
	// mend is what to do about a segment that is damaged as a whole.
	mend = "put a good copy in its place; or, if it is not the last one, move it and those before it away, and what they hold is lost"
)

// The keys of a segment. A commit is a bucket of its own in groups, so that the
// pages with its blocks are written once; its key is the sequence of its first
// entry, its bucket sequence that behind its last. In it are blocks by lane and
// number, and, if it is of an epoch, the state behind it.
func keyHead() []byte   { return []byte("head") }
func keyEnd() []byte    { return []byte("end") }
func keyGroups() []byte { return []byte("groups") }
func keyRoot() []byte   { return []byte("log") }

// keyState is behind the keys of a group's blocks.
func keyState() []byte { return []byte("state") }

func groupKey(seq int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(seq)) }

func blockKey(lane, number int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, uint16(lane)), uint32(number))
}

// segment is one file. Its fields are under the log's lock but for db, which
// the log's owner sets before others know the segment.
type segment struct {
	path  string
	head  state // where the log was at its beginning
	end   state // behind its last entry that counts
	bytes int64
	db    *bolt.DB // of the last segment only; nil: readers open it themselves
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%010d%s", number, suffix))
}

// damagedFile is a segment that is damaged as a whole.
func damagedFile(path, why string) error {
	return fmt.Errorf("ingestlog: %s is damaged: %s: %w; %s", path, why, store.ErrCorrupt, mend)
}

// guard calls f, which reads or writes pages of a file that may be damaged:
// bbolt panics on some of what it may find there, and may reach behind the map.
func guard(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damagedFile(path, "its pages are not in order, or not all there")
		}
	}()
	return f()
}

// openFile opens the pages of a segment.
func (o *Options) openFile(path string, readOnly bool, wait time.Duration) (db *bolt.DB, err error) {
	open := o.OpenDB
	if open == nil {
		open = bolt.Open
	}
	bo := &bolt.Options{Timeout: max(wait, time.Millisecond), ReadOnly: readOnly, FreelistType: bolt.FreelistMapType, NoStatistics: true}
	if !readOnly {
		// Room for a whole segment and the commit that goes over its end, so that
		// the map seldom moves: it cannot while somebody reads.
		bo.InitialMmapSize = int(2 * o.SegmentBytes)
	}
	var file *os.File
	bo.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	err = guard(path, func() error {
		db, err = open(path, 0o644, bo)
		return err
	})
	if err != nil && file != nil {
		unlock(file) // bbolt forgets it if it panics; and its map of the file would keep the lock
		_ = file.Close()
	}
	switch {
	case err == nil:
		db.AllocSize = growBytes
	case errors.Is(err, bolterrors.ErrTimeout):
		err = fmt.Errorf("ingestlog: %s: %w", path, store.ErrLocked)
	case strings.Contains(err.Error(), "file size too small"):
		err = damagedFile(path, "it was cut short")
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		err = fmt.Errorf("ingestlog: %s: %w (%v); %s", path, store.ErrCorrupt, err, mend)
	case !errors.Is(err, store.ErrCorrupt):
		err = fmt.Errorf("ingestlog: opening %s: %w", path, disk.Full(err))
	}
	return db, err
}

// create makes the segment that begins at head. It has its name when everything
// in it is durable, so that a crash leaves a whole one or none.
func (o *Options) create(head state) (seg *segment, err error) {
	path := segmentPath(o.Dir, head.segment)
	begun := path + newSuffix
	if err := os.Remove(begun); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	db, err := o.openFile(begun, false, 0)
	if err != nil {
		_ = os.Remove(begun)
		return nil, err
	}
	err = guard(begun, func() error {
		return db.Update(func(tx *bolt.Tx) error {
			root, err := tx.CreateBucket(keyRoot())
			if err != nil {
				return err
			}
			if _, err := root.CreateBucket(keyGroups()); err != nil {
				return err
			}
			data := head.encode(nil)
			if err := root.Put(keyHead(), data); err != nil {
				return err
			}
			return root.Put(keyEnd(), data)
		})
	})
	if e := db.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(begun, path)
	}
	if err != nil {
		_ = os.Remove(begun)
		return nil, fmt.Errorf("ingestlog: making segment %s: %w", path, disk.Full(err))
	}
	if err := disk.Shared.SyncDir(o.Dir); err != nil {
		return nil, fmt.Errorf("ingestlog: making segment %s: %w", path, disk.Full(err))
	}
	if db, err = o.openFile(path, false, 0); err != nil {
		return nil, err
	}
	seg = &segment{path: path, head: head, end: head.clone(), db: db}
	_, seg.bytes, err = seg.last()
	return seg, err
}

// last is the number of the file's last transaction and the bytes in use.
func (s *segment) last() (id int, size int64, err error) {
	err = guard(s.path, func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			id, size = tx.ID(), tx.Size()
			return nil
		})
	})
	return id, size, err
}

// bundle is a group as it goes into a segment: its entries from seq to next in
// blocks, ordered by lane.
type bundle struct {
	seq, next int64
	blocks    []*block
	state     []byte // behind it; nil: it is of no epoch, and its state is not kept
}

// put makes a bucket of the group.
func (w *bundle) put(groups *bolt.Bucket) error {
	group, err := groups.CreateBucket(groupKey(w.seq))
	if err != nil {
		return err
	}
	group.FillPercent = 1
	if err := group.SetSequence(uint64(w.next)); err != nil {
		return err
	}
	number := 0
	for i, b := range w.blocks {
		if number++; i == 0 || w.blocks[i-1].lane != b.lane {
			number = 0
		}
		if err := group.Put(blockKey(b.lane, number), b.data); err != nil {
			return err
		}
	}
	if w.state == nil {
		return nil
	}
	return group.Put(keyState(), w.state)
}

// write commits groups, and end behind the last of them. unsure says after an
// error that they may be in the file for all that, or that nothing is known of
// the file any more.
func (s *segment) write(all []bundle, end []byte) (unsure bool, err error) {
	id := 0
	err = guard(s.path, func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			id = tx.ID()
			groups, err := openGroups(s.path, tx)
			if err != nil {
				return err
			}
			groups.FillPercent = 1
			for i := range all {
				if err := all[i].put(groups); err != nil {
					return err
				}
			}
			return tx.Bucket(keyRoot()).Put(keyEnd(), end)
		})
	})
	if err != nil {
		full := disk.Full(err)
		now, _, e := s.last()
		return e != nil || now >= id || !errors.Is(full, store.ErrFull), full
	}
	return false, nil
}

// settle commits nothing, so that both of bbolt's metas know all that is in the
// file: damage to one of them then costs nothing.
func (s *segment) settle(db *bolt.DB) error {
	return guard(s.path, func() error {
		return db.Update(func(*bolt.Tx) error { return nil })
	})
}

// confirm makes durable what the file shows, which may be more than the disk has: a
// process was killed before it synced, or a sync failed. After one that failed Linux
// takes the pages for written and shows them still; it says so once, and the next
// sync, of who opens the file anew, says yes and writes nothing. So the meta that
// counts is written again, as it is, and synced.
//
// That is enough, if the system keeps two promises. A sync that says yes after a page
// was written has that page on the disk, whatever failed before. And each open file
// hears of a failure since it was opened (Linux from 4.13 on): then all other pages
// that the meta leads to are on the disk, since it was only written when a sync of
// them had said yes. What else was written is in no page that counts, and is written
// whole when it is used.
//
// It is written in its own place, and not by another commit: the other meta is the
// one that is surely on the disk, and must stay until this one is. Nor does this want
// room, so that a log is opened, and lets go, where the disk is full.
func (s *segment) confirm(fsys store.FS) error {
	id, _, err := s.last()
	if err != nil {
		return err
	}
	meta := make([]byte, s.db.Info().PageSize)
	at := int64(id%2) * int64(len(meta)) // bbolt takes turns
	f, err := fsys.Open(s.path, os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err = f.ReadAt(meta, at); err == nil {
		_, err = f.WriteAt(meta, at)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// brokenMeta tells whether one of bbolt's two metas is not in order. It was
// being written when the power failed, and then all is well; or it was damaged,
// and then the last commit is lost, since bbolt takes the other. Nobody can tell
// which.
func brokenMeta(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	size := int64(os.Getpagesize())
	for i := range int64(2) {
		// A page header of 16 bytes, the meta's 56 bytes, and their FNV-1a.
		var b [80]byte
		if _, err := f.ReadAt(b[:], i*size); err != nil {
			return false, err
		}
		sum := fnv.New64a()
		_, _ = sum.Write(b[16:72]) // it has no errors
		if sum.Sum64() != binary.NativeEndian.Uint64(b[72:]) {
			return true, nil
		}
	}
	return false, nil
}

// readStates reads head and end.
func readStates(path string, db *bolt.DB) (head, end state, size int64, err error) {
	err = guard(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			size = tx.Size()
			if _, err := openGroups(path, tx); err != nil {
				return err
			}
			root := tx.Bucket(keyRoot())
			if err := head.decode(root.Get(keyHead())); err != nil {
				return fmt.Errorf("ingestlog: %s: its head: %w: %w", path, store.ErrCorrupt, err)
			}
			if err := end.decode(root.Get(keyEnd())); err != nil {
				return fmt.Errorf("ingestlog: %s: its end: %w: %w", path, store.ErrCorrupt, err)
			}
			return nil
		})
	})
	return head, end, size, err
}

// scan calls f for the blocks of the groups from seq to limit, in order, until
// it says false; lanes tells which are wanted, nil: all. data is only valid in
// f. It returns the sequence of the first group that f has not seen the whole
// of, or limit.
func scan(path string, db *bolt.DB, seq, limit int64, lanes []bool, f func(group int64, lane int, data []byte) (bool, error)) (int64, error) {
	err := guard(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			groups, err := openGroups(path, tx)
			if err != nil {
				return err
			}
			c := groups.Cursor()
			for k, _ := c.Seek(groupKey(seq)); seq < limit; k, _ = c.Next() {
				if !bytes.Equal(k, groupKey(seq)) {
					return fmt.Errorf("ingestlog: %s: the commit that began with entry %d of the log is not there: %w", path, seq, store.ErrCorrupt)
				}
				group := groups.Bucket(k)
				if group == nil || group.Sequence() <= uint64(seq) || group.Sequence() > uint64(limit) {
					return fmt.Errorf("ingestlog: %s: the commit that began with entry %d of the log has no end: %w", path, seq, store.ErrCorrupt)
				}
				if more, err := scanGroup(path, group, seq, lanes, f); err != nil || !more {
					return err
				}
				seq = int64(group.Sequence())
			}
			return nil
		})
	})
	return seq, err
}

func openGroups(path string, tx *bolt.Tx) (*bolt.Bucket, error) {
	if root := tx.Bucket(keyRoot()); root != nil {
		if groups := root.Bucket(keyGroups()); groups != nil {
			return groups, nil
		}
	}
	return nil, fmt.Errorf("ingestlog: %s: this is no segment of a log: %w", path, store.ErrCorrupt)
}

func scanGroup(path string, group *bolt.Bucket, seq int64, lanes []bool, f func(int64, int, []byte) (bool, error)) (bool, error) {
	c := group.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if bytes.Equal(k, keyState()) {
			continue
		}
		if len(k) != 6 {
			return false, fmt.Errorf("ingestlog: %s: the commit that began with entry %d of the log has something in it that is no block: %w", path, seq, store.ErrCorrupt)
		}
		lane := int(binary.BigEndian.Uint16(k))
		if lanes != nil && (lane >= len(lanes) || !lanes[lane]) {
			continue
		}
		if more, err := f(seq, lane, v); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
