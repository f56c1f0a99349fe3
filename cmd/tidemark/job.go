package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

func newJob(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Check, run, look at and stop jobs",
		Example: "  tidemark job check my-job.yaml\n  tidemark job explain my-job.yaml --dot | dot -Tsvg > job.svg\n  tidemark job submit my-job.yaml\n" +
			"  tidemark job watch cold-chain\n  tidemark job stop cold-chain",
		Args: knownVerb,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newJobCheck(t), newJobExplain(t), newJobSubmit(t), newJobList(t), newJobShow(t), newJobWatch(t),
		newJobStop(t), newJobCancel(t), newJobRescale(t), newJobMigrate(t), newJobFailover(t), newJobForget(t))
	return cmd
}

func newJobCheck(t *terminal) *cobra.Command {
	var load loadFlags
	var against against
	cmd := &cobra.Command{
		Use:   "check JOB.yaml",
		Short: "The dry run: every error of a job at once; starts nothing",
		Long: `Checks a job and prints every error at once. It starts and stops nothing.

With --against it also says what becomes of the state in a savepoint if the job
is started from it, whether every part of the savepoint can be read, and whether
the job's files and brokers are there. Exit code 1 if it would not work.

The savepoint is one of a state folder, or a file, or else of the mesh; files and
brokers are not looked at then, since they are on the agents' machines.`,
		Example: "  tidemark job check configs/cold-chain.yaml\n  tidemark job check new.yaml --against sp-2f9c41d0 --state state\n" +
			"  tidemark job check new.yaml --against cold-chain --state state --parallelism 4\n  tidemark job check new.yaml --against cold-chain.savepoint\n  tidemark job check new.yaml --against cold-chain",
		Args: jobFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if against.allowNonRestored && against.savepoint == "" {
				return usageError{errors.New("--allow-non-restored wants --against: the savepoint that the job would be started from")}
			}
			j, err := load.load(cmd.Context(), t, args[0])
			if err != nil {
				return err
			}
			if err := refuseNotYet(t, j, true); err != nil {
				return err
			}
			if against.savepoint != "" {
				c, err := against.place.agent(against.savepoint)
				if err != nil {
					return err
				}
				if c != nil {
					return against.ask(cmd.Context(), t, c, args[0], &load)
				}
				return against.check(cmd.Context(), t, j)
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
	against.place.register(cmd)
	cmd.Flags().StringVar(&against.savepoint, "against", "", "a `SAVEPOINT`: its id, JOB/ID of a checkpoint, JOB for its newest one, or an exported file")
	cmd.Flags().BoolVar(&against.allowNonRestored, "allow-non-restored", false, "state that no operator of the job takes may go")
	return cmd
}

// against is what a job is compared with.
type against struct {
	place            placeFlag
	savepoint        string
	allowNonRestored bool
}

func (a *against) check(ctx context.Context, t *terminal, j *job.Job) (err error) {
	v, err := a.place.saved(a.savepoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	c, err := agent.Check(ctx, j, v, agent.CheckOptions{Dir: a.place.dir, AllowNonRestored: a.allowNonRestored, Secrets: machineSecrets()})
	if err != nil {
		return err
	}
	if t.json() {
		enc := json.NewEncoder(t.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(c)
	} else {
		err = printChecked(t, c)
	}
	if err == nil && !c.OK {
		err = errReported
	}
	return err
}

func printChecked(t *terminal, c *agent.Checked) error {
	fmt.Fprint(t.out, c.Table())
	if len(c.Connectors) > 0 {
		fmt.Fprintln(t.out)
	}
	for _, k := range c.Connectors {
		answer := "there"
		if !k.OK {
			answer = "NOT THERE: " + k.Reason
		}
		fmt.Fprintf(t.out, "%s %s, %s: %s\n", k.Role, k.Operator, k.Where, answer)
	}
	verdict := "ok"
	switch {
	case !c.OK:
		verdict = "it would not work"
	case c.Finished:
		verdict = "ok, but all input had been read to its end: there is nothing left to do"
	}
	_, err := fmt.Fprintf(t.out, "\n%s\n", verdict)
	return err
}

func newJobExplain(t *terminal) *cobra.Command {
	var load loadFlags
	var at agentFlag
	var dot bool
	cmd := &cobra.Command{
		Use:   "explain JOB",
		Short: "Print a job's stream graph, job graph (chains) and execution graph with placements",
		Long: `Prints what becomes of a job: the stream graph, the job graph (chains), and the
execution graph. JOB is a file, JOB.yaml; or the id or name of a job of the mesh:
then it is as that job is now, with the agent on which each subtask runs.`,
		Example: "  tidemark job explain configs/wordcount.yaml\n  tidemark job explain configs/wordcount.yaml --dot\n  tidemark job explain cold-chain",
		Args:    jobFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dot && t.json() {
				return usageError{errors.New("--dot and --output json: one or the other")}
			}
			var j *job.Job
			var place func(dataflow.SubtaskID) string
			var err error
			if ofMesh(args[0]) {
				j, place, err = load.running(cmd.Context(), &at, args[0])
			} else {
				j, err = load.load(cmd.Context(), t, args[0])
			}
			if err != nil {
				return err
			}
			x := graph.Expand(graph.Chain(j.Graph, graph.Options{}))
			switch {
			case dot:
				return graph.Dot(t.out, x, place)
			case t.json():
				return json.NewEncoder(t.out).Encode(describeGraphs(x, place))
			}
			return graph.ExplainPlaced(t.out, x, place)
		},
	}
	load.register(cmd)
	at.register(cmd)
	cmd.Flags().BoolVar(&dot, "dot", false, "print the graphs in Graphviz' language")
	return cmd
}

// ofMesh tells a job of the mesh from a file: it is no path, and no such file is
// there.
func ofMesh(arg string) bool {
	if arg == "-" || filepath.Ext(arg) != "" || filepath.Base(arg) != arg {
		return false
	}
	_, err := os.Stat(arg)
	return errors.Is(err, fs.ErrNotExist)
}

// running is a job of the mesh as it is now, and where its subtasks run; nil: it
// does not run.
func (f *loadFlags) running(ctx context.Context, at *agentFlag, name string) (*job.Job, func(dataflow.SubtaskID) string, error) {
	if len(f.set) > 0 || f.parallelism > 0 {
		return nil, nil, usageError{fmt.Errorf("%s is a job of the mesh, which --set and --parallelism do not change; give its file", name)}
	}
	c, err := at.client()
	if err != nil {
		return nil, nil, err
	}
	spec, err := c.Spec(ctx, name)
	if err != nil {
		return nil, nil, at.answered(fmt.Errorf("there is no file %s; as a job of the mesh: %w", name, err))
	}
	now, err := c.Job(ctx, spec.ID)
	if err != nil {
		return nil, nil, at.answered(err)
	}
	j, err := job.Load(spec.Name, []byte(spec.Spec), job.Options{Set: spec.Set, Parallelism: spec.Parallelism})
	if err != nil {
		return nil, nil, err
	}
	on := make(map[string]string)
	for _, s := range now.Subtasks {
		if s.Node != "" {
			on[s.Subtask] = cmp.Or(s.Agent, s.Node)
		}
	}
	if len(on) == 0 {
		return j, nil, nil
	}
	return j, func(s dataflow.SubtaskID) string { return on[s.String()] }, nil
}

// describeGraphs is the three graphs as explain prints them in JSON.
func describeGraphs(x *graph.ExecutionGraph, place func(dataflow.SubtaskID) string) any {
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
		Agent     string `json:"agent,omitempty"`
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
		v := subtask{ID: s.ID.String(), KeyGroups: [2]int{int(s.KeyGroups.First), int(s.KeyGroups.Last)}}
		if place != nil {
			v.Agent = place(s.ID)
		}
		out.Execution = append(out.Execution, v)
	}
	return out
}
