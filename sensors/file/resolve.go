package file

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Stdin is the path that means the standard input.
const Stdin = "-"

// Resolve lists the files that a source's path names, in the order of their
// split numbers: the path itself, or what its glob matches, sorted by name. It
// is asked once for all subtasks, so that they agree on the numbers.
func Resolve(path string) ([]string, error) {
	if path == Stdin {
		return []string{Stdin}, nil
	}
	if path == "" {
		return nil, fmt.Errorf("file source: the path is empty; name a file, a glob or - for stdin")
	}
	info, err := os.Stat(path)
	if err == nil { // also a name that looks like a glob
		return []string{path}, checkKind(path, info, true)
	}
	if !strings.ContainsAny(path, `*?[`) {
		return nil, fmt.Errorf("file source: %w; check the path, which is relative to the folder the job runs in", err)
	}
	names, err := filepath.Glob(path)
	if err != nil {
		return nil, fmt.Errorf("file source: glob %q: %w", path, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("file source: glob %q matches no file; check it, or write the file first", path)
	}
	slices.Sort(names)
	for _, n := range names {
		info, err := os.Stat(n)
		if err != nil {
			return nil, fmt.Errorf("file source: glob %q: %w", path, err)
		}
		if err := checkKind(n, info, false); err != nil {
			return nil, fmt.Errorf("%w (glob %q)", err, path)
		}
	}
	return names, nil
}

// checkKind refuses what cannot be read as a bounded file. A pipe is read like
// stdin, but only alone: waiting for it would hold up its neighbours.
func checkKind(name string, info os.FileInfo, alone bool) error {
	switch {
	case info.IsDir():
		return fmt.Errorf("file source: %q is a folder; name its files, as in %q", name, filepath.Join(name, "*"))
	case !info.Mode().IsRegular() && !alone:
		return fmt.Errorf("file source: %q is not a regular file; a pipe or device must be a source of its own", name)
	}
	return nil
}
