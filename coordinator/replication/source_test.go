package replication

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Of jobs that end before the site that was offered them names them nothing stays.
func TestNothingStaysOfJobsThatEnd(t *testing.T) {
	s := NewSource(Config{}, "a", 0)
	st := Site{Find: func(coordinator.JobID) *coordinator.Job { return nil }, Of: func(coordinator.JobID, string) *coordinator.Snapshot { return nil }}
	for i := range 100 {
		id := coordinator.NewJobID(uint64(i), "a")
		job := &coordinator.Job{ID: id, Checkpoints: []*coordinator.Snapshot{{Name: "c1", Job: id}}}
		st.Index, st.Jobs = uint64(i), []Job{{Job: job}}
		for _, site := range []mesh.Site{"b", "c"} {
			if o := s.Answer(0, st, &coordinator.Want{Site: site}); len(o.Jobs) != 1 || !s.Pinned(0, id, "c1", []mesh.Site{site}) {
				t.Fatalf("%+v, or what it offers is not kept", o)
			}
		}
	}
	n := 0
	for _, jobs := range s.asked {
		n += len(jobs)
	}
	if n != 2 {
		t.Errorf("%d entries of two sites that were offered one job", n)
	}
}

// Large snapshots of many jobs do not all come in one answer: each comes in one of the
// next, also while those before it have newer ones each time.
func TestAnswersAreShort(t *testing.T) {
	site := Site{Index: 1, Find: func(coordinator.JobID) *coordinator.Job { return nil }}
	for i := range 10 {
		id := coordinator.JobID(fmt.Sprintf("j%d-a", i))
		job := &coordinator.Job{ID: id, Epoch: 1, Checkpoints: []*coordinator.Snapshot{{Name: "c1", Job: id, Manifest: make([]byte, 1<<20)}}}
		if i == 4 {
			job.Checkpoints[0].Manifest = make([]byte, 20<<20)
		}
		site.Jobs = append(site.Jobs, Job{Job: job, Text: coordinator.MovingJob{ID: id}})
	}
	site.Of = func(coordinator.JobID, string) *coordinator.Snapshot { return nil }
	s := NewSource(Config{}, "a", 0)
	told := make(map[coordinator.JobID]int)
	const answers = 30
	for n := range answers {
		bytes, jobs := 0, 0
		for _, j := range s.Answer(dataflow.Time(n), site, &coordinator.Want{Site: "b"}).Jobs {
			if jobs++; len(j.Newest) == 0 {
				continue
			}
			told[j.Job]++
			bytes += len(j.Newest[0].Manifest)
			if !s.Pinned(dataflow.Time(n), j.Job, "c1", []mesh.Site{"b"}) {
				t.Errorf("%s may go, and was offered", j.Job)
			}
		}
		if jobs != 10 || bytes == 0 || bytes > 4<<20 && bytes != 20<<20 {
			t.Errorf("%d jobs, %d bytes", jobs, bytes)
		}
	}
	for _, j := range site.Jobs {
		if told[j.ID] < answers/10 {
			t.Errorf("%s was offered %d times in %d answers", j.ID, told[j.ID], answers)
		}
	}
}

// A job is gone where it was once offered, and is not any more, wherever it was submitted:
// but not for a state of before it was offered, or of a site that was founded anew.
func TestWhatIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		job         coordinator.JobID
		index, here uint64 // at which it was offered, and of the state
		gone        bool
	}{
		"submitted here":                      {"j7-c", 0, 7, true},
		"submitted here, later":               {"j7-c", 0, 6, false},
		"submitted elsewhere, nobody knows":   {"j7-a", 0, 1000, false},
		"submitted elsewhere":                 {"j7-a", 900, 1000, true},
		"submitted elsewhere, offered now":    {"j7-a", 1000, 1000, true},
		"of a state of before":                {"j7-a", 1001, 1000, false},
		"submitted here, a state of before":   {"j7-c", 1001, 1000, false},
		"from before jobs' ids name the site": {"j7", 0, 7, true},
	} {
		s := NewSource(Config{}, "c", 0)
		st := Site{Index: c.here, Find: func(coordinator.JobID) *coordinator.Job { return nil }, Of: func(coordinator.JobID, string) *coordinator.Snapshot { return nil }}
		o := s.Answer(0, st, &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: c.job, Epoch: 2, Has: "chk", Index: c.index}}})
		if got := len(o.Gone) == 1 && o.Gone[0].Job == c.job && o.Gone[0].Epoch == 2; got != c.gone {
			t.Errorf("%s: gone: %t", name, got)
		}
	}
}
