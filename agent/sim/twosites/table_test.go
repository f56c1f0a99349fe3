package twosites_test

import (
	"flag"
	"os"
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
	case got != want:
		t.Errorf("the tables are not as runs show them: go test ./agent/sim/twosites -run TestTables -update\n%s", want)
	}
}
