package sim

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// The jobs that run. Each row of the first says how many messages of its key
// there were, so that any message that is counted twice or not at all shows; its
// files are exactly once. The second publishes the same to a broker, which knows
// no tokens.
const (
	countsSpec = `
name: counts
parallelism: 2
checkpoint: {interval: 700ms, timeout: 3s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
sinks: [{id: out, from: a, file: {path: out.jsonl}}]
`
	publishSpec = `
name: publish
parallelism: 2
checkpoint: {interval: 900ms, timeout: 3s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
sinks: [{id: out, from: a, mqtt: {broker: "mqtt://h", topic: results}}]
`
)

// feedConfig is what agent/feed would write of it, as far as the leader reads it.
const feedConfig = `{"lanes":2}`

// spec is a job's text, read.
type spec struct {
	job    *job.Job
	graph  *graph.ExecutionGraph
	tables []runtime.TableOf
	at     map[dataflow.SubtaskID][]runtime.TableOf // in the order in which they are restored
	par    map[dataflow.OperatorID]int
	task   map[dataflow.OperatorID]dataflow.TaskID
}

// specOf reads a job, once for each parallelism.
func (w *World) specOf(j *coordinator.Job) (*spec, error) {
	key := fmt.Sprintf("%s %d %s", j.Name, j.Parallelism, j.Spec)
	if s := w.parsed[key]; s != nil {
		return s, nil
	}
	loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets, Parallelism: j.Parallelism})
	if err != nil {
		return nil, err
	}
	s := &spec{job: loaded, graph: graph.Expand(graph.Chain(loaded.Graph, graph.Options{})), at: make(map[dataflow.SubtaskID][]runtime.TableOf),
		par: make(map[dataflow.OperatorID]int), task: make(map[dataflow.OperatorID]dataflow.TaskID)}
	plan, err := runtime.NewPlan(s.graph, nowhere{})
	if err != nil {
		return nil, err
	}
	s.tables = runtime.New(plan, runtime.Options{}).Tables()
	for i := range s.graph.Subtasks {
		st := &s.graph.Subtasks[i]
		here := make(map[dataflow.OperatorID]bool)
		for _, l := range st.Task.Links {
			s.par[l.Node.ID], s.task[l.Node.ID], here[l.Node.ID] = st.Task.Parallelism, st.ID.Task, true
		}
		for _, t := range s.tables {
			if here[t.Operator] {
				s.at[st.ID] = append(s.at[st.ID], t)
			}
		}
	}
	w.parsed[key] = s
	return s, nil
}

// tablesOf are the tables of an operator.
func (s *spec) tablesOf(id dataflow.OperatorID) (all []operator.StateTable) {
	for _, t := range s.tables {
		if t.Operator == id {
			all = append(all, t.StateTable)
		}
	}
	return all
}

// sourceConfig is the head of a source's task, as agent/connect makes it.
func sourceConfig(s *job.Source) *task.SourceConfig {
	cfg := &task.SourceConfig{
		Schema: s.Columns, Rejected: s.Side(operator.Rejected), NoRoom: decode.ErrNoRoom, Time: s.Time.Config, EventAt: s.Time.EventAt,
		DeviceAt: s.Time.DeviceAt, Arrival: s.Time.Arrival, When: s.Time.When, At: s.Time.At,
	}
	if d := s.Dedupe; d != nil {
		cfg.Dedupe = &dedupe.Config{By: d.By, Within: d.Within, Entries: d.Entries}
	}
	if cfg.EventAt < 0 {
		cfg.Time.Strategy = eventtime.Ingestion
	}
	cfg.Decoder = func() (task.Decoder, error) { return decode.New(s.Decode, s.Columns) }
	return cfg
}

// laneReader reads a subtask's lanes of a feed that is owned here, up to what all
// members have.
type laneReader struct {
	o      *owner
	lanes  []int
	offset []int64 // the next entry of each lane, counted in the lane
	at     int64   // the entry of the log that is looked at next
	seen   []int64 // so many of each lane are before it
	sub    *subtask
	lost   string
}

// reader makes a reader of the lanes of a subtask; nil: the feed is not owned here
// yet.
func (s *feeds) reader(feed string, subtask, parallelism int) *laneReader {
	o := s.owned[feed]
	if o == nil {
		return nil
	}
	r := &laneReader{o: o}
	for l := subtask; l < lanes; l += parallelism {
		r.lanes = append(r.lanes, l)
	}
	r.offset, r.seen = make([]int64, len(r.lanes)), make([]int64, len(r.lanes))
	o.readers = append(o.readers, r)
	return r
}

func (r *laneReader) wake() {
	if r.sub != nil {
		r.sub.wake()
	}
}

func (r *laneReader) lose(why string) {
	r.lost = why
	r.wake()
}

// read takes the next records of one lane; false: there are none.
func (r *laneReader) read(out *sensors.Records, most int) bool {
	split := -1
	for r.at < r.o.shown {
		e := &r.o.log.entries[r.at]
		k := -1
		for i, l := range r.lanes {
			if l == e.lane {
				k = i
			}
		}
		switch {
		case k < 0:
		case r.seen[k] < r.offset[k]: // it was read before
			r.seen[k]++
		case split >= 0 && (k != split || out.Len() >= most):
			return true
		default:
			if split < 0 {
				split = k
				out.Reset(k)
				out.First = r.offset[k]
			}
			out.AppendMessage([]byte("t"), []byte(payload(e.message)), int64(e.arrival))
			r.seen[k]++
			r.offset[k]++
			out.Next, out.Clock = r.offset[k], int64(e.arrival)
		}
		r.at++
	}
	return split >= 0
}
