package replication

import (
	"cmp"
	"fmt"
	"reflect"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
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

// Below SettledLevel it is not on record what was forgotten. What was submitted at a site and
// is not there any more is over, as it is for sites of before: but not for a state of before
// it came, or of a site that was recovered since, or where another one has it.
func TestWhatIsGoneBelowTheLevel(t *testing.T) {
	for name, c := range map[string]struct {
		job   coordinator.JobID
		here  uint64 // index of the state
		has   coordinator.Tenure
		later *coordinator.Tenure
		old   bool
		gone  bool
	}{
		"submitted here":                      {job: "j7-c", here: 7, gone: true},
		"submitted here, later":               {job: "j7-c", here: 6},
		"submitted elsewhere":                 {job: "j7-a", here: 1000},
		"from before jobs' ids name the site": {job: "j7", here: 7, gone: true},
		"it may be lost":                      {job: "j7-c", here: coordinator.NextLife(1000) + 7},
		"it came since that":                  {job: coordinator.NewJobID(coordinator.NextLife(1000)+6, "c"), here: coordinator.NextLife(1000) + 7, gone: true},
		"an old state":                        {job: "j7-c", here: 1000, old: true},
		"it is kept here, of d":               {job: "j7-c", here: 1000, has: coordinator.Tenure{Epoch: 3, Site: "d"}},
		"d has it, as b knows":                {job: "j7-c", here: 1000, later: &coordinator.Tenure{Epoch: 3, Site: "d"}},
	} {
		for _, settled := range []bool{false, true} {
			s := NewSource(Config{}, "c", 0)
			st := Site{Index: c.here, Find: func(coordinator.JobID) *coordinator.Job { return nil }, Of: func(coordinator.JobID, string) *coordinator.Snapshot { return nil },
				Owner: func(coordinator.JobID) coordinator.Tenure { return c.has }, Sure: !c.old, Settled: settled}
			o := s.Answer(0, st, &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: c.job, Epoch: 2, Has: "chk", Later: c.later}}})
			if got := len(o.Gone) == 1 && o.Gone[0].Job == c.job && o.Gone[0].Epoch == 2; got != (c.gone && !settled) {
				t.Errorf("%s, at the level: %t: gone: %t", name, settled, got)
			}
		}
	}
}

// Site b keeps a job as it was at epoch 1, and asks c, which had it then, or is said to have it.
func TestWhatIsSaidOfAJobThatMovedOn(t *testing.T) {
	live, ended, moved := coordinator.Running, coordinator.Stopped, coordinator.Moved
	at := func(epoch uint64, site mesh.Site) *coordinator.Tenure {
		return &coordinator.Tenure{Epoch: epoch, Site: site}
	}
	for name, c := range map[string]struct {
		job   *coordinator.Job
		to    bool                // it is to be kept at b
		has   *coordinator.Tenure // who has it, as c knows; nil: by the job
		later *coordinator.Tenure // what b has on record
		old   bool                // c may have an old state
		epoch uint64              // at which b keeps it; 0: 1
		want  string
	}{
		"it is at d":                               {job: &coordinator.Job{Epoch: 2, Status: moved, Owner: "d"}, want: "d has it at 2"},
		"it is at d, and b knows":                  {job: &coordinator.Job{Epoch: 2, Status: moved, Owner: "d"}, later: at(2, "d")},
		"it is at e by now":                        {job: &coordinator.Job{Epoch: 3, Status: moved, Owner: "e"}, later: at(2, "d"), want: "e has it at 3"},
		"it came and went":                         {job: &coordinator.Job{Epoch: 3, Status: moved, Owner: "e"}, later: at(2, "c"), want: "e has it at 3"},
		"it is at b":                               {job: &coordinator.Job{Epoch: 2, Status: moved, Owner: "b"}},
		"it was forgotten, and is kept of d":       {has: at(2, "d"), later: at(1, "c"), want: "d has it at 2"},
		"it is back, and not for b":                {job: &coordinator.Job{Epoch: 3, Status: live}, want: "gone"},
		"it is back, and not for b, which knows d": {job: &coordinator.Job{Epoch: 3, Status: live}, later: at(2, "d"), want: "gone"},
		"it never left, as c knows":                {job: &coordinator.Job{Epoch: 1, Status: live}, later: at(2, "d")},
		"c has it, and not for b":                  {job: &coordinator.Job{Epoch: 2, Status: live}, later: at(2, "c"), want: "gone"},
		"c has it, for b":                          {job: &coordinator.Job{Epoch: 2, Status: live}, to: true, later: at(2, "c"), want: "text"},
		"c had it, and it has ended":               {job: &coordinator.Job{Epoch: 2, Status: ended}, later: at(2, "c")},
		"it ended at c, and was forgotten":         {has: at(1, "c"), want: "gone"},
		"so it was, as an old state says":          {has: at(1, "c"), old: true},
		"it ended at c later":                      {has: at(3, "c"), want: "gone"},
		"it ended at c later, as b has heard":      {has: at(3, "c"), later: at(3, "c"), want: "gone"},
		"it ended at c after d had it":             {has: at(3, "c"), later: at(2, "d"), want: "gone"},
		"it ended at c, and d has it":              {has: at(1, "c"), later: at(2, "d")},
		"it ended at c, and c has it":              {has: at(1, "c"), later: at(2, "c")},
		"it ended at c, and d took it, too":        {has: at(2, "c"), later: at(2, "d")},
		"it ended at c, as b has heard":            {has: at(2, "c"), later: at(2, "c"), want: "gone"},
		"it ended at c, as another one had it":     {has: at(2, "c"), later: at(2, "c"), epoch: 2},
		"it ended at c after another one had it":   {has: at(3, "c"), later: at(2, "c"), epoch: 2, want: "gone"},
		"it ended at c, which b keeps it of":       {has: at(2, "c"), epoch: 2, want: "gone"},
		"c has it, as another one":                 {job: &coordinator.Job{Epoch: 2, Status: live}, later: at(2, "c"), epoch: 2},
		"c has it after another one":               {job: &coordinator.Job{Epoch: 3, Status: live}, later: at(2, "c"), epoch: 2, want: "gone"},
		"c has forgotten that it moved to d":       {has: at(2, "d"), want: "d has it at 2"},
		"c has forgotten that it moved back to d":  {has: at(3, "d"), later: at(2, "c"), want: "d has it at 3"},
		"c has forgotten that it moved, b knows":   {has: at(2, "d"), later: at(2, "d")},
		"c has forgotten that it moved to b":       {has: at(2, "b")},
		"c knows nothing of it":                    {},
		"c knows nothing of it, and is to have it": {later: at(2, "c")},
	} {
		s := NewSource(Config{}, "c", 0)
		st := Site{Index: 1000, Find: func(coordinator.JobID) *coordinator.Job { return c.job }, Of: func(coordinator.JobID, string) *coordinator.Snapshot { return nil }, Sure: !c.old, Settled: true}
		st.Owner = func(coordinator.JobID) (is coordinator.Tenure) {
			switch {
			case c.has != nil:
				is = *c.has
			case c.job != nil:
				is = coordinator.Tenure{Epoch: c.job.Epoch, Site: cmp.Or(c.job.Owner, "c")}
			}
			return is
		}
		if c.job != nil {
			c.job.ID = "j7-c"
		}
		if c.to {
			st.Jobs = []Job{{Job: c.job, Text: coordinator.MovingJob{ID: c.job.ID}}}
		}
		k := coordinator.WantedJob{Job: "j7-c", Epoch: max(c.epoch, 1), Later: c.later}
		if c.later == nil || c.later.Site != "c" {
			k.Has = "chk"
		}
		o, got := s.Answer(0, st, &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{k}}), ""
		switch {
		case len(o.Gone) == 1 && o.Gone[0].Epoch == k.Epoch:
			got = "gone"
		case len(o.Moved) == 1 && o.Moved[0].Epoch == k.Epoch:
			got = fmt.Sprintf("%s has it at %d", o.Moved[0].To.Site, o.Moved[0].To.Epoch)
		case len(o.Jobs) == 1 && o.Jobs[0].Text != nil:
			got = "text"
		}
		if got != c.want || len(o.Gone)+len(o.Moved)+len(o.Jobs) > 1 {
			t.Errorf("%s: %q, want %q: %+v", name, got, c.want, o)
		}
	}
}

// A site below level 6 keeps a job plainly, and is told it so, once. One that is settled is
// told the whole text, and keeps it where it could not say that it is.
func TestATextIsSaidAsItIsRead(t *testing.T) {
	id := coordinator.JobID("j1-a")
	whole := coordinator.MovingJob{ID: id, Spec: []byte("spec"), Feeds: []coordinator.MovingFeed{{Name: "j1-a.in", Config: []byte(`{"broker":"mqtt://b","client_id":"c","left":["x"]}`),
		Lineage: []coordinator.Reign{{Epoch: 1, Site: "a"}, {Epoch: 1, Site: "a", Start: 91, Life: 1}}}}}
	plain := whole.Plain()
	st := Site{Index: 1, Jobs: []Job{{Job: &coordinator.Job{ID: id, Epoch: 2}, Text: whole}},
		Find: func(coordinator.JobID) *coordinator.Job { return nil }, Of: func(coordinator.JobID, string) *coordinator.Snapshot { return nil }}
	other := coordinator.MovingJob{ID: id}
	for n, c := range []struct {
		settled bool
		epoch   uint64
		has     *coordinator.MovingJob
		want    *coordinator.MovingJob
	}{
		{false, 0, nil, plain}, {true, 0, nil, &whole},
		{false, 2, plain, nil}, {false, 2, &whole, nil}, {false, 2, &other, plain}, {false, 1, plain, plain},
		{true, 2, plain, &whole}, {true, 2, &whole, nil}, {true, 2, &other, &whole}, {true, 1, &whole, &whole},
	} {
		w := &coordinator.Want{Site: "b", Settled: c.settled}
		if c.has != nil {
			w.Jobs = []coordinator.WantedJob{{Job: id, Epoch: c.epoch, Text: codec.TextOf(c.has)}}
		}
		if got := NewSource(Config{}, "a", 0).Answer(0, st, w).Jobs[0].Text; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d: told %+v, want %+v", n, got, c.want)
		}
	}
}
