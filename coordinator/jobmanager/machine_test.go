package jobmanager_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// site1 is a site of two agents with a machine that is told lines of a script.
type site1 struct {
	t     testing.TB
	m     *jobmanager.Machine
	index uint64
}

func newSite(t testing.TB) *site1 {
	s := &site1{t: t, m: jobmanager.New()}
	for _, line := range strings.Split(fuzzSeed, "\n")[:4] {
		s.do("%s", line)
	}
	return s
}

// do applies a line that must succeed, and returns its index.
func (s *site1) do(format string, args ...any) uint64 {
	s.t.Helper()
	if err := s.try(format, args...); err != nil {
		s.t.Fatalf(format+": %v", append(args, err)...)
	}
	return s.index
}

func (s *site1) try(format string, args ...any) error {
	s.t.Helper()
	s.index++
	c := parse(nil, nil, fmt.Sprintf(format, args...))
	r, _ := s.m.Apply(s.index, c)
	if r.Err == nil && c.Move != nil && c.Move.ArrivalBegan != nil {
		s.received(s.m.State().Moves.Arrivals[c.Move.ArrivalBegan.ID])
	}
	return r.Err
}

// received: of each feed whose session comes with a job there is a mirror from the first.
func (s *site1) received(arr *coordinator.Arrival) {
	s.t.Helper()
	for i := range arr.Job.Feeds {
		m := &arr.Job.Feeds[i]
		f := s.m.State().Feeds[m.Name]
		if !m.Stay && (f == nil || f.Mirror == nil || *f.Mirror != m.Origin(arr.From) || !slices.Equal(f.Lineage, m.Reigns(arr.From))) {
			s.t.Fatalf("move %s was taken, and feed %s is %+v", arr.ID, m.Name, f)
		}
	}
}

func TestAppliedIndexesAreNotAppliedAgain(t *testing.T) {
	s := newSite(t)
	before := show(s.m.State())
	r, changes := s.m.Apply(s.index, parse(nil, nil, "left n1"))
	if !errors.Is(r.Err, jobmanager.ErrStale) || len(changes) > 0 || show(s.m.State()) != before {
		t.Errorf("%v, %v", r, changes)
	}
}

func TestEndedJobsAreBounded(t *testing.T) {
	s := newSite(t)
	first := s.do("submit first feeds=in")
	s.do("deploy j%d 1 term=2 on=n1", first)
	s.do("became j%d 1 running", first)
	s.do("done j%d 1 1 checkpoint=chk-1-1", first)
	s.do("became j%d 1 failed", first)
	needs := s.do("submit needs from=j%d/chk-1-1", first)
	second := s.do("submit second feeds=in")
	s.do("became j%d 0 failed", second)
	for range jobmanager.MaxEndedJobs {
		s.do("became j%d 0 failed", s.do("submit x"))
	}
	has := func(index uint64) bool { return s.m.State().Jobs[coordinator.JobID(fmt.Sprintf("j%d", index))] != nil }
	if !has(first) || has(second) || !has(needs) {
		t.Errorf("there: first %v, second %v, needs %v; want all but the second", has(first), has(second), has(needs))
	}
	if n := len(s.m.State().Feeds); n != 1 {
		t.Errorf("%d feeds, want the first's only", n)
	}
	s.do("became j%d 0 failed", needs)
	if has(first) || !has(needs) || len(s.m.State().Jobs) != jobmanager.MaxEndedJobs || len(s.m.State().Feeds) != 0 {
		t.Errorf("first %v, needs %v, %d jobs, %d feeds", has(first), has(needs), len(s.m.State().Jobs), len(s.m.State().Feeds))
	}
}

func TestCheckpointsAreBounded(t *testing.T) {
	s := newSite(t)
	job := s.do("submit x")
	s.do("deploy j%d 1 term=2 on=n1", job)
	s.do("became j%d 1 running", job)
	const more = 10
	for i := range jobmanager.MaxCheckpoints + more {
		s.do("done j%d 1 %d checkpoint=chk-1-%d", job, i+1, i+1)
	}
	kept := s.m.State().Jobs[coordinator.JobID(fmt.Sprintf("j%d", job))].Checkpoints
	if len(kept) != jobmanager.MaxCheckpoints || kept[0].ID.Counter != more+1 {
		t.Errorf("%d kept, the first %s", len(kept), kept[0].Name)
	}
}

func TestSavepointsAndLiveJobsAndFeedsAreBounded(t *testing.T) {
	for line, limit := range map[string]int{"import sp-%d": jobmanager.MaxSavepoints, "submit x%d": jobmanager.MaxLiveJobs, "feed f%d": jobmanager.MaxFeeds} {
		s := newSite(t)
		for i := range limit {
			s.do(line, i)
		}
		if err := s.try(line, limit); !errors.Is(err, jobmanager.ErrRefused) {
			t.Errorf(line+": %v", limit, err)
		}
	}
}

func TestTokensThatAdmitNobodyMakeRoom(t *testing.T) {
	s := newSite(t)
	for i := range jobmanager.MaxTokens {
		s.do("token t%d uses=1 expires=200", i)
	}
	if err := s.try("token new uses=1 expires=200"); !errors.Is(err, jobmanager.ErrRefused) {
		t.Errorf("one too many: %v", err)
	}
	s.do("use t7 n1")
	s.do("token new uses=1 expires=200")
	if s.m.State().Tokens["t7"] != nil || len(s.m.State().Tokens) != jobmanager.MaxTokens {
		t.Errorf("t7 is there, or %d tokens are", len(s.m.State().Tokens))
	}
	s.do("token newer uses=1 expires=300 !201")
}

func TestSinksAreBounded(t *testing.T) {
	s := newSite(t)
	job := s.do("submit x")
	s.do("deploy j%d 1 term=2 on=n1", job)
	var targets []string
	for i := range jobmanager.MaxSinks {
		targets = append(targets, fmt.Sprintf("n1:f%d:%d:1", i, 1+i%2))
	}
	s.do("committed j%d 1 %s", job, strings.Join(targets, " "))
	s.do("committed j%d 1 n1:new:3:1", job)
	sinks := s.m.State().Jobs[coordinator.JobID(fmt.Sprintf("j%d", job))].Sinks
	old := 0
	for _, k := range sinks {
		if k.Through.Counter == 1 {
			old++
		}
	}
	if len(sinks) != jobmanager.MaxSinks || old != jobmanager.MaxSinks/2-1 {
		t.Errorf("%d targets, %d of the first checkpoint", len(sinks), old)
	}
}

func TestStartsAreBounded(t *testing.T) {
	s := newSite(t)
	s.do("feed plant")
	const more = 10
	for i := range jobmanager.MaxStarts + more {
		s.do("epoch plant %d term=2 owner=n1 members=n1 start=%d", i+1, i*100)
	}
	log := s.m.State().Feeds["plant"].Log
	last := uint64(jobmanager.MaxStarts + more)
	if len(log.Starts) != jobmanager.MaxStarts || log.Forgotten != more || log.Epoch != last {
		t.Errorf("%d starts, %d forgotten, epoch %d", len(log.Starts), log.Forgotten, log.Epoch)
	}
	// A log of epoch e is cut where e+1 started, at e*100.
	for epoch, want := range map[uint64]int64{more - 1: 0, more: more * 100, last - 1: int64(last-1) * 100} {
		if got := log.Cut(epoch); got != want {
			t.Errorf("a log of epoch %d is cut at %d, want %d", epoch, got, want)
		}
	}
	if log.Cut(last) < 1<<62 {
		t.Error("a log of the present epoch is cut")
	}
}

func TestLongSentencesAreCut(t *testing.T) {
	s := newSite(t)
	job := s.do("submit x")
	s.do("became j%d 0 created why=%s", job, strings.Repeat("y", 10*jobmanager.MaxText))
	if n := len(s.m.State().Jobs[coordinator.JobID(fmt.Sprintf("j%d", job))].Why); n != jobmanager.MaxText {
		t.Errorf("%d bytes", n)
	}
}

func TestRestoreThatFailsChangesNothing(t *testing.T) {
	s := newSite(t)
	before, state := show(s.m.State()), s.m.State()
	if err := s.m.Restore(strings.NewReader("TMST\x01 is not all")); err == nil || show(s.m.State()) != before {
		t.Errorf("%v", err)
	}
	var b bytes.Buffer
	write := s.m.Snapshot()
	s.do("left n1") // beside the writing
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	if err := s.m.Restore(&b); err != nil || show(s.m.State()) != before || s.m.State() != state {
		t.Errorf("%v, and the state is\n%s", err, show(s.m.State()))
	}
}

// Whatever commands come: what a reader keeps stays as it was, the checkpoints
// of a job ascend and its newest never goes back, attempts count up by one,
// names are those of live jobs, logs' starts never go back, and two machines
// come to the same.
func TestRandomCommands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, twin := jobmanager.New(), jobmanager.New()
		kept := map[string]any{} // printed: the value
		newest := map[coordinator.JobID]uint64{}
		starts := map[string]int64{}
		attempts := map[coordinator.JobID]uint64{}
		for i := range rapid.IntRange(1, 80).Draw(t, "commands") {
			c := draw(t, m.State())
			before := m.State().Clone()
			r, changes := m.Apply(uint64(i+1), c)
			if r2, _ := twin.Apply(uint64(i+1), c); fmt.Sprint(r) != fmt.Sprint(r2) || show(m.State()) != show(twin.State()) {
				t.Fatalf("two machines differ: %v, %v", r, r2)
			}
			if r.Err != nil && len(changes) > 0 {
				t.Fatalf("refused, and changed %v", changes)
			}
			told(t, before, m.State(), changes)
			live := 0
			for id, job := range m.State().Jobs {
				kept[fmt.Sprintf("%+v", *job)] = job
				for k, c := range job.Checkpoints {
					if k > 0 && c.ID.Token == job.Checkpoints[k-1].ID.Token && c.ID.Counter <= job.Checkpoints[k-1].ID.Counter {
						t.Fatalf("%s: checkpoint %s behind %s", id, c.Name, job.Checkpoints[k-1].Name)
					}
				}
				if n := job.Newest(); n != nil {
					at := n.ID.Token.Attempt<<32 | n.ID.Counter
					if at < newest[id] {
						t.Fatalf("%s: the newest checkpoint went back to %s", id, n.Name)
					}
					newest[id] = at
				}
				if job.Attempt != attempts[id] && job.Attempt != attempts[id]+1 {
					t.Fatalf("%s: attempt %d after %d", id, job.Attempt, attempts[id])
				}
				attempts[id] = job.Attempt
				if !job.Status.Ended() {
					live++
					if m.State().Names[job.Name] != id {
						t.Fatalf("%s is live, and its name is %s's", id, m.State().Names[job.Name])
					}
				}
			}
			if live != len(m.State().Names) {
				t.Fatalf("%d live jobs, %d names", live, len(m.State().Names))
			}
			for name, f := range m.State().Feeds {
				kept[fmt.Sprintf("%+v", *f)] = f
				if f.Log.Start < starts[name] {
					t.Fatalf("%s: start %d after %d", name, f.Log.Start, starts[name])
				}
				starts[name] = f.Log.Start
			}
		}
		for was, v := range kept {
			now := ""
			switch v := v.(type) {
			case *coordinator.Job:
				now = fmt.Sprintf("%+v", *v)
			case *coordinator.Feed:
				now = fmt.Sprintf("%+v", *v)
			}
			if now != was {
				t.Fatalf("what was kept changed:\n%s\nto\n%s", was, now)
			}
		}
	})
}

// told: what is another pointer than before is among the changes.
func told(t *rapid.T, before, after *coordinator.State, changes []jobmanager.Change) {
	has := func(w jobmanager.What, name string) {
		for _, c := range changes {
			if c == (jobmanager.Change{What: w, Name: name}) {
				return
			}
		}
		t.Fatalf("%s %s changed and nobody was told", w, name)
	}
	for _, pair := range [][2]*coordinator.State{{before, after}, {after, before}} {
		for k, v := range pair[0].Jobs {
			if pair[1].Jobs[k] != v {
				has(jobmanager.Job, string(k))
			}
		}
		for k, v := range pair[0].Feeds {
			if pair[1].Feeds[k] != v {
				has(jobmanager.Feed, k)
			}
		}
		for k, v := range pair[0].Savepoints {
			if pair[1].Savepoints[k] != v {
				has(jobmanager.Savepoint, k)
			}
		}
		for k, v := range pair[0].Agents {
			if pair[1].Agents[k] != v {
				has(jobmanager.Agent, string(k))
			}
		}
	}
}

// draw is a command that has a good chance to hold.
func draw(t *rapid.T, s *coordinator.State) *coordinator.Command {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	c := &coordinator.Command{Level: 1, At: 100}
	job := &coordinator.Job{ID: "j0"}
	ids := []coordinator.JobID{"j0"}
	for i := range s.Index + 1 {
		if id := coordinator.JobID(fmt.Sprintf("j%d", i)); s.Jobs[id] != nil {
			ids = append(ids, id)
		}
	}
	if id := rapid.SampledFrom(ids).Draw(t, "job"); s.Jobs[id] != nil {
		job = s.Jobs[id]
	}
	attempt := job.Attempt + uint64(rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "attempt off"))
	node := mesh.NodeID(pick("node", "n1", "n2", "n3"))
	switch rapid.IntRange(0, 16).Draw(t, "kind") {
	case 0:
		c.LeaderBegan = &coordinator.LeaderBegan{Term: s.Term + uint64(rapid.IntRange(0, 1).Draw(t, "term")), Node: node}
	case 1:
		c.AgentJoined = &coordinator.Agent{Node: node, Name: pick("name", "a", "b", "c"), Level: uint32(rapid.IntRange(1, 3).Draw(t, "level"))}
	case 2:
		c.AgentLeft = &coordinator.AgentLeft{Node: node}
	case 3:
		c.JobSubmitted = &coordinator.JobSubmitted{Name: pick("name", "x", "y"), Request: pick("request", "", "r1"), Feeds: []coordinator.Feed{{Name: "in"}}}
		if n := job.Newest(); n != nil && rapid.Bool().Draw(t, "from") {
			c.JobSubmitted.From = string(job.ID) + "/" + n.Name
			if feed := job.OwnFeed("in"); s.Level >= coordinator.AdoptLevel && rapid.Bool().Draw(t, "adopts") {
				c.JobSubmitted.Adopts = []coordinator.Adoption{{Source: "in", Feed: feed}}
			}
		}
	case 4, 5, 6:
		from := ""
		if n := job.Newest(); n != nil {
			from = n.Name
		}
		c.JobDeployed = &coordinator.JobDeployed{Job: job.ID, Attempt: job.Attempt + 1, Term: s.Term, From: from, Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "in"}, Node: node}}}
	case 7, 8, 9:
		c.JobBecame = &coordinator.JobBecame{Job: job.ID, Attempt: attempt, Status: coordinator.Status(rapid.IntRange(0, 9).Draw(t, "status"))}
	case 10:
		c.JobTold = &coordinator.JobTold{Job: job.ID, Then: dataflow.Halt, Cancel: rapid.Bool().Draw(t, "cancel")}
	case 11:
		c.JobForgotten = &coordinator.JobForgotten{Job: job.ID}
	case 12, 13:
		n := rapid.IntRange(1, 20).Draw(t, "counter")
		snap := &coordinator.Snapshot{Name: fmt.Sprintf("chk-%d-%d", attempt, n), Job: job.ID, ID: dataflow.CheckpointID{Token: job.Token(s.Site), Counter: uint64(n)}, Manifest: []byte{1}}
		c.CheckpointDone = &coordinator.CheckpointDone{Attempt: attempt, Checkpoint: snap}
		if rapid.Bool().Draw(t, "release") && len(job.Checkpoints) > 0 {
			c.CheckpointDone.Release = []string{job.Checkpoints[0].Name}
		}
	case 14:
		c.SinkCommitted = &coordinator.SinkCommitted{Job: job.ID, Attempt: attempt, Commits: []coordinator.SinkCommit{{Operator: "o", Node: node, Target: pick("target", "f", "g"),
			Through: dataflow.CheckpointID{Token: job.Token(s.Site), Counter: uint64(rapid.IntRange(0, 3).Draw(t, "through"))}, Length: int64(rapid.IntRange(0, 9).Draw(t, "length"))}}}
	case 15:
		feed := job.OwnFeed("in")
		log := coordinator.LogEpoch{Owner: node, Members: []mesh.NodeID{node}, Start: int64(rapid.IntRange(0, 50).Draw(t, "start"))}
		if f := s.Feeds[feed]; f != nil {
			log.Epoch = f.Log.Epoch + 1
		}
		c.LogEpochBegun = &coordinator.LogEpochBegun{Feed: feed, Term: s.Term, Log: log}
	case 16:
		c.LevelRaised = &coordinator.LevelRaised{Level: coordinator.AdoptLevel}
	}
	c.Level = c.Needs()
	return c
}
