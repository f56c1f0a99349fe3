package checkpoint

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

var token = dataflow.FencingToken{Attempt: 3}

func idOf(n uint64) dataflow.CheckpointID { return dataflow.CheckpointID{Token: token, Counter: n} }

func subtask(name string) dataflow.SubtaskID {
	task, n, _ := strings.Cut(name, "/")
	id := dataflow.SubtaskID{Task: dataflow.TaskID(task)}
	_, _ = fmt.Sscan(n, &id.Index)
	return id
}

// The scripts in testdata: a line is a time in milliseconds and an event; its
// effects follow it.
//
//	new interval=1000 min-pause=500 timeout=600 tolerable=2 retain=2 kept=(a,b) full whole drained counter=4
//	0 tick
//	5 stored 1 src/0 · 5 all 1 (the shares of everybody) · 5 failed 1 io [lost] · 5 written 1
//	5 exhausted src/0 · 5 committed 1 sink/0 · 5 request 7 go on
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var c *Coordinator
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				c = newFromScript(t, d)
				return fmt.Sprintf("wake %s\n", clock(c.Wake()))
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSpace(line)
				fmt.Fprintln(&out, line)
				for _, e := range parseEvents(t, d, c, line) {
					for _, f := range c.Step(e) {
						fmt.Fprintf(&out, "    %s\n", describe(f))
					}
				}
			}
			fmt.Fprintf(&out, "wake %s\n", clock(c.Wake()))
			return out.String()
		})
	})
}

func newFromScript(t *testing.T, d *datadriven.TestData) *Coordinator {
	cfg := Config{Token: token, Retain: 2, Subtasks: []dataflow.SubtaskID{subtask("src/0"), subtask("sink/0")}, Sources: []dataflow.SubtaskID{subtask("src/0")}}
	ms := func(key string) dataflow.Duration {
		n := 0
		d.MaybeScanArgs(t, key, &n)
		return dataflow.Duration(n) * dataflow.Millisecond
	}
	cfg.Interval, cfg.MinPause, cfg.Timeout = ms("interval"), ms("min-pause"), ms("timeout")
	d.MaybeScanArgs(t, "tolerable", &cfg.Tolerable)
	d.MaybeScanArgs(t, "retain", &cfg.Retain)
	d.MaybeScanArgs(t, "kept", &cfg.Kept)
	cfg.Full, cfg.Whole, cfg.Drained = d.HasArg("full"), d.HasArg("whole"), d.HasArg("drained")
	if d.HasArg("counter") {
		n := 0
		d.ScanArgs(t, "counter", &n)
		cfg.Counter = uint64(n)
	}
	if d.HasArg("committer") {
		cfg.Committers = []dataflow.SubtaskID{subtask("sink/0")}
	}
	return New(cfg)
}

func parseEvents(t *testing.T, d *datadriven.TestData, c *Coordinator, line string) []Event {
	f := strings.Fields(line)
	var ms int64
	var n uint64
	_, _ = fmt.Sscan(f[0], &ms)
	if len(f) > 2 {
		_, _ = fmt.Sscan(f[2], &n)
	}
	e := Event{Now: dataflow.Time(ms * 1000), ID: idOf(n)}
	switch f[1] {
	case "tick":
		e.Kind = Tick
	case "stored":
		e.Kind, e.Subtask = Stored, subtask(f[3])
	case "all":
		e.Kind = Stored
		var events []Event
		for _, s := range c.cfg.Subtasks {
			e.Subtask = s
			events = append(events, e)
		}
		return events
	case "failed":
		e.Kind, e.Err, e.Lost = Failed, errors.New("told so"), len(f) > 4
		for k, name := range failureNames {
			if name == f[3] {
				e.Failure = Failure(k)
			}
		}
	case "written":
		e.Kind = Written
	case "exhausted":
		e.Kind, e.Subtask = Exhausted, subtask(f[2])
	case "committed":
		e.Kind, e.Subtask = Committed, subtask(f[3])
	case "request":
		e.Kind, e.Request.Ref = Requested, int(n)
		for _, then := range []dataflow.Then{dataflow.Halt, dataflow.Drain} {
			if f[3] == then.String() {
				e.Request.Then = then
			}
		}
	default:
		d.Fatalf(t, "unknown line %q", line)
	}
	return []Event{e}
}

func clock(t dataflow.Time) string {
	switch t {
	case dataflow.MaxTime:
		return "never"
	case dataflow.MinTime:
		return "now"
	}
	return fmt.Sprint(int64(t) / 1000)
}

func describe(e Effect) string {
	flags := func(s string, on ...any) string {
		for i := 0; i < len(on); i += 2 {
			if on[i+1].(bool) {
				s += " " + on[i].(string)
			}
		}
		return s
	}
	switch e.Kind {
	case Trigger:
		return flags(fmt.Sprintf("trigger %d", e.Barrier.ID.Counter), "full", e.Barrier.Full, "halt", e.Barrier.Then == dataflow.Halt, "drain", e.Barrier.Then == dataflow.Drain)
	case Write:
		return flags(fmt.Sprintf("write %d:", e.ID.Counter), "checkpoint", e.What.Checkpoint, "savepoint", e.What.Savepoint, "finished", e.What.Finished, "drained", e.What.Drained)
	case Complete:
		return fmt.Sprintf("complete %d", e.ID.Counter)
	case Abort:
		return fmt.Sprintf("abort %d %s: %v", e.ID.Counter, e.Failure, e.Err)
	case Release:
		return "release " + e.Name
	case Answer:
		if e.Err != nil {
			return fmt.Sprintf("answer %d: %v", e.Ref, e.Err)
		}
		return fmt.Sprintf("answer %d: %s", e.Ref, Name(e.ID))
	case Fail:
		return fmt.Sprintf("fail: %v", e.Err)
	}
	return "stop"
}

// Whatever happens in whatever order: one checkpoint at a time, ids only grow,
// what completes was written, what was written had everybody's share, what a
// later barrier builds on was collected, each request is answered once, and
// after the end there is silence.
func TestNeverTwoAtATime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		subtasks := []dataflow.SubtaskID{subtask("a/0"), subtask("a/1"), subtask("b/0")}
		cfg := Config{
			Token: token, Interval: 100, Retain: rapid.IntRange(1, 3).Draw(t, "retain"), Subtasks: subtasks, Sources: subtasks[:2],
			Timeout: dataflow.Duration(rapid.SampledFrom([]int{0, 150}).Draw(t, "timeout")), Tolerable: rapid.IntRange(0, 3).Draw(t, "tolerable"),
			MinPause: dataflow.Duration(rapid.IntRange(0, 200).Draw(t, "pause")),
		}
		if rapid.Bool().Draw(t, "commits") {
			cfg.Committers = subtasks[2:]
		}
		cfg.Drained = rapid.Bool().Draw(t, "drained")
		m := &model{t: t, cfg: cfg, c: New(cfg), open: map[int]bool{}, stored: map[dataflow.SubtaskID]bool{}}
		for range rapid.IntRange(1, 120).Draw(t, "events") {
			m.step(m.draw())
		}
	})
}

// model keeps what a Coordinator has said, and judges the next thing it says.
type model struct {
	t       *rapid.T
	cfg     Config
	c       *Coordinator
	now     dataflow.Time
	last    uint64 // counter of the last barrier
	open    map[int]bool
	refs    int
	flight  dataflow.Barrier // zero counter: none
	writing bool
	wrote   uint64
	stored  map[dataflow.SubtaskID]bool
	lost    bool // since the last full one was collected
	ended   bool
	visible int
}

func (m *model) draw() Event {
	m.now += dataflow.Time(rapid.IntRange(0, 80).Draw(m.t, "wait"))
	e := Event{Now: m.now, Kind: EventKind(rapid.IntRange(int(Tick), int(Committed)).Draw(m.t, "kind")), Subtask: rapid.SampledFrom(m.cfg.Subtasks).Draw(m.t, "subtask"), Err: errors.New("x")}
	e.ID = idOf(m.last - min(m.last, uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(m.t, "old"))))
	switch e.Kind {
	case Requested:
		m.refs++
		e.Request = Request{Ref: m.refs, Then: dataflow.Then(rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(m.t, "then"))}
		m.open[m.refs] = true
	case Failed:
		e.Failure = Failure(rapid.IntRange(int(Expired), int(Short)).Draw(m.t, "failure"))
		e.Lost = e.Failure == Async
		m.lost = m.lost || e.Lost || e.Failure == Declined
	case Stored:
		if m.flight.ID == e.ID {
			m.stored[e.Subtask] = true
		}
		if len(m.stored) == len(m.cfg.Subtasks) && m.flight.Full && !m.writing {
			m.lost = false
		}
	case Written:
		if !m.writing {
			e.Kind = Tick
		}
	case Exhausted:
		e.Subtask = rapid.SampledFrom(m.cfg.Sources).Draw(m.t, "source")
	}
	return e
}

func (m *model) step(e Event) {
	for _, f := range m.c.Step(e) {
		if m.ended && f.Kind != Answer {
			m.t.Fatalf("%s after the end", describe(f))
		}
		m.judge(f)
	}
	if m.ended && len(m.open) > 0 {
		m.t.Fatalf("the end, and %d requests were not answered", len(m.open))
	}
	// Who sleeps until then misses nothing: time alone changes nothing before.
	if w := m.c.Wake(); !m.ended && w > m.now {
		if f := m.c.Step(Event{Kind: Tick, Now: min(w-1, m.now+1000)}); len(f) > 0 {
			m.t.Fatalf("%s at %d, though it wanted to sleep until %d", describe(f[0]), m.now, w)
		}
	}
}

func (m *model) judge(f Effect) {
	t := m.t
	switch f.Kind {
	case Trigger:
		switch {
		case m.flight.ID.Counter != 0:
			t.Fatalf("%s while %d is under way", describe(f), m.flight.ID.Counter)
		case f.Barrier.ID.Counter <= m.last:
			t.Fatalf("%s: the id was used before", describe(f))
		case m.lost && !f.Barrier.Full:
			t.Fatalf("%s builds on rows that are lost", describe(f))
		case !m.lost && f.Barrier.Full:
			t.Fatalf("%s makes tasks write what is on disk", describe(f))
		}
		m.flight, m.last = f.Barrier, f.Barrier.ID.Counter
		clear(m.stored)
	case Write:
		if f.ID != m.flight.ID || len(m.stored) != len(m.cfg.Subtasks) {
			t.Fatalf("%s with %d shares of %v", describe(f), len(m.stored), m.flight)
		}
		m.writing = true
	case Complete:
		if f.ID != m.flight.ID || !m.writing || f.ID.Counter <= m.wrote {
			t.Fatalf("%s, which was not written", describe(f))
		}
		m.wrote = f.ID.Counter
		m.visible++
		m.flight, m.writing = dataflow.Barrier{}, false
	case Abort:
		m.flight, m.writing = dataflow.Barrier{}, false
	case Release:
		if m.visible--; m.visible < m.cfg.Retain {
			t.Fatalf("%s leaves %d", describe(f), m.visible)
		}
	case Answer:
		if !m.open[f.Ref] {
			t.Fatalf("%s, twice or unasked", describe(f))
		}
		delete(m.open, f.Ref)
		if f.Err == nil && f.ID == m.flight.ID { // a savepoint of a job that goes on completes nothing
			m.flight, m.writing = dataflow.Barrier{}, false
		}
	case Fail, Stop:
		m.ended = true
	}
}
