package twosites_test

import (
	"flag"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/sim/twosites"
)

var (
	update = flag.Bool("update", false, "write the tables into docs/MIGRATION.md")
	tables = flag.Bool("tables", false, "compare them")
)

// The tables of docs/MIGRATION.md are what runs have shown.
func TestTables(t *testing.T) {
	const path, begin, end = "../../../docs/MIGRATION.md", "<!-- begin of what runs have shown -->\n", "<!-- end of what runs have shown -->\n"
	if !*tables && !*update {
		t.Skip("half a minute; -tables does it")
	}
	want, err := twosites.Tables(1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatal("there is no place for the tables")
	case *update:
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	case !alike(got, want):
		t.Errorf("the tables are not as runs show them: go test ./agent/sim/twosites -run TestTables -update\n%s", want)
	}
}

// alike tells whether two tables show the same: where the job is in each cell, and
// about how long that took. What a rule that is a little quicker changes is no news.
func alike(a, b string) bool {
	cell := regexp.MustCompile(`([AB]), ([0-9.]+) s(, [0-9]+ again)?`)
	x, y := cell.FindAllStringSubmatch(a, -1), cell.FindAllStringSubmatch(b, -1)
	if len(x) != len(y) || cell.ReplaceAllString(a, "") != cell.ReplaceAllString(b, "") {
		return false
	}
	for i := range x {
		s, _ := strconv.ParseFloat(x[i][2], 64)
		o, _ := strconv.ParseFloat(y[i][2], 64)
		if x[i][1] != y[i][1] || math.Abs(s-o) > 3 {
			return false
		}
	}
	return true
}
