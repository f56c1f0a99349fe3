package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// Saved is a checkpoint or savepoint with what its parts are read from: a state
// folder, or the file that it was exported to. Reading changes nothing.
type Saved struct {
	Manifest manifest.Manifest
	from     reading
	file     io.Closer // nil: it is in a folder
}

// reading is where parts are read from.
type reading interface {
	Open(p store.Part) (io.ReadCloser, error)
	Verify(p store.Part) error
}

// Saved finds what is named: a savepoint by its name, a checkpoint as JOB/NAME,
// the newest of a job as JOB, or an exported file by its path. The caller closes
// it. store.ErrMissing says what there is.
func (s *State) Saved(name string) (*Saved, error) {
	jobName, own, both := strings.Cut(name, "/")
	if manifest.CheckName(jobName) == nil && (!both || manifest.CheckName(own) == nil) { // else it can only be a file
		m, err := s.Manifest(name)
		if err == nil {
			return &Saved{Manifest: m, from: s.parts}, nil
		}
		if !errors.Is(err, store.ErrMissing) {
			return nil, err
		}
	}
	if _, e := s.fs.Stat(s.checkpointsOf(name)); manifest.CheckName(name) == nil && e == nil {
		return s.newestOf(name)
	}
	if v, err := OpenExport(name); !errors.Is(err, store.ErrMissing) {
		return v, err
	}
	return nil, s.noneCalled(name)
}

func (s *State) checkpointsOf(jobName string) string {
	return filepath.Join(s.dir, "jobs", jobName, "checkpoints")
}

func (s *State) newestOf(jobName string) (*Saved, error) {
	list, err := s.Checkpoints(jobName)
	if err != nil {
		return nil, err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Err == nil {
			return &Saved{Manifest: list[i].Manifest, from: s.parts}, nil
		}
		err = errors.Join(err, list[i].Err)
	}
	if err != nil {
		return nil, fmt.Errorf("job %q: %w: %w", jobName, ErrNothingWhole, err)
	}
	return nil, fmt.Errorf("job %q has completed no checkpoint yet: %w", jobName, store.ErrMissing)
}

// mostNames bounds the names that an error lists.
const mostNames = 10

// noneCalled says what there is, where name is not.
func (s *State) noneCalled(name string) error {
	var there []string
	if list, err := s.Savepoints(); err == nil {
		for _, e := range list {
			there = append(there, e.Name)
		}
	}
	jobs, _ := s.Jobs()
	for _, j := range jobs {
		if list, err := s.Checkpoints(j); err == nil && len(list) > 0 {
			there = append(there, j+"/"+list[len(list)-1].Name)
		}
	}
	if len(there) == 0 {
		return fmt.Errorf("savepoint %q is %w: %s holds no savepoint and no checkpoint, and there is no such file", name, store.ErrMissing, s.dir)
	}
	if len(there) > mostNames {
		there = append(there[:mostNames], "…")
	}
	return fmt.Errorf("savepoint %q is %w in %s, and there is no such file; there is %s", name, store.ErrMissing, s.dir, strings.Join(there, ", "))
}

// OpenExport opens a savepoint in the file that it was exported to. The caller
// closes it.
func OpenExport(name string) (*Saved, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder, and no file that a savepoint was exported to", name)
	}
	x, m, err := part.OpenExport(name)
	if err != nil {
		return nil, err
	}
	return &Saved{Manifest: m, from: x, file: x}, nil
}

// Close closes the file, if it is one.
func (v *Saved) Close() error {
	if v.file == nil {
		return nil
	}
	return v.file.Close()
}

// Verify reads all parts: store.ErrMissing or store.ErrCorrupt, with all that is
// wrong.
func (v *Saved) Verify() error { return verify(v.from, v.Manifest) }

// Export writes it with all its parts as one file's bytes.
func (v *Saved) Export(w io.Writer) error { return part.Export(w, v.Manifest, v.from) }

// States are the names of what can be read, as OPERATOR/STATE.
func (v *Saved) States() (names []string) {
	for _, o := range v.Manifest.Operators {
		if len(o.Positions) > 0 {
			names = append(names, string(o.ID)+"/"+restore.Positions)
		}
		for _, t := range o.Tables {
			names = append(names, string(o.ID)+"/"+t.Name)
		}
	}
	return names
}

// StatesOf are the names of an operator's states.
func (v *Saved) StatesOf(op dataflow.OperatorID) (names []string) {
	for _, n := range v.States() {
		if rest, ok := strings.CutPrefix(n, string(op)+"/"); ok {
			names = append(names, rest)
		}
	}
	return names
}

// ReadState writes the rows of a state as JSON lines: subtask by subtask, deltas
// merged. Where a source stands is its state "positions". It returns how many
// there are. The parts are verified before the first row is written. A state
// that is not there is store.ErrMissing, and says which there are.
func (v *Saved) ReadState(w io.Writer, op dataflow.OperatorID, table string) (rows int64, err error) {
	t, positions := v.find(op, table)
	switch {
	case t != nil:
		if err := v.verifyTable(t); err != nil {
			return 0, fmt.Errorf("state %q of operator %q: %w", table, op, err)
		}
		return v.readTable(w, t)
	case positions != nil:
		enc := json.NewEncoder(w)
		for _, p := range positions {
			if err := enc.Encode(position(p)); err != nil {
				return rows, err
			}
			rows++
		}
		return rows, nil
	}
	if own := v.StatesOf(op); len(own) > 0 {
		return 0, fmt.Errorf("%s: state %q of operator %q is %w; the operator has %s", v.Manifest.Name, table, op, store.ErrMissing, strings.Join(own, ", "))
	}
	return 0, fmt.Errorf("%s: operator %q has no state there: %w; there is %s", v.Manifest.Name, op, store.ErrMissing, strings.Join(v.States(), ", "))
}

// position is a split's as a row.
type position struct {
	Split  string `json:"split"`
	Offset int64  `json:"offset"`
	Ended  bool   `json:"ended"`
}

func (v *Saved) find(op dataflow.OperatorID, table string) (*manifest.Table, []manifest.Position) {
	for i := range v.Manifest.Operators {
		o := &v.Manifest.Operators[i]
		if o.ID != op {
			continue
		}
		for k := range o.Tables {
			if o.Tables[k].Name == table {
				return &o.Tables[k], nil
			}
		}
		if table == restore.Positions {
			return nil, o.Positions
		}
	}
	return nil, nil
}

func (v *Saved) verifyTable(t *manifest.Table) error {
	var errs []error
	for _, sh := range t.Shards {
		for _, p := range sh.Parts {
			if err := v.from.Verify(p.Part); err != nil {
				errs = append(errs, fmt.Errorf("subtask %d: %w", sh.Subtask, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (v *Saved) readTable(w io.Writer, t *manifest.Table) (rows int64, err error) {
	for _, sh := range t.Shards {
		err := v.readShard(t, sh, func(rd *avro.Reader) error {
			n, err := avro.Rows(w, rd)
			rows += n
			return err
		})
		if err != nil {
			return rows, fmt.Errorf("state %q, subtask %d: %w", t.Name, sh.Subtask, err)
		}
	}
	return rows, nil
}

// readShard hands f the rows of a subtask, deltas merged, in the columns that
// they were saved with. Without rows f is not called.
func (v *Saved) readShard(t *manifest.Table, sh manifest.Shard, f func(*avro.Reader) error) (err error) {
	pool := batch.NewPool(0, nil)
	switch len(sh.Parts) {
	case 0:
		return nil
	case 1:
		r, err := v.from.Open(sh.Parts[0].Part)
		if err != nil {
			return err
		}
		rd, err := avro.NewReader(r, pool)
		if err == nil {
			err = f(rd)
		}
		return errors.Join(err, r.Close())
	}
	h, err := avro.ParseSchema(t.Schema)
	if err != nil {
		return err
	}
	table := operator.StateTable{Name: h.Table, Schema: h.Schema, Keyed: h.Keyed, Identity: t.Identity}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() { // ends with the pipe, at the latest when it is closed below
		_, err := mergeTo(v.from.Open, pw, table, sh.Parts, nil)
		pw.CloseWithError(err)
		close(done)
	}()
	rd, err := avro.NewReader(pr, pool)
	if err == nil {
		err = f(rd)
	}
	pr.Close()
	<-done
	return err
}

// eachBatch calls f with all batches of a part, which f owns.
func eachBatch(rd *avro.Reader, f func(*batch.Batch) error) error {
	for {
		b, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(b); err != nil {
			return err
		}
	}
}
