package judge

import (
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
)

// Oracle makes of a log the rows that a sink must have put out, and how often
// each. It knows nothing of the engine: a loop over messages.
type Oracle func(log []world.Record) map[string]int

// Counted is for each message of a key a row that says how many there were.
func Counted(log []world.Record) map[string]int {
	rows := make(map[string]int)
	n, greatest := make(map[string]int), make(map[string]int)
	for _, r := range log {
		k := world.KeyOf(r.Number)
		n[k]++
		greatest[k] = max(greatest[k], r.Number)
		rows[rowText(map[string]any{"key": k, "n": n[k], "id": greatest[k]})]++
	}
	return rows
}

// The window of the job that Fired and Late are oracles of, in milliseconds.
const (
	size    = 1000
	delayed = 200
)

// Fired is a row for each key and window that has ended, with its rows that were
// not late.
func Fired(log []world.Record) map[string]int {
	fired, _ := windows(log, false)
	return fired
}

// Late are the rows that came after their window had ended.
func Late(log []world.Record) map[string]int {
	_, late := windows(log, false)
	return late
}

// FiredAtEnd is Fired of the lines of the file, at whose end all windows end.
func FiredAtEnd([]world.Record) map[string]int {
	fired, _ := windows(lines(), true)
	return fired
}

// LateOfFile is Late of the lines of the file.
func LateOfFile([]world.Record) map[string]int { return Late(lines()) }

func lines() (all []world.Record) {
	for i := range world.Lines {
		all = append(all, world.Record{Message: world.Message{Number: i}})
	}
	return all
}

func windows(log []world.Record, end bool) (fired, late map[string]int) {
	type window struct {
		key   string
		start int64
	}
	type sum struct{ n, greatest int }
	fired, late = make(map[string]int), make(map[string]int)
	open := make(map[window]*sum)
	greatest := int64(0)
	ended := func(start int64) bool { return start+size <= greatest-delayed }
	for _, r := range log {
		k, t := world.KeyOf(r.Number), world.TimeOf(r.Number)
		w := window{k, t - t%size}
		if ended(w.start) {
			late[rowText(map[string]any{"key": k, "id": r.Number, "at": t})]++
			continue
		}
		if open[w] == nil {
			open[w] = &sum{}
		}
		open[w].n++
		open[w].greatest = max(open[w].greatest, r.Number)
		greatest = max(greatest, t)
	}
	for w, s := range open {
		if end || ended(w.start) {
			fired[rowText(map[string]any{"key": w.key, "window_start": w.start, "window_end": w.start + size, "n": s.n, "id": s.greatest})]++
		}
	}
	return fired, late
}
