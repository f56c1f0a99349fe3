package feed_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Pins outlive the process, and hold the log for it.
func TestPinsAreDurable(t *testing.T) {
	p := newPeer(t)
	dir := t.TempDir()
	f, _ := open(t, feed.Options{Dir: dir}, config(p.url(), 1))
	if err := errors.Join(f.Pin("job/7", map[int]int64{0: 5}), f.Pin("gone", map[int]int64{0: 1}), f.Unpin("gone"), f.Unpin("never")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "feeds", "f", "pins.json"))
	const want = `{
  "version": 1,
  "pins": {
    "job/7": {
      "0": 5
    }
  }
}
`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	if f.Pin("x", map[int]int64{3: 5}) == nil {
		t.Error("a pin of a lane that is not there")
	}
	dir = image(t, dir)
	f, _ = open(t, feed.Options{Dir: dir}, config(p.url(), 1))
	if got := fmt.Sprint(f.Pins()); got != "[{job/7 map[0:5]}]" {
		t.Error(got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := feed.Show(feed.Options{Dir: dir}, "f")
	if err != nil || fmt.Sprint(info.Pins) != "[{job/7 map[0:5]}]" || len(info.Lanes) != 1 || info.Config.ClientID != "feed" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestStoredConfig(t *testing.T) {
	dir := t.TempDir()
	o := feed.Options{Dir: dir}
	reference, err := job.ParseSecret("${env:PASSWORD}")
	if err != nil {
		t.Fatal(err)
	}
	c := feed.Config{
		Broker: "mqtts://broker.example", Topics: []string{"plant/+/telemetry"}, QoS: 2, ClientID: "mill", Lanes: 4, Retained: job.RetainedNever,
		Password: reference, TLS: job.TLS{CA: "/etc/ca.pem"}, Keep: job.Retention{Age: dataflow.Hour, Cap: 1 << 30}, Tick: dataflow.Second,
	}
	if err := feed.Create(o, "mill", c); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "feeds", "mill", "feed.json"))
	const want = `{
  "version": 1,
  "broker": "mqtts://broker.example",
  "topics": [
    "plant/+/telemetry"
  ],
  "qos": 2,
  "client_id": "mill",
  "lanes": 4,
  "retained": "never",
  "password": "${env:PASSWORD}",
  "ca": "/etc/ca.pem",
  "retention_age_us": 3600000000,
  "cap_bytes": 1073741824,
  "tick_us": 1000000
}
`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	info, err := feed.Show(o, "mill")
	if err != nil || fmt.Sprintf("%+v", info.Config) != fmt.Sprintf("%+v", c) || info.Lanes != nil {
		t.Errorf("%+v, %v", info, err)
	}
	if err := feed.Create(o, "mill", c); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Error(err)
	}
	c.Lanes = 2
	if _, err := feed.New(o).Open("mill", c); err == nil || !strings.Contains(err.Error(), "4 lanes, for ever") {
		t.Error(err)
	}
	if names, err := feed.List(o); err != nil || !slices.Equal(names, []string{"mill"}) {
		t.Error(names, err)
	}
	if err := feed.Delete(o, "mill"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{feed.Delete(o, "mill"), second(feed.Show(o, "mill")), second(feed.New(o).OpenKeeping("mill", nil, nil))} {
		if !errors.Is(err, store.ErrMissing) {
			t.Error(err)
		}
	}
	if names, err := feed.List(o); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
}

// crashing is a disk on which a process dies when it has removed so many files.
type crashing struct {
	store.FS
	left int
}

func (c *crashing) Remove(name string) error {
	if c.left == 0 {
		return errors.New("the process dies")
	}
	c.left--
	return c.FS.Remove(name)
}

// A feed that was being deleted when the process died is none, and goes with the next
// start; others stay.
func TestAFeedThatWasBeingDeletedGoes(t *testing.T) {
	for left := range 3 {
		fs := &crashing{disk.Group, 1000}
		o := feed.Options{Dir: t.TempDir(), FS: fs}
		if err := feed.New(o).Clean(); err != nil { // there are no feeds yet
			t.Fatal(err)
		}
		c := config("mqtt://broker.example:1883", 1)
		for _, name := range []string{"mill", "deleted.mill"} {
			if err := feed.Create(o, name, c); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(o.Dir, "feeds", name, "more"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fs.left = left
		if err := feed.Delete(o, "mill"); err == nil {
			t.Fatal("it did not die")
		}
		if _, err := os.Stat(filepath.Join(o.Dir, "feeds", ".deleted.mill")); err != nil {
			t.Fatal(err)
		}
		fs.left = 1000
		if err := feed.New(o).Clean(); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(filepath.Join(o.Dir, "feeds"))
		if err != nil || len(entries) != 1 || entries[0].Name() != "deleted.mill" {
			t.Errorf("%v, %v", entries, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A password never reaches the disk, and who has none is told.
func TestSecretsStayAway(t *testing.T) {
	p := newPeer(t)
	plain, err := job.ParseSecret("hunter2")
	if err != nil {
		t.Fatal(err)
	}
	o := feed.Options{Dir: t.TempDir()}
	c := config(p.url(), 1)
	c.Password = plain
	if err := feed.Create(o, "f", c); err == nil {
		t.Error("created with a password that cannot be stored")
	}
	f, _ := open(t, o, c) // a job's own: the job has it
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, "feeds", "f", "feed.json"))
	if err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := feed.New(o).OpenKeeping("f", nil, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	c.Broker = strings.Replace(p.url(), "//", "//me:hunter2@", 1)
	if _, err := feed.New(o).Open("g", c); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "..", ".hidden", "a/b", "a b", strings.Repeat("x", 201)} {
		if err := feed.Create(feed.Options{Dir: t.TempDir()}, name, config("mqtt://broker.example", 1)); err == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
}

// The state folder is another process's.
func TestLocked(t *testing.T) {
	p := newPeer(t)
	o := feed.Options{Dir: t.TempDir()}
	open(t, o, config(p.url(), 1))
	if _, err := feed.New(o).Open("f", config(p.url(), 1)); !errors.Is(err, store.ErrLocked) {
		t.Errorf("%v", err)
	}
	if err := feed.Delete(o, "f"); !errors.Is(err, store.ErrLocked) {
		t.Errorf("%v", err)
	}
}

// What is needed is pinned before the log is written to; what is pinned already
// stays as it is.
func TestWhatIsNeededIsPinned(t *testing.T) {
	p := newPeer(t)
	s := feed.New(feed.Options{Dir: t.TempDir()})
	c := config(p.url(), 1)
	f, err := s.OpenKeeping("f", &c, map[string]map[int]int64{"savepoint a": {0: 3}, "savepoint b": {}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.OpenKeeping("f", nil, map[string]map[int]int64{"savepoint a": {0: 1}, "savepoint c": {0: 4}, "savepoint lost": {0: -1}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.Pins()); got != "[{savepoint a map[0:3]} {savepoint b map[0:0]} {savepoint c map[0:4]}]" {
		t.Error(got)
	}
	if err := errors.Join(f.Close(), again.Close()); err != nil {
		t.Error(err)
	}
}

// failing is a disk whose next files fail to get their names.
type failing struct {
	store.FS
	left    int // so many succeed
	renamed int
}

func (f *failing) Rename(from, to string) error {
	if f.left == 0 {
		return errors.New("the disk is gone")
	}
	f.left--
	f.renamed++
	return f.FS.Rename(from, to)
}

// Pins move together, in one write, or not at all.
func TestPinsMoveTogether(t *testing.T) {
	p := newPeer(t)
	disk := &failing{FS: disk.Group, left: 100}
	f, _ := open(t, feed.Options{Dir: t.TempDir(), FS: disk}, config(p.url(), 1))
	keep := func(name string) bool { return name == "mine" }
	if err := errors.Join(f.Pin("job", map[int]int64{0: 5}), f.Pin("mine", map[int]int64{0: 2}), f.Pin("old", map[int]int64{0: 3})); err != nil {
		t.Fatal(err)
	}
	was := fmt.Sprint(f.Pins())
	need := func(at int64) feed.Need { return feed.Need{From: []map[int]int64{{0: at}}} }
	next := map[string]feed.Need{"job": need(9), "savepoint": need(5)}
	disk.left, disk.renamed = 0, 0
	if err := f.SetPins(next, keep); err == nil || fmt.Sprint(f.Pins()) != was {
		t.Errorf("%v, %v", f.Pins(), err)
	}
	disk.left = 1
	if err := f.SetPins(next, keep); err != nil {
		t.Error(err)
	}
	if err := f.SetPins(next, keep); err != nil { // nothing is to be written
		t.Error(err)
	}
	if got := fmt.Sprint(f.Pins()); got != "[{job map[0:9]} {mine map[0:2]} {savepoint map[0:5]}]" || disk.renamed != 1 {
		t.Errorf("%s, in %d writes", got, disk.renamed)
	}
	// The least of what the log has counts; who needs what it has no more holds
	// nothing, or all, where there is nothing else for him.
	next = map[string]feed.Need{
		"job": {From: []map[int]int64{{0: 12}, {0: -1}, {0: 7}}}, "whole": {From: []map[int]int64{{0: 12}, {}}}, "gone": {From: []map[int]int64{{0: -1}}},
		"mine": {From: []map[int]int64{{0: -1}}}, "new": {All: true}, "lost": {From: []map[int]int64{{0: -1}}, All: true}, "none": {}, "other lane": {From: []map[int]int64{{0: 3, 7: 1}}},
	}
	disk.left = 1
	if err := f.SetPins(next, keep); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(f.Pins()); got != "[{job map[0:7]} {lost map[0:0]} {new map[0:0]} {other lane map[0:3]} {whole map[0:0]}]" {
		t.Error(got)
	}
}
