package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/durable"
)

// This file is the verbs about savepoints, checkpoints and state, at an agent.

// agent is who is asked for a savepoint; nil: it is in a state folder, or a file
// of this name.
func (f *placeFlag) agent(name string) (*api.Client, error) {
	c, err := f.remote()
	if err != nil || c == nil || f.addr != "" {
		return c, err
	}
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return nil, nil
	}
	return c, nil
}

// ask is check at an agent.
func (a *against) ask(ctx context.Context, t *terminal, c *api.Client, file string, load *loadFlags) error {
	if file == "-" {
		return usageError{errors.New("--against a savepoint of the mesh wants the job in a file, not on stdin")}
	}
	text, err := readJob(ctx, t, file)
	if err != nil {
		return err
	}
	d := api.Dry{Verify: true, Submission: api.Submission{Spec: string(text), File: file, Set: load.sets(), From: a.savepoint, AllowNonRestored: a.allowNonRestored}}
	done, err := c.Check(ctx, d)
	if err != nil {
		return reportProblem(t, a.place.answered(err))
	}
	for _, n := range done.Notes {
		fmt.Fprintln(t.err, n)
	}
	out := &agent.Checked{Report: done.Restore, Connectors: []agent.Connector{}, OK: done.OK}
	if t.json() {
		enc := json.NewEncoder(t.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(out)
	} else {
		err = printChecked(t, out)
	}
	if err == nil && !out.OK {
		err = errReported
	}
	return err
}

func showRemoteCheckpoints(t *terminal, list []api.Snapshot) error {
	w := newTable(t, "id", "kind", "created", "took", "size", "delta", "rows", "copies", "where")
	for _, s := range list {
		switch {
		case t.json():
			if err := json.NewEncoder(t.out).Encode(s); err != nil {
				return err
			}
		case s.Error != "":
			w.AppendRow([]any{s.ID, s.Error})
		default:
			w.AppendRow([]any{s.ID, s.Kind, s.Created, fmt.Sprintf("%d ms", s.Duration), api.BytesText(s.Bytes), api.BytesText(s.Delta), s.Rows, s.Copies, strings.Join(s.Where, " ")})
		}
	}
	if !t.json() {
		w.Render()
	}
	return nil
}

func showRemoteSavepoints(t *terminal, list []api.Snapshot) error {
	w := newTable(t, "id", "job", "created", "kind", "size", "rows", "copies", "where")
	for _, s := range list {
		switch {
		case t.json():
			if err := json.NewEncoder(t.out).Encode(s); err != nil {
				return err
			}
		case s.Error != "":
			w.AppendRow([]any{s.ID, "", "", s.Error})
		default:
			w.AppendRow([]any{s.ID, s.Job, s.Created, s.Kind, api.BytesText(s.Bytes), s.Rows, s.Copies, strings.Join(s.Where, " ")})
		}
	}
	if !t.json() {
		w.Render()
	}
	return nil
}

// localOperators are an agent's, as the verbs on a folder show them.
func localOperators(all []api.SnapshotOperator) (out []savepointOperator) {
	for _, o := range all {
		so := savepointOperator{ID: o.ID, Parallelism: o.Parallelism}
		for _, p := range o.Positions {
			so.Positions = append(so.Positions, savepointPosition(p))
		}
		for _, st := range o.States {
			so.States = append(so.States, savepointState(st))
		}
		out = append(out, so)
	}
	return out
}

// exportRemote writes the file whole or not at all.
func exportRemote(ctx context.Context, t *terminal, c *api.Client, id, name string) error {
	rc, err := c.Export(ctx, id)
	if err != nil {
		return err
	}
	if name == "-" {
		return copyOut(t.out, rc)
	}
	err = wholeFile(name, func(f io.Writer) error { return copyOut(f, rc) })
	if err != nil {
		return err
	}
	v, err := durable.OpenExport(name) // what arrived is looked at once more
	if err != nil {
		return err
	}
	of := v.Manifest.Job
	info, err := os.Stat(name)
	if err = errors.Join(err, v.Close()); err != nil {
		return err
	}
	if t.json() {
		return json.NewEncoder(t.out).Encode(map[string]any{"id": v.Manifest.Name, "file": name, "bytes": info.Size()})
	}
	_, err = fmt.Fprintf(t.err, "%s: %s, %s of job %s with all its parts\n", name, api.BytesText(info.Size()), v.Manifest.Name, of)
	return err
}

// importRemote sends a file to an agent.
func importRemote(ctx context.Context, t *terminal, c *api.Client, in io.Reader, as string) error {
	s, err := c.Import(ctx, in, as)
	if err != nil {
		return err
	}
	if t.json() {
		return json.NewEncoder(t.out).Encode(s)
	}
	_, err = fmt.Fprintf(t.out, "%s of job %q: imported\n", s.ID, s.Job)
	return err
}

// readRemote is state read at an agent.
func readRemote(ctx context.Context, t *terminal, c *api.Client, savepoint, op, name string) error {
	if op == "" || name == "" {
		s, err := c.Savepoint(ctx, savepoint)
		if err != nil {
			return err
		}
		var there []string
		for _, o := range s.Operators {
			if op != "" && op != o.ID {
				continue
			}
			if len(o.Positions) > 0 {
				there = append(there, o.ID+"/positions")
			}
			for _, st := range o.States {
				there = append(there, o.ID+"/"+st.Name)
			}
		}
		return usageError{fmt.Errorf("which state? Give --operator UID --state NAME; %s has %s", s.ID, orNone(strings.Join(there, ", ")))}
	}
	rc, err := c.ReadState(ctx, savepoint, op, name)
	if err != nil {
		return err
	}
	n := &lineCounter{w: t.out}
	if err := copyOut(n, rc); err != nil {
		return err
	}
	if !t.json() {
		fmt.Fprintf(t.err, "%s: %d rows of state %s of operator %s\n", savepoint, n.lines, name, op)
	}
	return nil
}

// lineCounter counts the lines that go through it.
type lineCounter struct {
	w     io.Writer
	lines int64
}

func (l *lineCounter) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' {
			l.lines++
		}
	}
	return l.w.Write(p)
}

// diffRemote is state diff at an agent.
func diffRemote(ctx context.Context, t *terminal, c *api.Client, a, b string) error {
	rc, err := c.Diff(ctx, a, b)
	if err != nil {
		return err
	}
	defer rc.Close()
	w := bufio.NewWriterSize(t.out, 64<<10)
	in := json.NewDecoder(rc)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	var told diffTold
	for {
		var d durable.Difference
		err := in.Decode(&d)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(fmt.Errorf("what the agent sent broke off, and is not all: %w", err), w.Flush())
		}
		told.count(d)
		if err := enc.Encode(d); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !t.json() {
		told.print(t, a, b)
	}
	return nil
}
