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

// This file is the verbs that speak to whoever runs a job: the mesh, or the
// process that runs it on a state folder.

func newSavepointCreate(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "create JOB",
		Short:   "Take a savepoint of a running job, which goes on",
		Example: "  tidemark savepoint create cold-chain\n  tidemark savepoint create cold-chain --state state",
		Args:    exactly(1, "the name of one job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				done, err := c.CreateSavepoint(cmd.Context(), args[0])
				if err != nil {
					return place.answered(err)
				}
				return printSavepoint(t, done.Savepoint)
			}
			s, err := place.view()
			if err != nil {
				return err
			}
			name, err := agent.ControlClient{Dir: place.dir}.Savepoint(cmd.Context(), args[0])
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
	var place placeFlag
	var drain bool
	cmd := &cobra.Command{
		Use:   "stop JOB",
		Short: "Stop a running job with a savepoint",
		Long: `Stops a job of the mesh, or one that runs on a state folder, with a savepoint, and
prints its id. On a folder the next run goes on from there; on the mesh
job submit --from-savepoint does.

With --drain the input is ended first: all open windows fire, and nothing can go
on from there.`,
		Example: "  tidemark job stop cold-chain\n  tidemark job stop cold-chain --drain\n  tidemark job stop cold-chain --state state",
		Args:    exactly(1, "the name of one job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				line := newStatusLine(t.err)
				line.update("stopping " + args[0] + " with a savepoint")
				done, err := c.Stop(cmd.Context(), args[0], drain)
				line.done()
				if err != nil {
					return place.answered(err)
				}
				return printSavepoint(t, done.Savepoint)
			}
			s, err := place.view()
			if err != nil {
				return err
			}
			name, err := agent.ControlClient{Dir: place.dir}.Stop(cmd.Context(), args[0], drain)
			if errors.Is(err, agent.ErrNoProcess) {
				return notRunning(s, args[0], err)
			}
			if err != nil {
				return err
			}
			return printSavepoint(t, name)
		},
	}
	place.register(cmd)
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
	var place placeFlag
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "The jobs of the mesh, or of a state folder, and what they are at",
		Example: "  tidemark job list\n  tidemark job list --state state",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				return place.answered(listRemote(cmd.Context(), t, c))
			}
			s, err := place.view()
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
	place.register(cmd)
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
