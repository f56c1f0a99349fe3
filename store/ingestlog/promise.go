package ingestlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/store"
)

// promiseFile holds the epoch below which nothing is taken. It is no part of
// the segments: a cut, or a log that begins anew, does not touch it.
const promiseFile = "PROMISE"

// promiseVersion is that of the file's bytes.
const promiseVersion = 1

func encodePromise(epoch uint64) []byte {
	b := append(make([]byte, sumBytes), promiseVersion)
	b = appendUvarint(b, epoch)
	binary.LittleEndian.PutUint64(b, xxh3.Hash(b[sumBytes:]))
	return b
}

func decodePromise(b []byte) (uint64, error) {
	if err := verify(b); err != nil {
		return 0, err
	}
	if b[sumBytes] != promiseVersion {
		return 0, errVersion
	}
	in := source{b: b[sumBytes+1:]}
	epoch := in.uvarint()
	if in.bad || len(in.b) > 0 {
		return 0, errMalformed
	}
	return epoch, nil
}

// readPromise is what was promised last; 0: nothing. One that cannot be read is
// an error: what it said must not be forgotten.
func readPromise(o *Options) (epoch uint64, err error) {
	path := filepath.Join(o.Dir, promiseFile)
	f, err := o.FS.Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ingestlog: %w", err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 64))
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("ingestlog: %s: %w", path, err)
	}
	if epoch, err = decodePromise(b); err != nil {
		return 0, fmt.Errorf("ingestlog: %s: %w: %w; without it nobody knows what this copy may take: delete the folder, and the copy is made again", path, store.ErrCorrupt, err)
	}
	return epoch, nil
}

// Promise makes durable that nothing of an epoch below it is taken any more: not
// from another owner, and not by Append. One that is lower than what was
// promised is ErrSealed.
func (l *Log) Promise(epoch uint64) error {
	if err := l.writable(); err != nil {
		return err
	}
	switch {
	case epoch < l.promised:
		return l.sealed(epoch)
	case epoch == l.promised:
		return nil
	}
	path := filepath.Join(l.o.Dir, promiseFile)
	tmp := path + newSuffix
	f, err := l.o.FS.Open(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		_, err = f.WriteAt(encodePromise(epoch), 0)
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = l.o.FS.Rename(tmp, path)
	}
	if err == nil {
		err = l.o.FS.SyncDir(l.o.Dir)
	}
	if err != nil {
		return fmt.Errorf("ingestlog: promising epoch %d in %s: %w", epoch, path, diskError(err))
	}
	l.promised = epoch
	return nil
}

func (l *Log) sealed(epoch uint64) error {
	return fmt.Errorf("ingestlog: %s: epoch %d: %w: %d was promised", l.o.Dir, epoch, ErrSealed, l.promised)
}

// Promised is the epoch below which nothing is taken. The owner calls it.
func (l *Log) Promised() uint64 { return l.promised }
