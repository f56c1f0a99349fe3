package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

func newCheckpoint(t *terminal) *cobra.Command {
	var place placeFlag
	cmd := &cobra.Command{
		Use:     "checkpoint",
		Short:   "Look at the checkpoints of a job",
		Example: "  tidemark checkpoint list cold-chain\n  tidemark checkpoint list cold-chain --state state",
		Args:    knownVerb,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	place.register(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:     "list JOB",
		Short:   "The checkpoints of a job that are kept, oldest first",
		Example: "  tidemark checkpoint list cold-chain\n  tidemark checkpoint list cold-chain --state state",
		Args:    exactly(1, "the name of one job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				list, err := c.Checkpoints(cmd.Context(), args[0])
				if err != nil {
					return place.answered(err)
				}
				return showRemoteCheckpoints(t, list)
			}
			s, err := place.view()
			if err != nil {
				return err
			}
			list, err := s.Checkpoints(args[0])
			if err != nil {
				return err
			}
			return showCheckpoints(t, list, s.Dir())
		},
	})
	return cmd
}

// checkpointLine is a checkpoint as it is listed.
type checkpointLine struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	Created   string `json:"created"`
	Duration  int64  `json:"duration_ms"`
	Bytes     int64  `json:"bytes"`
	Delta     int64  `json:"delta_bytes"` // not in the checkpoint before it
	Rows      int64  `json:"rows"`
	Copies    int    `json:"copies"`
	Where     string `json:"where"`
	Finished  bool   `json:"finished,omitempty"`
	Error     string `json:"error,omitempty"` // why it cannot be read
	Operators int    `json:"operators"`
}

func showCheckpoints(t *terminal, list []part.Entry, dir string) error {
	w := newTable(t, "id", "kind", "created", "took", "size", "delta", "rows", "copies", "where")
	enc := json.NewEncoder(t.out)
	var before []manifest.Manifest
	for _, e := range list {
		line := checkpointLine{ID: e.Name, Copies: 1, Where: dir}
		if e.Err != nil {
			line.Kind, line.Error = "unreadable", unreadable(e.Err)
		} else {
			m := e.Manifest
			size := manifest.Sizes(m, before...)
			before = []manifest.Manifest{m}
			line.Kind, line.Created, line.Finished, line.Operators = checkpointKind(m), timeText(m.Created), m.Finished, len(m.Operators)
			line.Bytes, line.Delta, line.Rows = size.Bytes, size.New, size.Rows
			line.Duration = int64(m.Took) / 1000
		}
		if t.json() {
			if err := enc.Encode(line); err != nil {
				return err
			}
			continue
		}
		if line.Error != "" {
			w.AppendRow([]any{line.ID, line.Error})
			continue
		}
		w.AppendRow([]any{line.ID, line.Kind, line.Created, fmt.Sprintf("%d ms", line.Duration), api.BytesText(line.Bytes), api.BytesText(line.Delta), line.Rows, line.Copies, line.Where})
	}
	if !t.json() {
		w.Render()
	}
	return nil
}

// checkpointKind is what kind of checkpoint or savepoint it is.
func checkpointKind(m manifest.Manifest) string {
	switch {
	case m.Drained:
		return "drained"
	case m.Finished:
		return "final"
	}
	return m.Mode
}
