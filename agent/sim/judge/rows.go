package judge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// source of every job that is judged by its rows.
const source = "in"

// FeedOf is the feed that a job reads, by its name at the job's site.
func FeedOf(job *coordinator.Job) string {
	if len(job.Reads) > 0 {
		return job.Reads[0]
	}
	return job.OwnFeed(source)
}

// Acknowledged says which messages are not; empty: all are.
func (j *Judge) Acknowledged() string {
	for _, name := range j.w.Broker.Feeds() {
		if n := j.w.Broker.Session(name).Owed(); n > 0 {
			return fmt.Sprintf("%d messages for %s are not acknowledged", n, name)
		}
	}
	return ""
}

// Behind says what a job's newest checkpoint has not read of its feed; empty: it
// has read all. Then nothing is on its way any more.
func (j *Judge) Behind(job *coordinator.Job) string {
	n, at := job.Newest(), int64(0)
	if n == nil {
		return fmt.Sprintf("job %s has no checkpoint", job.Name)
	}
	m, err := manifest.Decode(n.Manifest)
	if err != nil {
		return err.Error()
	}
	for _, o := range m.Operators {
		for _, p := range o.Positions {
			at += p.Offset
		}
	}
	if end := int64(len(j.log(FeedOf(job)))); at < end {
		return fmt.Sprintf("checkpoint %s of job %s stands at %d of %d messages", n.Name, job.Name, at, end)
	}
	return ""
}

// log is what the owner of a feed has, at the site that has the session.
func (j *Judge) log(feed string) []world.Record {
	feed = j.sites.origin(feed)
	f := j.with(feed).state().Feeds[feed]
	if f == nil || j.w.Node(f.Log.Owner) == nil {
		return nil
	}
	if l := j.w.Node(f.Log.Owner).Disk.Logs[feed]; l != nil {
		return l.Entries
	}
	return nil
}

// Logs: 1, every message is in the log exactly once, of each feed that has its session
// here; all copies are alike.
func (j *Judge) Logs() {
	st := j.state()
	for _, name := range j.w.Broker.Feeds() {
		s, f := j.w.Broker.Session(name), st.Feeds[name]
		if f == nil || j.sites != nil && j.sites.sessions[name] != j.site() {
			continue
		}
		own := j.log(name)
		seen := make(map[int]int)
		for _, r := range own {
			seen[r.Number]++
		}
		for m := s.First; m < j.w.Broker.Published; m++ {
			if seen[m] == 0 && j.sites != nil && (j.sites.lost[name][m] || j.sites.Two && j.sites.elsewhere(name, m, f.Log.Members)) {
				continue
			}
			if seen[m] != 1 {
				j.w.Fail(1, "message %d is %d times in the log of feed %s", m, seen[m], name)
				return
			}
		}
		for _, id := range f.Log.Members {
			l := j.w.Node(id).Disk.Logs[name]
			if l == nil || len(l.Entries) != len(own) {
				j.w.Fail(3, "the copy of feed %s on %s is not as long as the owner's", name, id)
				return
			}
			for i := range l.Entries {
				if l.Entries[i] != own[i] {
					j.w.Fail(2, "the copies of feed %s on %s and %s differ at %d", name, id, f.Log.Owner, i)
					return
				}
			}
		}
	}
}

// Files: 2, the rows in the files of a sink, on all agents, are those that an
// oracle makes of the log, each once.
func (j *Judge) Files(job *coordinator.Job, path string, oracle Oracle) {
	got := j.filesOf(job, path, nil)
	want := oracle(j.log(FeedOf(job)))
	for _, r := range slices.Sorted(maps.Keys(want)) {
		if got[r] != want[r] {
			j.w.Fail(2, "row %s is %d times in the files %s of all agents, and %d are right:%s", r, got[r], path, want[r], j.filesText(job, path))
			return
		}
		delete(got, r)
	}
	for _, r := range slices.Sorted(maps.Keys(got)) {
		j.w.Fail(2, "row %s is in a file %s, and does not follow from what was sent", r, path)
		return
	}
}

// Published: 2, at least once.
func (j *Judge) Published(job *coordinator.Job, oracle Oracle) {
	got := make(map[string]bool)
	for line := range j.published[job.ID] {
		got[canonical([]byte(line))] = true
	}
	for _, r := range slices.Sorted(maps.Keys(oracle(j.log(FeedOf(job))))) {
		if !got[r] {
			j.w.Fail(2, "row %s was never published", r)
			return
		}
	}
}

// filesOf are the rows in the files of a sink on all agents. Of an agent that is
// lost with its disk, what is on record counts. which chooses agents; nil: all.
func (j *Judge) filesOf(job *coordinator.Job, path string, which func(*world.Node) bool) map[string]int {
	rows := make(map[string]int)
	for _, n := range j.w.Nodes {
		if which != nil && !which(n) {
			continue
		}
		for _, name := range n.Disk.FS.Files() {
			if !of(name, path) {
				continue
			}
			data := readFile(n.Disk.FS, name)
			if n.Gone {
				recorded := int64(0)
				for _, c := range job.Sinks {
					if c.Node == n.ID && c.Target == string(n.ID)+":"+strings.TrimPrefix(name, "/") {
						recorded = c.Length
					}
				}
				data = data[:min(recorded, int64(len(data)))]
			}
			for _, line := range bytes.Split(data, []byte("\n")) {
				if len(line) > 0 {
					rows[canonical(line)]++
				}
			}
		}
	}
	return rows
}

// of tells whether a file is one of a sink's: NAME.jsonl, or NAME-<i>.jsonl.
func of(file, path string) bool {
	name, _ := strings.CutSuffix(strings.TrimPrefix(file, "/"), ".jsonl")
	stem, _ := strings.CutSuffix(path, ".jsonl")
	return name == stem || strings.HasPrefix(name, stem+"-")
}

// canonical is a row with its columns in an order of their own.
func canonical(line []byte) string {
	var row map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if d.Decode(&row) != nil {
		return string(line)
	}
	return rowText(row)
}

func rowText(row map[string]any) string {
	text, err := json.Marshal(row)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func readFile(fs store.FS, name string) []byte {
	f, err := fs.Open(name, os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	data := make([]byte, info.Size())
	n, _ := f.ReadAt(data, 0)
	return data[:n]
}

// filesText is what the site has on record of files, and what there is, for people.
func (j *Judge) filesText(job *coordinator.Job, path string) (text string) {
	for _, c := range job.Sinks {
		text += fmt.Sprintf(" [%s %d through %d-%d]", c.Target, c.Length, c.Through.Token.Attempt, c.Through.Counter)
	}
	for _, n := range j.w.Nodes {
		for _, name := range n.Disk.FS.Files() {
			if of(name, path) {
				text += fmt.Sprintf(" %s:%s has %d,", n.ID, name, len(readFile(n.Disk.FS, name)))
			}
		}
	}
	return text
}
