package job

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// ErrInvalid is what every error of Load is, by errors.Is.
var ErrInvalid = errors.New("the job is not valid")

// Error is one thing that is wrong with a job.
type Error struct {
	File string // or "--set K" where an override is at fault
	Line int    // 0: not known
	Col  int
	Path string // the key, by names: steps.hot.where
	Msg  string // what is wrong
	Hint string // how to mend it; may be empty
}

// Error is "file:line: path: what; hint".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Path != "" && !strings.HasSuffix(e.File, " "+e.Path) { // an override has said it
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Is makes every Error an ErrInvalid.
func (e *Error) Is(target error) bool { return target == ErrInvalid }

// Errors is all that is wrong with a job, by line.
type Errors []*Error

// Error is one line for each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Is makes Errors an ErrInvalid.
func (es Errors) Is(target error) bool { return target == ErrInvalid }

// sorted is es by line, each once: a value that is read twice reports twice.
func (es Errors) sorted() Errors {
	sort.SliceStable(es, func(i, j int) bool {
		if es[i].Line != es[j].Line {
			return es[i].Line < es[j].Line
		}
		return es[i].Col < es[j].Col
	})
	seen := make(map[Error]bool, len(es))
	var once Errors
	for _, e := range es {
		if !seen[*e] {
			seen[*e] = true
			once = append(once, e)
		}
	}
	return once
}

func lineSuffix(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf(" (line %d)", line)
}

// nearest is the candidate that name was most likely meant to be, or "". The
// distance counts inserted, dropped, changed and swapped letters; more than a
// third of the name wrong is no misspelling.
func nearest(name string, candidates []string) string {
	const longest = 64                        // longer names are compared with nothing: the cost is quadratic
	if len(name) > longest || len(name) < 2 { // one letter is near every other
		return ""
	}
	best, least := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		if len(c) > longest {
			continue
		}
		d := distance(strings.ToLower(name), strings.ToLower(c), least-1)
		if c != name && d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is exact up to most; beyond it, it is only more than that.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	var rows [3][]int
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
	}
	before, last, row := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		// What lies further from the diagonal is more than most anyway.
		low, high := max(1, i-most), min(len(b), i+most)
		for j := range row {
			row[j] = most + 1
		}
		if low == 1 {
			row[0] = i
		}
		for j := low; j <= high; j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		if slices.Min(row) > most {
			return most + 1
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// maxErrors bounds how long a hopeless file is read: what is wrong in the rest
// of it is told when these are mended. Suggestions cost names times names.
const maxErrors = 200

// didYouMean is the hint for a name that is not among the candidates.
func didYouMean(name string, candidates []string) string {
	if n := nearest(name, candidates); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	if len(candidates) == 0 || len(candidates) > 24 {
		return ""
	}
	return "valid: " + strings.Join(candidates, ", ")
}
