package judge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/store"
)

// Unsettled says what is still on its way; empty: nothing. Counts writes files,
// publish publishes.
func (j *Judge) Unsettled(counts, publish *coordinator.Job) string {
	for _, name := range j.w.Broker.Feeds() {
		if n := j.w.Broker.Session(name).Owed(); n > 0 {
			return fmt.Sprintf("%d messages for %s are not acknowledged", n, name)
		}
	}
	rows := 0
	for _, n := range j.filesOf(counts) {
		rows += n
	}
	if want := j.accepted(counts); rows < want {
		return fmt.Sprintf("%d rows of %d are in the files: %s", rows, want, j.filesText(counts))
	}
	if got, want := len(j.published[publish.ID]), j.accepted(publish); got < want {
		return fmt.Sprintf("%d rows of %d were published", got, want)
	}
	return ""
}

// accepted is how many messages the feed of a job was subscribed for.
func (j *Judge) accepted(job *coordinator.Job) int {
	s := j.w.Broker.Session(string(job.ID) + ".in")
	if s == nil {
		return 0
	}
	return j.w.Broker.Published - s.First
}

// Logs: 1, every message is in the log exactly once; all copies are alike.
func (j *Judge) Logs() {
	st := j.state()
	for _, name := range j.w.Broker.Feeds() {
		s, f := j.w.Broker.Session(name), st.Feeds[name]
		if f == nil {
			continue
		}
		own := j.w.Node(f.Log.Owner).Disk.Logs[name]
		seen := make(map[int]int)
		for _, r := range own.Entries {
			seen[r.Number]++
		}
		for m := s.First; m < j.w.Broker.Published; m++ {
			if seen[m] != 1 {
				j.w.Fail(1, "message %d is %d times in the log of feed %s", m, seen[m], name)
				return
			}
		}
		for _, id := range f.Log.Members {
			l := j.w.Node(id).Disk.Logs[name]
			if l == nil || l.End() != own.End() {
				j.w.Fail(3, "the copy of feed %s on %s is not as long as the owner's", name, id)
				return
			}
			for i := range l.Entries {
				if l.Entries[i] != own.Entries[i] {
					j.w.Fail(2, "the copies of feed %s on %s and %s differ at %d", name, id, f.Log.Owner, i)
					return
				}
			}
		}
	}
}

// filesOf are the rows in the files of a job on all agents. Of an agent that is
// lost with its disk, what is on record counts.
func (j *Judge) filesOf(job *coordinator.Job) map[row]int {
	rows := make(map[row]int)
	for _, n := range j.w.Nodes {
		for _, name := range n.Disk.FS.Files() {
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
				var r row
				if len(line) > 0 && json.Unmarshal(line, &r) == nil {
					rows[r]++
				}
			}
		}
	}
	return rows
}

type row struct {
	Key string `json:"key"`
	N   int    `json:"n"`
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

// want is what the oracle says of a job: for each message of a key a row that
// says how many there were.
func (j *Judge) want(job *coordinator.Job) map[row]bool {
	all, n := make(map[row]bool), make(map[string]int)
	for m := j.w.Broker.Session(string(job.ID) + ".in").First; m < j.w.Broker.Published; m++ {
		k := world.KeyOf(m)
		n[k]++
		all[row{k, n[k]}] = true
	}
	return all
}

// Files: 2, the rows in all agents' files are those of the oracle, each once.
func (j *Judge) Files(job *coordinator.Job) {
	got, want := j.filesOf(job), j.want(job)
	for k := range world.Keys {
		for n := 1; ; n++ {
			r := row{fmt.Sprintf("k%d", k), n}
			if !want[r] {
				break
			}
			if got[r] != 1 {
				j.w.Fail(2, "row %v is %d times in the files of all agents", r, got[r])
				return
			}
			delete(got, r)
		}
	}
	for r := range got {
		j.w.Fail(2, "row %v is in a file, and nobody sent as many", r)
	}
}

// Published: 2, at least once.
func (j *Judge) Published(job *coordinator.Job) {
	got := make(map[row]bool)
	for line := range j.published[job.ID] {
		var r row
		if json.Unmarshal([]byte(line), &r) == nil {
			got[r] = true
		}
	}
	for r := range j.want(job) {
		if !got[r] {
			j.w.Fail(2, "row %v was never published", r)
			return
		}
	}
}

// filesText is what the site has on record of files, and what there is, for people.
func (j *Judge) filesText(job *coordinator.Job) (text string) {
	for _, c := range job.Sinks {
		text += fmt.Sprintf(" [%s %d through %d-%d]", c.Target, c.Length, c.Through.Token.Attempt, c.Through.Counter)
	}
	for _, n := range j.w.Nodes {
		for _, name := range n.Disk.FS.Files() {
			text += fmt.Sprintf(" %s:%s has %d,", n.ID, name, len(readFile(n.Disk.FS, name)))
		}
	}
	return text
}
