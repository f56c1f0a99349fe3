package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// copied is a box with a copy of a folder, or of these parts of it.
func copied(t *testing.T, b *box, parts ...string) *box {
	t.Helper()
	twin := newBox(t, b.name)
	for _, p := range parts {
		from, to := filepath.Join(b.dir, p), filepath.Join(twin.dir, p)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else {
			var text []byte
			if text, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, text, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(twin.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, map[bool]os.FileMode{true: 0o700, false: 0o600}[d.IsDir()])
	}); err != nil {
		t.Fatal(err)
	}
	return twin
}

// tries starts a box that is to refuse.
func tries(t *testing.T, b *box, at string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := node.Start(ctx, b.options("", ""))
	if err == nil {
		cancel()
		_ = n.Wait()
	}
	if !errors.Is(err, mesh.ErrTwin) || !strings.Contains(err.Error(), at) {
		t.Errorf("the copy was started: %v\n%s", err, b.said())
	}
}

// TestCopiedDataFolder: while the original runs a copy of its folder is not
// started, and both say why.
func TestCopiedDataFolder(t *testing.T) {
	b := site(t, 1)[0]
	twin := copied(t, b, "identity", "boot", "where.json", "founding.json")
	tries(t, twin, b.Link())
	await(t, "the original to say so", func() bool { return strings.Contains(b.said(), mesh.ErrTwin.Error()) })
	tries(t, twin, b.Link())
	if b.Leader() != b.Self() || !b.Health().Ready {
		t.Error("the original does not go on")
	}
	b.end()
	twin.start("", "")
	await(t, "the copy to be ready without it", func() bool { return twin.Health().Ready })
}

// TestOneOfTwoGivesWay: two agents with one identity run, because nothing said
// where the other one is. One of them ends, and is not started again while the
// other one runs. However often they were started, the site takes the other one
// for its agent afterwards.
func TestOneOfTwoGivesWay(t *testing.T) {
	for _, c := range []struct {
		name string
		boot string // of the copy's last start
		ends func(b, twin *box) *box
	}{
		{"the copy was started more often", "7", func(b, _ *box) *box { return b }},
		{"the copy was started less often", "0", func(_, twin *box) *box { return twin }},
		{"both as often", "1", func(b, twin *box) *box {
			if b.Link() > twin.Link() {
				return b
			}
			return twin
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			all := site(t, 2)
			lead := leading(t, all)
			b := all[0]
			if b == lead {
				b = all[1]
			}
			b.end()
			b.start("", "") // for the second time
			twin := copied(t, b, "identity", "peers.json")
			if err := os.WriteFile(filepath.Join(twin.dir, "boot"), []byte(c.boot), 0o600); err != nil {
				t.Fatal(err)
			}
			twin.unsure = true
			b.unsure = true
			twin.start("", "")
			one, other := c.ends(b, twin), b
			if one == b {
				other = twin
			}
			if err := one.Wait(); !errors.Is(err, mesh.ErrTwin) {
				t.Errorf("it ended: %v", err)
			}
			tries(t, one, other.Link())
			other.end()
			one.start("", "")
			await(t, "the site to take it for the agent", func() (ok bool) {
				lead.View(func(st *coordinator.State) {
					ok = st.Agents[one.Self()] != nil && st.Agents[one.Self()].Link == one.Link()
				})
				return ok && one.Health().Ready
			})
		})
	}
}
