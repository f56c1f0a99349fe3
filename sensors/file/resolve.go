package file

import (
	"errors"
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

// ErrNotReplayable: what was read cannot be read again.
var ErrNotReplayable = errors.New("cannot be read again from a position")

// ErrChanged: a file is not the one that the position is of.
var ErrChanged = errors.New("it was changed since")

// Replayable tells whether a file of Resolve's can be read again from a
// position, as a job that is to resume needs it: nil, or an ErrNotReplayable
// that says what to do.
func Replayable(name string) error {
	if name != Stdin {
		info, err := os.Stat(name)
		if err != nil || info.Mode().IsRegular() {
			return nil
		}
	} else {
		name = "stdin"
	}
	return fmt.Errorf("file source: %s %w: after a restart what was read before is lost; use a file where a job must be able to resume", name, ErrNotReplayable)
}

// StillThere checks what a checkpoint knows of a source against the files that
// are there now: split is a file it names, ended that all of it was read. A
// file that was not read to its end and is gone is an error; new files need no
// check, they begin at 0.
func StillThere(files []string, split string, ended bool) error {
	if ended || slices.Contains(files, split) {
		return nil
	}
	return fmt.Errorf("file source: %s was not read to its end at the checkpoint, and is not among the %d files now; put it back, or start the job anew", split, len(files))
}
