package bench

import (
	"context"
	"debug/elf"
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
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for _, s := range f.Sections {
		if s.Name == ".symtab" || s.Name == ".strtab" || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
			size -= int64(s.FileSize)
		}
	}
	return size, f.Close()
}
