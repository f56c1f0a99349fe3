package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// TestQuickRestarts: all agents are restarted, one after the other, and nobody
// waits until the one before is of use again; some come back at another address,
// or leave without handing anything over. There is a leader again, and all are ready.
func TestQuickRestarts(t *testing.T) {
	for _, c := range []struct {
		name  string
		ends  time.Duration
		moves bool
	}{{"where they were", time.Millisecond, false}, {"elsewhere", time.Millisecond, true}, {"in order, elsewhere", 0, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			all := site(t, 3)
			await(t, "three voters", func() bool { return voters(leading(t, all)) == 3 })
			for _, b := range all {
				b.ends = c.ends
				b.end()
				b.start("", "")
				b.end()
				if c.moves {
					b.bind = freePorts(t)
				}
				b.start("", "")
			}
			leading(t, all)
			for _, b := range all {
				await(t, b.name+" to be ready", func() bool { return b.Health().Ready })
			}
		})
	}
}

// TestADeletedFeedGoesAtTheStart: the agent died while it deleted a feed's folder.
func TestADeletedFeedGoesAtTheStart(t *testing.T) {
	b := site(t, 1)[0]
	b.end()
	gone := filepath.Join(b.dir, "feeds", ".deleted.j1.in")
	if err := os.MkdirAll(filepath.Join(gone, "log"), 0o750); err != nil {
		t.Fatal(err)
	}
	b.start("", "")
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}

// TestTheFolderOfAJobForgottenMeanwhile: the site forgot a job while the agent was off, or
// the agent died before it had removed what it had of it. What is not the site's stays.
func TestTheFolderOfAJobForgottenMeanwhile(t *testing.T) {
	b := site(t, 1)[0]
	b.end()
	write := func(name string) string {
		name = filepath.Join(b.dir, "jobs", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.WriteFile(name, []byte("x"), 0o640)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	gone := []string{write("j900-north/checkpoints/chk-1-1.manifest"), write("j901/sinks/a.journal")}
	stay := []string{write("counts/checkpoints/chk-1-1.manifest"), write("j902/attempt"), write("j902/checkpoints/chk-1-1.manifest")}
	b.start("", "")
	for _, name := range gone {
		job := filepath.Dir(filepath.Dir(name))
		await(t, job+" to go", func() bool {
			_, err := os.Stat(job)
			return errors.Is(err, os.ErrNotExist)
		})
	}
	b.end()
	for _, name := range stay {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// TestPeersAreWrittenAgain: where the others are could not be written down, and is
// when that is possible.
func TestPeersAreWrittenAgain(t *testing.T) {
	first := site(t, 1)[0]
	token, stored, err := first.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Propose(t.Context(), coordinator.Command{TokenCreated: &stored}); err != nil {
		t.Fatal(err)
	}
	second := newBox(t, "n2")
	inTheWay := filepath.Join(second.dir, "peers.json")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o750); err != nil {
		t.Fatal(err)
	}
	second.start(first.Link(), token)
	await(t, "it to say so", func() bool { return strings.Contains(second.said(), "could not be written down") })
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	await(t, "it to be written", func() bool {
		text, err := os.ReadFile(inTheWay)
		return err == nil && strings.Contains(string(text), first.Link())
	})
}

// TestASiteGoesOnBehindARecovery: of two agents one is lost; the other one is recovered, and
// leads. Its log goes on further up, so what it accepts has an id that was never given.
func TestASiteGoesOnBehindARecovery(t *testing.T) {
	all := site(t, 2)
	left := all[0]
	await(t, "the level of both", func() (is bool) {
		left.View(func(st *coordinator.State) { is = st.Level >= coordinator.SettledLevel })
		return is
	})
	if _, err := left.Propose(t.Context(), coordinator.Command{FeedCreated: &coordinator.Feed{Name: "line2", Config: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	await(t, "it to know of the feed", func() (is bool) {
		left.View(func(st *coordinator.State) { is = st.Feeds["line2"] != nil })
		return is
	})
	for _, b := range all {
		b.end()
	}
	before, err := node.Recover(left.dir)
	if err != nil {
		t.Fatal(err)
	}
	left.start("", "")
	leading(t, all[:1])
	await(t, "it to be ready", func() bool { return left.Health().Ready })
	if _, err := left.Propose(t.Context(), coordinator.Command{FeedCreated: &coordinator.Feed{Name: "line3", Config: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	left.View(func(st *coordinator.State) {
		if st.Index <= coordinator.NextLife(before.Last) || st.Feeds["line3"] == nil || len(st.Agents) != 2 {
			t.Errorf("recovered at %d, and it is at %d: %d feeds, %d agents", before.Last, st.Index, len(st.Feeds), len(st.Agents))
		}
		f := st.Feeds["line2"] // what the lost one may have taken into it is to count no more
		if f == nil || f.Life != 1 && (len(f.Lineage) == 0 || f.Lineage[len(f.Lineage)-1].Life != 1) {
			t.Errorf("it begins no reign: %+v", f)
		}
	})
	left.end()
	left.start("", "")
	leading(t, all[:1])
}
