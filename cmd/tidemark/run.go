package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// runFlags are the flags of run that say where a job's state is.
type runFlags struct {
	state   string
	opt     agent.LocalOptions
	control *agent.Control // by which other processes ask; nil: they cannot
}

func newRun(t *terminal) *cobra.Command {
	var load loadFlags
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run JOB.yaml...",
		Short: "Run a job in this process until its inputs end or Ctrl-C",
		Long: `Runs a job in this process, with no mesh, until its inputs end.

Ctrl-C stops the sources and lets what is in flight arrive; windows that are
still open do not fire. A second Ctrl-C stops at once. The totals go to stderr.

With --state the job keeps its state in a folder: it takes checkpoints there,
and when it is run again it goes on from the newest, whatever ended it. Ctrl-C
and SIGTERM then stop it with a savepoint; a second one stops it at once, and it
goes on from its last checkpoint. A job that had finished says so. Several jobs
may be run together on one folder, and share its feeds.`,
		Example: "  tidemark run configs/wordcount.yaml\n  tidemark run job.yaml --parallelism 4 --set sources.in.file.path=today.csv\n" +
			"  tidemark run job.yaml --state /var/lib/tidemark\n  tidemark run new.yaml --state /var/lib/tidemark --from-savepoint sp-2f9c41d0",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && f.state != "" {
				return nil
			}
			return jobFile(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return usageError{err}
			}
			return runJobs(cmd.Context(), t, args, load, f)
		},
	}
	load.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.opt.Overwrite, "overwrite", false, "let file sinks replace files that are not empty")
	flags.IntVar(&f.opt.BatchRows, "batch-rows", 0, fmt.Sprintf("records that a source hands on together at most; fewer cost speed and change no result (0: %d)", batch.MaxRows))
	flags.StringVar(&f.state, "state", "", "folder for checkpoints, savepoints and feeds; the job goes on from there")
	flags.StringVar(&f.opt.From, "from-savepoint", "", "begin at a savepoint: its name, or a file that was exported")
	flags.BoolVar(&f.opt.AllowNonRestored, "allow-non-restored", false, "begin although the savepoint has state that no operator of the job takes")
	flags.BoolVar(&f.opt.Claim, "claim", false, "the savepoint becomes the job's, which deletes it when it needs it no more")
	return cmd
}

func (f *runFlags) check(args []string) error {
	switch {
	case f.opt.BatchRows < 0 || f.opt.BatchRows > batch.MaxRows:
		return fmt.Errorf("--batch-rows %d: it is 1 to %d, or 0 for the most", f.opt.BatchRows, batch.MaxRows)
	case f.state == "" && (f.opt.From != "" || f.opt.AllowNonRestored || f.opt.Claim):
		return errors.New("--from-savepoint, --allow-non-restored and --claim want --state: the folder that the job keeps its state in")
	case f.opt.From == "" && f.opt.Claim:
		return errors.New("--claim wants --from-savepoint: the savepoint that is to become the job's")
	case f.opt.From != "" && len(args) > 1:
		return errors.New("--from-savepoint is for one job; run the others by themselves")
	}
	return nil
}

// runJobs runs jobs in this process; several need a state folder, which they
// share. The first that fails stops the others.
func runJobs(ctx context.Context, t *terminal, files []string, load loadFlags, f runFlags) (err error) {
	status := newStatusLine(t.err)
	if f.state != "" {
		state, err := agent.OpenState(f.state, agent.StateOptions{Secrets: machineSecrets(), Events: status.line})
		if err != nil {
			return err
		}
		f.opt.State = state
		defer func() { err = errors.Join(err, state.Close()) }()
		if f.control, err = agent.ServeControl(f.state); err != nil {
			status.line(fmt.Sprintf("other commands cannot ask for savepoints or stops: %v", err))
		} else {
			defer func() { err = errors.Join(err, f.control.Close()) }()
		}
	}
	if len(files) == 1 {
		return runJob(ctx, t, files[0], load, f)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(files))
	var all sync.WaitGroup
	for i, file := range files {
		all.Go(func() {
			if errs[i] = runJob(ctx, t, file, load, f); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", file, errs[i])
				cancel()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func runJob(ctx context.Context, t *terminal, file string, load loadFlags, f runFlags) error {
	opt := f.opt
	j, err := load.load(ctx, t, file)
	if err != nil {
		return err
	}
	if err := refuseNotYet(t, j, opt.State != nil); err != nil {
		return err
	}
	status := newStatusLine(t.err)
	opt.Stdin, opt.Stdout, opt.Secrets, opt.Events = t.in, t.out, machineSecrets(), status.line
	local, err := agent.NewLocal(j, opt)
	if err != nil {
		return err
	}
	if f.control != nil {
		ended := make(chan struct{})
		defer close(ended)
		f.control.Add(local, ended)
	}
	began := time.Now()
	err = untilStopped(ctx, local, status.line, stopping(opt), func() { status.update(progressLine(local.Totals(), time.Since(began))) })
	status.done()
	if s := local.Totals(); !nothingDone(local, opt) && (err == nil || s.In > 0) { // a job that did not get as far has none to tell of
		reportTotals(t, j.Name, s, time.Since(began))
	}
	switch {
	case errors.Is(err, errStoppedNow) && opt.State != nil:
		return fmt.Errorf("job %s stopped at once; the next run with this state goes on from its last checkpoint", j.Name)
	case errors.Is(err, errStoppedNow):
		return errors.New("stopped at once: rows in flight were dropped")
	case err == nil && opt.State != nil:
		status.line(endedLine(j.Name, local.Outcome()))
	}
	return err
}

// nothingDone tells whether the job had finished in an earlier run.
func nothingDone(local *agent.Local, opt agent.LocalOptions) bool {
	return opt.State != nil && local.Outcome().Before
}

func stopping(opt agent.LocalOptions) string {
	if opt.State != nil {
		return "stopping with a savepoint; interrupt again to stop at once and go on from the last checkpoint"
	}
	return "stopping: what is in flight still arrives; interrupt again to stop at once"
}

// endedLine says how a durable job ended.
func endedLine(name string, o agent.Outcome) string {
	line := fmt.Sprintf("job %s is %s", name, o.Status)
	if o.Savepoint != "" {
		line += ", savepoint " + o.Savepoint
	}
	if o.Restarts > 0 {
		line += fmt.Sprintf(", after %d restarts", o.Restarts)
	}
	return line
}

var errStoppedNow = errors.New("stopped")

// untilStopped runs the job; the first interrupt, which is the end of ctx,
// drains it, the second stops it. tick is called about once a second, say tells
// the user, stopping what is done about the first.
func untilStopped(ctx context.Context, local *agent.Local, say func(string), stopping string, tick func()) error {
	run, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM) // before the first: the next may come with it
	defer signal.Stop(again)

	result := make(chan error, 1)
	go func() { result <- local.Run(run) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	interrupted := ctx.Done()
	var first time.Time
	var overdue <-chan time.Time
	for {
		select {
		case err := <-result:
			return err
		case <-ticker.C:
			tick()
		case <-interrupted:
			interrupted = nil
			say(stopping)
			local.Stop()
			first = time.Now()
		case <-again:
			if !insists(first, time.Now()) {
				continue
			}
			signal.Stop(again) // a third ends the process by itself
			cancel(errStoppedNow)
			overdue = time.After(stopGrace)
		case <-overdue: // a write to a pipe that nobody reads cannot be called off
			return errStoppedNow
		}
	}
}

// together is how far apart signals come that are one wish: GNU timeout, and
// what else ends a process and its group, sends each of them SIGTERM, so that two
// arrive within milliseconds. Nobody asks twice as fast by hand.
const together = 300 * time.Millisecond

// insists tells whether a signal at now is a second wish after the first, which
// is zero for as long as that was not heard.
func insists(first, now time.Time) bool {
	return !first.IsZero() && now.Sub(first) >= together
}

// stopGrace is how long a second interrupt waits for the job to end.
const stopGrace = time.Second

func progressLine(s agent.Totals, wall time.Duration) string {
	line := fmt.Sprintf("%s  in %d  out %d  late %d  rejected %d  watermark %s", wall.Round(time.Second), s.In, s.Out, s.Late, s.Rejected, watermark(s.Watermark))
	if s.Arrival != dataflow.MinTime && s.Watermark != dataflow.MinTime && s.Watermark != dataflow.MaxTime {
		line += fmt.Sprintf("  lag %v", dataflow.Duration(s.Arrival-s.Watermark).Go().Round(time.Millisecond))
	}
	if s.Restarts > 0 {
		line += fmt.Sprintf("  since restart %d", s.Restarts)
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
	since := ""
	if s.Restarts > 0 {
		since = fmt.Sprintf("since restart %d: ", s.Restarts)
	}
	fmt.Fprintf(t.err, "%s: %srows in %d, out %d, late %d, rejected %s, markers %d, filtered %d", name, since, s.In, s.Out, s.Late, rejected, s.Markers, s.Filtered)
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
