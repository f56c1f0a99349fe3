package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// This file is the verbs with which a job goes to another site.

func newJobMigrate(t *terminal) *cobra.Command {
	var at agentFlag
	var m api.Migration
	var cancel bool
	cmd := &cobra.Command{
		Use:   "migrate JOB --to SITE",
		Short: "Move a running job to another site of the mesh, or give such a move up",
		Long: `Moves a job to another site, with all that it knows: checkpoints are copied while it
runs, then it stops with a savepoint, the rest is copied, and it goes on there. Exactly
one of the two sites has it at any time. Prints a line for each phase and each round of
copying, and at the end for how long nothing came out of the job.

Ctrl-C ends the watching, not the move. --cancel gives the move up, and the job goes on
where it is, unless it was decided already: then move it back.

Exit code 0 if the job is at the other site (--dry-run: if that one would take it;
--cancel: if it stays), 1 if not, or if nobody knows yet.`,
		Example: "  tidemark job migrate cold-chain --to depot\n  tidemark job migrate cold-chain --to depot --feed stay --dry-run\n" +
			"  tidemark job migrate j17-plant --to depot --set parallelism=1\n  tidemark job migrate --cancel cold-chain",
		Args: exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			switch asked := m.To != "" || m.Feed != "" || m.DryRun || len(m.Set) > 0; {
			case cancel && asked:
				return usageError{errors.New("--cancel is by itself: it gives up the move that is under way")}
			case cancel:
				return at.answered(cancelMove(cmd.Context(), t, c, args[0]))
			case m.To == "":
				return usageError{errors.New("where to? Give --to SITE")}
			case m.Feed != "" && m.Feed != "move" && m.Feed != "stay":
				return usageError{fmt.Errorf("--feed %q: it is move or stay", m.Feed)}
			}
			return at.answered(migrate(cmd.Context(), t, c, args[0], m))
		},
	}
	at.register(cmd)
	cmd.Flags().StringVar(&m.To, "to", "", "the `SITE` that is to have it: see \"tidemark site list\"")
	cmd.Flags().StringVar(&m.Feed, "feed", "", "move: the MQTT sessions of its sources go along; stay: they stay where the broker is, and their logs are mirrored (default move)")
	cmd.Flags().StringArrayVar(&m.Set, "set", nil, "replace a `PATH=VALUE` of the job there, such as sources.in.mqtt.broker=mqtt://other:1883; may be repeated")
	cmd.Flags().BoolVar(&m.DryRun, "dry-run", false, "only ask whether the other site would take it")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "give up the move that is under way")
	return cmd
}

func migrate(ctx context.Context, t *terminal, c *api.Client, job string, m api.Migration) error {
	m.Request = rand.Text()
	begun, err := c.Migrate(ctx, job, m)
	switch {
	case err != nil && ctx.Err() != nil && !m.DryRun:
		return fmt.Errorf("interrupted before it was known whether the move began. \"tidemark job migrate --cancel %s\" gives it up, if it did", job)
	case err != nil:
		return err
	}
	if m.DryRun {
		return t.did(begun, "%s, job %q: site %s would take it\n", begun.Job, begun.Name, begun.To)
	}
	if !t.json() {
		fmt.Fprintf(t.out, "%s: job %q (%s) moves from %s to %s\n", begun.ID, begun.Name, begun.Job, begun.From, begun.To)
	}
	w := watching{t: t, c: c, seen: make(map[string]bool), came: make(map[string]int64), last: begun}
	err = w.follow(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; move %s goes on, and is %s. \"tidemark job migrate --cancel %s\" gives it up", begun.ID, w.last.Phase, begun.Job)
	}
	return err
}

// watching shows a move until it is over.
type watching struct {
	t    *terminal
	c    *api.Client
	seen map[string]bool  // steps that were shown
	came map[string]int64 // bytes of the snapshots that the other site has got, whichever leader told of them
	last api.Move
}

// Timing of a move that is watched.
const (
	lookEvery  = 200 * time.Millisecond
	lostLooks  = 300 // that fail one after the other, before nobody waits any more
	pauseLooks = 200 // for the pause, when the job is there
)

func (w *watching) follow(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for lost, late := 0, 0; ; {
		m, err := w.c.Move(ctx, w.last.ID)
		var p *api.Problem
		switch {
		case err == nil:
			lost = 0
			if err := w.show(m); err != nil {
				return err
			}
			if m.Over {
				late++
			}
			if m.Over && (m.Phase != "handed-over" || m.Pause > 0 || m.Since == "" || late > pauseLooks) {
				return w.over()
			}
		case errors.As(err, &p) && p.Status == 404: // another leader, and it is over
			return w.gone(ctx)
		default:
			if lost++; lost > lostLooks || ctx.Err() != nil {
				return fmt.Errorf("move %s was %s, and is not seen any more: %w", w.last.ID, w.last.Phase, err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// show prints the steps that are new.
func (w *watching) show(m api.Move) error {
	w.last = m
	for _, s := range m.Steps {
		if s.Round > 0 {
			w.came[s.Snapshot] = max(w.came[s.Snapshot], s.Bytes)
		}
		if key := s.At + s.Text; !w.seen[key] {
			w.seen[key] = true
			if w.t.json() {
				if err := json.NewEncoder(w.t.out).Encode(s); err != nil {
					return err
				}
			} else if _, err := fmt.Fprintf(w.t.out, "%s  %s\n", s.At, s.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

// over says how it ended.
func (w *watching) over() error {
	m := w.last
	if m.Phase != "handed-over" && m.Phase != "active" { // the latter says the target, if the source knows no more
		return fmt.Errorf("job %s stays at site %s: the move was %s%s", m.Name, m.From, m.Phase, because(m.Why))
	}
	var came int64
	for _, n := range w.came {
		came += n
	}
	m.Bytes = max(m.Bytes, came) // its leader may be a new one, or that of the other site
	if m.Steps = nil; w.t.json() {
		return json.NewEncoder(w.t.out).Encode(m)
	}
	pause := "pause not known: no row came out yet"
	if m.Pause > 0 {
		pause = fmt.Sprintf("pause %s, give or take %s", micros(m.Pause), micros(m.PauseOff))
	}
	_, err := fmt.Fprintf(w.t.out, "migrated %s, job %q, from %s to %s: %s, %s\n", m.Job, m.Name, m.From, m.To, api.BytesText(m.Bytes), pause)
	return err
}

func micros(us int64) time.Duration {
	return (time.Duration(us) * time.Microsecond).Round(time.Millisecond)
}

// gone: nobody knows the move any more, but the job is somewhere.
func (w *watching) gone(ctx context.Context) error {
	m := &w.last
	j, err := w.c.Job(ctx, m.Job)
	switch {
	case err != nil:
		return err
	case j.Site != m.To:
		return fmt.Errorf("job %s is at site %s: the move is over, and nobody knows why any more", j.Name, j.Site)
	}
	m.Phase, m.Over = "handed-over", true
	return w.over()
}

func cancelMove(ctx context.Context, t *terminal, c *api.Client, job string) error {
	m, err := c.CancelMove(ctx, job)
	if err != nil {
		return err
	}
	if m.Phase != "aborted" && m.Phase != "dropped" {
		return fmt.Errorf("move %s of job %s is %s%s", m.ID, m.Name, m.Phase, because(m.Why))
	}
	return t.did(m, "%s: job %q stays at site %s\n", m.ID, m.Name, m.From)
}

func newJobFailover(t *terminal) *cobra.Command {
	var at agentFlag
	var f api.Failover
	cmd := &cobra.Command{
		Use:   "failover JOB --to SITE",
		Short: "Have a job go on at a site after the one that had it is lost",
		Long: `Has a job go on at another site after the loss of the one that had it: from what
replicate_to keeps of it there, or, where it was moving there and all of it is there, by
that move. Says what may be lost. Ask any agent of any site that reaches SITE; the lost
one is not needed.

It is refused while the site that had the job is reached: move the job from there. With
--force it is not. If that site runs the job, both do until they hear of each other; then
the newer owner, which is SITE, keeps it, and what the other one did since is lost.

A job that is isolated or quarantined at SITE (see job show) goes on there, with --force.

Exit code 0 if the job is at SITE (--dry-run: if it could be), 1 if not.`,
		Example: "  tidemark job failover cold-chain --to depot --dry-run\n  tidemark job failover cold-chain --to depot\n  tidemark job failover j17-plant --to depot --force",
		Args:    exactly(1, oneJob),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.To == "" {
				return usageError{errors.New("to which site? Give --to SITE")}
			}
			c, err := at.client()
			if err != nil {
				return err
			}
			done, err := c.Failover(cmd.Context(), args[0], f)
			if err != nil {
				return at.answered(err)
			}
			if err := t.did(done, "%s\n", strings.Join(done.Text, "\n")); err != nil {
				return err
			}
			switch {
			case done.Refused != "":
				return errors.New(done.Refused)
			case done.Needs != "" && !f.Force:
				return errors.New(done.Needs)
			}
			return nil
		},
	}
	at.register(cmd)
	cmd.Flags().StringVar(&f.To, "to", "", "the `SITE` that is to have it")
	cmd.Flags().BoolVar(&f.Force, "force", false, "although the site that had it is reached, or another one may have it")
	cmd.Flags().BoolVar(&f.DryRun, "dry-run", false, "only say what would be lost")
	return cmd
}
