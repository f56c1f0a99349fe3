package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/store"
)

// The bounds of the quiet end: when every job must have a checkpoint that began
// after it, and when everything must have been put out.
const (
	progressWithin = 25 * sec
	settleWithin   = 20 * sec
)

// Run runs a site from one seed: faults for a while, then a quiet end. It returns
// the first invariant that does not hold; nil: all do.
func Run(cfg Config) (*Stats, *Violation) {
	w := New(cfg)
	w.begin()
	w.submit("counts", countsSpec)
	w.submit("publish", publishSpec)
	w.run(3 * sec)
	for w.now < 3*sec+w.cfg.Faulty && w.check.failed == nil {
		w.fault()
		w.run(w.soon(300 * ms))
	}
	if w.check.failed == nil {
		w.end()
	}
	w.check.Stats.Steps = w.steps
	return &w.check.Stats, w.check.failed
}

// begin starts everything.
func (w *World) begin() {
	for _, n := range w.nodes {
		n.start()
		if len(w.raft.voters) < 5 && (len(w.nodes)%2 == 1 || len(w.raft.voters) < 3) {
			w.raft.voters = append(w.raft.voters, n.id)
		}
	}
	w.raft.elect()
	w.raft.watch()
	w.publishAll()
}

// publishAll is somebody who publishes all the time, until the site is to settle.
func (w *World) publishAll() {
	if w.broker.closed {
		return
	}
	w.broker.publish()
	w.after(40*ms, w.publishAll)
}

// submit submits a job, again and again until the site has taken it.
func (w *World) submit(name, spec string) {
	c := &coordinator.Command{Level: coordinator.BaseLevel, JobSubmitted: &coordinator.JobSubmitted{Name: name, Spec: []byte(spec), Request: name,
		Feeds: []coordinator.Feed{{Name: "in", Config: []byte(feedConfig)}}}}
	var try func()
	try = func() {
		l := w.raft.leader
		if l == nil || l.over || !w.raft.majority(l.p) {
			w.after(50*ms, try)
			return
		}
		l.propose(c, func(_ uint64, r jobmanager.Result, refused error) {
			if refused != nil {
				w.after(50*ms, try)
			} else if r.Err != nil {
				w.check.fail(0, "job %s is refused: %v", name, r.Err)
			}
		})
	}
	try()
}

// jobs of the site by name; the last of each.
func (w *World) job(name string) *coordinator.Job {
	st := w.state()
	for _, id := range sortedKeys(st.Jobs) {
		if st.Jobs[id].Name == name {
			return st.Jobs[id]
		}
	}
	return nil
}

// end heals everything and looks that all goes on (10), that nothing is missing
// or there twice (1, 2).
func (w *World) end() {
	w.heal()
	names := []string{"counts", "publish"}
	healed := w.now
	before := make(map[string]string)
	for _, name := range names {
		if j := w.job(name); j != nil && j.Newest() != nil {
			before[name] = j.Newest().Name
		}
	}
	goesOn := func(name string) bool {
		j := w.job(name)
		return j != nil && j.Status == coordinator.Running && j.Newest() != nil && j.Newest().Name != before[name] && j.Newest().ID.Token.Attempt == j.Attempt
	}
	for w.check.failed == nil && !(goesOn("counts") && goesOn("publish")) {
		w.run(w.now + 500*ms)
		if w.now > healed+progressWithin {
			for _, name := range names {
				if !goesOn(name) {
					w.check.fail(10, "%d s after the last fault job %s does not go on: %s", progressWithin/sec, name, w.plight(name))
				}
			}
		}
	}
	w.broker.closed = true
	closed := w.now
	for w.check.failed == nil {
		w.run(w.now + sec)
		why := w.unsettled()
		if why == "" || w.check.failed != nil {
			break
		}
		if w.now > closed+settleWithin {
			w.check.fail(10, "%d s after the last message %s", settleWithin/sec, why)
		}
	}
	if w.check.failed == nil {
		w.judgeLogs()
		w.judgeFiles()
		w.judgePublished()
	}
}

func (w *World) plight(name string) string {
	j := w.job(name)
	if j == nil {
		return "it is not there"
	}
	text := fmt.Sprintf("%s (%s), attempt %d", j.Status, j.Why, j.Attempt)
	if n := j.Newest(); n != nil {
		text += ", newest checkpoint " + n.Name
	}
	if f := w.state().Feeds[string(j.ID)+".in"]; f != nil {
		text += fmt.Sprintf("; feed: epoch %d of %s, members %s", f.Log.Epoch, f.Log.Owner, nodesText(f.Log.Members))
	}
	return text
}

// unsettled says what is still on its way; empty: nothing.
func (w *World) unsettled() string {
	for _, name := range sortedKeys(w.broker.sessions) {
		if s := w.broker.sessions[name]; len(s.queue)+len(s.flight) > 0 {
			return fmt.Sprintf("%d messages for %s are not acknowledged", len(s.queue)+len(s.flight), name)
		}
	}
	counts := w.job("counts")
	rows := 0
	for _, n := range w.filesOf(counts) {
		rows += n
	}
	if want := w.accepted(counts); rows < want {
		return fmt.Sprintf("%d rows of %d are in the files: %s", rows, want, w.filesText(counts))
	}
	publish := w.job("publish")
	if got, want := len(w.outside.seen[publish.ID]), w.accepted(publish); got < want {
		return fmt.Sprintf("%d rows of %d were published", got, want)
	}
	return ""
}

// accepted is how many messages the feed of a job was subscribed for.
func (w *World) accepted(j *coordinator.Job) int {
	s := w.broker.sessions[string(j.ID)+".in"]
	if s == nil {
		return 0
	}
	return w.broker.published - s.first
}

// judgeLogs: 1, every message is in the log exactly once; all copies are alike.
func (w *World) judgeLogs() {
	st := w.state()
	for _, name := range sortedKeys(w.broker.sessions) {
		s, f := w.broker.sessions[name], st.Feeds[name]
		if f == nil {
			continue
		}
		own := w.node(f.Log.Owner).disk.logs[name]
		seen := make(map[int]int)
		for _, r := range own.entries {
			seen[r.message]++
		}
		for m := s.first; m < w.broker.published; m++ {
			if seen[m] != 1 {
				w.check.fail(1, "message %d is %d times in the log of feed %s", m, seen[m], name)
				return
			}
		}
		for _, id := range f.Log.Members {
			l := w.node(id).disk.logs[name]
			if l == nil || l.end() != own.end() {
				w.check.fail(3, "the copy of feed %s on %s is not as long as the owner's", name, id)
				return
			}
			for i := range l.entries {
				if l.entries[i] != own.entries[i] {
					w.check.fail(2, "the copies of feed %s on %s and %s differ at %d", name, id, f.Log.Owner, i)
					return
				}
			}
		}
	}
}

// filesOf are the rows in the files of a job on all agents. Of an agent that is
// lost with its disk, what is on record counts.
func (w *World) filesOf(j *coordinator.Job) map[row]int {
	rows := make(map[row]int)
	for _, n := range w.nodes {
		for _, name := range n.disk.fs.Files() {
			data := readFile(n.disk.fs, name)
			if n.gone {
				recorded := int64(0)
				for _, c := range j.Sinks {
					if c.Node == n.id && c.Target == string(n.id)+":"+strings.TrimPrefix(name, "/") {
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
func (w *World) want(j *coordinator.Job) map[row]bool {
	all, n := make(map[row]bool), make(map[string]int)
	for m := w.broker.sessions[string(j.ID)+".in"].first; m < w.broker.published; m++ {
		k := fmt.Sprintf("k%d", m*7%11%keys)
		n[k]++
		all[row{k, n[k]}] = true
	}
	return all
}

// judgeFiles: 2, the rows in all agents' files are those of the oracle, each once.
func (w *World) judgeFiles() {
	j := w.job("counts")
	got, want := w.filesOf(j), w.want(j)
	for k := range keys {
		for n := 1; ; n++ {
			r := row{fmt.Sprintf("k%d", k), n}
			if !want[r] {
				break
			}
			if got[r] != 1 {
				w.check.fail(2, "row %v is %d times in the files of all agents", r, got[r])
				return
			}
			delete(got, r)
		}
	}
	for r := range got {
		w.check.fail(2, "row %v is in a file, and nobody sent as many", r)
	}
}

// judgePublished: 2, at least once.
func (w *World) judgePublished() {
	j := w.job("publish")
	got := make(map[row]bool)
	for line := range w.outside.seen[j.ID] {
		var r row
		if json.Unmarshal([]byte(line), &r) == nil {
			got[r] = true
		}
	}
	for r := range w.want(j) {
		if !got[r] {
			w.check.fail(2, "row %v was never published", r)
			return
		}
	}
}

// filesText is what the site has on record of files, and what there is, for people.
func (w *World) filesText(j *coordinator.Job) (text string) {
	for _, c := range j.Sinks {
		text += fmt.Sprintf(" [%s %d through %d-%d]", c.Target, c.Length, c.Through.Token.Attempt, c.Through.Counter)
	}
	for _, n := range w.nodes {
		for _, name := range n.disk.fs.Files() {
			text += fmt.Sprintf(" %s:%s has %d,", n.id, name, len(readFile(n.disk.fs, name)))
		}
	}
	return text
}
