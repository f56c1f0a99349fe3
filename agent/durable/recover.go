package durable

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// Point is what a job can go on from.
type Point struct {
	Manifest *manifest.Manifest // nil: from the beginning
	Kept     []string           // checkpoints of the job that are on disk, in the order in which they may be let go
	Damaged  []error            // newer ones that cannot be used
}

// ErrNothingWhole means that a job has checkpoints and none can be used.
var ErrNothingWhole = errors.New("no checkpoint can be used")

// Newest is where the job goes on: at the newest checkpoint of its present line
// all of whose parts are as they were written, or at the savepoint at which the
// line began. It goes back behind a damaged one, and says so; it never begins
// afresh in its stead.
func (j *Job) Newest() (Point, error) {
	list, err := j.checkpoints.List()
	if err != nil {
		return Point{}, fmt.Errorf("job %q: %w", j.name, err)
	}
	o, err := j.origin()
	if err != nil {
		return Point{}, fmt.Errorf("job %q: %w", j.name, err)
	}
	p := Point{Kept: j.claimed(o)}
	var line []part.Entry
	for _, e := range list {
		switch {
		case e.Err != nil && !useless(e.Err):
			return Point{}, fmt.Errorf("job %q: %w", j.name, e.Err)
		case e.Err != nil:
			p.Kept = append(p.Kept, e.Name)
			p.Damaged = append(p.Damaged, e.Err)
		case e.Manifest.ID.Token.Attempt < o.Attempt:
			p.Kept = append(p.Kept, e.Name)
		default:
			line = append(line, e)
		}
	}
	for i, e := range slices.Backward(line) {
		err := j.state.Verify(e.Manifest)
		if err != nil && !useless(err) {
			return Point{}, fmt.Errorf("job %q: checkpoint %s: %w", j.name, e.Name, err)
		}
		if err != nil {
			p.Damaged = append(p.Damaged, fmt.Errorf("checkpoint %s: %w", e.Name, err))
			p.Kept = append(p.Kept, e.Name)
			continue
		}
		p.Manifest = &e.Manifest
		for _, older := range line[:i+1] {
			p.Kept = append(p.Kept, older.Name)
		}
		return p, nil
	}
	if o.Savepoint == "" && len(p.Damaged) == 0 {
		return p, nil
	}
	if o.Savepoint != "" {
		m, err := j.state.Savepoint(o.Savepoint)
		if err == nil {
			err = j.state.Verify(m)
		}
		if err == nil {
			p.Manifest = &m
			return p, nil
		}
		p.Damaged = append(p.Damaged, fmt.Errorf("savepoint %s: %w", o.Savepoint, err))
	}
	return p, fmt.Errorf("job %q: %w: %w; start from a savepoint (--from-savepoint), or delete %s to begin afresh", j.name, ErrNothingWhole, damages(p.Damaged), j.dir)
}

// claimed is the savepoint that the job has to let go, or none.
func (j *Job) claimed(o origin) []string {
	if !o.Claimed {
		return nil
	}
	if _, err := j.state.savepoints.Get(o.Savepoint); errors.Is(err, store.ErrMissing) {
		return nil
	}
	return []string{o.Savepoint}
}

// useless tells whether an error means that what was written is not there any
// more. Any other may pass, and is no reason to go back behind what was seen.
func useless(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrMissing) || errors.Is(err, syscall.EIO)
}

// Verify reads all parts that a manifest names: store.ErrMissing or
// store.ErrCorrupt, with all that is wrong.
func (s *State) Verify(m manifest.Manifest) error { return verify(s.parts, m) }

func verify(parts reading, m manifest.Manifest) error {
	var errs []error
	for _, p := range manifest.Needed(m) {
		if err := parts.Verify(p); err != nil {
			errs = append(errs, fmt.Errorf("part of %s: %w", strings.Join(usersOf(m, p), ", "), err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return damages(errs)
}

// damages is several errors as one, whose text names the first few: a folder that
// lost all its parts would else say the same a thousand times.
type damages []error

func (d damages) Error() string {
	const most = 4
	text := errors.Join(d[:min(len(d), most)]...).Error()
	if more := len(d) - most; more > 0 {
		text += fmt.Sprintf("\nand %d more like these", more)
	}
	return text
}

func (d damages) Unwrap() []error { return d }

// usersOf names the states that a part belongs to.
func usersOf(m manifest.Manifest, p store.Part) []string {
	var users []string
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for _, sh := range t.Shards {
				if slices.ContainsFunc(sh.Parts, func(u manifest.PartUse) bool { return u.Digest == p.Digest }) {
					users = append(users, fmt.Sprintf("state %q of operator %q, subtask %d", t.Name, o.ID, sh.Subtask))
				}
			}
		}
	}
	return users
}

// Savepoint finds a savepoint by its name, or by the path of a file that was
// exported: that is imported first.
func (s *State) Savepoint(name string) (manifest.Manifest, error) {
	if manifest.CheckName(name) == nil {
		if m, err := s.kept(name); !errors.Is(err, store.ErrMissing) {
			return m, err
		}
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return manifest.Manifest{}, fmt.Errorf("savepoint %q is %w: %s has none of this name, and there is no such file", name, store.ErrMissing, s.savepoints.Dir())
	}
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer f.Close()
	if s.lock == nil {
		return manifest.Manifest{}, fmt.Errorf("%s is a file; import it first", name)
	}
	return part.Import(f, s.savepoints, "")
}

// Restore hands the rows that a plan gives to each subtask to the runtime.
func (s *State) Restore(plan *restore.Plan, l Layout) runtime.Restore {
	return func(id dataflow.SubtaskID, to runtime.Restored) error {
		for _, t := range l.Tables[id] {
			o := plan.Operator(t.Operator)
			if o == nil {
				continue
			}
			i := slices.IndexFunc(o.Tables, func(p restore.TablePlan) bool { return p.Table.Name == t.Name })
			if i < 0 {
				continue
			}
			r := restorer{state: s, operator: o, table: &o.Tables[i], give: func(b *batch.Batch) error { return to.Give(t.Operator, t.Name, b) }}
			if to.Expect != nil {
				r.expect = func(rows int64) { to.Expect(t.Operator, t.Name, rows) }
			}
			if err := r.restore(id.Index); err != nil {
				return fmt.Errorf("state %q of operator %q: %w", t.Name, t.Operator, err)
			}
		}
		return nil
	}
}

// restorer reads one table for one subtask.
type restorer struct {
	state    *State
	operator *restore.OperatorPlan
	table    *restore.TablePlan
	give     func(*batch.Batch) error
	expect   func(rows int64) // nil: nobody wants to know
}

func (r *restorer) restore(subtask int) error {
	var counted error
	shares := r.operator.Shares(r.table.Table.Name, subtask, func(table string, old int) int64 {
		n, err := r.count(table, old)
		counted = errors.Join(counted, err)
		return n
	})
	if counted != nil {
		return counted
	}
	if r.expect != nil {
		row, err := avro.RowBytes(r.table.Saved.Schema)
		if err != nil {
			return err
		}
		rows := int64(0)
		for i := range shares {
			rows += r.state.expected(&shares[i], row)
		}
		r.expect(rows)
	}
	for _, sh := range shares {
		if len(sh.Parts) == 0 {
			continue
		}
		if err := r.share(&sh); err != nil {
			return err
		}
	}
	return nil
}

// expected is about how many rows come of a share, rather too few than too many:
// those of the base, and what deltas have at most, up to a quarter more. A row takes
// row bytes.
func (s *State) expected(sh *restore.Share, row int64) int64 {
	if len(sh.Parts) == 0 {
		return 0
	}
	base := s.believed(&sh.Parts[0], row)
	rows := base
	for i := range sh.Parts[1:] {
		rows += s.believed(&sh.Parts[1+i], row)
	}
	return sh.Of(min(rows, base+base/4))
}

// believed is how many rows a part is taken to have before it is read. A manifest
// may be another site's, and memory is reserved for them at once: whatever it says,
// they are no more than fit in the part as it is here. They are an int32, so that
// they can be added up.
func (s *State) believed(u *manifest.PartUse, row int64) int64 {
	rows := min(u.Rows, u.Part.Size/row, math.MaxInt32)
	if rows <= 0 || !s.parts.Has(u.Part) {
		return 0
	}
	return rows
}

// count is how many rows a merged shard has.
func (r *restorer) count(table string, old int) (int64, error) {
	for i := range r.operator.Tables {
		t := &r.operator.Tables[i]
		if t.Table.Name != table {
			continue
		}
		for _, sh := range t.Saved.Shards {
			switch {
			case sh.Subtask != old || len(sh.Parts) == 0:
			case len(sh.Parts) == 1:
				return sh.Parts[0].Rows, nil
			default:
				n := int64(0)
				err := r.merged(t, sh.Parts, func(b *batch.Batch) error { n += int64(b.Len()); return nil })
				return n, err
			}
		}
	}
	return 0, nil
}

// merged calls f with a shard's rows in the writer's columns and identity.
func (r *restorer) merged(t *restore.TablePlan, parts []manifest.PartUse, f func(*batch.Batch) error) error {
	saved, err := savedTable(t)
	if err != nil {
		return err
	}
	return eachMerged(r.state.parts.Open, saved, parts, f)
}

// savedTable is a table as it was saved.
func savedTable(t *restore.TablePlan) (operator.StateTable, error) {
	h, err := avro.ParseSchema(t.Saved.Schema)
	if err != nil {
		return operator.StateTable{}, err
	}
	if t.AsIs {
		h.Schema = t.Table.Schema
	}
	return operator.StateTable{Name: h.Table, Schema: h.Schema, Keyed: h.Keyed, Identity: t.Saved.Identity}, nil
}

// share gives the rows that the subtask keeps of one old subtask's. They are
// read, compared with their digests and decoded ahead of the operator that takes
// them.
func (r *restorer) share(sh *restore.Share) error {
	const ahead = 4 // batches
	var failed error
	read, quit := make(chan *batch.Batch, ahead), make(chan struct{})
	go func() { // ends with the parts, at the latest when quit is closed below
		defer close(read)
		failed = r.read(sh, func(b *batch.Batch) error {
			select {
			case read <- b.Retain():
				return nil
			case <-quit:
				b.Release()
				return errQuit
			}
		})
	}()
	defer func() {
		close(quit)
		for b := range read {
			b.Release()
		}
	}()
	first := int64(0)
	for b := range read {
		n := int64(b.Len())
		var err error
		if sh.Filter(b, first) > 0 {
			err = r.give(b)
		}
		b.Release()
		if err != nil {
			return err
		}
		first += n
	}
	return failed
}

// read calls f with all rows of a shard as the job has the table; f borrows
// them.
func (r *restorer) read(sh *restore.Share, f func(*batch.Batch) error) error {
	switch {
	case len(sh.Parts) == 1:
		part, err := r.state.parts.Open(sh.Parts[0].Part)
		if err != nil {
			return err
		}
		defer part.Close()
		return r.resolved(part, f)
	case r.table.AsIs:
		return r.merged(r.table, sh.Parts, f)
	}
	saved, err := savedTable(r.table) // first merged, then resolved, as if it had been one part
	if err != nil {
		return err
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() { // ends with the pipe, at the latest when it is closed below
		_, err := r.state.mergeTo(pw, saved, sh.Parts, nil)
		pw.CloseWithError(err)
		close(done)
	}()
	err = r.resolved(pr, f)
	pr.Close()
	<-done
	return err
}

func (r *restorer) resolved(part io.Reader, f func(*batch.Batch) error) error {
	rd, err := avro.NewReader(part, batch.NewPool(0, nil))
	if err != nil {
		return err
	}
	if err := rd.ResolveTo(r.table.Reader, r.table.Table.Schema); err != nil {
		return err
	}
	return eachBatch(rd, func(b *batch.Batch) error {
		defer b.Release()
		return f(b)
	})
}

// From is the savepoint that a person wants the job to begin at. on is true if
// the job began there before, and has checkpoints since: then it goes on from
// those, as going back behind them would repeat what they put out. The savepoint is
// not needed any more, and may be gone; only its name is returned then.
func (j *Job) From(name string) (m manifest.Manifest, on bool, err error) {
	begun, on, err := j.goesOn(name)
	if on || err != nil {
		return manifest.Manifest{Name: begun}, on, err
	}
	err = store.ErrMissing
	if begun != "" { // a file was imported then
		m, err = j.state.Savepoint(begun)
	}
	if errors.Is(err, store.ErrMissing) {
		m, err = j.state.Savepoint(name)
	}
	if err == nil {
		err = j.state.Verify(m)
	}
	if err != nil {
		err = fmt.Errorf("job %q: %w", j.name, err)
	}
	return m, false, err
}

// goesOn tells at which savepoint the job began, if it is this one, given by its name
// or the path of a file; on: it has checkpoints since.
func (j *Job) goesOn(from string) (savepoint string, on bool, err error) {
	o, err := j.origin()
	if err != nil || o.Savepoint == "" {
		return "", false, err
	}
	given, err := j.state.given(from)
	switch {
	case errors.Is(err, store.ErrMissing):
		on, err = from == o.Savepoint || from == o.From, nil
	case err != nil && from == o.Savepoint:
		on, err = true, nil // whatever is wrong with it
	case err != nil:
		err = fmt.Errorf("job %q: %w", j.name, err)
	case given.Name == o.Savepoint:
		on, err = true, j.same(o, given)
	}
	if !on || err != nil {
		return "", false, err
	}
	list, err := j.checkpoints.List()
	on = false
	for _, e := range list {
		on = on || e.Err != nil || e.Manifest.ID.Token.Attempt >= o.Attempt
	}
	return o.Savepoint, on, err
}

// same refuses a savepoint that has only the name in common with the one at which the
// job began.
func (j *Job) same(o origin, given manifest.Manifest) error {
	began := o.Digest
	if began == "" { // noted by a program of before
		m, err := j.state.kept(o.Savepoint)
		if err != nil {
			return nil // nobody can say
		}
		if began, err = digestOf(m); err != nil {
			return err
		}
	}
	digest, err := digestOf(given)
	if err == nil && digest != began {
		err = fmt.Errorf("job %q began at a savepoint %s that is another one than that which is given now; import that under another name, or begin with another folder", j.name, o.Savepoint)
	}
	return err
}

// given is the savepoint that Savepoint would find, of a file only its manifest;
// store.ErrMissing if there is neither a savepoint nor a file of this name.
func (s *State) given(name string) (manifest.Manifest, error) {
	if manifest.CheckName(name) == nil {
		if m, err := s.kept(name); !errors.Is(err, store.ErrMissing) {
			return m, err
		}
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return manifest.Manifest{}, store.ErrMissing
	}
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer f.Close()
	return part.ImportManifest(f)
}

// kept is the savepoint of that name. A checkpoint that a program before this one
// imported is one, too.
func (s *State) kept(name string) (manifest.Manifest, error) {
	m, err := s.savepoints.Get(name)
	m.Kind = manifest.Savepoint
	return m, err
}

// Names are the job's checkpoints, oldest first.
func (j *Job) Names() ([]string, error) {
	list, err := j.checkpoints.List()
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names, err
}

// Get reads a checkpoint, or a savepoint that the job claimed.
func (j *Job) Get(name string) (manifest.Manifest, error) { return j.folderOf(name).Get(name) }
