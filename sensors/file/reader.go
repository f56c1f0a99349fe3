package file

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

const (
	defaultMaxRecord = 1 << 20
	maxOpen          = 256       // files of one reader that are open together; the others' turn comes when one ends
	maxPayload       = 1 << 20   // bytes of records after which a Read returns
	bigRead          = 256 << 10 // buffer of a split
	smallRead        = 64 << 10  // the same where there are many
	manySplits       = 16
)

const byteOrderMark = "\xef\xbb\xbf"

// SourceConfig says what a Reader reads.
type SourceConfig struct {
	Files       []string // from Resolve: split i belongs to subtask i mod Parallelism
	Subtask     int
	Parallelism int
	Split       SplitFunc
	Header      bool // the first record of a file is a header: a reader that starts further on hands it out first
	MaxRecord   int  // bytes; longer records are handed out as TooLong. 0: 1 MiB
	Stdin       io.Reader
	Clock       sensors.Clock // for stdin and pipes, which arrive when read; nil: Wall
	FS          store.FS      // for regular files; nil: Disk
}

// Reader is a bounded source over files: a split a file, each in its own
// order, taking turns Read by Read. A name that ends in .gz is unpacked.
//
// A position is the number of bytes (unpacked ones) before a record; it is
// always a record's beginning. Records over the limit are cut at it, and what
// follows their first line end beyond it is read on; so one bad record costs
// itself and at most the rest of its last line.
type Reader struct {
	cfg   SourceConfig
	s     []split
	live  []int // splits that have not ended, ascending
	turn  int   // whose turn it is, in live
	spare [][]byte
	shut  bool
}

var (
	_ sensors.Reader     = (*Reader)(nil)
	_ sensors.SplitNamer = (*Reader)(nil)
)

// split is one file on its way. buf[start:end] is read and not yet cut.
type split struct {
	name       string
	input      input // nil: not open
	buf        []byte
	start, end int
	at         int64 // position of buf[start]
	from       int64 // where Seek wants it to begin
	eof        bool
	header     bool   // the header is handed out before from
	long       []byte // the beginning of a record over the limit whose rest is being skipped; nil: none
}

// NewReader makes one subtask's reader. Files are opened when their turn comes.
func NewReader(cfg SourceConfig) (*Reader, error) {
	if cfg.MaxRecord <= 0 {
		cfg.MaxRecord = defaultMaxRecord
	}
	if cfg.FS == nil {
		cfg.FS = disk.Shared
	}
	if cfg.Clock == nil {
		cfg.Clock = sensors.Wall{}
	}
	if cfg.Parallelism < 1 || cfg.Subtask < 0 || cfg.Subtask >= cfg.Parallelism {
		return nil, fmt.Errorf("file source: subtask %d of %d does not exist", cfg.Subtask, cfg.Parallelism)
	}
	r := &Reader{cfg: cfg}
	for i := cfg.Subtask; i < len(cfg.Files); i += cfg.Parallelism {
		r.live = append(r.live, len(r.s))
		r.s = append(r.s, split{name: cfg.Files[i]})
	}
	return r, nil
}

// Splits is the number of files of this subtask.
func (r *Reader) Splits() int { return len(r.s) }

// SplitName is the file that a split reads, as Resolve named it. See
// sensors.SplitNamer.
func (r *Reader) SplitName(split int) string { return r.s[split].name }

// Seek sets the byte a split begins at. It must be a position that a Read of
// the same file gave.
func (r *Reader) Seek(p sensors.Position) error {
	if p.Split < 0 || p.Split >= len(r.s) || p.Offset < 0 {
		return fmt.Errorf("file source: no position %d in split %d of %d", p.Offset, p.Split, len(r.s))
	}
	s := &r.s[p.Split]
	if s.input != nil {
		return fmt.Errorf("file source: %s is being read already", s.name)
	}
	s.from = p.Offset
	s.header = r.cfg.Header && p.Offset > 0
	return nil
}

// Ack does nothing: a file keeps its records.
func (r *Reader) Ack(sensors.Position) {}

// Close closes the files. It does not wait for a read of stdin that is under
// way: nothing can interrupt that.
func (r *Reader) Close() error {
	var first error
	for i := range r.s {
		if in := r.s[i].input; in != nil {
			r.s[i].input = nil
			if err := in.Close(); err != nil && first == nil {
				first = fmt.Errorf("file source: %w", err)
			}
		}
	}
	r.live, r.shut = nil, true
	return first
}

// Read hands out records of the next split in turn. See sensors.Reader.
func (r *Reader) Read(ctx context.Context, rec *sensors.Records, max int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.shut {
		return fmt.Errorf("file source: %w", os.ErrClosed)
	}
	if len(r.live) == 0 {
		return io.EOF
	}
	r.turn %= min(len(r.live), maxOpen)
	i := r.live[r.turn]
	s := &r.s[i]
	rec.Reset(i)
	if s.input == nil {
		if err := r.open(s); err != nil {
			return err
		}
	}
	done, err := r.take(ctx, s, rec, max)
	if err != nil {
		return err
	}
	if !done {
		r.turn++
		return nil
	}
	rec.Done = true
	r.live = slices.Delete(r.live, r.turn, r.turn+1)
	in := s.input
	s.input = nil
	r.spare = append(r.spare, s.buf)
	s.buf = nil
	if err := in.Close(); err != nil {
		return fmt.Errorf("file source: %w", err)
	}
	return nil
}

func (r *Reader) open(s *split) error {
	in, err := r.openInput(s.name)
	if err != nil {
		return err
	}
	s.input = in
	if n := len(r.spare); n > 0 {
		s.buf, r.spare = r.spare[n-1], r.spare[:n-1]
	} else if len(r.s) > manySplits {
		s.buf = make([]byte, smallRead)
	} else {
		s.buf = make([]byte, bigRead)
	}
	if s.from > 0 && !s.header {
		return s.skipTo(s.from)
	}
	return nil
}

func (s *split) skipTo(pos int64) error {
	s.start, s.end, s.at, s.eof = 0, 0, pos, false
	if err := s.input.SkipTo(pos); err != nil {
		return fmt.Errorf("file source: %s from byte %d: %w", s.name, pos, err)
	}
	return nil
}

// take puts up to max records of s into rec; done: s has ended.
func (r *Reader) take(ctx context.Context, s *split, rec *sensors.Records, max int) (done bool, err error) {
	rec.First = s.at
	for !done && rec.Len() < max && len(rec.Payloads) < maxPayload {
		found, err := r.cut(s, rec)
		if err != nil {
			return false, err
		}
		switch {
		case found && s.header:
			s.header, rec.Next = false, s.from
			return false, s.skipTo(s.from)
		case found:
		case s.eof:
			done = true
		default:
			more, err := s.fill(ctx, rec.Len() == 0)
			if err != nil {
				return false, err
			}
			if !more { // a stream's pause, the only place where Next may be inside a record that is skipped; streams have no Seek
				rec.Next, rec.Clock = s.at, s.input.Clock()
				return false, nil
			}
		}
	}
	rec.Next, rec.Clock = s.at, s.input.Clock()
	return done, nil
}

// cut moves the next record from the buffer to rec, passing over what is
// skipped; false: the buffer holds no whole record.
func (r *Reader) cut(s *split, rec *sensors.Records) (bool, error) {
	limit := r.cfg.MaxRecord
	if s.at == 0 && bytes.HasPrefix(s.buf[s.start:s.end], []byte(byteOrderMark)) {
		s.advance(len(byteOrderMark))
	}
	for s.long == nil {
		window, atEOF := s.buf[s.start:s.end], s.eof
		if len(window) > limit+2 { // a record with its ending: how a record is cut must not depend on the size of reads
			window, atEOF = window[:limit+2], false
		}
		if len(window) == 0 {
			return false, nil
		}
		n, payload, err := r.cfg.Split(window, atEOF)
		switch {
		case err != nil:
			return false, fmt.Errorf("file source: %s at byte %d: %w", s.name, s.at, err)
		case len(payload) > limit, n == 0 && len(window) == limit+2:
			s.long = append([]byte(nil), window[:limit]...)
			s.advance(limit)
		case n > 0 && payload == nil:
			s.advance(n)
		case n > 0:
			s.advance(n)
			s.add(rec, payload)
			return true, nil
		case atEOF: // no whole record, but nothing follows: the decoder will say what is wrong with it
			s.advance(len(window))
			s.add(rec, window)
			return true, nil
		default:
			return false, nil
		}
	}
	return s.endLong(rec), nil
}

// endLong passes over the rest of a record over the limit, to its line end.
func (s *split) endLong(rec *sensors.Records) bool {
	rest := s.buf[s.start:s.end]
	end := bytes.IndexByte(rest, '\n')
	if end < 0 {
		s.advance(len(rest))
		if !s.eof {
			return false
		}
	} else {
		s.advance(end + 1)
	}
	rec.TooLong = append(rec.TooLong, int32(rec.Len()))
	s.add(rec, s.long)
	s.long = nil
	return true
}

// fill reads on behind what the buffer holds. false: there is nothing now, or
// a tick of the clock.
func (s *split) fill(ctx context.Context, block bool) (bool, error) {
	s.end = copy(s.buf, s.buf[s.start:s.end])
	s.start = 0
	if s.end == len(s.buf) { // below the limit still: cut would have taken a longer one
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.input.Fill(ctx, s.buf[s.end:], block)
	s.end += n
	if err == io.EOF {
		s.eof = true
		return true, nil
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("file source: %w", err)
	}
	return n > 0, err
}

func (s *split) advance(n int) {
	s.start += n
	s.at += int64(n)
}

func (s *split) add(rec *sensors.Records, payload []byte) {
	rec.Append(payload)
	if at := s.input.Clock(); at != noClock {
		rec.Arrivals = append(rec.Arrivals, at)
	}
}
