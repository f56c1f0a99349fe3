package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func newSavepoint(t *terminal) *cobra.Command {
	var place placeFlag
	cmd := &cobra.Command{
		Use:   "savepoint",
		Short: "Make, look at, move and delete savepoints",
		Example: "  tidemark savepoint create cold-chain\n  tidemark savepoint list --state state\n" +
			"  tidemark savepoint export sp-2f9c41d0 cold-chain.savepoint --state state",
		Args: knownVerb,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	place.register(cmd)
	cmd.AddCommand(newSavepointCreate(t, &place), newSavepointList(t, &place), newSavepointShow(t, &place), newSavepointVerify(t, &place),
		newSavepointExport(t, &place), newSavepointImport(t, &place), newSavepointDelete(t, &place))
	return cmd
}

func newSavepointList(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "The savepoints of the mesh, or of a state folder, oldest first",
		Example: "  tidemark savepoint list\n  tidemark savepoint list --state state --output json",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				list, err := c.Savepoints(cmd.Context())
				if err != nil {
					return place.answered(err)
				}
				return showRemoteSavepoints(t, list)
			}
			s, err := place.view()
			if err != nil {
				return err
			}
			list, err := s.Savepoints()
			if err != nil {
				return err
			}
			w := newTable(t, "id", "job", "created", "kind", "size", "rows")
			for _, e := range list {
				switch {
				case t.json():
					if err := json.NewEncoder(t.out).Encode(describeSavepoint(e.Name, e.Manifest, e.Err, false)); err != nil {
						return err
					}
				case e.Err != nil:
					w.AppendRow([]any{e.Name, "", "", unreadable(e.Err)})
				default:
					size := manifest.Sizes(e.Manifest)
					w.AppendRow([]any{e.Name, e.Manifest.Job, timeText(e.Manifest.Created), checkpointKind(e.Manifest), api.BytesText(size.Bytes), size.Rows})
				}
			}
			if !t.json() {
				w.Render()
			}
			return nil
		},
	}
}

// unreadable says why a manifest is not shown.
func unreadable(err error) string {
	if errors.Is(err, store.ErrCorrupt) {
		return "damaged: " + err.Error()
	}
	return "cannot be read: " + err.Error()
}

// savepointJSON is a savepoint in JSON.
type savepointJSON struct {
	ID             string              `json:"id"`
	Job            string              `json:"job,omitempty"`
	Created        string              `json:"created,omitempty"`
	Mode           string              `json:"mode,omitempty"`
	MaxParallelism int                 `json:"max_parallelism,omitempty"`
	Drained        bool                `json:"drained,omitempty"`
	Finished       bool                `json:"finished,omitempty"`
	Bytes          int64               `json:"bytes"`
	Rows           int64               `json:"rows"`
	Error          string              `json:"error,omitempty"` // why it cannot be read
	Operators      []savepointOperator `json:"operators,omitempty"`
}

type savepointOperator struct {
	ID          string              `json:"id"`
	Parallelism int                 `json:"parallelism"`
	Positions   []savepointPosition `json:"positions,omitempty"`
	States      []savepointState    `json:"states,omitempty"`
}

type savepointPosition struct {
	Split  string `json:"split"`
	Offset int64  `json:"offset"`
	Ended  bool   `json:"ended,omitempty"`
}

type savepointState struct {
	Name    string `json:"name"`
	Keyed   bool   `json:"keyed"`
	Columns string `json:"columns"`
	Rows    int64  `json:"rows"` // of parts; deltas count what they change
	Bytes   int64  `json:"bytes"`
	Parts   int    `json:"parts"`
}

func describeSavepoint(name string, m manifest.Manifest, damage error, whole bool) savepointJSON {
	out := savepointJSON{ID: name}
	if damage != nil {
		out.Error = unreadable(damage)
		return out
	}
	size := manifest.Sizes(m)
	out.Job, out.Created, out.Mode, out.MaxParallelism = m.Job, timeText(m.Created), m.Mode, m.MaxParallelism
	out.Drained, out.Finished, out.Bytes, out.Rows = m.Drained, m.Finished, size.Bytes, size.Rows
	if !whole {
		return out
	}
	for _, o := range m.Operators {
		so := savepointOperator{ID: string(o.ID), Parallelism: o.Parallelism}
		for _, p := range o.Positions {
			so.Positions = append(so.Positions, savepointPosition(p))
		}
		for _, tab := range o.Tables {
			so.States = append(so.States, describeState(tab))
		}
		out.Operators = append(out.Operators, so)
	}
	return out
}

func describeState(tab manifest.Table) savepointState {
	st := savepointState{Name: tab.Name, Keyed: tab.Keyed, Columns: tab.Schema}
	if h, err := avro.ParseSchema(tab.Schema); err == nil {
		st.Columns = h.Schema.String()
	}
	for _, shard := range tab.Shards {
		for _, p := range shard.Parts {
			st.Rows += p.Rows
			st.Bytes += p.Size
			st.Parts++
		}
	}
	return st
}

func newSavepointShow(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Operators, states, schemas, rows and source positions of a savepoint, a checkpoint (JOB/ID) or an exported file",
		Example: "  tidemark savepoint show sp-2f9c41d0\n  tidemark savepoint show sp-2f9c41d0 --state state\n  tidemark savepoint show cold-chain/chk-1-17 --state state\n  tidemark savepoint show cold-chain.savepoint",
		Args:    exactly(1, savepointWanted),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := place.agent(args[0])
			if err != nil {
				return err
			}
			if c != nil {
				d, err := c.Savepoint(cmd.Context(), args[0])
				switch {
				case err != nil:
					return place.answered(err)
				case t.json():
					return json.NewEncoder(t.out).Encode(d)
				}
				return showSaved(t, savepointJSON{ID: d.ID, Job: d.Job, Created: d.Created, MaxParallelism: d.MaxParallelism, Bytes: d.Bytes, Rows: d.Rows, Operators: localOperators(d.Operators)}, d.Kind)
			}
			v, err := place.saved(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.Close()) }()
			m := v.Manifest
			d := describeSavepoint(m.Name, m, nil, true)
			if t.json() {
				return json.NewEncoder(t.out).Encode(d)
			}
			return showSaved(t, d, checkpointKind(m))
		},
	}
}

// showSaved is a savepoint for people.
func showSaved(t *terminal, d savepointJSON, kind string) error {
	fmt.Fprintf(t.out, "%s of job %q, %s, %s, max_parallelism %d, %s, %d rows\n", d.ID, d.Job, d.Created, kind, d.MaxParallelism, api.BytesText(d.Bytes), d.Rows)
	states := newTable(t, "operator", "parallelism", "state", "keyed", "rows", "size", "columns")
	positions := newTable(t, "source", "split", "position", "")
	for _, o := range d.Operators {
		for _, st := range o.States {
			states.AppendRow([]any{o.ID, o.Parallelism, st.Name, st.Keyed, st.Rows, api.BytesText(st.Bytes), st.Columns})
		}
		for _, p := range o.Positions {
			positions.AppendRow([]any{o.ID, p.Split, p.Offset, map[bool]string{true: "ended"}[p.Ended]})
		}
	}
	states.Render()
	if positions.Length() > 0 {
		positions.Render()
	}
	return nil
}

// savepointWanted is the argument of verbs that look at a savepoint.
const savepointWanted = "the id of a savepoint, JOB/ID of a checkpoint, JOB for its newest one, or an exported file"

func newSavepointVerify(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "verify ID",
		Short:   "Read every part of a savepoint, a checkpoint (JOB/ID) or an exported file, and compare it with its digest",
		Example: "  tidemark savepoint verify sp-2f9c41d0\n  tidemark savepoint verify sp-2f9c41d0 --state state\n  tidemark savepoint verify cold-chain.savepoint",
		Args:    exactly(1, savepointWanted),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := place.agent(args[0])
			if err != nil {
				return err
			}
			if c != nil {
				done, err := c.Verify(cmd.Context(), args[0])
				if err != nil {
					return place.answered(err)
				}
				return showVerified(t, done.ID, done.Parts, done.Bytes)
			}
			v, err := place.saved(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.Close()) }()
			if err := v.Verify(); err != nil {
				return fmt.Errorf("%s is not whole, and no job can go on from it: %w", v.Manifest.Name, err)
			}
			size := manifest.Sizes(v.Manifest)
			return showVerified(t, v.Manifest.Name, size.Parts, size.Bytes)
		},
	}
}

func showVerified(t *terminal, name string, parts int, bytes int64) error {
	if t.json() {
		return json.NewEncoder(t.out).Encode(map[string]any{"id": name, "ok": true, "parts": parts, "bytes": bytes})
	}
	_, err := fmt.Fprintf(t.out, "%s: ok: %d parts, %s, every digest right\n", name, parts, api.BytesText(bytes))
	return err
}

func newSavepointExport(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "export ID FILE",
		Short:   "Write a savepoint, or a checkpoint (JOB/ID), with all its parts to one file",
		Example: "  tidemark savepoint export sp-2f9c41d0 cold-chain.savepoint\n  tidemark savepoint export sp-2f9c41d0 cold-chain.savepoint --state state",
		Args:    exactly(2, "the id of a savepoint, and the file to write (- for stdout)"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				return place.answered(exportRemote(cmd.Context(), t, c, args[0], args[1]))
			}
			s, err := place.view()
			if err != nil {
				return err
			}
			v, err := s.Saved(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.Close()) }()
			if args[1] == "-" {
				return v.Export(t.out)
			}
			if err := exportTo(v, args[1]); err != nil {
				return err
			}
			info, err := os.Stat(args[1])
			if err != nil {
				return err
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(map[string]any{"id": v.Manifest.Name, "file": args[1], "bytes": info.Size()})
			}
			_, err = fmt.Fprintf(t.err, "%s: %s, %s of job %s with all its parts\n", args[1], api.BytesText(info.Size()), v.Manifest.Name, v.Manifest.Job)
			return err
		},
	}
}

// exportTo writes the file whole or not at all.
func exportTo(v *durable.Saved, name string) error { return wholeFile(name, v.Export) }

// wholeFile makes a file of what write writes, whole or not at all.
func wholeFile(name string, write func(io.Writer) error) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder; give the name of the file to write", name)
	}
	return disk.ReplaceWith(disk.Secret, name, write)
}

func newSavepointImport(t *terminal, place *placeFlag) *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:     "import FILE",
		Short:   "Take an exported savepoint into the mesh, or into a state folder; every part is verified",
		Example: "  tidemark savepoint import cold-chain.savepoint\n  tidemark savepoint import cold-chain.savepoint --state state",
		Args:    exactly(1, "the file of one savepoint (- for stdin)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			in := t.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("%w; give a file that tidemark savepoint export wrote", err)
				}
				defer f.Close()
				in = f
			}
			if c != nil {
				return place.answered(importRemote(cmd.Context(), t, c, in, as))
			}
			return importFrom(t, place, in, as)
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "its id there; empty: the one it has")
	return cmd
}

func importFrom(t *terminal, place *placeFlag, in io.Reader, as string) (err error) {
	s, err := durable.Open(place.dir, nil) // a folder that is not there is made: this may be its first savepoint
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	m, err := s.Import(in, as)
	if err != nil {
		return err
	}
	if t.json() {
		return json.NewEncoder(t.out).Encode(describeSavepoint(m.Name, m, nil, false))
	}
	_, err = fmt.Fprintf(t.out, "%s of job %q: imported\n", m.Name, m.Job)
	return err
}

func newSavepointDelete(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "delete ID",
		Short:   "Delete a savepoint and the parts that nothing else needs",
		Example: "  tidemark savepoint delete sp-2f9c41d0\n  tidemark savepoint delete sp-2f9c41d0 --state state",
		Args:    exactly(1, "the id of one savepoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				err = place.answered(c.DeleteSavepoint(cmd.Context(), args[0]))
			} else {
				err = place.change(func(s *durable.State) error { return deleteSavepoint(s, args[0]) })
			}
			if err != nil {
				return err
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(map[string]any{"id": args[0], "deleted": true})
			}
			_, err = fmt.Fprintf(t.err, "%s: deleted\n", args[0])
			return err
		},
	}
}

// deleteSavepoint deletes a savepoint; where there is none of the name it says
// what there is, and why a checkpoint stays.
func deleteSavepoint(s *durable.State, name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("%s is no savepoint; the checkpoints of a job are its own, and it lets them go itself", name)
	}
	err := s.Delete(name)
	if !errors.Is(err, store.ErrMissing) {
		return err
	}
	list, _ := s.Savepoints()
	if len(list) == 0 {
		return fmt.Errorf("savepoint %q is %w: %s has none", name, store.ErrMissing, s.Dir())
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return fmt.Errorf("savepoint %q is %w; %s has %s", name, store.ErrMissing, s.Dir(), strings.Join(names, ", "))
}
