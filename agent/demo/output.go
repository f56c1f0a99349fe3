package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// Names of the job's files in each agent's folder.
const (
	windowsFile  = "windows.jsonl"
	readingsFile = "readings.jsonl"
	lateFile     = "late.jsonl"
	rejectedFile = "rejected.jsonl"
)

// output is what the job wrote, on all agents. A sink that moves goes on in the
// folder of its new agent, and what the old one had not committed is cut away.
type output struct {
	windows, readings, late, rejected lines
}

func newOutput(s *site) *output {
	o := &output{}
	for _, a := range s.agents {
		out := filepath.Join(a.dir, "out")
		for name, l := range map[string]*lines{windowsFile: &o.windows, readingsFile: &o.readings, lateFile: &o.late, rejectedFile: &o.rejected} {
			l.files = append(l.files, &file{agent: a, path: filepath.Join(out, name)})
		}
	}
	return o
}

// read takes in what is new.
func (o *output) read() {
	for _, l := range []*lines{&o.windows, &o.readings, &o.late, &o.rejected} {
		l.read()
	}
}

// lines are the rows of a sink.
type lines struct {
	mu    sync.Mutex // guards what follows
	files []*file
	grew  time.Time // when rows came last
	err   error     // of a file that cannot be read
}

// file is one agent's file of a sink.
type file struct {
	agent *process
	path  string
	size  int64
	rows  [][]byte
	rest  []byte // the beginning of a row
}

// read takes in what is new. A file that became shorter is read anew.
func (l *lines) read() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		n := len(f.rows)
		if err := f.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.err = err
		}
		if len(f.rows) > n {
			l.grew = time.Now()
		}
	}
}

// again reads everything anew.
func (l *lines) again() error {
	l.mu.Lock()
	for _, f := range l.files {
		*f = file{agent: f.agent, path: f.path}
	}
	l.err = nil
	l.mu.Unlock()
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		if len(f.rest) > 0 {
			return fmt.Errorf("%s ends within a row", f.path)
		}
	}
	return l.err
}

func (f *file) read() error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil || st.Size() == f.size {
		return err
	}
	if st.Size() < f.size {
		*f = file{agent: f.agent, path: f.path}
	}
	text, err := io.ReadAll(io.NewSectionReader(in, f.size, st.Size()-f.size))
	f.size += int64(len(text))
	text = append(f.rest, text...)
	for {
		row, rest, whole := bytes.Cut(text, []byte{'\n'})
		if !whole {
			f.rest = bytes.Clone(text)
			return err
		}
		f.rows, text = append(f.rows, row), rest
	}
}

// count is how many rows there are, and when the last came.
func (l *lines) count() (rows int, grew time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		rows += len(f.rows)
	}
	return rows, l.grew
}

// all are all rows.
func (l *lines) all() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows [][]byte
	for _, f := range l.files {
		rows = append(rows, f.rows...)
	}
	return rows
}

// on is how many rows there are on each agent.
func (o *output) on() map[*process]int {
	rows := make(map[*process]int)
	for _, l := range []*lines{&o.windows, &o.readings, &o.late, &o.rejected} {
		l.mu.Lock()
		for _, f := range l.files {
			if len(f.rows) > 0 {
				rows[f.agent] += len(f.rows)
			}
		}
		l.mu.Unlock()
	}
	return rows
}

// at is how many rows there are at a site.
func (o *output) at(site string) (n int) {
	for a, rows := range o.on() {
		if a.at == site {
			n += rows
		}
	}
	return n
}

// last are the newest n windows, the newest first.
func (o *output) last(n int) []simulate.Result {
	o.windows.mu.Lock()
	var rows [][]byte
	for _, f := range o.windows.files {
		rows = append(rows, f.rows[max(0, len(f.rows)-n):]...)
	}
	o.windows.mu.Unlock()
	var all []simulate.Result
	for _, r := range rows {
		if v, err := parseWindow(r); err == nil {
			all = append(all, v)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Start > all[j].Start })
	return all[:min(n, len(all))]
}

func parseWindow(row []byte) (simulate.Result, error) {
	var v struct {
		Sensor  string  `json:"sensor"`
		Start   int64   `json:"window_start"`
		AvgTemp float64 `json:"avg_temp"`
		MaxTemp float64 `json:"max_temp"`
		N       int64   `json:"n"`
	}
	if err := json.Unmarshal(row, &v); err != nil {
		return simulate.Result{}, fmt.Errorf("demo: %s: row %q: %w", windowsFile, row, err)
	}
	return simulate.Result{Sensor: v.Sensor, Start: dataflow.Time(v.Start), Count: v.N, Avg: v.AvgTemp, Max: v.MaxTemp}, nil
}

// reading names one as its device numbered it.
type reading struct {
	Sensor string `json:"sensor"`
	Seq    int64  `json:"seq"`
}

func parseReading(row []byte) (r reading, err error) {
	if err = json.Unmarshal(row, &r); err != nil {
		err = fmt.Errorf("demo: %s: row %q: %w", readingsFile, row, err)
	}
	return r, err
}
