package ingestlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// promiseFile holds the epoch below which nothing is taken, and the one to whose
// chain the log was cut. It is no part of the segments: a cut, or a log that
// begins anew, does not touch it.
const promiseFile = "PROMISE"

// promiseVersion is that of the file's bytes.
const promiseVersion = 1

// promise is what the file says.
type promise struct {
	epoch  uint64 // nothing of a lower one is taken
	placed uint64 // the copy has nothing that the chain up to this one cuts off; at most epoch
}

func (p promise) encode() []byte {
	b := append(make([]byte, sumBytes), promiseVersion)
	b = appendUvarint(appendUvarint(b, p.epoch), p.placed)
	binary.LittleEndian.PutUint64(b, xxh3.Hash(b[sumBytes:]))
	return b
}

func (p *promise) decode(b []byte) error {
	if err := verify(b); err != nil {
		return err
	}
	if b[sumBytes] != promiseVersion {
		return errVersion
	}
	in := source{b: b[sumBytes+1:]}
	p.epoch, p.placed = in.uvarint(), in.uvarint()
	if in.bad || len(in.b) > 0 || p.placed > p.epoch {
		return errMalformed
	}
	return nil
}

// readPromise is what was promised last; 0: nothing. One that cannot be read is
// an error: what it said must not be forgotten.
func readPromise(o *Options) (p promise, err error) {
	path := filepath.Join(o.Dir, promiseFile)
	b, err := disk.Read(o.FS, path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil && !errors.Is(err, store.ErrCorrupt) {
		return p, fmt.Errorf("ingestlog: %s: %w", path, err)
	}
	if err = p.decode(b); err != nil {
		return p, fmt.Errorf("ingestlog: %s: %w: %w; without it nobody knows what this copy may take: delete the folder, and the copy is made again", path, store.ErrCorrupt, err)
	}
	return p, nil
}

// Promise makes durable that nothing of an epoch below it is taken any more: not
// from another owner, and not by Append. One that is lower than what was
// promised is ErrSealed.
func (l *Log) Promise(epoch uint64) error {
	return l.vow(promise{epoch, l.promised.placed})
}

// Place promises an epoch, and notes that the log was cut to the chain of epochs
// up to it: where it ends is then the end of what this copy has of the log.
func (l *Log) Place(epoch uint64) error { return l.vow(promise{epoch, epoch}) }

// Seal ends an epoch to whose chain the log was cut: it notes that, and promises
// the one behind it. ErrSealed: it belongs to a later one already.
func (l *Log) Seal(epoch uint64) error {
	if l.Placed() > epoch {
		return l.sealed(epoch)
	}
	return l.vow(promise{epoch + 1, epoch})
}

func (l *Log) vow(p promise) error {
	if err := l.writable(); err != nil {
		return err
	}
	switch {
	case p.epoch < l.promised.epoch:
		return l.sealed(p.epoch)
	case p == l.promised:
		return nil
	}
	path := filepath.Join(l.o.Dir, promiseFile)
	if err := disk.Replace(l.o.FS, path, p.encode()); err != nil {
		return fmt.Errorf("ingestlog: promising epoch %d in %s: %w", p.epoch, path, err)
	}
	l.promised = p
	return nil
}

func (l *Log) sealed(epoch uint64) error {
	return fmt.Errorf("ingestlog: %s: epoch %d: %w: %d was promised", l.o.Dir, epoch, ErrSealed, l.promised.epoch)
}

// Promised is the epoch below which nothing is taken. The owner calls it.
func (l *Log) Promised() uint64 { return l.promised.epoch }

// Placed is the last epoch to whose chain the log was cut, or of which it has an
// entry: it has nothing that a chain up to there cuts off. The owner calls it.
func (l *Log) Placed() uint64 { return max(l.promised.placed, l.done.epoch) }
