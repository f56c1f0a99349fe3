package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
)

// This file is the verbs that speak to the process that runs a job on a state
// folder.

func newSavepointCreate(t *terminal, folder *folderFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "create JOB",
		Short:   "Take a savepoint of a running job, which goes on",
		Example: "  tidemark savepoint create cold-chain --state state",
		Args:    exactly(1, "the name of one job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := folder.view()
			if err != nil {
				return err
			}
			name, err := agent.ControlClient{Dir: folder.dir}.Savepoint(cmd.Context(), args[0])
			if errors.Is(err, agent.ErrNoProcess) {
				return notRunning(s, args[0], err)
			}
			if err != nil {
				return err
			}
			return printSavepoint(t, name)
		},
	}
}

// notRunning says what there is in place of a new savepoint: a job that was
// stopped or killed can be started from its newest checkpoint, or that exported.
func notRunning(s *durable.State, jobName string, err error) error {
	list, listErr := s.Checkpoints(jobName)
	if listErr != nil {
		return fmt.Errorf("%w; %w", err, listErr)
	}
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Err == nil {
			return fmt.Errorf("%w; the newest of job %s is %s, which stands for a savepoint: tidemark savepoint export %s/%[3]s FILE --state %[5]s; or start the job: tidemark run JOB.yaml --state %[5]s",
				err, jobName, list[i].Name, jobName, s.Dir())
		}
	}
	return fmt.Errorf("%w; start the job: tidemark run JOB.yaml --state %s", err, s.Dir())
}

func printSavepoint(t *terminal, name string) error {
	if t.json() {
		return json.NewEncoder(t.out).Encode(map[string]string{"savepoint": name})
	}
	_, err := fmt.Fprintln(t.out, name)
	return err
}

func newJobStop(t *terminal) *cobra.Command {
	var folder folderFlag
	var drain bool
	cmd := &cobra.Command{
		Use:   "stop JOB",
		Short: "Stop a running job with a savepoint",
		Long: `Stops a job that runs on a state folder, with a savepoint, and prints its id. The
next run goes on from there.

With --drain the input is ended first: all open windows fire, and nothing can go
on from there.`,
		Example: "  tidemark job stop cold-chain --state state",
		Args:    exactly(1, "the name of one job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := folder.view()
			if err != nil {
				return err
			}
			name, err := agent.ControlClient{Dir: folder.dir}.Stop(cmd.Context(), args[0], drain)
			if errors.Is(err, agent.ErrNoProcess) {
				return notRunning(s, args[0], err)
			}
			if err != nil {
				return err
			}
			return printSavepoint(t, name)
		},
	}
	folder.register(cmd)
	cmd.Flags().BoolVar(&drain, "drain", false, "end the input first, so that all windows fire")
	return cmd
}

// jobLine is a job of a state folder in JSON.
type jobLine struct {
	Name       string        `json:"name"`
	Status     string        `json:"status"`
	Checkpoint string        `json:"checkpoint,omitempty"` // the newest
	Created    string        `json:"created,omitempty"`
	Totals     *agent.Totals `json:"totals,omitempty"` // of this process' present attempt
}

func newJobList(t *terminal) *cobra.Command {
	var folder folderFlag
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "The jobs of a state folder, and what they are at",
		Example: "  tidemark job list --state state",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := folder.view()
			if err != nil {
				return err
			}
			lines, err := listJobs(cmd.Context(), s)
			if err != nil {
				return err
			}
			w := newTable(t, "job", "status", "newest checkpoint", "of", "rows in", "out", "late")
			for _, l := range lines {
				if t.json() {
					if err := json.NewEncoder(t.out).Encode(l); err != nil {
						return err
					}
					continue
				}
				row := []any{l.Name, l.Status, l.Checkpoint, l.Created}
				if l.Totals != nil {
					row = append(row, l.Totals.In, l.Totals.Out, l.Totals.Late)
				}
				w.AppendRow(row)
			}
			if !t.json() {
				w.Render()
			}
			return nil
		},
	}
	folder.register(cmd)
	return cmd
}

func listJobs(ctx context.Context, s *durable.State) ([]jobLine, error) {
	names, err := s.Jobs()
	if err != nil {
		return nil, err
	}
	running, err := agent.ControlClient{Dir: s.Dir()}.Jobs(ctx)
	if err != nil && !errors.Is(err, agent.ErrNoProcess) {
		return nil, err
	}
	var lines []jobLine
	for _, n := range names {
		l := jobLine{Name: n, Status: "not running"}
		list, err := s.Checkpoints(n)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.Err != nil {
				continue
			}
			m := e.Manifest
			l.Checkpoint, l.Created = e.Name, timeText(m.Created)
			switch {
			case m.Drained:
				l.Status = "drained"
			case m.Finished:
				l.Status = "finished"
			default:
				l.Status = "not running"
			}
		}
		for i := range running {
			if r := &running[i]; r.Name == n {
				l.Status, l.Totals = r.Status, &r.Totals
			}
		}
		lines = append(lines, l)
	}
	return lines, nil
}
