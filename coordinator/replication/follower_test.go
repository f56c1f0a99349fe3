package replication_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// What one job brings about looks at that job, however many are kept.
func TestAStepLooksAtItsJobs(t *testing.T) {
	var jobs []coordinator.JobID
	all, looks := make(map[coordinator.JobID]*coordinator.Replica), 0
	for i := range 1000 {
		id := coordinator.JobID(fmt.Sprintf("j%04d-a", i))
		jobs = append(jobs, id)
		all[id] = &coordinator.Replica{From: "a", Epoch: 1, Job: coordinator.MovingJob{ID: id}, Next: &coordinator.Snapshot{Name: "c1"}}
	}
	records := replication.Records{
		Of: func(id coordinator.JobID) replication.Record {
			looks++
			return replication.Record{Replica: all[id], Copied: id == jobs[7], Whole: true}
		},
		Kept: func() []coordinator.JobID { return jobs },
	}
	f := replication.NewFollower(replication.Config{}, "b", "a")
	f.Step(records, replication.Event{All: true}) // it asks, and waits for an answer
	for name, e := range map[string]replication.Event{"a tick": {}, "a job": {Jobs: jobs[:1]}, "another one": {Jobs: jobs[7:8]}, "refused": {Rejected: &replication.Rejected{Job: jobs[7]}}} {
		looks, e.Now = 0, 1
		if f.Step(records, e); looks > 1 {
			t.Errorf("%s: %d records are looked at", name, looks)
		}
	}
	looks = 0
	if got := f.Step(records, replication.Event{Now: dataflow.Time(3 * dataflow.Second)}); looks != 1 || len(got) != 1 || got[0].Propose.ReplicaAdvanced.Job != jobs[7] {
		t.Errorf("what was refused is not tried again alone: %d records, %+v", looks, got)
	}
}

// That a job cannot be kept is told once for each reason, when that stands for longer than
// a moment. That the site's log takes nothing is no reason.
func TestARefusalIsToldOnce(t *testing.T) {
	f := replication.NewFollower(replication.Config{}, "b", "a")
	var kept *coordinator.Replica
	records := replication.Records{
		Of: func(coordinator.JobID) replication.Record { return replication.Record{Replica: kept} },
		Kept: func() []coordinator.JobID {
			if kept == nil {
				return nil
			}
			return []coordinator.JobID{"j7-a"}
		},
	}
	text := &coordinator.MovingJob{ID: "j7-a", Name: "door", Spec: []byte("x")}
	now, index := dataflow.Time(0), uint64(0)
	round := func(why string, refused bool, times int) (told []string) { // it is offered so often, and that is rejected
		for range times {
			now, index = now.Add(3*dataflow.Second), index+1
			es := slices.Clone(f.Step(records, replication.Event{Now: now, Offer: &coordinator.Offer{Site: "a", Index: index, Jobs: []coordinator.OfferedJob{{Job: "j7-a", Epoch: 1, Text: text}}}}))
			if slices.ContainsFunc(es, func(e replication.Effect) bool { return e.Propose != nil && e.Propose.ReplicaOffered != nil }) {
				es = append(es, f.Step(records, replication.Event{Now: now, Rejected: &replication.Rejected{Job: "j7-a", Err: errors.New(why), Refused: refused}})...)
			}
			for _, e := range es {
				if e.Tell != "" {
					told = append(told, e.Tell)
				}
			}
		}
		return told
	}
	inTheWay := []string{"what site a offers of job j7-a is not kept here: it is in the way"}
	for _, c := range []struct {
		name, why string
		refused   bool
		times     int
		want      []string
	}{
		{"the log takes nothing", "it has no leader", false, 100, nil},
		{"a moment", "it is in the way", true, 1, nil},
		{"another moment", "it moves", true, 1, nil},
		{"a while", "it is in the way", true, 100, inTheWay},
		{"the log takes nothing again", "it has no leader", false, 100, nil},
		{"the same", "it is in the way", true, 100, nil},
		{"another reason", "there is no room", true, 100, []string{"what site a offers of job j7-a is not kept here: there is no room"}},
	} {
		if told := round(c.why, c.refused, c.times); !slices.Equal(told, c.want) {
			t.Errorf("%s: %q, want %q", c.name, told, c.want)
		}
	}
	kept = &coordinator.Replica{From: "a", Epoch: 1, Job: *text}
	round("", true, 1)
	kept = nil
	if told := round("there is no room", true, 100); len(told) != 1 {
		t.Errorf("it was kept meanwhile: %q", told)
	}
}

// A question may be passed over while another one is under way: the answer to that is none
// to the later one.
func TestAnAnswerIsToItsQuestion(t *testing.T) {
	record := replication.Record{Replica: &coordinator.Replica{From: "a", Epoch: 1, Job: coordinator.MovingJob{ID: "j7-a"}}, Settled: true}
	records := replication.Records{
		Of:   func(coordinator.JobID) replication.Record { return record },
		Kept: func() []coordinator.JobID { return []coordinator.JobID{"j7-a"} },
	}
	f := replication.NewFollower(replication.Config{}, "b", "a")
	step := func(second int, e replication.Event) (asked int64, dropped bool) {
		e.Now = dataflow.Time(second) * dataflow.Time(dataflow.Second)
		for _, effect := range f.Step(records, e) {
			if effect.Ask != nil {
				asked = effect.Ask.No
			}
			dropped = dropped || effect.Propose != nil && effect.Propose.ReplicaDropped != nil
		}
		return asked, dropped
	}
	offer := func(no int64, index uint64) replication.Event {
		return replication.Event{Asked: no, Offer: &coordinator.Offer{Site: "a", Index: index, Jobs: []coordinator.OfferedJob{{Job: "j7-a", Epoch: 1}}}}
	}
	first, _ := step(0, replication.Event{})
	record.Taken = "line3.at.a"
	step(1, replication.Event{Jobs: []coordinator.JobID{"j7-a"}})
	second, _ := step(16, replication.Event{})
	if second <= first {
		t.Fatalf("question %d comes after %d", second, first)
	}
	if _, dropped := step(40, offer(first, 20)); dropped {
		t.Error("dropped by the answer to a question of before the feed was taken")
	}
	third, _ := step(41, replication.Event{})
	if _, dropped := step(42, offer(third, 21)); !dropped {
		t.Error("its site has said since that it has the job, and it is kept")
	}
}
