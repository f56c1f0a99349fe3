package mqtt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
)

// target is a client id, as a checkpoint knows it.
type target struct {
	id     string
	record record
	pieces []held
}

// Recover publishes what the checkpoint held and the journal does not say was
// published. Rows of client ids that no subtask has any more are published
// under these ids, by the subtask that owns them: only under its old id can a
// row that the broker has be told from one that it has not. It waits for the
// broker if there is anything to publish. After an error it may be called again.
// In a site, what is on record as published is left out, and the journal counts
// only if no other agent can have had the client id since. See
// sensors.Transactional.
func (w *TransactionalWriter) Recover(ctx context.Context, held []sensors.Pending, owns func(string) bool) error {
	if w.courier != nil || w.queue.End() != w.queue.First() {
		return fmt.Errorf("mqtt: %q: Recover comes once, before the first Write", w.id)
	}
	targets, err := parseTargets(held)
	if err != nil {
		return err
	}
	current := make(map[string]bool, w.o.Parallelism)
	for i := range w.o.Parallelism {
		current[ClientID(w.o.ClientID, i, w.o.Parallelism)] = true
	}
	own := target{id: w.id}
	var adopted []target
	for _, t := range targets {
		switch {
		case t.id == w.id:
			own = t
		case !current[t.id] && owns(t.id):
			adopted = append(adopted, t)
		}
	}
	w.trans, w.adopted = pending.NewTransactions(own.record.Next), nil
	for i := range adopted {
		if err := w.adopt(ctx, &adopted[i]); err != nil {
			return err
		}
	}
	j, err := w.openJournal(w.id)
	if err != nil {
		return err
	}
	if own.record.Version == 0 {
		if err := j.forget(); err != nil {
			return errors.Join(err, j.close())
		}
	}
	w.courier = newCourier(&w.o.WriterOptions, w.id, j)
	if err := w.courier.recover(ctx, w.unrecorded(&own)); err != nil {
		err = errors.Join(err, w.courier.close())
		w.courier = nil
		return err
	}
	w.forget(&own)
	w.through = w.o.Placed.From
	return nil
}

func (w *TransactionalWriter) openJournal(id string) (*journal, error) {
	j, err := openJournal(w.o.FS, w.o.Dir, id)
	if err != nil {
		return nil, err
	}
	if err := j.hold(&w.o.Placed); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

// unrecorded is the pieces that are not on record as published. A record newer
// than the checkpoint says that all of them were.
func (w *TransactionalWriter) unrecorded(t *target) []held {
	c, known := w.o.Placed.Recorded(t.id)
	n := 0
	for known && n < len(t.pieces) && !c.Through.Less(t.pieces[n].key.id()) {
		n++
	}
	return t.pieces[n:]
}

// adopt publishes what is left of a client id that nobody has any more.
func (w *TransactionalWriter) adopt(ctx context.Context, t *target) (err error) {
	w.trans.Gone(t.id, 0)
	w.forget(t)
	pieces := w.unrecorded(t)
	if len(pieces) == 0 {
		return nil
	}
	j, err := w.openJournal(t.id)
	if err != nil {
		return err
	}
	c := newCourier(&w.o.WriterOptions, t.id, j)
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.recover(ctx, pieces); err != nil {
		return err
	}
	w.adopted = append(w.adopted, sensors.Commit{Target: t.id, Through: w.o.Placed.From})
	return nil
}

func (w *TransactionalWriter) forget(t *target) {
	for i := range t.pieces {
		w.trans.Gone(t.id, t.pieces[i].key.Piece)
	}
}

// parseTargets sorts pieces by target. They come in order of target and piece.
func parseTargets(all []sensors.Pending) ([]target, error) {
	var out []target
	for _, p := range all {
		if p.Piece == 0 {
			var r record
			if err := json.Unmarshal(p.Data, &r); err != nil {
				return nil, fmt.Errorf("mqtt: the record of client %q in the checkpoint cannot be read: %w", p.Target, err)
			}
			if r.Version != recordVersion {
				return nil, fmt.Errorf("mqtt: the record of client %q in the checkpoint has version %d, and this program reads %d; use the program that wrote it, or a newer one", p.Target, r.Version, recordVersion)
			}
			out = append(out, target{id: p.Target, record: r})
			continue
		}
		head, rows, ok := bytes.Cut(p.Data, []byte{'\n'})
		var k pieceKey
		if !ok || len(out) == 0 || out[len(out)-1].id != p.Target || json.Unmarshal(head, &k) != nil || k.Piece != p.Piece {
			return nil, fmt.Errorf("mqtt: piece %d of the rows of client %q in the checkpoint is cut short, or has no record before it; the checkpoint is damaged", p.Piece, p.Target)
		}
		t := &out[len(out)-1]
		t.pieces = append(t.pieces, held{key: k, rows: rows})
	}
	return out, nil
}
