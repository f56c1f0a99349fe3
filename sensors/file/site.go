package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// In a site a target is named by its agent and path, since the same path is
// another file on each agent: NODE:PATH. A node's name has no colon. What was
// committed stays where it is; what is pending follows the subtask.
//
// The site has on record how long each target is as far as it counts, and what
// an agent makes of a target before that is on record may turn out not to count:
// when it is lost before, another agent commits the rows, and this one cuts its
// file back (CutBack) before it has anything to do with the job again. Hence:
//
//   - A target is on record before anything is written to it: the runtime says
//     what targets there are before any checkpoint of the attempt completes, and
//     Recover writes only to a target that is on record.
//   - Pending rows that are on record as committed are left out.
//   - Those of a target that nobody writes any more, here or there, and those of
//     the own one if it is not on record, become the first rows of the next
//     transaction: so they are pending, of exactly one target, until they count.
//
// A record newer than the checkpoint that the job goes on from does not count:
// its rows come again. The job began with an older savepoint, or its site was lost
// and it was taken here with less. So the files are what the checkpoint knows of
// them, and the sinks say so: who writes a target, of that; subtask 0, of those
// that nobody writes. It is on record before a checkpoint of the attempt completes,
// and agents cut their files back to it. Else the record would be older than that
// checkpoint, and count again.
//
// A record may say more than the checkpoint knows of, and be older: the site was
// lost, another one went on with less, and the job has come home. Rows that were
// committed here are not taken away, though they stand in the other site's files,
// too: the file goes on behind them.

// SiteTarget is the name of a file on an agent.
func SiteTarget(node, path string) string { return node + ":" + path }

// targetOf is the target of a subtask of the sink.
func (s *Sink) targetOf(subtask int) string {
	name := Target(s.cfg.Path, subtask, s.cfg.Parallelism)
	if s.cfg.Placed.Node == "" {
		return name
	}
	return SiteTarget(s.cfg.Placed.Nodes[subtask], name)
}

// counts tells whether what is on record counts: the job goes on from it.
func (s *Sink) counts(c sensors.Commit) bool { return !s.cfg.Placed.From.Less(c.Through) }

// takeBack is what counts of targets that nobody writes, and of which too much is on
// record. What the checkpoint does not know was begun after it, and is empty.
func (s *Sink) takeBack(targets []target, current map[string]bool) (undone []sensors.Commit) {
	for _, c := range s.cfg.Placed.Commits {
		node, _, ok := strings.Cut(c.Target, ":")
		if !ok || current[c.Target] || s.counts(c) {
			continue
		}
		c.Node, c.Through, c.Length = node, s.cfg.Placed.From, 0
		if i := slices.IndexFunc(targets, func(t target) bool { return t.name == c.Target }); i >= 0 {
			c.Length = targets[i].record.Length
		}
		undone = append(undone, c)
	}
	return undone
}

// count finds out which pieces of a target are on record as committed.
func (s *Sink) count(t *target) error {
	c, known := s.cfg.Placed.Recorded(t.name)
	if !known || !s.counts(c) {
		return nil
	}
	for t.record.Length < c.Length && t.done < len(t.pieces) {
		t.record.Length += int64(len(t.pieces[t.done].Data) - pieceHead)
		t.done++
	}
	if t.record.Length < c.Length && s.beside(c) {
		t.record.Length = c.Length
	}
	if t.record.Length < c.Length || t.done > 0 && t.record.Length > c.Length {
		return fmt.Errorf("file sink: %s: %d bytes are on record, and the checkpoint has a piece up to %d; it is damaged", t.name, c.Length, t.record.Length)
	}
	return nil
}

// beside tells whether a record may be of what the job did here and did not go on
// from: another owner has had it since.
func (s *Sink) beside(c sensors.Commit) bool {
	return c.Through.Token.Epoch < s.cfg.Placed.From.Token.Epoch
}

// placeOwn decides what becomes of the own target: where it is not on record,
// its pending rows are moved.
func (s *Sink) placeOwn(own *target, moved []target) (*target, []target, error) {
	c, known := s.cfg.Placed.Recorded(s.target)
	switch {
	case own != nil && !known:
		rows := *own
		own.pieces, own.done = nil, 0
		return own, append([]target{rows}, moved...), nil
	case own == nil && known:
		length := int64(0)
		if c.Length > 0 && s.counts(c) {
			if !s.beside(c) {
				return nil, nil, fmt.Errorf("file sink: %s: %d bytes of it are on record, but the checkpoint does not know it; it is damaged", s.target, c.Length)
			}
			length = c.Length
		}
		return &target{name: s.target, record: record{Version: recordVersion, Path: s.cfg.Path, Length: length, Next: 1, Node: s.cfg.Placed.Node}}, moved, nil
	}
	return own, moved, nil
}

// CutBack makes a target of node, which no sink writes at the moment, as long as
// the site has on record; what is behind that belongs to commits that never
// counted, and its rows are committed elsewhere. It is durable when CutBack
// returns. A file that is shorter, or missing, is left alone: who goes on with it
// will say so.
func CutBack(fsys store.FS, node, target string, length int64) error {
	path, ok := strings.CutPrefix(target, node+":")
	if !ok || length < 0 {
		return fmt.Errorf("file sink: %s with %d bytes is no target of agent %s", target, length, node)
	}
	info, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() <= length) {
		return nil
	}
	if err != nil {
		return fault(path, err)
	}
	f, err := fsys.Open(path, os.O_RDWR)
	if err != nil {
		return fault(path, err)
	}
	err = f.Truncate(length)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault(path, err)
	}
	return nil
}
