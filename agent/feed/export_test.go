package feed

import (
	"os"

	bolt "go.etcd.io/bbolt"
)

// OpensDB has segments of logs be opened so.
func (o *Options) OpensDB(open func(path string, mode os.FileMode, b *bolt.Options) (*bolt.DB, error)) {
	o.log.OpenDB = open
}

// SmallCopies has copies be in segments of the least size.
func (o *Options) SmallCopies() { o.log.SegmentBytes = 256 << 10 }
