package file

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

const noClock = int64(dataflow.MinTime)

// input is where a split's bytes come from.
type input interface {
	// Fill reads into buf. It waits only if block, until there is something,
	// the clock ticks (0, nil), or ctx ends (its error). io.EOF: the end; it
	// comes alone.
	Fill(ctx context.Context, buf []byte, block bool) (int, error)
	// SkipTo goes to a byte of the contents.
	SkipTo(pos int64) error
	// Clock is the arrival time of what was filled last, or noClock.
	Clock() int64
	Close() error
}

func (r *Reader) openInput(name string) (input, error) {
	if name == Stdin {
		return newPump("stdin", r.cfg.Clock, func() (io.ReadCloser, error) { return io.NopCloser(r.cfg.Stdin), nil }), nil
	}
	info, err := r.cfg.FS.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("file source: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe waits for its writer
		return newPump(name, r.cfg.Clock, func() (io.ReadCloser, error) { return os.Open(name) }), nil
	}
	f, err := r.cfg.FS.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("file source: %w", err)
	}
	in := &regular{name: name, f: f, raw: io.NewSectionReader(f, 0, math.MaxInt64)}
	in.from = in.raw
	if strings.HasSuffix(name, ".gz") {
		if in.zip, err = gzip.NewReader(in.raw); err != nil {
			f.Close()
			return nil, fmt.Errorf("file source: %s is no gzip file: %w", name, err)
		}
		in.from = in.zip
	}
	return in, nil
}

// regular is a regular file, perhaps packed.
type regular struct {
	name string
	f    store.File
	raw  *io.SectionReader // reads f
	zip  *gzip.Reader      // nil: not packed
	from io.Reader         // raw or zip
}

// Fill reads from the file; it never waits for anything but the disk.
func (d *regular) Fill(_ context.Context, buf []byte, _ bool) (int, error) {
	for range 100 {
		n, err := d.from.Read(buf)
		switch {
		case n > 0 && err == io.EOF: // it comes again, alone
			return n, nil
		case err != nil && err != io.EOF:
			return n, fmt.Errorf("%s: %w", d.name, err)
		case n > 0 || err != nil:
			return n, err
		}
	}
	return 0, fmt.Errorf("%s: %w", d.name, io.ErrNoProgress)
}

// SkipTo refuses to go beyond the end: the file is then not the one that the
// position is of.
func (d *regular) SkipTo(pos int64) error {
	if d.zip == nil {
		info, err := d.f.Stat()
		if err != nil {
			return err
		}
		if pos > info.Size() {
			return fmt.Errorf("it has only %d: %w", info.Size(), ErrChanged)
		}
		_, err = d.raw.Seek(pos, io.SeekStart)
		return err
	}
	if _, err := d.raw.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := d.zip.Reset(d.raw); err != nil {
		return err
	}
	n, err := io.CopyN(io.Discard, d.zip, pos)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it has only %d: %w", n, ErrChanged)
	}
	return err
}

// Clock is none: what a file holds arrives at no particular time.
func (d *regular) Clock() int64 { return noClock }

// Close closes the file.
func (d *regular) Close() error { return d.f.Close() }

const (
	pumpBuffer = 64 << 10
	pumpTick   = 200 * dataflow.Millisecond
)

// pump reads a stream that may keep it waiting (stdin, a pipe) in a goroutine,
// two buffers ahead at most; when both are full it stops reading.
type pump struct {
	name  string
	clock sensors.Clock
	full  chan chunk
	free  chan []byte
	open  chan io.Closer // the stream, for whoever is to close it: the goroutine at its end, or Close
	stop  chan struct{}
	rest  []byte // of the chunk that is being handed out
	chunk []byte // goes back to free when rest is empty
	last  int64  // arrival clock
	err   error  // the end, once it was reached
}

type chunk struct {
	data []byte
	at   int64
	err  error
}

func newPump(name string, clock sensors.Clock, open func() (io.ReadCloser, error)) *pump {
	p := &pump{
		name: name, clock: clock, last: int64(clock.Now()),
		full: make(chan chunk, 2), free: make(chan []byte, 2),
		open: make(chan io.Closer, 1), stop: make(chan struct{}),
	}
	p.free <- make([]byte, pumpBuffer)
	p.free <- make([]byte, pumpBuffer)
	go p.run(open)
	return p
}

// run belongs to the pump and ends at the end of the stream or after Close.
func (p *pump) run(open func() (io.ReadCloser, error)) {
	src, err := open()
	if err != nil {
		p.full <- chunk{err: err}
		return
	}
	p.open <- src
	defer p.closeStream()
	for {
		select {
		case <-p.stop:
			return
		case buf := <-p.free:
			n, err := src.Read(buf[:cap(buf)])
			p.full <- chunk{data: buf[:n], at: int64(p.clock.Now()), err: err} // never waits: as many places as buffers
			if err != nil {
				return
			}
		}
	}
}

func (p *pump) closeStream() error {
	select {
	case c := <-p.open:
		return c.Close()
	default:
		return nil
	}
}

// Fill hands out what was read.
func (p *pump) Fill(ctx context.Context, buf []byte, block bool) (int, error) {
	for len(p.rest) == 0 {
		if p.chunk != nil {
			p.free <- p.chunk
			p.chunk = nil
		}
		if p.err != nil {
			return 0, p.err
		}
		var c chunk
		select {
		case c = <-p.full:
		default:
			if !block {
				return 0, nil
			}
			select {
			case c = <-p.full:
			case <-p.clock.After(pumpTick):
				p.tick(p.clock.Now())
				return 0, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		p.chunk, p.rest, p.err = c.data, c.data, c.err
		p.tick(dataflow.Time(c.at))
	}
	n := copy(buf, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *pump) tick(now dataflow.Time) { p.last = max(p.last, int64(now)) }

// SkipTo cannot be done.
func (p *pump) SkipTo(pos int64) error {
	return fmt.Errorf("%s %w; use a file where a job must be able to resume", p.name, ErrNotReplayable)
}

// Clock is when the last bytes came, or the last tick.
func (p *pump) Clock() int64 { return p.last }

// Close stops the goroutine. A pipe's read ends at once; one of stdin ends when
// something comes, and then its goroutine with it.
func (p *pump) Close() error {
	close(p.stop)
	return p.closeStream()
}
