package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// statusLine shows how long work goes: on a terminal one line that is drawn
// again and again, elsewhere a plain line now and then.
type statusLine struct {
	w        io.Writer
	terminal bool
	columns  func() int // of the terminal, which may change

	mu    sync.Mutex // guards the fields below and writes to w
	drawn bool
	last  time.Time
}

// plainEvery is how often a status line is printed where there is no terminal.
const plainEvery = 10 * time.Second

func newStatusLine(w io.Writer) *statusLine {
	columns := func() int { return columnsOf(w) }
	return &statusLine{w: w, terminal: columns() > 0, columns: columns, last: time.Now()}
}

// update shows the present state.
func (s *statusLine) update(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.terminal:
		fmt.Fprintf(s.w, "\r\x1b[K%s", cut(line, s.columns()-1)) // what wraps is not taken away again
		s.drawn = true
	case time.Since(s.last) >= plainEvery:
		s.last = time.Now()
		fmt.Fprintln(s.w, line)
	}
}

// line prints a line that stays.
func (s *statusLine) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintln(s.w, text)
}

// done takes the drawn line away.
func (s *statusLine) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

func (s *statusLine) clear() {
	if s.drawn {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.drawn = false
	}
}

// cut shortens a line to so many characters.
func cut(line string, most int) string {
	if r := []rune(line); most > 0 && len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return line
}
