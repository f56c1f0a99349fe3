package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// This file is the verbs about the jobs of a mesh.

// oneJob is the arguments of a verb about one job.
const oneJob = "one job: its id or its name"

func newJobSubmit(t *terminal) *cobra.Command {
	var load loadFlags
	var at agentFlag
	var from string
	var allow, overwrite bool
	cmd := &cobra.Command{
		Use:   "submit JOB.yaml",
		Short: "Check a job and run it on the mesh; prints its id",
		Long: `Checks a job and runs it on the mesh. Prints its id, which is never given to
another job. Names of jobs that have not ended are unique.

Secrets must be references, ${file:PATH} or ${env:NAME}: the agents that connect
look them up.`,
		Example: "  tidemark job submit configs/cold-chain.yaml\n  tidemark job submit new.yaml --from-savepoint sp-2f9c41d0 --set parallelism=4",
		Args:    jobFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readJob(cmd.Context(), t, args[0])
			if err != nil {
				return err
			}
			if len(text) == maxJobFile { // more than an agent reads
				_, err := load.parse(t, args[0], text)
				return err
			}
			c, err := at.client()
			if err != nil {
				return err
			}
			s := api.Submission{Spec: string(text), File: args[0], Set: load.sets(), From: from, AllowNonRestored: allow, Overwrite: overwrite, Request: rand.Text()}
			done, err := c.Submit(cmd.Context(), s)
			if err != nil {
				return reportProblem(t, at.answered(err))
			}
			for _, n := range done.Notes {
				fmt.Fprintln(t.err, n)
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(done)
			}
			_, err = fmt.Fprintln(t.out, done.ID)
			return err
		},
	}
	load.register(cmd)
	at.register(cmd)
	cmd.Flags().StringVar(&from, "from-savepoint", "", "begin with a `SAVEPOINT`: its id, JOB/ID of a checkpoint, or JOB for its newest")
	cmd.Flags().BoolVar(&allow, "allow-non-restored", false, "begin although the savepoint has state that no operator of the job takes")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "let file sinks replace files that are not empty, on the agents where they run")
	return cmd
}

// sets are the overrides as an agent takes them.
func (f *loadFlags) sets() []string {
	if f.parallelism == 0 {
		return f.set
	}
	return append(f.set[:len(f.set):len(f.set)], "parallelism="+strconv.Itoa(f.parallelism))
}

func newJobShow(t *terminal) *cobra.Command {
	var at agentFlag
	cmd := &cobra.Command{
		Use:     "show JOB",
		Short:   "A job of the mesh: what it is at, where it runs, what it has done",
		Example: "  tidemark job show cold-chain\n  tidemark job show j17 --output json | jq .totals",
		Args:    exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			j, err := c.Job(cmd.Context(), args[0])
			if err != nil {
				return at.answered(err)
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(j)
			}
			return showJob(t, j)
		},
	}
	at.register(cmd)
	return cmd
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func showJob(t *terminal, j api.JobDetail) error {
	fmt.Fprintf(t.out, "%s, job %q, %s%s\n", j.ID, j.Name, statusText(&j.Job), because(j.Why))
	if j.Hint != "" {
		fmt.Fprintln(t.out, j.Hint)
	}
	if len(j.History) > 0 {
		var sites []string
		for _, h := range j.History {
			sites = append(sites, h.Site+" since "+h.At)
		}
		fmt.Fprintf(t.out, "sites: %s\n", strings.Join(sites, ", "))
	}
	fmt.Fprintf(t.out, "attempt %d, %d restarts, parallelism %d of at most %d, submitted %s\n", j.Attempt, j.Restarts, j.Parallelism, j.MaxParallelism, j.Created)
	if j.From != "" {
		fmt.Fprintf(t.out, "it went on from %s\n", j.From)
	}
	if l := j.Checkpoints.Last; l != nil {
		fmt.Fprintf(t.out, "newest checkpoint %s of %s, %d ms, %s\n", l.ID, l.At, l.Took, api.BytesText(l.Bytes))
	}
	for _, r := range j.Replicas {
		fmt.Fprintf(t.out, "kept at %s: %s\n", r.To, replicaText(&r))
	}
	if j.Savepoint != "" {
		fmt.Fprintf(t.out, "it stopped with savepoint %s\n", j.Savepoint)
	}
	o := j.Totals
	fmt.Fprintf(t.out, "in %d, out %d, late %d, rejected %d, watermark %s\n", o.In, o.Out, o.Late, o.Rejected, orNone(o.Watermark))
	if o.FirstRejected != "" {
		fmt.Fprintf(t.out, "the first was rejected because %s\n", o.FirstRejected)
	}
	w := newTable(t, "subtask", "agent", "in", "out", "late", "rejected", "watermark", "busy", "blocked")
	for _, s := range j.Subtasks {
		w.AppendRow([]any{s.Subtask, s.Agent, s.In, s.Out, s.Late, s.Rejected, orNone(s.Watermark), span(s.Busy), span(s.Blocked)})
	}
	if len(j.Subtasks) > 0 {
		w.Render()
	}
	if len(j.Feeds) > 0 {
		showFeeds(t, j.Feeds)
	}
	return nil
}

// statusText is what a job is at. Since when it says where somebody may have to act.
func statusText(j *api.Job) string {
	switch {
	case j.Isolated:
		return fmt.Sprintf("isolated since %s (%s)", j.Since, j.Status)
	case j.Status == "quarantined":
		return fmt.Sprintf("quarantined since %s", j.Since)
	}
	return j.Status
}

// replicaText says how far what another site keeps is.
func replicaText(r *api.Replica) string {
	text := "nothing is complete there"
	if r.Snapshot != "" {
		text = fmt.Sprintf("%s, %d entries of its logs behind", r.Snapshot, r.Entries)
		if r.Unknown {
			text = fmt.Sprintf("%s, %d entries of its logs behind, or more", r.Snapshot, r.Entries)
		}
	}
	if r.Fetching != "" {
		text += ", fetching " + r.Fetching
	}
	if !r.Restorable {
		text += "; it cannot be restored there: " + r.Why
	}
	return text
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func span(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// listRemote is job list at an agent.
func listRemote(ctx context.Context, t *terminal, c *api.Client) error {
	list, err := c.Jobs(ctx)
	if err != nil {
		return err
	}
	w := newTable(t, "id", "job", "status", "site", "attempt", "restarts", "newest checkpoint", "since", "why")
	for _, j := range list {
		if t.json() {
			if err := json.NewEncoder(t.out).Encode(j); err != nil {
				return err
			}
			continue
		}
		if j.Isolated {
			j.Status = "isolated"
		}
		w.AppendRow([]any{j.ID, j.Name, j.Status, j.Site, j.Attempt, j.Restarts, j.Checkpoint, j.Since, j.Why})
	}
	if !t.json() {
		w.Render()
	}
	return nil
}

func newJobCancel(t *terminal) *cobra.Command {
	var at agentFlag
	cmd := &cobra.Command{
		Use:     "cancel JOB",
		Short:   "Give up a job of the mesh, without a savepoint",
		Long:    "Gives up a job of the mesh, without a savepoint. Its checkpoints stay for a while, and\nanother job can begin with them: job submit --from-savepoint JOB.",
		Example: "  tidemark job cancel cold-chain",
		Args:    exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			j, err := c.Cancel(cmd.Context(), args[0])
			if err != nil {
				return at.answered(err)
			}
			return t.did(j, "%s, job %q: %s%s\n", j.ID, j.Name, j.Status, because(j.Why))
		},
	}
	at.register(cmd)
	return cmd
}

func newJobForget(t *terminal) *cobra.Command {
	var at agentFlag
	var kept bool
	cmd := &cobra.Command{
		Use:   "forget JOB",
		Short: "Drop a job of the mesh that has ended, or what is kept of one of another site",
		Long: `Drops a job of the mesh that has ended, with its checkpoints and the logs of its
own sources. Savepoints stay, and so does a log in which one of them stands. Without it
the mesh keeps the 100 jobs that ended last.

With --kept it drops what the site that is asked keeps of a job of another site, which
may be lost: the job cannot go on from that any more. It is kept anew if its site has
it, and replicates it here.`,
		Example: "  tidemark job forget j17\n  tidemark job forget j17-plant --kept",
		Args:    exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			if kept {
				if err := c.ForgetKept(cmd.Context(), args[0]); err != nil {
					return at.answered(err)
				}
				return t.did(map[string]string{"dropped": args[0]}, "what was kept here of job %s is dropped\n", args[0])
			}
			if err := c.Forget(cmd.Context(), args[0]); err != nil {
				return at.answered(err)
			}
			return t.did(map[string]string{"forgotten": args[0]}, "job %s is forgotten\n", args[0])
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVar(&kept, "kept", false, "what is kept here of a job of another site")
	return cmd
}

func newJobRescale(t *terminal) *cobra.Command {
	var at agentFlag
	var p int
	cmd := &cobra.Command{
		Use:     "rescale JOB -p N",
		Short:   "Go on with another parallelism, from the last checkpoint",
		Example: "  tidemark job rescale cold-chain -p 4",
		Args:    exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			if p == 0 {
				return usageError{errors.New("which parallelism? Give -p N")}
			}
			c, err := at.client()
			if err != nil {
				return err
			}
			j, err := c.Rescale(cmd.Context(), args[0], p)
			if err != nil {
				return at.answered(err)
			}
			return t.did(j, "%s, job %q: goes on with parallelism %d\n", j.ID, j.Name, j.Parallelism)
		},
	}
	at.register(cmd)
	cmd.Flags().VarP((*subtasks)(&p), "parallelism", "p", "the parallelism to go on with; sources, steps and sinks that name theirs keep it")
	return cmd
}

func newJobWatch(t *terminal) *cobra.Command {
	var at agentFlag
	cmd := &cobra.Command{
		Use:   "watch JOB",
		Short: "What happens to a job of the mesh, until it ends",
		Long: `Prints what happens to a job of the mesh, a line each, until the job ends. On a
terminal a line with its totals is refreshed below. Exit code 0 if the job was
finished, stopped or cancelled, 1 if it failed.`,
		Example: "  tidemark job watch cold-chain\n  tidemark job watch j17 --output json",
		Args:    exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			return at.answered(watchJob(cmd.Context(), t, c, args[0]))
		},
	}
	at.register(cmd)
	return cmd
}

func watchJob(ctx context.Context, t *terminal, c *api.Client, name string) error {
	first, err := c.Job(ctx, name)
	if err != nil {
		return err
	}
	line := newStatusLine(t.err)
	defer line.done()
	within, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with within
		defer close(done)
		refresh(within, c, first.ID, line)
	}()
	defer func() { stop(); <-done }()
	enc := json.NewEncoder(t.out)
	err = c.Watch(ctx, first.ID, func(e api.EventLine) error {
		if t.json() {
			return enc.Encode(e)
		}
		if e.Lost > 0 {
			line.line(fmt.Sprintf("%d events were lost before the next", e.Lost))
		}
		line.done()
		_, err := fmt.Fprintf(t.out, "%s  %-10s  %s\n", e.At, e.What, e.Text)
		return err
	})
	if ctx.Err() != nil {
		return nil // who watched has seen enough
	}
	if err != nil {
		return err
	}
	if j, err := c.Job(ctx, first.ID); err == nil && j.Status == "failed" {
		return fmt.Errorf("job %s failed%s", j.Name, because(j.Why))
	}
	return nil
}

// refresh keeps the line with a job's totals up to date, on a terminal.
func refresh(ctx context.Context, c *api.Client, id string, line *statusLine) {
	if !line.terminal {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if j, err := c.Job(ctx, id); err == nil && ctx.Err() == nil {
			line.update(fmt.Sprintf("%s  in %d  out %d  late %d  rejected %d  watermark %s", j.Status, j.Totals.In, j.Totals.Out, j.Totals.Late, j.Totals.Rejected, orNone(j.Totals.Watermark)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
