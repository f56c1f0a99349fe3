package consensus

import (
	"os"

	bolt "go.etcd.io/bbolt"
)

// defaultReserve is the room that the file is kept longer than it need be.
const defaultReserve = 16 << 20

// room keeps the bbolt file allocated ahead, so that a full disk leaves pages to
// write to which nobody else can take. Entries may use three quarters of the
// reserve, term and vote all of it.
type room struct {
	file      *os.File
	reserve   int64
	allocated int64                       // so many bytes of the file have their blocks
	short     bool                        // the last attempt to make it longer failed
	allocate  func(*os.File, int64) error // makes the first n bytes of a file have blocks
}

// ensure makes the file longer where less than the reserve is left behind the
// pages in use. The event is nil if there is nothing to tell.
func (r *room) ensure(db *bolt.DB) *Event {
	want := highWater(db) + r.reserve
	if r.allocated >= want {
		return nil
	}
	target := (want + r.reserve - 1) / r.reserve * r.reserve
	if err := r.allocate(r.file, target); err != nil {
		if r.allocated == 0 { // at the opening: what is there is there
			r.allocated = highWater(db)
		}
		if r.short {
			return nil
		}
		r.short = true
		return &Event{Kind: Short, Err: err}
	}
	r.allocated = target
	if !r.short {
		return nil
	}
	r.short = false
	return &Event{Kind: Room}
}

// fits tells whether n bytes more of entries leave term and vote enough.
func (r *room) fits(db *bolt.DB, n int64) bool {
	if !r.short {
		return true
	}
	free := r.allocated - highWater(db) + int64(db.Stats().FreePageN)*int64(db.Info().PageSize)
	return free-n >= r.reserve/4
}

// highWater is where the pages end that were ever in use.
func highWater(db *bolt.DB) (n int64) {
	_ = db.View(func(tx *bolt.Tx) error {
		n = tx.Size()
		return nil
	})
	return n
}

// zeroFill makes a file longer by writing, where the system has no better way.
func zeroFill(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := info.Size(); at < size; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		if at += int64(n); err != nil {
			return err
		}
	}
	return f.Sync()
}
