package work

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
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

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
func (w *Setting) specOf(j *coordinator.Job) (*spec, error) {
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
