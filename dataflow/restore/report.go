package restore

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Verdict is what becomes of a state.
type Verdict string

// The verdicts.
const (
	AsIs      Verdict = "as is"           // read as it was written
	Migrated  Verdict = "after migration" // read, with fields that came, went or widened
	Empty     Verdict = "starts empty"    // nothing was saved for it
	Dropped   Verdict = "dropped"         // saved, and nobody in the job asks for it
	Stateless Verdict = "no state"        // there is nothing to restore
	Refused   Verdict = "refused"         // the job is not restored
)

// Finding is what becomes of one state, or why a savepoint is refused.
type Finding struct {
	Operator dataflow.OperatorID `json:"operator,omitempty"` // in the job; what was saved, if it is not there
	Was      dataflow.OperatorID `json:"was,omitempty"`      // it was saved under this id, and has been renamed
	Role     string              `json:"role,omitempty"`     // source, step or sink; empty: not in the job
	From     int                 `json:"from,omitempty"`     // parallelism as saved; 0: was not there
	To       int                 `json:"to,omitempty"`       // parallelism of the job; 0: not there any more
	State    string              `json:"state,omitempty"`    // table, or Positions; empty: the operator as a whole
	Schema   string              `json:"schema,omitempty"`   // columns of the state in the job, or as saved
	Rows     int64               `json:"rows"`               // saved, deltas included
	Verdict  Verdict             `json:"verdict"`
	Field    string              `json:"field,omitempty"`  // of a refusal
	Reason   string              `json:"reason,omitempty"` // of a refusal, a migration or a drop
	Fix      string              `json:"fix,omitempty"`    // what to do about a refusal
}

// Positions is the state of a finding about where a source goes on.
const Positions = "positions"

// String is a refusal in one sentence: operator, state, field, reason, fix.
func (f Finding) String() string {
	s := ""
	part := func(what, name string) {
		if name != "" {
			if s != "" {
				s += ", "
			}
			s += what + " " + fmt.Sprintf("%q", name)
		}
	}
	part("operator", string(f.Operator))
	part("state", f.State)
	part("field", f.Field)
	if s != "" {
		s += ": "
	}
	s += f.Reason
	if f.Fix != "" {
		s += "; " + f.Fix
	}
	return s
}

// Report is all that Check found, in the order of the job's operators, then
// those that are only in the savepoint.
type Report struct {
	Savepoint      string    `json:"savepoint"`
	Kind           string    `json:"kind"` // checkpoint or savepoint
	SavedJob       string    `json:"saved_job"`
	Job            string    `json:"job"`
	SavedMax       int       `json:"saved_max_parallelism"`
	MaxParallelism int       `json:"max_parallelism"` // key groups the restored job has
	Finished       bool      `json:"finished"`        // all input had been read: there is nothing left to do
	Findings       []Finding `json:"findings"`
	OK             bool      `json:"ok"`

	plan *Plan
}

// ErrRefused is the kind of error of a savepoint that does not fit the job.
var ErrRefused = errors.New("the savepoint does not fit the job")

// Err is nil, or all refusals as one error of the kind ErrRefused.
func (r *Report) Err() error {
	if r.OK {
		return nil
	}
	errs := []error{fmt.Errorf("%s: %w", r.Savepoint, ErrRefused)}
	for _, f := range r.Refusals() {
		errs = append(errs, errors.New(f.String()))
	}
	return errors.Join(errs...)
}

// Refusals are the findings that stand against restoring.
func (r *Report) Refusals() []Finding {
	var all []Finding
	for _, f := range r.Findings {
		if f.Verdict == Refused {
			all = append(all, f)
		}
	}
	return all
}

// Plan says which rows go where; nil if the savepoint is refused.
func (r *Report) Plan() *Plan { return r.plan }
