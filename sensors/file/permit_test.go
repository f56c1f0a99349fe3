package file

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// lease is a permit that somebody may take away.
type lease struct{ gone error }

func (l *lease) Err() error { return l.gone }

var errLease = errors.New("the lease is over")

// Without a permit no row becomes visible, and none is taken away; with it
// again, all do.
func TestNothingIsCommittedWithoutAPermit(t *testing.T) {
	ctx := context.Background()
	for _, restored := range []bool{false, true} {
		fsys, l := storetest.New(), &lease{}
		var held []sensors.Pending
		want := "n\n0\n1\n"
		if restored {
			put(t, fsys, "/o/x.csv", "n\n8\nhalf")
			held = []sensors.Pending{{Target: "/o/x.csv", Data: recordOf("/o/x.csv", 4)}, {Target: "/o/x.csv", Piece: 3, Data: at(4, "9\n")}}
			want = "n\n8\n9\n0\n1\n"
		}
		cfg := durable(fsys, "/o/x.csv", 0, 1, newNumbers().csv())
		cfg.Permit = l
		s, err := OpenSink(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, sensors.ErrNotPermitted) || !errors.Is(err, errLease) || errors.Is(err, sensors.ErrFull) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if restored {
			l.gone = errLease
			refused("recover", s.Recover(ctx, held, nobody))
			if got := text(t, fsys, "/o/x.csv"); got != "n\n8\nhalf" {
				t.Errorf("the file holds %q", got)
			}
			l.gone = nil
		}
		if err := s.Recover(ctx, held, nobody); err != nil {
			t.Fatal(err)
		}
		before := text(t, fsys, "/o/x.csv")
		b, _ := newNumbers().rows(2)
		mustWrite(t, s, b)
		if err := s.Prepare(id(1), true, func(sensors.Pending) error { return nil }); err != nil {
			t.Fatal(err)
		}
		l.gone = errLease
		refused("commit through", s.CommitThrough(ctx, id(1)))
		refused("commit", s.Commit(ctx))
		if got := text(t, fsys, "/o/x.csv"); got != before {
			t.Errorf("the file holds %q, want %q", got, before)
		}
		l.gone = nil
		if err := s.CommitThrough(ctx, id(1)); err != nil {
			t.Fatal(err)
		}
		if got := text(t, fsys, "/o/x.csv"); got != want {
			t.Errorf("the file holds %q, want %q", got, want)
		}
	}
}

// What is there of another job is not taken away without a permit either.
func TestOverwriteNeedsAPermit(t *testing.T) {
	fsys := storetest.New()
	put(t, fsys, "/o/x.csv", "old")
	_, err := OpenSink(SinkConfig{Path: "/o/x.csv", Parallelism: 1, Overwrite: true, Encoder: newNumbers().csv(), FS: fsys, Permit: &lease{errLease}})
	if !errors.Is(err, sensors.ErrNotPermitted) || text(t, fsys, "/o/x.csv") != "old" {
		t.Errorf("%v, the file holds %q", err, text(t, fsys, "/o/x.csv"))
	}
}

// TestSiteRecover: what a restart in a site makes of the file of the subtask's
// own agent, a, and what waits for the next checkpoint.
func TestSiteRecover(t *testing.T) {
	const p, own, other = "/o/x.csv", "a:/o/x.csv", "b:/o/x.csv"
	rec := func(target, node string, n int64) sensors.Pending {
		return sensors.Pending{Target: target, Data: record{Version: 1, Path: p, Length: n, Next: 9, Node: node}.bytes()}
	}
	piece := func(target string, k int64, place byte, rows string) sensors.Pending {
		return sensors.Pending{Target: target, Piece: k, Data: at(place, rows)}
	}
	on := func(target string, through uint64, n int64) sensors.Commit {
		return sensors.Commit{Target: target, Through: id(through), Length: n}
	}
	for name, c := range map[string]struct {
		before  string
		held    []sensors.Pending
		record  []sensors.Commit
		want    string // after Recover
		after   string // after the next checkpoint
		refused string
	}{
		"on record before the checkpoint": {
			before: "n\n1\n2\n", held: []sensors.Pending{rec(own, "a", 4), piece(own, 3, 4, "2\n")}, record: []sensors.Commit{on(own, 4, 4)},
			want: "n\n1\n2\n", after: "n\n1\n2\n",
		},
		"all on record": {
			before: "n\n1\n2\n", held: []sensors.Pending{rec(own, "a", 4), piece(own, 3, 4, "2\n")}, record: []sensors.Commit{on(own, 5, 6)},
			want: "n\n1\n2\n", after: "n\n1\n2\n",
		},
		"one of two on record, more in the file": {
			before: "n\n1\n2\n7\n8\n", held: []sensors.Pending{rec(own, "a", 4), piece(own, 3, 4, "2\n"), piece(own, 4, 6, "3\n")}, record: []sensors.Commit{on(own, 5, 6)},
			want: "n\n1\n2\n3\n", after: "n\n1\n2\n3\n",
		},
		"another job's: not on record": {
			before: "n\n1\n2\n", held: []sensors.Pending{rec(own, "a", 4), piece(own, 3, 4, "2\n")},
			want: "n\n1\n", after: "n\n1\n2\n",
		},
		"begun by an attempt without a checkpoint": {
			before: "half", held: []sensors.Pending{rec(other, "b", 4)}, record: []sensors.Commit{on(own, 4, 0)}, want: "", after: "n\n",
		},
		"a record newer than the checkpoint": {
			before: "n\n1\n2\n3\n", held: []sensors.Pending{rec(own, "a", 4), piece(own, 3, 4, "2\n")}, record: []sensors.Commit{on(own, 6, 8)},
			want: "n\n1\n2\n", after: "n\n1\n2\n",
		},
		"begun after the checkpoint": {
			before: "n\n7\n", held: []sensors.Pending{rec(other, "b", 4)}, record: []sensors.Commit{on(own, 6, 4)}, want: "", after: "n\n",
		},
		"from another agent": {
			held: []sensors.Pending{rec(other, "b", 4), piece(other, 3, 4, "2\n"), piece(other, 4, 6, "3\n")}, record: []sensors.Commit{on(other, 5, 6)},
			want: "", after: "n\n3\n",
		},
		"from a job of no site": {
			held: []sensors.Pending{rec(p, "", 0), piece(p, 3, 0, "n\n2\n")}, want: "", after: "n\n2\n",
		},
		"not known and not empty": {before: "x", want: "x", refused: "--overwrite"},
		"the record is in a piece": {
			held: []sensors.Pending{rec(other, "b", 4), piece(other, 3, 4, "2\n3\n")}, record: []sensors.Commit{on(other, 5, 6)}, refused: "damaged",
		},
		"more on record than there is": {
			held: []sensors.Pending{rec(other, "b", 4), piece(other, 3, 4, "2\n")}, record: []sensors.Commit{on(other, 5, 8)}, refused: "damaged",
		},
		"on record, not in the checkpoint": {
			before: "n\n1\n", record: []sensors.Commit{on(own, 5, 4)}, want: "n\n1\n", refused: "does not know it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			fsys := storetest.New()
			if c.before != "" {
				put(t, fsys, p, c.before)
			}
			cfg := durable(fsys, p, 0, 1, newNumbers().csv())
			cfg.Placed = sensors.Placed{Node: "a", Nodes: []string{"a"}, From: id(5), Commits: c.record}
			s, err := OpenSink(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			err = s.Recover(ctx, c.held, me)
			if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Fatalf("Recover: %v, want %q", err, c.refused)
			}
			if got := text(t, fsys, p); got != c.want {
				t.Fatalf("the file holds %q, want %q", got, c.want)
			}
			if err != nil {
				return
			}
			if got := s.Commits(); len(got) != 1 || got[0] != (sensors.Commit{Target: own, Through: id(5), Length: int64(len(c.want))}) {
				t.Errorf("commits %v", got)
			}
			targets := map[string]bool{}
			if err := s.Prepare(id(6), true, func(p sensors.Pending) error { targets[p.Target] = true; return nil }); err != nil {
				t.Fatal(err)
			}
			if !targets[own] || len(c.held) > 0 && !targets[c.held[0].Target] {
				t.Errorf("the next checkpoint knows %v", targets)
			}
			if err := s.CommitThrough(ctx, id(6)); err != nil {
				t.Fatal(err)
			}
			if got := text(t, fsys, p); got != c.after {
				t.Errorf("the file holds %q, want %q", got, c.after)
			}
			if got := s.Commits(); got[0] != (sensors.Commit{Target: own, Through: id(6), Length: int64(len(c.after))}) {
				t.Errorf("commits %v", got)
			}
		})
	}
}

// A run without a site goes on from a checkpoint of one.
func TestRowsOfASiteGoOnWithoutOne(t *testing.T) {
	ctx := context.Background()
	fsys := storetest.New()
	s, err := OpenSink(durable(fsys, "/o/x.csv", 0, 1, newNumbers().csv()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	held := []sensors.Pending{{Target: "a:/o/x.csv", Data: record{Version: 1, Path: "/o/x.csv", Length: 4, Next: 3, Node: "a"}.bytes()}, {Target: "a:/o/x.csv", Piece: 2, Data: at(4, "7\n")}}
	if err := s.Recover(ctx, held, me); err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(id(1), true, func(sensors.Pending) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitThrough(ctx, id(1)); err != nil {
		t.Fatal(err)
	}
	if got := text(t, fsys, "/o/x.csv"); got != "n\n7\n" {
		t.Errorf("the file holds %q", got)
	}
}

func TestCutBack(t *testing.T) {
	fsys := storetest.New()
	put(t, fsys, "/o/x.csv", "12345")
	for _, c := range []struct {
		target string
		length int64
		ok     bool
		want   string
	}{
		{"a:/o/gone.csv", 3, true, "12345"}, {"a:/o/x.csv", 9, true, "12345"}, {"b:/o/x.csv", 1, false, "12345"}, {"a:/o/x.csv", -1, false, "12345"},
		{"a:/o", 0, true, "12345"}, {"a:/o/x.csv", 3, true, "123"}, {"a:/o/x.csv", 3, true, "123"},
	} {
		if err := CutBack(fsys, "a", c.target, c.length); (err == nil) != c.ok {
			t.Errorf("%v: %v", c, err)
		}
		if got := text(t, fsys, "/o/x.csv"); got != c.want {
			t.Errorf("%v: the file holds %q", c, got)
		}
	}
	if err := fsys.SyncDir("/o"); err != nil {
		t.Fatal(err)
	}
	fsys.FailAt(1, os.ErrInvalid)
	if err := CutBack(fsys, "a", "a:/o/x.csv", 1); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// A site's sink says where its subtasks are.
func TestSiteConfigIsChecked(t *testing.T) {
	for _, p := range []sensors.Placed{{Node: "a"}, {Node: "a", Nodes: []string{"b"}}, {Node: "a:b", Nodes: []string{"a:b"}}, {Node: "a", Nodes: []string{"a", "b"}}} {
		cfg := durable(storetest.New(), "/o/x.csv", 0, 1, newNumbers().csv())
		cfg.Placed = p
		if _, err := OpenSink(cfg); err == nil {
			t.Errorf("%v was accepted", p)
		}
	}
}

// The record of a target, byte by byte, as docs/FILES.md has it.
func TestRecordGolden(t *testing.T) {
	r := record{Version: 1, Path: "out/x.csv", Length: 6, Next: 4}
	if got, want := string(r.bytes()), `{"version":1,"path":"out/x.csv","length":6,"next":4}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r.Node = "n1"
	if got, want := string(r.bytes()), `{"version":1,"path":"out/x.csv","length":6,"next":4,"node":"n1"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
