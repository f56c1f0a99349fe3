package restore

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// JSON is the report as one object, indented.
func (r *Report) JSON() ([]byte, error) {
	if r.Findings == nil {
		c := *r
		c.Findings = []Finding{}
		r = &c
	}
	return json.MarshalIndent(r, "", "  ")
}

// String is the report for people: a line for each state, then what is to be
// known of them, then why it is refused.
func (r *Report) String() string {
	switch {
	case !r.OK:
		return r.Table()
	case r.Finished:
		return r.Table() + "\nok, but all input had been read to its end: there is nothing left to do\n"
	}
	return r.Table() + "\nok\n"
}

// Table is String without the verdict.
func (r *Report) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s of job %s, %d key groups\n", r.Kind, r.Savepoint, r.SavedJob, r.SavedMax)
	fmt.Fprintf(&b, "job %s, %d key groups\n\n", r.Job, r.MaxParallelism)
	rows := [][]string{{"operator", "parallelism", "state", "rows", "result", "columns"}}
	var notes []string
	for _, f := range r.Findings {
		if f.Operator == "" || f.Verdict == Refused && f.State == "" && f.From == 0 {
			continue // it concerns the job, and stands below
		}
		rows = append(rows, f.cells())
		if f.Reason != "" && f.Verdict != Refused {
			notes = append(notes, f.String())
		}
	}
	table(&b, rows)
	list(&b, "note", notes)
	var refusals []string
	for _, f := range r.Refusals() {
		refusals = append(refusals, f.String())
	}
	list(&b, "refused", refusals)
	return b.String()
}

// cells are the finding as a line of the table.
func (f Finding) cells() []string {
	name := string(f.Operator)
	if f.Was != "" {
		name += " (was " + string(f.Was) + ")"
	}
	return []string{name, parallelism(f.From, f.To), dash(f.State), strconv.FormatInt(f.Rows, 10), string(f.Verdict), f.Schema}
}

func parallelism(from, to int) string {
	switch {
	case from == to || from == 0:
		return strconv.Itoa(to)
	case to == 0:
		return strconv.Itoa(from) + " -> -"
	}
	return fmt.Sprintf("%d -> %d", from, to)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// table writes rows with their cells aligned, two spaces apart; the last column
// is left as it is. A state with several refusals has one line.
func table(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0])-1)
	for _, r := range rows {
		for i := range widths {
			widths[i] = max(widths[i], len([]rune(r[i])))
		}
	}
	last := ""
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString("  " + c)
			if i < len(widths) {
				line.WriteString(strings.Repeat(" ", widths[i]-len([]rune(c))))
			}
		}
		if s := strings.TrimRight(line.String(), " "); s != last {
			b.WriteString(s + "\n")
			last = s
		}
	}
}

func list(b *strings.Builder, what string, lines []string) {
	if len(lines) > 0 {
		b.WriteString("\n")
	}
	for _, l := range lines {
		b.WriteString(what + ": " + l + "\n")
	}
}
