package file

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
)

// What a checkpoint holds of a target, byte by byte in docs/FILES.md: its
// record as piece 0, and the pending rows, encoded, each piece with the place
// in the file where it belongs. So a commit can be repeated: it writes the same
// bytes to the same place.

const (
	recordVersion = 1
	maxPiece      = 64 << 10
	pieceHead     = 8 // the place, big-endian
)

// record is piece 0 of a target.
type record struct {
	Version int    `json:"version"`
	Path    string `json:"path"`           // of the sink; the target is it, or made from it
	Length  int64  `json:"length"`         // committed bytes
	Next    int64  `json:"next"`           // number of the next piece
	Node    string `json:"node,omitempty"` // whose file it is, in a site
}

func (r record) bytes() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers and a string always can
	}
	return b
}

// target is a file of the sink's family, as a checkpoint knows it.
type target struct {
	name   string // of the file, or in a site SiteTarget
	record record
	pieces []sensors.Pending // without piece 0
	done   int               // so many of them are on record as committed
}

// rest is the pieces that may have to be committed.
func (t *target) rest() []sensors.Pending { return t.pieces[t.done:] }

// Prepare ends the transaction. See sensors.Transactional.
func (s *Sink) Prepare(id dataflow.CheckpointID, full bool, emit func(sensors.Pending) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	for _, c := range s.carried {
		if err := emit(sensors.Pending{Target: c.name, Data: c.record.bytes()}); err != nil {
			return err
		}
	}
	for end := s.queue.End(); s.cut < end; {
		s.cut = min(s.cut+maxPiece-pieceHead, end)
		s.trans.Add(s.cut, 0)
	}
	own := record{Version: recordVersion, Path: s.cfg.Path, Length: s.committed, Next: s.trans.Next(), Node: s.cfg.Placed.Node}
	if err := s.trans.Prepare(id, full, s.target, own.bytes(), s.read, s.committed, emit); err != nil {
		return fmt.Errorf("file sink: %s: pending rows: %w", s.name, err)
	}
	return nil
}

// read is the bytes of a piece as a checkpoint holds them, valid until the
// next call.
func (s *Sink) read(p pending.Piece, begin int64) ([]byte, error) {
	if s.piece == nil {
		s.piece = make([]byte, maxPiece)
	}
	b := s.piece[:pieceHead+int(p.End-begin)]
	binary.BigEndian.PutUint64(b, uint64(begin))
	return b, s.queue.Read(b[pieceHead:], begin)
}

// CommitThrough appends the rows of the transactions up to id's. See
// sensors.Transactional.
func (s *Sink) CommitThrough(_ context.Context, id dataflow.CheckpointID) error {
	if err := s.usable(); err != nil {
		return err
	}
	done := s.trans.Through(id)
	to := s.committed
	if len(done) > 0 {
		to = done[len(done)-1].End
	}
	if err := s.commit(to); err != nil {
		return err
	}
	s.trans.Commit(s.target, len(done))
	if s.through.Less(id) {
		s.through = id
	}
	return nil
}

// Commits is how long the file is, as far as it counts, and files that nobody
// writes of which less counts than is on record. See sensors.Recorder.
func (s *Sink) Commits() []sensors.Commit {
	return append([]sensors.Commit{{Target: s.target, Through: s.through, Length: s.committed}}, s.undone...)
}
