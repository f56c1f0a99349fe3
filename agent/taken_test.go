package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
)

// A sink never empties what the job reads, under whatever name it finds it.
func TestSinkSparesTheJobsOwnFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const input = "a\nb\n"
	if err := os.WriteFile("in.jsonl", []byte(input), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("old.jsonl", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("old.jsonl", "old-link.jsonl"); err != nil {
		t.Skipf("no links here: %v", err)
	}
	for _, err := range []error{os.Symlink("in.jsonl", "soft.jsonl"), os.Link("in.jsonl", "hard.jsonl")} {
		if err != nil {
			t.Skipf("no links here: %v", err)
		}
	}
	for _, c := range []struct{ from, to, want string }{
		{"in.jsonl", filepath.Join(dir, "in.jsonl"), `which source "in" reads`},
		{"in.jsonl", "soft.jsonl", `soft.jsonl is the file in.jsonl, which source "in" reads`},
		{"in.jsonl", "hard.jsonl", `which source "in" reads`},
		{"i?.jsonl", "soft.jsonl", `which source "in" reads`},
		{"in.jsonl", "old-link.jsonl", `which sink "other" writes`},
	} {
		text := fmt.Sprintf("name: spare\nsources:\n  in: {file: {path: %q}, format: text}\nsinks:\n"+
			"  - {id: other, from: in, file: {path: old.jsonl}}\n  - {id: out, from: in, file: {path: %q}}\n", c.from, c.to)
		_, err := agent.NewLocal(load(t, text, setting{}), agent.LocalOptions{Overwrite: true})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "choose another path") {
			t.Errorf("from %s to %s: %v, want it to say %q", c.from, c.to, err, c.want)
		}
		if got, err := os.ReadFile("in.jsonl"); err != nil || string(got) != input {
			t.Fatalf("from %s to %s: the input is now %q, %v", c.from, c.to, got, err)
		}
	}
}
