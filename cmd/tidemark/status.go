package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// statusLine shows how long work goes: on a terminal one line that is drawn
// again and again, elsewhere a plain line now and then.
type statusLine struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex // guards the fields below and writes to w
	drawn bool
	last  time.Time
}

// plainEvery is how often a status line is printed where there is no terminal.
const plainEvery = 10 * time.Second

func newStatusLine(w io.Writer) *statusLine {
	f, ok := w.(*os.File)
	return &statusLine{w: w, terminal: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
}

// update shows the present state.
func (s *statusLine) update(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.terminal:
		fmt.Fprintf(s.w, "\r\x1b[K%s", line)
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
