package durable

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// ReadState writes the rows of a state as JSON lines, as they were when the
// manifest was written: subtask by subtask, deltas merged. It returns how many
// there are. A state that the manifest does not have is store.ErrMissing, and
// says which it has.
func (s *State) ReadState(w io.Writer, m manifest.Manifest, op dataflow.OperatorID, table string) (rows int64, err error) {
	var has []string
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			if o.ID == op && t.Name == table {
				return s.readTable(w, &t)
			}
			has = append(has, fmt.Sprintf("%s/%s", o.ID, t.Name))
		}
	}
	return 0, fmt.Errorf("%s: state %q of operator %q is %w; it has %s", m.Name, table, op, store.ErrMissing, strings.Join(has, ", "))
}

func (s *State) readTable(w io.Writer, t *manifest.Table) (rows int64, err error) {
	for _, sh := range t.Shards {
		if len(sh.Parts) == 0 {
			continue
		}
		n, err := s.readShard(w, t, sh.Parts)
		rows += n
		if err != nil {
			return rows, fmt.Errorf("state %q, subtask %d: %w", t.Name, sh.Subtask, err)
		}
	}
	return rows, nil
}

func (s *State) readShard(w io.Writer, t *manifest.Table, parts []manifest.PartUse) (int64, error) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() { // ends with the pipe, at the latest when it is closed below
		pw.CloseWithError(s.mergeSaved(pw, t, parts))
		close(done)
	}()
	defer func() {
		pr.Close()
		<-done
	}()
	rd, err := avro.NewReader(pr, batch.NewPool(0, nil))
	if err != nil {
		return 0, err
	}
	return avro.Rows(w, rd)
}

// mergeSaved merges a shard in the columns that it was saved with.
func (s *State) mergeSaved(w io.Writer, t *manifest.Table, parts []manifest.PartUse) error {
	h, err := avro.ParseSchema(t.Schema)
	if err != nil {
		return err
	}
	_, err = s.mergeTo(w, operator.StateTable{Name: h.Table, Schema: h.Schema, Keyed: h.Keyed, Identity: t.Identity}, parts, nil)
	return err
}

// Difference is a row that only one of two manifests has.
type Difference struct {
	Only     string              `json:"only"` // "a" or "b"
	Operator dataflow.OperatorID `json:"operator"`
	State    string              `json:"state"`
	Row      json.RawMessage     `json:"row"`
}

// DiffState calls f with the rows that only one of two manifests has: for each
// state those that only b has, then those that only a has, each in its order.
// Which subtask has a row makes no difference. The rows of one state of a are in
// memory at a time.
func (s *State) DiffState(a, b manifest.Manifest, f func(Difference) error) error {
	type state struct {
		operator dataflow.OperatorID
		table    string
	}
	tables := func(m manifest.Manifest) (list []state, at map[state]*manifest.Table) {
		at = make(map[state]*manifest.Table)
		for i := range m.Operators {
			for k := range m.Operators[i].Tables {
				st := state{m.Operators[i].ID, m.Operators[i].Tables[k].Name}
				list, at[st] = append(list, st), &m.Operators[i].Tables[k]
			}
		}
		return list, at
	}
	list, inA := tables(a)
	more, inB := tables(b)
	for _, st := range more {
		if inA[st] == nil {
			list = append(list, st)
		}
	}
	for _, st := range list {
		err := s.diffTable(inA[st], inB[st], func(only, row string) error {
			return f(Difference{Only: only, Operator: st.operator, State: st.table, Row: json.RawMessage(row)})
		})
		if err != nil {
			return fmt.Errorf("state %q of operator %q: %w", st.table, st.operator, err)
		}
	}
	return nil
}

func (s *State) diffTable(a, b *manifest.Table, f func(only, row string) error) error {
	if a != nil && b != nil && sameParts(a, b) {
		return nil
	}
	var rows []string
	left := make(map[string]int)
	err := s.eachRow(a, func(row string) error {
		rows = append(rows, row)
		left[row]++
		return nil
	})
	if err != nil {
		return err
	}
	err = s.eachRow(b, func(row string) error {
		if left[row] == 0 {
			return f("b", row)
		}
		left[row]--
		return nil
	})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if left[row] > 0 {
			left[row]--
			if err := f("a", row); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameParts tells whether two states need not be read to be known as equal.
func sameParts(a, b *manifest.Table) bool {
	digests := func(t *manifest.Table) (all []store.Digest) {
		for _, sh := range t.Shards {
			for _, p := range sh.Parts {
				all = append(all, p.Digest)
			}
		}
		return all
	}
	return slices.Equal(digests(a), digests(b))
}

// eachRow calls f with the rows of a table, or of none.
func (s *State) eachRow(t *manifest.Table, f func(row string) error) error {
	if t == nil {
		return nil
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() { // ends with the pipe, at the latest when it is closed below
		w := bufio.NewWriterSize(pw, 64<<10)
		_, err := s.readTable(w, t)
		if err == nil {
			err = w.Flush()
		}
		pw.CloseWithError(err)
		close(done)
	}()
	defer func() {
		pr.Close()
		<-done
	}()
	r := bufio.NewReader(pr)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		if err := f(strings.TrimSuffix(line, "\n")); err != nil {
			return err
		}
	}
}
