package pack

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
)

// ErrFormat is wrapped by errors about bytes that are not packed, or are too many.
var ErrFormat = errors.New("not packed bytes")

// Packer packs, and counts. The zero one is ready; any goroutine may use it.
type Packer struct {
	raw, sent atomic.Int64
}

// Pack appends raw to dst, packed. Where that saves less than a sixteenth it is
// false, and dst is as it was: raw is sent as it is.
func (p *Packer) Pack(dst, raw []byte) ([]byte, bool) {
	at := len(dst)
	dst = slices.Grow(dst, s2.MaxEncodedLen(len(raw)))
	small := s2.Encode(dst[at:cap(dst)], raw)
	p.raw.Add(int64(len(raw)))
	if len(small) > len(raw)-len(raw)/16 || len(small) == len(raw) {
		p.sent.Add(int64(len(raw)))
		return dst[:at], false
	}
	p.sent.Add(int64(len(small)))
	return dst[:at+len(small)], true
}

// Unpack is what was packed, in buf if that is large enough. More than most bytes
// are an error, before there is memory for them.
func (p *Packer) Unpack(buf, packed []byte, most int) ([]byte, error) {
	n, err := s2.DecodedLen(packed)
	if err == nil && n > most {
		err = fmt.Errorf("%d bytes, at most %d are possible", n, most)
	}
	if err == nil {
		buf, err = s2.Decode(buf[:cap(buf)], packed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return buf, nil
}

// Counts is how many bytes were to be packed, and how many were sent in their place.
func (p *Packer) Counts() (raw, sent int64) { return p.raw.Load(), p.sent.Load() }
