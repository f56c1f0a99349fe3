package sensortest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Held keeps what Prepare emits as checkpoints do: deltas upon deltas, of all
// subtasks of a sink.
type Held struct{ pieces map[heldKey][]byte }

type heldKey struct {
	target string
	piece  int64
}

// Prepare has w prepare and returns what a checkpoint holds then of w; h stays
// as it was. It checks what Prepare promises of each piece.
func (h Held) Prepare(w sensors.Transactional, id dataflow.CheckpointID, full bool) (Held, error) {
	n := Held{make(map[heldKey][]byte)}
	if !full {
		maps.Copy(n.pieces, h.pieces)
	}
	records, wrong := 0, error(nil)
	err := w.Prepare(id, full, func(p sensors.Pending) error {
		k := heldKey{p.Target, p.Piece}
		_, there := n.pieces[k]
		switch {
		case p.Target == "" || p.Piece < 0:
			wrong = fmt.Errorf("piece %d of target %q", p.Piece, p.Target)
		case p.Gone && full:
			wrong = errors.New("a full snapshot says what is gone")
		case p.Gone:
			delete(n.pieces, k)
			return nil
		case p.Piece > 0 && there:
			wrong = fmt.Errorf("piece %d of %s comes twice", p.Piece, p.Target)
		case len(p.Data) > 66<<10:
			wrong = fmt.Errorf("piece %d of %s has %d bytes", p.Piece, p.Target, len(p.Data))
		}
		if p.Piece == 0 {
			records++
		}
		n.pieces[k] = bytes.Clone(p.Data)
		for i := range p.Data {
			p.Data[i] = 0xff // it was lent
		}
		return nil
	})
	if records == 0 && err == nil && wrong == nil {
		wrong = errors.New("no record of a target")
	}
	if wrong != nil {
		err = fmt.Errorf("Prepare: %w", wrong)
	}
	return n, err
}

// Pending is what Recover is given: everything that the parts hold.
func Pending(parts ...Held) []sensors.Pending {
	var out []sensors.Pending
	for _, h := range parts {
		for k, data := range h.pieces {
			out = append(out, sensors.Pending{Target: k.target, Piece: k.piece, Data: data})
		}
	}
	slices.SortFunc(out, func(a, b sensors.Pending) int {
		switch {
		case a.Target != b.Target && a.Target < b.Target, a.Target == b.Target && a.Piece < b.Piece:
			return -1
		}
		return 1
	})
	return out
}

// Owns deals targets that nobody owns to subtasks.
func Owns(subtask, parallelism int) func(target string) bool {
	return func(target string) bool {
		sum := 0
		for _, c := range []byte(target) {
			sum += int(c)
		}
		return sum%parallelism == subtask
	}
}
