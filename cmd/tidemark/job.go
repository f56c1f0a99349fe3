package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/dataflow/graph"
)

func newJob(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "job",
		Short:   "Look at jobs",
		Example: "  tidemark job check my-job.yaml\n  tidemark job explain my-job.yaml --dot | dot -Tsvg > job.svg",
		Args:    knownVerb,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newJobCheck(t), newJobExplain(t), newJobList(t), newJobStop(t))
	return cmd
}

func newJobCheck(t *terminal) *cobra.Command {
	var load loadFlags
	cmd := &cobra.Command{
		Use:     "check JOB.yaml",
		Short:   "The dry run: every error of a job at once; starts nothing",
		Example: "  tidemark job check configs/cold-chain.yaml",
		Args:    jobFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			j, err := load.load(cmd.Context(), t, args[0])
			if err != nil {
				return err
			}
			if err := refuseNotYet(t, j, true); err != nil {
				return err
			}
			jg := graph.Chain(j.Graph, graph.Options{})
			if t.json() {
				return json.NewEncoder(t.out).Encode(map[string]any{
					"job": j.Name, "ok": true, "operators": len(j.Graph.Nodes), "tasks": jg.Subtasks(), "slots": jg.Slots(),
				})
			}
			_, err = fmt.Fprintf(t.out, "%s: ok: job %q, %d operators in %d tasks, %d slots\n", args[0], j.Name, len(j.Graph.Nodes), jg.Subtasks(), jg.Slots())
			return err
		},
	}
	load.register(cmd)
	return cmd
}

func newJobExplain(t *terminal) *cobra.Command {
	var load loadFlags
	var dot bool
	cmd := &cobra.Command{
		Use:     "explain JOB.yaml",
		Short:   "Print a job's stream graph, job graph (chains) and execution graph",
		Example: "  tidemark job explain configs/wordcount.yaml\n  tidemark job explain configs/wordcount.yaml --dot",
		Args:    jobFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dot && t.json() {
				return usageError{errors.New("--dot and --output json: one or the other")}
			}
			j, err := load.load(cmd.Context(), t, args[0])
			if err != nil {
				return err
			}
			x := graph.Expand(graph.Chain(j.Graph, graph.Options{}))
			switch {
			case dot:
				return graph.Dot(t.out, x)
			case t.json():
				return json.NewEncoder(t.out).Encode(describeGraphs(x))
			}
			return graph.Explain(t.out, x)
		},
	}
	load.register(cmd)
	cmd.Flags().BoolVar(&dot, "dot", false, "print the graphs in Graphviz' language")
	return cmd
}

// describeGraphs is the three graphs as explain prints them in JSON.
func describeGraphs(x *graph.ExecutionGraph) any {
	type operator struct {
		ID          string   `json:"id"`
		Role        string   `json:"role"`
		Does        string   `json:"does"`
		Parallelism int      `json:"parallelism"`
		From        []string `json:"from,omitempty"`
		Exchange    []string `json:"exchange,omitempty"`
		Columns     string   `json:"columns,omitempty"`
		Kind        string   `json:"kind"`
	}
	type task struct {
		ID          string   `json:"id"`
		Chain       []string `json:"chain"`
		Parallelism int      `json:"parallelism"`
		SlotGroup   string   `json:"slot_group"`
	}
	type subtask struct {
		ID        string `json:"id"`
		KeyGroups [2]int `json:"key_groups"`
	}
	out := struct {
		Job         string     `json:"job"`
		StreamGraph []operator `json:"stream_graph"`
		JobGraph    []task     `json:"job_graph"`
		Execution   []subtask  `json:"execution_graph"`
		Channels    int        `json:"channels"`
		Slots       int        `json:"slots"`
	}{Job: x.Job.Stream.Job, Channels: x.Channels(), Slots: x.Job.Slots()}
	for _, n := range x.Job.Stream.Nodes {
		o := operator{ID: string(n.ID), Role: n.Role.String(), Does: n.Describe, Parallelism: n.Parallelism, Kind: n.Kind.String()}
		if n.Output != nil {
			o.Columns = n.Output.String()
		}
		for _, e := range n.Inputs {
			o.From, o.Exchange = append(o.From, e.Stream()), append(o.Exchange, e.Exchange.String())
		}
		out.StreamGraph = append(out.StreamGraph, o)
	}
	for _, t := range x.Job.Tasks {
		v := task{ID: string(t.ID), Parallelism: t.Parallelism, SlotGroup: t.SlotGroup}
		for _, l := range t.Links {
			v.Chain = append(v.Chain, string(l.Node.ID))
		}
		out.JobGraph = append(out.JobGraph, v)
	}
	for _, s := range x.Subtasks {
		out.Execution = append(out.Execution, subtask{s.ID.String(), [2]int{int(s.KeyGroups.First), int(s.KeyGroups.Last)}})
	}
	return out
}
