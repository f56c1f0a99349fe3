package main

import (
	"fmt"
	"io"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// grid is a table as all verbs print them: as wide as what is in it, but on a
// terminal that has less room the widest columns are wrapped.
type grid struct {
	table.Writer
	room   int // columns of the terminal; 0: it is printed elsewhere
	header table.Row
	widths []int
	limits map[string]int // of columns that are wrapped anywhere
}

func newTable(t *terminal, header ...any) *grid {
	g := &grid{Writer: table.NewWriter(), room: columnsOf(t.out), header: header, limits: map[string]int{"columns": 60, "kind": 60, "note": 44}}
	g.SetOutputMirror(t.out)
	g.SetStyle(table.StyleLight)
	g.Style().Format.Header = text.FormatDefault
	g.AppendHeader(header)
	g.measure(header)
	return g
}

// columnsOf is how many columns a terminal has; 0: w is none.
func columnsOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}

// AppendRow adds a row.
func (g *grid) AppendRow(row table.Row, configs ...table.RowConfig) {
	g.measure(row)
	g.Writer.AppendRow(row, configs...)
}

func (g *grid) measure(row table.Row) {
	for i, cell := range row {
		if i == len(g.widths) {
			g.widths = append(g.widths, 0)
		}
		w := text.LongestLineLen(fmt.Sprint(cell))
		if limit := g.limits[g.name(i)]; limit > 0 {
			w = min(w, limit)
		}
		g.widths[i] = max(g.widths[i], w)
	}
}

func (g *grid) name(column int) string {
	if column < len(g.header) {
		return fmt.Sprint(g.header[column])
	}
	return ""
}

// Render prints it.
func (g *grid) Render() string {
	most := g.narrowed()
	var configs []table.ColumnConfig
	for i := range g.widths {
		limit := g.limits[g.name(i)]
		if g.widths[i] > most {
			limit = most
		}
		if limit > 0 {
			configs = append(configs, table.ColumnConfig{Number: i + 1, WidthMax: limit, WidthMaxEnforcer: text.WrapSoft})
		}
	}
	g.SetColumnConfigs(configs)
	return g.Writer.Render()
}

// leastWidth is as far as a column is wrapped.
const leastWidth = 6

// narrowed is the greatest width of a column with which all of it fits.
func (g *grid) narrowed() int {
	most := 0
	for _, w := range g.widths {
		most = max(most, w)
	}
	for g.room > 0 && most > leastWidth {
		total := 1
		for _, w := range g.widths {
			total += min(w, most) + 3
		}
		if total <= g.room {
			break
		}
		most--
	}
	return most
}
