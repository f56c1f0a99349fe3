package durable

import (
	"fmt"
	"io"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Remake makes a part of a table that was merged on another node, of the parts
// that it was merged from, and pins it: what they have in common need not be sent.
// It ends when quit is closed. store.ErrMissing: it was not merged, or not all that
// it was merged from is here; store.ErrCorrupt: it came out another.
func (s *State) Remake(t manifest.Table, use manifest.PartUse, quit <-chan struct{}) error {
	if len(use.From) == 0 {
		return fmt.Errorf("part %v was not merged: %w", use.Digest, store.ErrMissing)
	}
	var from []manifest.PartUse
	defer func() {
		for _, u := range from {
			s.parts.Unpin(u.Part)
		}
	}()
	for _, d := range use.From {
		p, err := s.parts.Find(d)
		if err == nil {
			err = s.parts.Pin(p)
		}
		if err != nil {
			return fmt.Errorf("part %v was merged from others: %w", use.Digest, err)
		}
		from = append(from, manifest.PartUse{Part: p})
	}
	h, err := avro.ParseSchema(t.Schema)
	if err != nil {
		return err
	}
	table := operator.StateTable{Name: h.Table, Schema: h.Schema, Keyed: h.Keyed, Identity: t.Identity}
	made, err := s.parts.Put(func(w io.Writer) error {
		_, err := s.mergeTo(w, table, from, quit)
		return err
	})
	if err != nil {
		return err
	}
	if made != use.Part {
		s.parts.Unpin(made)
		return fmt.Errorf("part %v was merged from others, and came out as %v here: %w", use.Digest, made.Digest, store.ErrCorrupt)
	}
	return nil
}
