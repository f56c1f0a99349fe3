package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
	"github.com/tidemark-mesh/tidemark/store"
)

// Recover brings the files of the sink to where they were at the checkpoint,
// with its pending rows committed. See sensors.Transactional.
//
//   - The own target, if the checkpoint knows it, is cut to the recorded length
//     and its pending rows are appended. One that it does not know is begun, as
//     on a fresh start.
//   - The targets of the same path that no subtask writes any more, since the
//     parallelism was another, are completed by the subtask that owns them. It
//     carries their records on, so that the length of each file of the family is
//     known to every later checkpoint.
//   - Rows that were pending under another path (it was changed) become the
//     first rows of subtask 0's transaction. The old file is not touched: it may
//     be another job's by now.
//
// In a site it differs where the file is another agent's, or was: see site.go.
//
// After an error it may be called again: where there was no room, say.
func (s *Sink) Recover(ctx context.Context, held []sensors.Pending, owns func(string) bool) error {
	if s.begun || !s.cfg.Durable {
		return fmt.Errorf("file sink: %s: Recover comes once, before the first Write, to a durable sink", s.name)
	}
	err := s.recover(ctx, held, owns)
	if err != nil {
		s.begun, s.carried, s.trans = false, nil, pending.NewTransactions(1)
		if s.file != nil {
			err = errors.Join(err, s.closeFile())
		}
	}
	return err
}

func (s *Sink) recover(ctx context.Context, held []sensors.Pending, owns func(string) bool) error {
	targets, err := parse(held)
	if err != nil {
		return err
	}
	current := make(map[string]bool, s.cfg.Parallelism)
	for i := range s.cfg.Parallelism {
		current[s.targetOf(i)] = true
	}
	var own *target
	var moved []target
	for i := range targets {
		t := &targets[i]
		if err := s.count(t); err != nil {
			return err
		}
		switch {
		case t.record.Path != s.cfg.Path:
			if s.cfg.Subtask == 0 {
				moved = append(moved, *t)
			}
		case t.name == s.target:
			own = t
		case current[t.name] || !owns(t.name):
		case s.cfg.Placed.Node != "" || t.record.Node != "":
			moved = append(moved, *t)
		default:
			if err := s.adopt(t); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if s.cfg.Placed.Node != "" {
		if s.undone = nil; s.cfg.Subtask == 0 {
			s.undone = s.takeBack(targets, current)
		}
		own, moved, err = s.placeOwn(own, moved)
	}
	switch {
	case err != nil:
	case own == nil:
		err = s.begin()
	default:
		err = s.resume(own)
	}
	if err != nil {
		return err
	}
	s.through = s.cfg.Placed.From
	return s.takeOver(moved)
}

// resume goes on with a target.
func (s *Sink) resume(t *target) error {
	s.trans = pending.NewTransactions(t.record.Next)
	length, err := s.complete(s.name, t)
	if err != nil {
		return err
	}
	if err := s.open(length); err != nil {
		return err
	}
	s.folders = nil // complete has synced them
	s.begun = true
	if length == 0 {
		s.queue.SetTail(s.cfg.Encoder.AppendHeader(s.queue.Tail()))
	}
	s.forget(t, false)
	return nil
}

// adopt completes a file that nobody writes any more.
func (s *Sink) adopt(t *target) error {
	length, err := s.complete(t.name, t)
	if err != nil {
		return err
	}
	s.forget(t, false)
	t.record.Length, t.pieces = length, nil
	s.carried = append(s.carried, *t)
	return nil
}

// takeOver puts rows that were pending for another file into the first
// transaction. Where nothing was committed there, the file's header is pending
// before them, and stays behind. The record of a file of the same path is
// carried on.
func (s *Sink) takeOver(moved []target) error {
	header := s.cfg.Encoder.AppendHeader(nil)
	for i := range moved {
		t := &moved[i]
		for _, p := range t.rest() {
			if err := s.queue.Room(); err != nil {
				return s.fault(err)
			}
			rows := p.Data[pieceHead:]
			if binary.BigEndian.Uint64(p.Data) == 0 {
				rows = bytes.TrimPrefix(rows, header)
			}
			s.queue.SetTail(append(s.queue.Tail(), rows...))
		}
		other := t.record.Path != s.cfg.Path
		s.forget(t, other)
		if !other && t.name != s.target {
			t.pieces, t.done = nil, 0
			s.carried = append(s.carried, *t)
		}
	}
	return nil
}

// forget notes that the pieces are in a file now.
func (s *Sink) forget(t *target, record bool) {
	if record {
		s.trans.Gone(t.name, 0)
	}
	for _, p := range t.pieces {
		s.trans.Gone(t.name, p.Piece)
	}
}

// complete makes the file of a target what it was at the checkpoint, with its pending rows
// behind, and returns its length. What is there of the pending rows already, of
// a commit or of a complete that was interrupted, is not taken away: a reader
// would see rows go that were committed. It is written again all the same,
// since nobody knows whether it reached the disk.
func (s *Sink) complete(name string, t *target) (length int64, err error) {
	fsys, size := s.cfg.FS, int64(0)
	info, err := fsys.Stat(name)
	switch {
	case err == nil:
		size = info.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fault(name, err)
	case t.record.Length > 0:
		return 0, fmt.Errorf("file sink: %s is missing, but the checkpoint knows %d bytes of it; put it back, or start the job anew", name, t.record.Length)
	}
	if size < t.record.Length {
		return 0, fmt.Errorf("file sink: %s is %d bytes long, but the checkpoint knows %d: somebody cut or replaced it; put it back, or start the job anew with another path", name, size, t.record.Length)
	}
	folders, err := pending.MakeFolders(fsys, name)
	if err != nil {
		return 0, fault(name, err)
	}
	f, err := fsys.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return 0, fault(name, err)
	}
	if err = s.permitted(); err == nil {
		length, err = fill(f, t, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = pending.SyncFolders(fsys, folders)
	}
	if err != nil {
		return 0, fault(name, err)
	}
	return length, nil
}

func fill(f store.File, t *target, size int64) (length int64, err error) {
	at := t.record.Length
	var have []byte
	for _, p := range t.rest() {
		rows := p.Data[pieceHead:]
		if place := int64(binary.BigEndian.Uint64(p.Data)); place != at {
			return 0, fmt.Errorf("piece %d of its pending rows belongs to byte %d, not %d; the checkpoint is damaged", p.Piece, place, at)
		}
		have = append(have[:0], rows[:max(0, min(int64(len(rows)), size-at))]...)
		if n, err := f.ReadAt(have, at); n < len(have) && err != io.EOF {
			return 0, err
		}
		if !bytes.Equal(have, rows[:len(have)]) {
			if err := f.Truncate(at); err != nil {
				return 0, err
			}
			size = at
		}
		if err := pending.WriteAt(f, rows, at); err != nil {
			return 0, err
		}
		at += int64(len(rows))
		size = max(size, at)
	}
	if size > at {
		err = f.Truncate(at)
	}
	return at, err
}

// parse sorts pieces by target. They come in order of target and piece.
func parse(held []sensors.Pending) ([]target, error) {
	var out []target
	for _, p := range held {
		if p.Piece == 0 {
			var r record
			if err := json.Unmarshal(p.Data, &r); err != nil {
				return nil, fmt.Errorf("file sink: %s: its record in the checkpoint cannot be read: %w", p.Target, err)
			}
			if r.Version != recordVersion {
				return nil, fmt.Errorf("file sink: %s: its record in the checkpoint has version %d, and this program reads %d; use the program that wrote it, or a newer one", p.Target, r.Version, recordVersion)
			}
			if r.Length < 0 {
				return nil, fmt.Errorf("file sink: %s: its record in the checkpoint says %d bytes; it is damaged", p.Target, r.Length)
			}
			out = append(out, target{name: p.Target, record: r})
			continue
		}
		if len(out) == 0 || out[len(out)-1].name != p.Target || len(p.Data) < pieceHead {
			return nil, fmt.Errorf("file sink: %s: piece %d in the checkpoint is cut short, or has no record before it; the checkpoint is damaged", p.Target, p.Piece)
		}
		t := &out[len(out)-1]
		t.pieces = append(t.pieces, p)
	}
	return out, nil
}
