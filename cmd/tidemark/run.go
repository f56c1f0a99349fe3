package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func newRun(t *terminal) *cobra.Command {
	var load loadFlags
	var opt agent.LocalOptions
	cmd := &cobra.Command{
		Use:   "run JOB.yaml",
		Short: "Run a job in this process until its inputs end or Ctrl-C",
		Long: `Runs a job in this process, with no mesh, until its inputs end.

Ctrl-C stops the sources and lets what is in flight arrive; windows that are
still open do not fire. A second Ctrl-C stops at once. The totals go to stderr.`,
		Example: "  tidemark run configs/wordcount.yaml\n  tidemark run job.yaml --parallelism 4 --set sources.in.file.path=today.csv",
		Args:    jobFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if opt.BatchRows < 0 || opt.BatchRows > batch.MaxRows {
				return usageError{fmt.Errorf("--batch-rows %d: it is 1 to %d, or 0 for the most", opt.BatchRows, batch.MaxRows)}
			}
			return runJob(cmd.Context(), t, args[0], load, opt)
		},
	}
	load.register(cmd)
	cmd.Flags().BoolVar(&opt.Overwrite, "overwrite", false, "let file sinks replace files that are not empty")
	cmd.Flags().IntVar(&opt.BatchRows, "batch-rows", 0, fmt.Sprintf("records that a source hands on together at most; fewer cost speed and change no result (0: %d)", batch.MaxRows))
	return cmd
}

func runJob(ctx context.Context, t *terminal, file string, load loadFlags, opt agent.LocalOptions) error {
	j, err := load.load(ctx, t, file)
	if err != nil {
		return err
	}
	if err := refuseNotYet(t, j, false); err != nil {
		return err
	}
	status := newStatusLine(t.err)
	opt.Stdin, opt.Stdout, opt.Secrets, opt.Events = t.in, t.out, machineSecrets(), status.line
	local, err := agent.NewLocal(j, opt)
	if err != nil {
		return err
	}
	began := time.Now()
	err = untilStopped(ctx, local, status.line, func() { status.update(progressLine(local.Totals(), time.Since(began))) })
	status.done()
	if s := local.Totals(); err == nil || s.In > 0 { // a job that did not get as far has none to tell of
		reportTotals(t, j.Name, s, time.Since(began))
	}
	if errors.Is(err, errStoppedNow) {
		return errors.New("stopped at once: rows in flight were dropped")
	}
	return err
}

var errStoppedNow = errors.New("stopped")

// untilStopped runs the job; the first interrupt, which is the end of ctx,
// drains it, the second stops it. tick is called about once a second, say tells
// the user.
func untilStopped(ctx context.Context, local *agent.Local, say func(string), tick func()) error {
	run, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	again := make(chan os.Signal, 1)
	defer signal.Stop(again)

	result := make(chan error, 1)
	go func() { result <- local.Run(run) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	interrupted := ctx.Done()
	var overdue <-chan time.Time
	for {
		select {
		case err := <-result:
			return err
		case <-ticker.C:
			tick()
		case <-interrupted:
			interrupted = nil
			signal.Notify(again, os.Interrupt, syscall.SIGTERM)
			say("stopping: what is in flight still arrives; interrupt again to stop at once")
			local.Stop()
		case <-again:
			signal.Stop(again) // a third ends the process by itself
			cancel(errStoppedNow)
			overdue = time.After(stopGrace)
		case <-overdue: // a write to a pipe that nobody reads cannot be called off
			return errStoppedNow
		}
	}
}

// stopGrace is how long a second interrupt waits for the job to end.
const stopGrace = time.Second

func progressLine(s agent.Totals, wall time.Duration) string {
	line := fmt.Sprintf("%s  in %d  out %d  late %d  rejected %d  watermark %s", wall.Round(time.Second), s.In, s.Out, s.Late, s.Rejected, watermark(s.Watermark))
	if s.Arrival != dataflow.MinTime && s.Watermark != dataflow.MinTime && s.Watermark != dataflow.MaxTime {
		line += fmt.Sprintf("  lag %v", dataflow.Duration(s.Arrival-s.Watermark).Go().Round(time.Millisecond))
	}
	return line
}

// reportTotals prints where the rows went.
func reportTotals(t *terminal, name string, s agent.Totals, wall time.Duration) {
	if t.json() {
		out := struct {
			Job string `json:"job"`
			agent.Totals
			Watermark string  `json:"watermark"`
			Seconds   float64 `json:"wall_seconds"`
		}{name, s, watermark(s.Watermark), wall.Seconds()}
		_ = json.NewEncoder(t.err).Encode(out)
		return
	}
	rejected := fmt.Sprint(s.Rejected)
	if s.Rejected > 0 {
		rejected += fmt.Sprintf(" (first: %s)", s.FirstRejected)
	}
	fmt.Fprintf(t.err, "%s: rows in %d, out %d, late %d, rejected %s, markers %d, filtered %d", name, s.In, s.Out, s.Late, rejected, s.Markers, s.Filtered)
	for _, more := range []struct {
		n    int64
		what string
	}{{s.Duplicates, "duplicates"}, {s.Forgotten, "ids forgotten by dedupe"}, {s.NoWindow, "in no window"}, {s.DivByZero, "divisions by zero"}, {s.Overflow, "overflows"}} {
		if more.n > 0 {
			fmt.Fprintf(t.err, ", %s %d", more.what, more.n)
		}
	}
	fmt.Fprintf(t.err, ", watermark %s, %v\n", watermark(s.Watermark), wall.Round(time.Millisecond))
}

// watermark is w in words: its ends are no instants.
func watermark(w dataflow.Time) string {
	switch w {
	case dataflow.MinTime:
		return "none"
	case dataflow.MaxTime:
		return "end of input"
	}
	return w.String()
}
