package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

const (
	idleBarMB   = 30
	binaryBarMB = 25
	// What the libraries of the mesh take when nothing is done with them: a
	// program of those alone, linked and running.
	libraryRSS    = 15
	libraryBinary = 14
	idleTime      = 5 * time.Second // then what the start has left behind is swept up, mostly
	mega          = 1e6
)

// runIdle starts an agent that founds a site and has nothing to do.
func runIdle(ctx context.Context, o Options) (_ []Figure, err error) {
	wait := time.Duration(o.scaled(int(idleTime/time.Millisecond), 10)) * time.Millisecond
	var least, most []float64
	rounds := o.rounds(3)
	for i := range rounds {
		o.progress("footprint/rss: an idle agent, %d of %d", i+1, rounds)
		low, high, err := idle(ctx, wait)
		if err != nil {
			return nil, fmt.Errorf("bench footprint: %w", err)
		}
		least, most = append(least, low), append(most, high)
	}
	limit := float64(libraryRSS)
	f := absolute("footprint/rss", median(most), &limit, "MB", idleBarMB)
	f.Note = fmt.Sprintf("the most of what was read in %v after the first second of an agent that leads a site of one; the least %.1f MB; the limit is what was once measured of the libraries alone", wait, median(least))
	return []Figure{f}, nil
}

// idle is the least and the most memory that an agent has while it is idle.
func idle(ctx context.Context, wait time.Duration) (least, most float64, err error) {
	s, err := openSite(ctx, agentPart{Slots: 2})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pause := time.NewTicker(wait / 5)
	defer pause.Stop()
	for i := range 5 {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		r, err := s.agents[0].tell(order{})
		if err != nil {
			return 0, 0, err
		}
		mb := float64(r.Resident) / mega
		if i == 0 {
			least = mb
			continue
		}
		least, most = min(least, mb), max(most, mb)
	}
	return least, most, nil
}

// runBinary says how large the program is without symbols.
func runBinary(_ context.Context, o Options) ([]Figure, error) {
	limit := float64(libraryBinary)
	o.progress("footprint/binary: looking at the program that runs")
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("bench footprint: %w", err)
	}
	size, err := stripped(path)
	note := fmt.Sprintf("the program that runs, %s/%s, less its symbols; the limit is what was once measured of the libraries alone", runtime.GOOS, runtime.GOARCH)
	if err != nil {
		note = fmt.Sprintf("the program that runs, %s/%s, with its symbols if it has any: %v", runtime.GOOS, runtime.GOARCH, err)
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("bench footprint: %w", err)
		}
		size = info.Size()
	}
	f := absolute("footprint/binary", float64(size)/mega, &limit, "MB", binaryBarMB)
	f.Note = note
	return []Figure{f}, nil
}

// stripped is how large an ELF file is without what -ldflags="-s -w" leaves out.
func stripped(path string) (int64, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	sections, err := elfSections(file)
	if err != nil {
		return 0, err
	}
	size := int64(len(file))
	for name, n := range sections {
		if name == ".symtab" || name == ".strtab" || strings.HasPrefix(name, ".debug_") || strings.HasPrefix(name, ".zdebug_") {
			size -= n
		}
	}
	return size, nil
}

// elfSections are the sizes of the sections of a little-endian ELF file, by
// name (System V ABI, chapter 4). debug/elf would bring 150 KB of readers of
// compressed debug information.
func elfSections(file []byte) (map[string]int64, error) {
	if len(file) < 64 || string(file[:4]) != "\x7fELF" || file[5] != 1 {
		return nil, errors.New("not a little-endian ELF file")
	}
	le := binary.LittleEndian
	// Where a number of the file's width, and those behind it, stand in the
	// header and in the header of a section.
	word, table, counts, offset := func(b []byte) uint64 { return le.Uint64(b) }, 0x28, 0x3a, 24
	width := 8
	if file[4] == 1 {
		word, table, counts, offset = func(b []byte) uint64 { return uint64(le.Uint32(b)) }, 0x20, 0x2e, 16
		width = 4
	}
	at, each, n, names := word(file[table:]), uint64(le.Uint16(file[counts:])), uint64(le.Uint16(file[counts+2:])), uint64(le.Uint16(file[counts+4:]))
	short, size := errors.New("the ELF file is cut short"), uint64(len(file))
	if at > size || n*each > size-at || names >= n || int(each) < offset+2*width {
		return nil, short
	}
	header := func(i uint64) []byte { return file[at+i*each:] }
	if word(header(names)[offset:]) >= size {
		return nil, short
	}
	text, sizes := file[word(header(names)[offset:]):], make(map[string]int64)
	for i := range n {
		h := header(i)
		name, _, _ := bytes.Cut(text[min(int(le.Uint32(h)), len(text)):], []byte{0})
		sizes[string(name)] = int64(word(h[offset+width:]))
	}
	return sizes, nil
}
