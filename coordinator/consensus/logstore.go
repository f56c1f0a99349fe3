package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/tidemark-mesh/tidemark/store/disk"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The kinds of errors of what is on disk.
var (
	ErrCorrupt = errors.New("consensus: damaged log")
	ErrNoRoom  = errors.New("consensus: no room on disk for more entries")
	ErrInUse   = errors.New("consensus: another process has the folder open")
	// errNotFound has the text that the library looks for.
	errNotFound = errors.New("not found")
)

// What is in the file: the entries by index, what the library keeps, and what
// this package keeps.
const (
	logBucket    = "log"
	stableBucket = "stable"
	ownBucket    = "own"
)

const (
	deleteBatch  = 4096 // entries that one transaction deletes
	retryStable  = 250 * time.Millisecond
	openTimeout  = 500 * time.Millisecond
	initialMmap  = 64 << 20
	batchMinRoom = 4 // times the bytes of a batch must be free to append it
)

// logStore is the library's log and stable store in a bbolt file. Any goroutine
// may call it.
type logStore struct {
	db   *bolt.DB
	path string
	tell func(Event)

	// write guards room and makes one transaction follow the other, so that the
	// file is not made longer while one writes.
	write sync.Mutex
	room  room

	// view guards cut. Entries from cut on are deleted, but the file has them
	// until the next append: the library deletes a suffix only to append another,
	// and if that failed it would go on as if the suffix were still there.
	// 0: none are.
	view sync.RWMutex
	cut  uint64

	appended  atomic.Int64  // bytes of entries since resetAppended
	closing   chan struct{} // closed: who waits for room waits no more
	closeOnce sync.Once
}

var (
	_ raft.LogStore    = (*logStore)(nil)
	_ raft.StableStore = (*logStore)(nil)
)

// openLog opens or makes the file. reserve is the bytes kept for term and vote.
func openLog(path string, reserve int64, tell func(Event)) (*logStore, error) {
	s := &logStore{path: path, tell: tell, closing: make(chan struct{})}
	s.room = room{reserve: reserve, allocate: allocate}
	open := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		s.room.file = f
		return f, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
		InitialMmapSize: initialMmap, OpenFile: open})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s: stop it first", ErrInUse, path)
	}
	if err != nil {
		return nil, fmt.Errorf("consensus: open %s: %w", path, err)
	}
	s.db = db
	err = s.update(func(tx *bolt.Tx) error {
		for _, name := range []string{logBucket, stableBucket, ownBucket} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = disk.Secret.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("consensus: open %s: %w", path, err), db.Close())
	}
	return s, nil
}

// release ends all waiting for room: a term that could not be saved counts as
// saved, as the node acts no more; a vote does not.
func (s *logStore) release() { s.closeOnce.Do(func() { close(s.closing) }) }

func (s *logStore) close() error {
	s.release()
	return s.db.Close()
}

// update runs a transaction that writes, with room made before.
func (s *logStore) update(f func(tx *bolt.Tx) error) error {
	s.write.Lock()
	told := s.room.ensure(s.db)
	err := s.db.Update(f)
	s.write.Unlock()
	if told != nil {
		s.tell(*told)
	}
	return err
}

// storeLogs writes entries, after it took away those from cut on.
func (s *logStore) storeLogs(logs []*raft.Log, cut uint64) error {
	bytes := 0
	values := make([][]byte, len(logs))
	for i, l := range logs {
		values[i] = appendEntry(make([]byte, 0, len(l.Data)+len(l.Extensions)+32), l)
		bytes += len(values[i])
	}
	s.write.Lock()
	told := s.room.ensure(s.db)
	ok := s.room.fits(s.db, int64(bytes)*batchMinRoom)
	s.write.Unlock()
	if told != nil {
		s.tell(*told)
	}
	if !ok {
		return fmt.Errorf("%w: free some", ErrNoRoom)
	}
	err := s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(logBucket))
		b.FillPercent = 1 // keys only grow
		if cut > 0 {
			if _, err := deleteFrom(b, cut, ^uint64(0), -1); err != nil {
				return err
			}
		}
		for i, l := range logs {
			if err := b.Put(key(l.Index), values[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.tell(Event{Kind: Lost, Err: err})
		return fmt.Errorf("consensus: append to %s: %w", s.path, err)
	}
	s.appended.Add(int64(bytes))
	return nil
}

// StoreLogs appends entries; all are durable when it returns.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	s.view.RLock()
	cut := s.cut
	s.view.RUnlock()
	err := s.storeLogs(logs, cut)
	s.view.Lock()
	s.cut = 0 // it is cut now; or, after an error, it is not and will not be
	s.view.Unlock()
	return err
}

// StoreLog appends an entry.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// FirstIndex is that of the oldest entry, 0 if there is none.
func (s *logStore) FirstIndex() (uint64, error) { return s.end((*bolt.Cursor).First) }

// LastIndex is that of the newest entry, 0 if there is none.
func (s *logStore) LastIndex() (uint64, error) {
	s.view.RLock()
	cut := s.cut
	s.view.RUnlock()
	if cut > 0 {
		return cut - 1, nil // not the whole log was cut
	}
	return s.end((*bolt.Cursor).Last)
}

func (s *logStore) end(which func(*bolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if k, _ := which(tx.Bucket([]byte(logBucket)).Cursor()); len(k) == 8 {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog reads an entry. raft.ErrLogNotFound, ErrCorrupt.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	s.view.RLock()
	cut := s.cut
	s.view.RUnlock()
	if cut > 0 && index >= cut {
		return raft.ErrLogNotFound
	}
	return s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket([]byte(logBucket)).Get(key(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return readEntry(index, v, l)
	})
}

// DeleteRange deletes entries from lo to hi, both included. A suffix goes with
// the next append, see cut.
func (s *logStore) DeleteRange(lo, hi uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if first == 0 || lo > last || hi < lo {
		return nil
	}
	if lo > first && hi >= last {
		s.view.Lock()
		s.cut = lo
		s.view.Unlock()
		return nil
	}
	for more := true; more; {
		err := s.update(func(tx *bolt.Tx) (err error) {
			more, err = deleteFrom(tx.Bucket([]byte(logBucket)), lo, hi, deleteBatch)
			return err
		})
		if err != nil {
			return fmt.Errorf("consensus: delete from %s: %w", s.path, err)
		}
	}
	return nil
}

// deleteFrom deletes at most limit entries, -1: all, and tells whether there may be more.
func deleteFrom(b *bolt.Bucket, lo, hi uint64, limit int) (more bool, err error) {
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(key(lo)); k != nil && binary.BigEndian.Uint64(k) <= hi; k, _ = c.Next() {
		if len(keys) == limit {
			more = true
			break
		}
		keys = append(keys, k)
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return false, err
		}
	}
	return more, nil
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// Set saves a value of the library's. Where the disk has no room in spite of the
// reserve it waits until there is some: the library panics on an error.
func (s *logStore) Set(k, v []byte) error {
	for told := false; ; {
		err := s.put(stableBucket, k, v)
		if err != nil && !told {
			s.tell(Event{Kind: Lost, Err: err})
			told = true
		}
		if !disk.IsFull(err) {
			return err
		}
		select {
		case <-s.closing:
			return err
		case <-time.After(retryStable):
		}
	}
}

func (s *logStore) put(bucket string, k, v []byte) error {
	err := s.update(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(k, v) })
	if err != nil {
		return fmt.Errorf("consensus: save %s in %s: %w", k, s.path, err)
	}
	return nil
}

func (s *logStore) get(bucket string, k []byte) (v []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if got := tx.Bucket([]byte(bucket)).Get(k); got != nil {
			v = append([]byte{}, got...)
			return nil
		}
		return errNotFound
	})
	return v, err
}

// Get is a value that Set saved. Its error's text is "not found" if there is none.
func (s *logStore) Get(k []byte) ([]byte, error) { return s.get(stableBucket, k) }

// SetUint64 is Set of a number. A node that is closing and has no room for its
// term goes on for the moment that is left to it: without a vote of that term,
// which is an error, the term need not be remembered.
func (s *logStore) SetUint64(k []byte, v uint64) error {
	err := s.Set(k, binary.BigEndian.AppendUint64(nil, v))
	select {
	case <-s.closing:
		if string(k) == currentTermKey {
			return nil
		}
	default:
	}
	return err
}

// currentTermKey is the library's.
const currentTermKey = "CurrentTerm"

// GetUint64 is a number that SetUint64 saved.
func (s *logStore) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: %s has %d bytes", ErrCorrupt, k, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}
