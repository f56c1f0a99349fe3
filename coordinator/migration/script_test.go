package migration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// The scripts in testdata: a machine alone, each line a time in milliseconds and
// what happens then; its effects follow.
//
//	source · target · dry                      a new machine; source PHASE, target PHASE: with a record
//	0 newest c1 · 0 halted s1 [LAST] · 0 held · 0 ended WHY · 0 cancel
//	0 hears accepted [FETCHING] [offered] · refused WHY · got c1 BYTES MS LAG · prepared s1 · done active|dropped [forced] [FIRST HELD]
//	0 hears propose · newest c1 · offer s1 · handed-over · aborted · unknown · fenced
//	0 fits · 0 fits not WHY · 0 fetched c1 BYTES MS · 0 logs END LAG · 0 first · 0 force · 0 drop
//	0 record PHASE [forced] · 0 forgotten · 0 rejected WHY · 0 tick
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			if d.Cmd != "events" {
				s.make(d)
			}
			for line := range strings.Lines(d.Input) {
				s.line(d, strings.Fields(line))
			}
			fmt.Fprintf(&s.out, "wake %s\n", s.wake())
			return s.out.String()
		})
	})
}

type script struct {
	t   *testing.T
	src *Source
	dst *Target
	out strings.Builder
}

const scriptID = "m10-a"

func (s *script) make(d *datadriven.TestData) {
	job := coordinator.MovingJob{ID: "j1", Name: "job"}
	phase := ""
	if len(d.CmdArgs) > 0 {
		phase = d.CmdArgs[0].Key
	}
	s.src, s.dst = nil, nil
	switch d.Cmd {
	case "source":
		s.src = NewSource(Config{}, 0, departureIn(phase), job)
	case "dry":
		s.src = NewDryRun(Config{}, 0, "m0-a", "b", "a", 1, job, 9)
	case "target":
		s.dst = NewTarget(Config{}, 0, scriptID, arrivalIn(phase, false))
	}
}

func departureIn(phase string) *coordinator.Departure {
	d := &coordinator.Departure{ID: scriptID, Job: "j1", To: "b", Epoch: 1}
	for p := coordinator.DepartureCopying; p <= coordinator.DepartureFenced; p++ {
		if p.String() == phase {
			d.Phase = p
		}
	}
	if d.Phase >= coordinator.DepartureOffered {
		d.Savepoint, d.Ends = "s1", end
	}
	return d
}

func arrivalIn(phase string, forced bool) *coordinator.Arrival {
	for p := coordinator.ArrivalReceiving; p <= coordinator.ArrivalDropped; p++ {
		if p.String() == phase {
			a := &coordinator.Arrival{ID: scriptID, Job: coordinator.MovingJob{ID: "j1"}, From: "a", Epoch: 2, Phase: p, Forced: forced}
			if p == coordinator.ArrivalPrepared || p == coordinator.ArrivalActive {
				a.Savepoint = snapshot("s1")
			}
			return a
		}
	}
	return nil
}

func (s *script) wake() string {
	w := dataflow.MaxTime
	if s.src != nil {
		w = s.src.Wake()
	} else {
		w = s.dst.Wake()
	}
	if w == dataflow.MaxTime {
		return "never"
	}
	return fmt.Sprint(int64(w) / 1000)
}

// scriptSnapshot has a counter of the digits in its name, so that c2 is newer than
// c1.
func scriptSnapshot(name string) *coordinator.Snapshot {
	sn := snapshot(name)
	_, _ = fmt.Sscan(name[1:], &sn.ID.Counter)
	return sn
}

func (s *script) line(d *datadriven.TestData, f []string) {
	fmt.Fprintln(&s.out, strings.Join(f, " "))
	var ms int64
	_, _ = fmt.Sscan(f[0], &ms)
	e := s.event(d, append(f[1:], "", "", "", "", ""))
	e.Now = dataflow.Time(ms * 1000)
	var effects []Effect
	if s.src != nil {
		effects = s.src.Step(e)
	} else {
		effects = s.dst.Step(e)
	}
	for _, x := range effects {
		fmt.Fprintf(&s.out, "    %s\n", describeEffect(x))
	}
}

func number(text string) (n int64) {
	_, _ = fmt.Sscan(text, &n)
	return n
}

func (s *script) event(d *datadriven.TestData, f []string) (e Event) {
	rest := strings.TrimSpace(strings.Join(f[1:], " "))
	switch f[0] {
	case "tick":
	case "record":
		if s.src != nil {
			e.Record = &Record{Departure: departureIn(f[1])}
		} else {
			e.Record = &Record{Arrival: arrivalIn(f[1], f[2] == "forced")}
		}
	case "forgotten":
		e.Record = &Record{}
	case "rejected":
		e.Rejected = errors.New(rest)
	case "newest":
		e.Newest = &coordinator.MoveNewest{Snapshot: scriptSnapshot(f[1])}
	case "halted":
		e.Halted = &Halted{Savepoint: scriptSnapshot(f[1]), Last: dataflow.Time(number(f[2]) * 1000)}
	case "held":
		e.Held = &Held{end}
	case "ended":
		e.Ended = rest
	case "cancel":
		e.Cancel = &Wish{Ref: 7}
	case "fits":
		e.Checked = &Checked{Why: strings.TrimPrefix(rest, "not ")}
	case "fetched":
		e.Fetched = &Fetched{Snapshot: scriptSnapshot(f[1]), Bytes: number(f[2]), Took: dataflow.Duration(number(f[3]) * 1000)}
	case "logs":
		e.Logs = &Logs{Ends: []coordinator.FeedEnd{{Feed: "j1.in", End: number(f[1])}}, Lag: number(f[2])}
	case "first":
		e.First = true
	case "force":
		e.Force = &Wish{Ref: 8}
	case "drop":
		e.Drop = &Wish{Ref: 8}
	case "hears":
		if s.src != nil {
			e.FromTarget = toSource(s.src.id, f[1:])
		} else {
			e.FromSource = toTarget(f[1:])
		}
	default:
		d.Fatalf(s.t, "unknown line %q", f)
	}
	return e
}

func toSource(id coordinator.MoveID, f []string) *coordinator.ToSource {
	m := &coordinator.ToSource{Move: id}
	switch f[0] {
	case "accepted":
		m.Accepted = &coordinator.MoveAccepted{Fetching: f[1], Offered: f[2] == "offered"}
	case "refused":
		m.Refused = &coordinator.MoveRefused{Why: strings.TrimSpace(strings.Join(f[1:], " "))}
	case "got":
		m.Got = &coordinator.MoveGot{Snapshot: f[1], Bytes: number(f[2]), Took: dataflow.Duration(number(f[3]) * 1000), Lag: number(f[4])}
	case "prepared":
		m.Prepared = &coordinator.MovePrepared{Savepoint: f[1]}
	case "done":
		m.Done = &coordinator.MoveDone{Job: "j1", Epoch: 2}
		if a := arrivalIn(f[1], false); a != nil {
			m.Done.Phase = a.Phase
		}
		if f = f[2:]; f[0] == "forced" {
			m.Done.Forced, f = true, f[1:]
		}
		m.Done.First, m.Done.Held = dataflow.Duration(number(f[0])*1000), dataflow.Duration(number(f[1])*1000)
	}
	return m
}

func toTarget(f []string) *coordinator.ToTarget {
	m := &coordinator.ToTarget{Move: scriptID}
	switch f[0] {
	case "propose":
		m.Propose = &coordinator.MovePropose{Job: coordinator.MovingJob{ID: "j1", Name: "job"}, From: "a", Epoch: 2, Newest: scriptSnapshot("c1"), Dry: f[1] == "dry"}
	case "newest":
		m.Newest = &coordinator.MoveNewest{Snapshot: scriptSnapshot(f[1])}
	case "offer":
		m.Offer = &coordinator.MoveOffer{Savepoint: scriptSnapshot(f[1]), Ends: end}
	}
	for v := coordinator.DecisionHandedOver; v <= coordinator.DecisionFenced; v++ {
		if v.String() == f[0] {
			m.Verdict = v
		}
	}
	return m
}

func describeEffect(e Effect) string {
	switch {
	case e.Propose != nil:
		return "log: " + describeCommand(e.Propose)
	case e.Send != nil && e.Send.Target != nil:
		return "say: " + describeToTarget(e.Send.Target)
	case e.Send != nil:
		return "say: " + describeToSource(e.Send.Source)
	case e.Answer != nil && e.Answer.Err != nil:
		return fmt.Sprintf("answer %d: %v", e.Answer.Ref, e.Answer.Err)
	case e.Answer != nil:
		return fmt.Sprintf("answer %d: yes", e.Answer.Ref)
	case e.Tell != nil:
		return "tell: " + describeProgress(e.Tell)
	case e.Checkpoint:
		return "take a checkpoint"
	case e.Check != nil:
		return "check it"
	case e.Fetch != nil:
		return "fetch " + e.Fetch.Name
	}
	return "over"
}
