package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// keptOf is a checkpoint whose operator has one part.
func keptOf(name string, counter uint64, p store.Part) manifest.Manifest {
	return manifest.Manifest{
		Kind: manifest.Checkpoint, Name: name, Job: "counts", MaxParallelism: 1, Mode: manifest.ExactlyOnce, ID: dataflow.CheckpointID{Counter: counter},
		Operators: []manifest.Operator{{ID: "op", Parallelism: 1, Tables: []manifest.Table{
			{Name: "t", Schema: `"x"`, Shards: []manifest.Shard{{Parts: []manifest.PartUse{{Part: p, Rows: 1}}}}},
		}}},
	}
}

// A folder is made to hold what is kept, no more and no less, and parts are
// collected by it, also where a manifest names parts of other nodes.
func TestFolderIsWhatIsKept(t *testing.T) {
	disk := storetest.New()
	s, err := Open(filepath.Join(t.TempDir(), "state"), disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	parts := put(t, s, "a", "b")
	one, two := keptOf("chk-1-1", 1, parts[0]), keptOf("chk-1-2", 2, parts[1])
	elsewhere := keptOf("chk-1-3", 3, store.Part{Digest: store.Digest{7}, Size: 9})
	step := func(want string, kept ...manifest.Manifest) {
		t.Helper()
		for range 2 { // it is idempotent
			if _, err := s.SyncKept("j7", kept); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Collect(); err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, name := range []string{"a", "b"} {
			if s.Parts().Has(parts[i]) {
				got += name
			}
		}
		if list, err := s.Checkpoints("j7"); len(list) != len(kept) && !errors.Is(err, store.ErrMissing) || got != want {
			t.Errorf("%d of %d manifests (%v), parts %q, want %q", len(list), len(kept), err, got, want)
		}
	}
	step("ab", one, two)
	step("b", two, elsewhere)
	disk.FailAt(1, io.ErrUnexpectedEOF)
	if _, err := s.SyncKept("j7", []manifest.Manifest{one}); err == nil {
		t.Error("the disk failed, and nobody says so")
	}
	disk.Heal()
	if list, err := s.Checkpoints("j7"); err != nil || len(list) < 2 {
		t.Errorf("%d manifests (%v): one was deleted before the next was there", len(list), err)
	}
	if _, err := s.SyncKept("", []manifest.Manifest{{Kind: manifest.Savepoint, Name: "sp-1", Job: "counts", MaxParallelism: 1, Mode: manifest.ExactlyOnce}}); err != nil {
		t.Error(err)
	}
	if list, err := s.Savepoints(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	step("")
	if _, err := s.SyncKept("../x", nil); err == nil {
		t.Error("a job's name leads out of the folder")
	}
	if _, err := s.SyncKept("nobody", nil); err != nil {
		t.Error(err)
	}
	if jobs, err := s.Jobs(); err != nil || slices.Contains(jobs, "nobody") {
		t.Errorf("%v, %v: a folder was made for nothing", jobs, err)
	}
}

// While the agent was away a savepoint was deleted, and another one was brought in under
// its name: what is kept is the authority. Of two jobs both may have the same id.
func TestANameThatIsGivenAgain(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	parts := put(t, s, "a", "b")
	ofOther := keptOf("nightly", 1, parts[1])
	ofOther.Job = "doors"
	for i, kept := range []manifest.Manifest{keptOf("nightly", 1, parts[0]), keptOf("nightly", 2, parts[1]), keptOf("nightly", 1, parts[0]), ofOther} {
		if _, err := s.SyncKept("", []manifest.Manifest{kept}); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if list, err := s.Savepoints(); err != nil || len(list) != 1 || list[0].Manifest.Job != kept.Job || list[0].Manifest.ID != kept.ID {
			t.Errorf("%d: %v, %v", i, list, err)
		}
	}
	if _, err := s.Collect(); err != nil {
		t.Error(err)
	}
	if a, b := s.Parts().Has(parts[0]), s.Parts().Has(parts[1]); a || !b {
		t.Errorf("of the old one's parts: %v, of the new one's: %v", a, b)
	}
}

// Where a manifest cannot be written, as the disk is full, others are deleted all the same,
// and what it names stays without it until it is written, or not kept any more.
func TestAManifestThatCannotBeWritten(t *testing.T) {
	disk := storetest.New()
	s, err := Open(filepath.Join(t.TempDir(), "state"), disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	parts := put(t, s, "a", "b")
	step := func(when, want string, full bool, job string, kept ...manifest.Manifest) {
		t.Helper()
		if _, err := s.SyncKept(job, kept); errors.Is(err, store.ErrFull) != full || err != nil && !full {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := s.Collect(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		got := ""
		for i, name := range []string{"a", "b"} {
			if s.Parts().Has(parts[i]) {
				got += name
			}
		}
		if got != want {
			t.Errorf("%s: parts %q, want %q", when, got, want)
		}
	}
	lack := keptOf("chk-1-9", 9, store.Part{Digest: store.Digest{7}, Size: 9})
	step("both are named", "ab", false, "j7", keptOf("chk-1-1", 1, parts[0]), keptOf("chk-1-2", 2, parts[1]))
	disk.SetCapacity(1)
	step("the next cannot be written", "b", true, "j7", keptOf("chk-1-3", 3, parts[1]))
	if list, err := s.Checkpoints("j7"); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	step("nor can one of another job", "b", true, "j8", lack)
	disk.SetCapacity(1 << 20)
	step("there is room", "b", false, "j7", keptOf("chk-1-3", 3, parts[1]))
	if list, err := s.Checkpoints("j7"); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	disk.SetCapacity(1)
	step("the disk is full again", "b", true, "j7", keptOf("chk-1-4", 4, parts[1]))
	step("it is not kept any more", "", false, "j7")
}

// put puts parts that nobody holds.
func put(t *testing.T, s *State, texts ...string) (parts []store.Part) {
	t.Helper()
	for _, text := range texts {
		p, err := s.Parts().Put(func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
		if err != nil {
			t.Fatal(err)
		}
		s.Parts().Unpin(p)
		parts = append(parts, p)
	}
	return parts
}

// At the start scratch goes, and rows that wait in files of sinks; what a sink must
// remember stays, and so does what a link leads to.
func TestTidy(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "other")
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	goes := []string{s.Scratch("j1"), filepath.Join(s.SinkDir("j1", "out"), "ab.pending"), s.Scratch("j2")}
	stays := []string{filepath.Join(s.SinkDir("j1", "out"), "ab.journal"), s.checkpointsOf("j1"), filepath.Join(other, "file")}
	for _, name := range []string{filepath.Join(goes[0], "deep", "big"), goes[1], stays[0], filepath.Join(stays[1], "c"), stays[2], filepath.Join(dir, "jobs", "j2", "x")} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, goes[2]); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget("j3"); err != nil {
		t.Error(err)
	}
	for _, name := range goes {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for _, name := range stays {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if err := s.Forget("j1"); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "jobs")); err != nil || len(list) != 1 {
		t.Errorf("jobs are left: %v, %v", list, err)
	}
}

// Of the folders those are an agent's in which no run has counted its attempts.
func TestJobsOfAnAgent(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if names, err := s.AgentJobs(); err != nil || len(names) > 0 {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := s.SyncKept("j7-b", []manifest.Manifest{keptOf("chk-1-1", 1, store.Part{Digest: store.Digest{7}, Size: 9})}); err != nil {
		t.Fatal(err)
	}
	j, err := s.OpenJob("j8")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.NextAttempt(); err != nil {
		t.Fatal(err)
	}
	if names, err := s.AgentJobs(); err != nil || !slices.Equal(names, []string{"j7-b"}) {
		t.Errorf("%q, %v", names, err)
	}
}
