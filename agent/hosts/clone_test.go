//go:build hosts

package hosts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A fresh clone builds, every package and every test of it, with what go.mod
// and go.sum say and no more, and its binary runs.
func TestHostsFreshClone(t *testing.T) {
	t.Parallel()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skip("not in a git repository: nothing to clone")
	}
	clone := filepath.Join(t.TempDir(), "tidemark")
	in := func(dir, name string, args ...string) string {
		t.Helper()
		c := exec.Command(name, args...)
		c.Dir = dir
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, "GOFLAGS=") && !strings.HasPrefix(v, "GOWORK=") {
				c.Env = append(c.Env, v)
			}
		}
		c.Env = append(c.Env, "GOFLAGS=", "CGO_ENABLED=0")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(string(out)))
		}
		return string(out)
	}
	in(".", "git", "clone", "-q", strings.TrimSpace(string(root)), clone)
	in(clone, "go", "build", "./...")
	in(clone, "go", "list", "-test", "-deps", "-tags", "hosts", "./...")
	if out := in(clone, "go", "run", "./cmd/tidemark", "version"); !strings.Contains(out, "tidemark") {
		t.Errorf("version says %q", out)
	}
	if dirty := in(clone, "git", "status", "--porcelain"); dirty != "" {
		t.Errorf("the build changed\n%s", dirty)
	}
}
