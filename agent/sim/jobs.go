package sim

import (
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// job is one that runs, and what its rows must be.
type job struct {
	name     string
	spec     string
	topic    world.Topic
	files    map[string]judge.Oracle // by the path of a sink
	outside  judge.Oracle            // of what it publishes; nil: nothing
	rescaled bool                    // its parallelism changes while faults come
	bounded  bool                    // its input ends while faults come, and with it the job
	stopped  bool                    // it is stopped with a savepoint, and not yet submitted anew
}

const (
	head = `
parallelism: 2
checkpoint: {interval: 700ms, timeout: 3s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
`
	countsSource = `sources: {in: {mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
`
)

// counts says with each row how many messages of its key there were, so that any
// message that is counted twice or not at all shows; its files are exactly once.
func counts() *job {
	return &job{name: "counts", topic: world.Counts, files: map[string]judge.Oracle{"out.jsonl": judge.Counted},
		spec: "name: counts" + head + countsSource + `sinks: [{id: out, from: a, file: {path: out.jsonl}}]`}
}

// publish says the same to a broker, which knows no tokens.
func publish() *job {
	return &job{name: "publish", topic: world.Counts, outside: judge.Counted,
		spec: "name: publish" + strings.Replace(head, "700ms", "900ms", 1) + countsSource + `sinks: [{id: out, from: a, mqtt: {broker: "mqtt://h", topic: results}}]`}
}

// windows counts in windows of event time, over a keyed exchange. With one lane
// the log decides which rows are late, whoever reads it.
func windows() *job {
	return &job{name: "windows", topic: world.Timed, files: map[string]judge.Oracle{"windows.jsonl": judge.Fired, "late.jsonl": judge.Late},
		spec: "name: windows" + head + `sources:
  in:
    mqtt: {broker: "mqtt://h", topics: [w], lanes: 1}
    format: json
    fields: {key: string, id: bigint, at: {type: timestamp, unit: ms}}
    event_time: at
    watermark: {bounded: 200ms}
steps: [{id: w, from: in, key_by: [key], window: {tumbling: 1s}, select: {n: count(*), id: max(id)}}]
sinks:
- {id: out, from: w, file: {path: windows.jsonl, timestamps: ms}}
- {id: late, from: w.late, file: {path: late.jsonl, timestamps: ms}}
`}
}

// file is windows over a file: the job ends with it.
func file() *job {
	j := &job{name: "file", bounded: true, files: map[string]judge.Oracle{"ended.jsonl": judge.FiredAtEnd, "endedlate.jsonl": judge.LateOfFile}}
	w := windows().spec
	for _, r := range [][2]string{{"name: windows", "name: file"}, {`mqtt: {broker: "mqtt://h", topics: [w], lanes: 1}`, "file: {path: in.jsonl}"},
		{"windows.jsonl", "ended.jsonl"}, {"late.jsonl", "endedlate.jsonl"}} {
		w = strings.Replace(w, r[0], r[1], 1)
	}
	j.spec = w
	return j
}

// feeds of a job's source, as agent/feed would write them, as far as others read
// them.
func (j *job) feeds() []coordinator.Feed {
	if j.bounded {
		return nil
	}
	return []coordinator.Feed{{Name: "in", Config: fmt.Appendf(nil, `{"lanes":%d,"topic":%q}`, j.topic.Lanes(), j.topic)}}
}

// Plans of runs: which jobs, and what happens to them besides faults.
const (
	PlanPlain   = "plain"   // counts, publish
	PlanWindows = "windows" // windows, publish
	PlanRescale = "rescale" // counts, windows; both are rescaled
	PlanAgain   = "again"   // counts, windows; both are stopped, and submitted anew from their savepoints
	PlanFile    = "file"    // file, publish
	// PlanSplit is publish, placed on one agent as long as there is nothing else, and
	// counts. No faults come but one: the leader and that agent are cut off from the
	// others, for longer than these wait for anybody.
	PlanSplit = "split"
)

// planOf is the plan of a seed. Every second one is plain.
func planOf(seed uint64) string {
	if seed%2 == 0 {
		return PlanPlain
	}
	return [...]string{PlanWindows, PlanRescale, PlanAgain, PlanFile}[(seed/2+seed/8)%4]
}

func jobsOf(plan string) []*job {
	switch plan {
	case PlanSplit:
		return []*job{publish(), counts()}
	case PlanWindows:
		return []*job{windows(), publish()}
	case PlanFile:
		return []*job{file(), publish()}
	case PlanAgain:
		c, w := counts(), windows()
		c.stopped, w.stopped = true, true
		return []*job{c, w}
	case PlanRescale:
		c, w := counts(), windows()
		c.rescaled, w.rescaled = true, true
		return []*job{c, w}
	}
	return []*job{counts(), publish()}
}
