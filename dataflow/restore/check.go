package restore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Options are what a person allows.
type Options struct {
	// AllowNonRestored lets saved state go that no operator of the job takes, and
	// columns of it start empty that were not saved.
	AllowNonRestored bool
}

// Names of tables that a task keeps itself begin with ownPrefix. Which operator
// they stand at depends on how operators are chained, so they come and go with
// it, and are nobody's loss; but for the rows that a sink has not committed.
const (
	ownPrefix = "task."
	pending   = "task.pending"
)

// Tables of a step of windows: the accumulators, and which windows owe an update.
const (
	windows = "windows"
	refire  = "refire"
)

// personal tells whether a table of this name is an operator's, and not the
// task's.
func personal(table string) bool { return !strings.HasPrefix(table, ownPrefix) || table == pending }

// Check says what becomes of everything that was saved. It looks at nothing but
// its arguments.
func Check(m *manifest.Manifest, job Job, opt Options) *Report {
	c := &checker{m: m, job: &job, opt: opt, taken: make(map[dataflow.OperatorID]bool)}
	c.report = &Report{Savepoint: m.Name, Kind: kindName(m.Kind), SavedJob: m.Job, Job: job.Name, SavedMax: m.MaxParallelism, MaxParallelism: m.MaxParallelism, Finished: m.Finished}
	c.plan = &Plan{MaxParallelism: m.MaxParallelism}
	c.whole()
	for i := range job.Operators {
		c.operator(&job.Operators[i])
	}
	for i := range m.Operators {
		if !c.taken[m.Operators[i].ID] {
			c.removed(&m.Operators[i])
		}
	}
	c.report.OK = len(c.report.Refusals()) == 0
	if c.report.OK {
		c.report.plan = c.plan
	}
	return c.report
}

func kindName(k manifest.Kind) string {
	if k == manifest.Checkpoint {
		return "checkpoint"
	}
	return "savepoint"
}

// checker is one Check under way.
type checker struct {
	m      *manifest.Manifest
	job    *Job
	opt    Options
	report *Report
	plan   *Plan
	taken  map[dataflow.OperatorID]bool // of the manifest's operators
}

func (c *checker) add(f Finding) { c.report.Findings = append(c.report.Findings, f) }

// refuse adds a refusal, or what it becomes where a person allows it.
func (c *checker) refuse(f Finding, allowed Verdict) Verdict {
	f.Verdict = Refused
	if allowed != Refused {
		if c.opt.AllowNonRestored {
			f.Verdict, f.Field, f.Fix = allowed, "", ""
		} else {
			f.Fix = strings.TrimPrefix(f.Fix+", or say --allow-non-restored", ", or ")
		}
	}
	c.add(f)
	return f.Verdict
}

// whole checks what concerns the job as a whole.
func (c *checker) whole() {
	m, j := c.m, c.job
	if m.Drained {
		c.refuse(Finding{Reason: "it was drained: its input was ended, and windows that were open have fired with what they had, so that going on would give split results",
			Fix: "take one that was stopped without drain"}, Refused)
	}
	if j.Named && j.MaxParallelism != m.MaxParallelism {
		c.refuse(Finding{Reason: fmt.Sprintf("the job has max_parallelism %d, the state was saved with %d, which is fixed for its life", j.MaxParallelism, m.MaxParallelism),
			Fix: fmt.Sprintf("write max_parallelism: %d, or leave it out", m.MaxParallelism)}, Refused)
	}
	for _, o := range j.Operators {
		if o.Parallelism > m.MaxParallelism {
			c.refuse(Finding{Operator: o.ID, Role: o.Role.String(), To: o.Parallelism,
				Reason: fmt.Sprintf("parallelism %d is more than the %d key groups that were saved", o.Parallelism, m.MaxParallelism),
				Fix:    fmt.Sprintf("lower it to %d at most", m.MaxParallelism)}, Refused)
		}
	}
}

func (c *checker) saved(id dataflow.OperatorID) *manifest.Operator {
	for i := range c.m.Operators {
		if c.m.Operators[i].ID == id {
			return &c.m.Operators[i]
		}
	}
	return nil
}

// operator compares one operator of the job with what was saved for it.
func (c *checker) operator(o *Operator) {
	f := Finding{Operator: o.ID, Role: o.Role.String(), To: o.Parallelism}
	s := c.saved(o.ID)
	if s == nil && o.Was != "" {
		if s = c.saved(o.Was); s != nil {
			f.Was = o.Was
		}
	}
	if s == nil {
		c.fresh(f, o)
		return
	}
	f.From = s.Parallelism
	if c.taken[s.ID] {
		f.Reason, f.Fix = fmt.Sprintf("the state of %q is taken by another operator already", s.ID), "one operator may say was: "+string(s.ID)
		c.refuse(f, Refused)
		return
	}
	c.taken[s.ID] = true
	if len(s.Positions) > 0 && o.Role != graph.SourceNode {
		f.Reason, f.Fix = "it was saved as a source, and is none in the job", "give it another id"
		c.refuse(f, Refused)
		return
	}
	p := OperatorPlan{ID: o.ID, Saved: s.ID, From: s.Parallelism, To: o.Parallelism, Positions: s.Positions, max: c.m.MaxParallelism}
	before := len(c.report.Findings)
	if len(s.Positions) > 0 {
		g := f
		g.State, g.Rows, g.Verdict = Positions, int64(len(s.Positions)), AsIs
		c.add(g)
	}
	for i := range o.Tables {
		c.table(f, &p, &o.Tables[i], s)
	}
	for i := range s.Tables {
		c.unasked(f, o, &s.Tables[i])
	}
	c.plan.Operators = append(c.plan.Operators, p)
	if len(c.report.Findings) == before {
		f.Verdict = Stateless
		c.add(f)
	}
}

// fresh is an operator for which nothing was saved.
func (c *checker) fresh(f Finding, o *Operator) {
	f.Verdict = Stateless
	for _, t := range o.Tables {
		if personal(t.Name) {
			g := f
			g.State, g.Schema, g.Verdict = t.Name, t.Schema.String(), Empty
			c.add(g)
			f.Verdict = ""
		}
	}
	if o.Role == graph.SourceNode {
		f.State, f.Verdict = Positions, Empty
	}
	if f.Verdict != "" {
		c.add(f)
	}
}

// table compares one table.
func (c *checker) table(f Finding, p *OperatorPlan, t *Table, s *manifest.Operator) {
	f.State, f.Schema = t.Name, t.Schema.String()
	for i := range s.Tables {
		w := &s.Tables[i]
		if w.Name != t.Name {
			continue
		}
		f.Rows = total(w, nil)
		if v := c.compare(f, t, w); v == AsIs || v == Migrated {
			p.Tables = append(p.Tables, TablePlan{Table: t.StateTable, Saved: *w, Reader: t.reader(), AsIs: v == AsIs})
		}
		return
	}
	if f.Verdict = Empty; personal(t.Name) {
		c.add(f)
	}
}

// compare adds the findings about a table that was saved and is wanted: one, or
// each reason why it is refused.
func (c *checker) compare(f Finding, t *Table, w *manifest.Table) Verdict {
	reasons := c.rows(t, w)
	verdict, fields := avro.Compatible(w.Schema, t.reader())
	switch {
	case len(reasons) > 0:
	case verdict == avro.Incompatible:
		reasons = fields
	case verdict == avro.AfterMigration:
		f.Verdict, f.Reason = Migrated, strings.Join(fields, "; ")
	default:
		f.Verdict = AsIs
	}
	if len(reasons) == 0 {
		c.add(f)
		return f.Verdict
	}
	f.Fix = "keep it as it was, or let the state go: another id, and --allow-non-restored"
	for _, r := range reasons {
		f.Reason, f.Field = r, fieldOf(r)
		c.refuse(f, Refused)
	}
	return Refused
}

// rows says why the rows of a table cannot be dealt out and told apart as they
// were.
func (c *checker) rows(t *Table, w *manifest.Table) []string {
	if t.Keyed != w.Keyed || !t.Keyed && uint8(t.Spread) != w.Spread {
		return []string{"its rows are dealt out to subtasks in another way than when they were saved"}
	}
	if t.Identity != w.Identity {
		return []string{fmt.Sprintf("its rows are told apart by %d columns, and were by %d when they were saved", t.Identity, w.Identity)}
	}
	reasons, err := avro.SameIdentity(w.Schema, t.reader(), t.Identity)
	if err != nil {
		return []string{err.Error()}
	}
	return reasons
}

// fieldOf is the column that a reason is about.
func fieldOf(reason string) string {
	if rest, ok := strings.CutPrefix(reason, "column "); ok {
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			name, _ := strconv.Unquote(quoted)
			return name
		}
	}
	return ""
}

// unasked is a saved table that the operator of the job does not have.
func (c *checker) unasked(f Finding, o *Operator, w *manifest.Table) {
	for _, t := range o.Tables {
		if t.Name == w.Name {
			return
		}
	}
	if !personal(w.Name) {
		return
	}
	f.State, f.Rows, f.Verdict = w.Name, total(w, nil), Dropped
	f.Schema = columns(w)
	f.Reason = "the operator has no such state any more"
	if w.Name == pending && f.Rows > 0 {
		f.Reason = "the sink has rows of this checkpoint to commit, and does not do that any more"
		f.Fix = "restore from a savepoint, which has none"
		c.refuse(f, Dropped)
		return
	}
	if f.Rows > 0 && w.Name == refire && hasTable(o, windows) {
		f.Reason = "windows that late rows have changed were to fire again at the next watermark, and the step does not do that any more"
		f.Fix = "keep late_firing: at_watermark, with an allowed_lateness"
		c.refuse(f, Dropped)
		return
	}
	c.add(f)
}

func hasTable(o *Operator, name string) bool {
	return slices.ContainsFunc(o.Tables, func(t Table) bool { return t.Name == name })
}

// columns are those of a saved table, for people.
func columns(w *manifest.Table) string {
	h, err := avro.ParseSchema(w.Schema)
	if err != nil {
		return w.Schema
	}
	return h.Schema.String()
}

// removed is an operator that was saved and is not in the job. Without state it
// is skipped silently.
func (c *checker) removed(s *manifest.Operator) {
	f := Finding{Operator: s.ID, From: s.Parallelism}
	var states []string
	if len(s.Positions) > 0 {
		states = append(states, fmt.Sprintf("the positions of %d splits", len(s.Positions)))
	}
	for i := range s.Tables {
		t := &s.Tables[i]
		if n := total(t, nil); n > 0 && personal(t.Name) {
			f.Rows += n
			states = append(states, fmt.Sprintf("%d rows of %q", n, t.Name))
		}
	}
	if len(states) > 0 {
		f.Reason = fmt.Sprintf("it has state (%s), and the job has no operator with this id", strings.Join(states, ", "))
		f.Fix = fmt.Sprintf("if it has a new id, write was: %s there", s.ID)
		c.refuse(f, Dropped)
	}
}
