package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// warmBench has a job on its way here, of which a checkpoint was fetched.
func warmBench(t *testing.T) (*bench, func(name string, nodes ...string) Event) {
	b := newBench(t)
	b.connect()
	b.st.Level = coordinator.SitesLevel
	b.st.Moves.Arrivals = map[coordinator.MoveID]*coordinator.Arrival{"m40-b": {ID: "m40-b", From: "b", Epoch: 2, Phase: coordinator.ArrivalReceiving, Job: coordinator.MovingJob{ID: "j"}}}
	b.fetched("c1")
	b.step(Event{State: true}, "kept j1")
	return b, func(name string, nodes ...string) Event {
		m := &coordinator.Warm{Index: b.st.Index, Move: "m40-b", Job: "j", Name: name}
		for i := range nodes {
			m.Places = append(m.Places, coordinator.Place{Subtask: dataflow.SubtaskID{Task: "in", Index: i}, Node: "n1"})
		}
		return b.tell(5, coordinator.ToAgent{Warm: m})
	}
}

func (b *bench) fetched(name string) {
	b.st.Replicas = map[coordinator.JobID]*coordinator.Replica{"j": {Moving: "m40-b", Snapshot: &coordinator.Snapshot{Name: name, Job: "j"}}}
	b.st.Index++
}

func (b *bench) arrival(p coordinator.ArrivalPhase) {
	arr := *b.st.Moves.Arrivals["m40-b"]
	arr.Phase = p
	b.st.Moves.Arrivals["m40-b"] = &arr
	b.st.Index++
}

// came: the job is here, and waits to be deployed.
func (b *bench) came() {
	b.arrival(coordinator.ArrivalActive)
	b.job(4, coordinator.Created)
	b.st.Jobs["j"].Places = nil
}

// What is restored early goes on from one snapshot to the next, and is taken by
// the attempt.
func TestWarm(t *testing.T) {
	b, warm := warmBench(t)
	b.step(warm("c1", "n1"), "warm c1 of j at 1")
	b.step(Event{State: true})
	b.fetched("c2")
	b.step(Event{State: true}, "kept j1")
	b.step(warm("c2", "n1"), "warm c2 of j at 1")
	b.step(warm("c2", "n1"), "warm c2 of j at 1") // the executor has it: nothing happens there
	b.arrival(coordinator.ArrivalPrepared)
	b.step(Event{State: true})
	b.came()
	b.step(Event{State: true})
	b.job(5, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/5")
	delete(b.st.Moves.Arrivals, "m40-b")
	b.step(Event{State: true})
}

// A message that is ahead of the state here waits for it; what the state then says
// counts.
func TestWarmWaits(t *testing.T) {
	b, warm := warmBench(t)
	e := warm("c2", "n1")
	e.Message.Warm.Index++
	b.step(e)
	b.step(Event{State: true})
	b.fetched("c2")
	b.step(Event{State: true}, "kept j1", "warm c2 of j at 1")
	b.step(warm("c3", "n1")) // nothing is kept of that name
	b.arrival(coordinator.ArrivalDropped)
	b.step(Event{State: true}, "cool j")
	b.step(warm("c2", "n1"))
	delete(b.st.Moves.Arrivals, "m40-b")
	e = warm("c2", "n1") // of a move that is over
	b.step(e)
}

// It is let go when the job comes to others, or to nobody, and when another one
// leads.
func TestCool(t *testing.T) {
	for what, f := range map[string]func(b *bench, warm func(string, ...string) Event){
		"it is dropped": func(b *bench, _ func(string, ...string) Event) {
			b.arrival(coordinator.ArrivalDropped)
			b.step(Event{State: true}, "cool j")
		},
		"it is forgotten": func(b *bench, _ func(string, ...string) Event) {
			delete(b.st.Moves.Arrivals, "m40-b")
			b.step(Event{State: true}, "cool j")
		},
		"it comes to another agent": func(b *bench, _ func(string, ...string) Event) {
			b.arrival(coordinator.ArrivalActive)
			b.job(5, coordinator.Restoring)
			b.st.Jobs["j"].Places[0].Node = "n2"
			b.step(Event{State: true}, "cool j")
		},
		"it was cancelled": func(b *bench, _ func(string, ...string) Event) {
			b.arrival(coordinator.ArrivalActive)
			b.job(4, coordinator.Cancelled)
			b.step(Event{State: true}, "cool j")
		},
		"slots are needed": func(b *bench, warm func(string, ...string) Event) { b.step(warm(""), "cool j") },
		"another one leads": func(b *bench, _ func(string, ...string) Event) {
			b.step(b.tell(6, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 9}}), "cool j")
		},
		"the attempt was over before it began": func(b *bench, _ func(string, ...string) Event) {
			b.came()
			b.step(b.tell(5, coordinator.ToAgent{Over: &coordinator.Over{AttemptRef: b.ref(5)}}), "failed ")
			b.job(5, coordinator.Restoring)
			b.step(Event{State: true}, "cool j")
		},
	} {
		t.Run(what, func(t *testing.T) {
			b, warm := warmBench(t)
			b.step(warm("c1", "n1"), "warm c1 of j at 1")
			f(b, warm)
			b.step(Event{State: true})
			if len(b.w.warms) > 0 {
				t.Error("something is left of it")
			}
		})
	}
}

// While an attempt of before still ends here, what is restored early stays.
func TestWarmBehindAnAttempt(t *testing.T) {
	b, warm := warmBench(t)
	b.job(3, coordinator.Restoring)
	b.step(Event{State: true}, "prepare j/3")
	b.job(3, coordinator.Moved)
	b.step(Event{State: true}, "close j/3")
	b.step(warm("c1", "n1"), "warm c1 of j at 1")
	b.arrival(coordinator.ArrivalActive)
	b.job(5, coordinator.Restoring)
	b.step(Event{State: true})
	ref := b.ref(3)
	b.step(Event{Attempt: &AttemptEvent{Closed: &ref}}, "failed ", "prepare j/5")
}
