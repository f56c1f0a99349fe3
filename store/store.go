package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Digest is the SHA-256 of a part's bytes.
type Digest [32]byte

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads what String wrote.
func ParseDigest(s string) (d Digest, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("store: %q is no digest; it has 64 hexadecimal digits", s)
	}
	copy(d[:], b)
	return d, nil
}

// Part names an immutable file by what is in it. Equal parts are one file.
type Part struct {
	Digest Digest
	Size   int64 // bytes
}

// Parts holds parts. Any goroutine may call it.
type Parts interface {
	// Put stores the bytes that write writes and returns their name once they
	// are durable: a crash after Put returned does not lose them. Equal bytes
	// are stored once. An error of write is returned as it is; a full disk is
	// ErrFull. Nothing of a failed Put can be seen.
	Put(write func(w io.Writer) error) (Part, error)
	// Open reads a part. The bytes are verified as they are read: where they are
	// not what the name says, Read ends with ErrCorrupt in place of io.EOF. A
	// part that is not there is ErrMissing.
	Open(p Part) (io.ReadCloser, error)
	// Has tells whether the part is there, by name and size only.
	Has(p Part) bool
}

// The kinds of errors of every store; they are wrapped with the file's name.
var (
	ErrFull    = errors.New("no space left") // back-pressure: try again later
	ErrCorrupt = errors.New("damaged")       // the bytes are not those that were written
	ErrMissing = errors.New("missing")
	ErrLocked  = errors.New("in use by another process")
)

// Full makes err an ErrFull that says no more than err: "no space left on
// device" needs no second "no space left".
func Full(err error) error { return full{err} }

type full struct{ error }

func (f full) Unwrap() error        { return f.error }
func (f full) Is(target error) bool { return target == ErrFull }
