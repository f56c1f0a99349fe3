// Command tidemark is the one binary of Tidemark: the engine, its tools and
// its demonstration. Each verb is a thin layer over package agent.
//
// It is large because every verb has its help, its examples and two forms of
// output; each noun has a file.
//
// Exit codes: 0 done, 1 it failed, 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/bench"
	"github.com/tidemark-mesh/tidemark/agent/demo"
)

func main() {
	if bench.Child() {
		return
	}
	demo.Leash()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes of every verb.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// terminal is where a verb reads from and prints to.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	output   string // --output: table or json
}

// json tells whether the user asked for JSON.
func (t *terminal) json() bool { return t.output == "json" }

// did tells what was done: as JSON on stdout, for people on stderr.
func (t *terminal) did(v any, format string, args ...any) error {
	if t.json() {
		return json.NewEncoder(t.out).Encode(v)
	}
	_, err := fmt.Fprintf(t.err, format, args...)
	return err
}

// errReported is returned by verbs that have already printed what went wrong.
var errReported = errors.New("already reported")

// usageError is a wrong call: exit code 2.
type usageError struct{ err error }

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }

// run executes one command line and returns its exit code.
func run(args []string, in io.Reader, out, errw io.Writer) int {
	t := &terminal{in: in, out: out, err: errw}
	signal.Ignore(syscall.SIGPIPE) // `run | head`: the write fails, and the job ends in order
	root := newRoot(t)
	root.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the process at once, unless it is the first one's twin.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(together, stop) })()
	called, err := root.ExecuteContextC(ctx)
	var usage usageError
	var problem *api.Problem
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage) || isCobraUsage(err) || errors.As(err, &problem) && problem.Malformed():
		fmt.Fprintf(errw, "tidemark: %v\n", err)
		fmt.Fprintf(errw, "Try: %s --help\n", called.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(errw, "tidemark: %v\n", err)
	if errors.Is(err, fs.ErrPermission) {
		fmt.Fprintln(errw, "Run it as the user to whom that belongs, or let this user have it.")
	}
	return exitFailed
}

// isCobraUsage recognises what cobra itself says of a wrong call; it has no
// error type for that.
func isCobraUsage(err error) bool {
	for _, start := range []string{"unknown command", "unknown flag", "unknown shorthand", "accepts ", "requires ", "required flag", "invalid argument", "flag needs an argument", "bad flag syntax"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

// knownVerb refuses a verb that there is not, and names the nearest one.
func knownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var there []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			there = append(there, sub.Name())
		}
	}
	hint := "; there is " + strings.Join(there, ", ")
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %q?", near[0])
	}
	return usageError{fmt.Errorf("unknown command %q%s", c.CommandPath()+" "+args[0], hint)}
}

func newRoot(t *terminal) *cobra.Command {
	root := &cobra.Command{
		Use:   "tidemark",
		Short: "Stream processing on sensor event time, for the edge",
		Long: `Tidemark runs stream jobs over sensor data: event time, punctuated watermarks,
windows, from MQTT or files, in one static binary. It runs a job by itself (run), or
on a mesh of agents (agent, job submit).`,
		Example:       "  tidemark demo\n  tidemark run configs/wordcount.yaml\n  tidemark agent --dev\n  tidemark job submit my-job.yaml",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownVerb,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&t.output, "output", "table", "how to print results: table or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if t.output != "table" && t.output != "json" {
			return usageError{fmt.Errorf("--output %q: it is table or json", t.output)}
		}
		return nil
	}
	root.AddCommand(newDemo(t), newRun(t), newAgent(t), newInit(t), newJob(t), newCheckpoint(t), newSavepoint(t), newState(t), newFeed(t), newMember(t), newSite(t), newToken(t), newSensor(t), newBench(t), newVersion(t))
	root.SetHelpCommand(newHelp(root))
	return root
}

// newHelp is cobra's help verb, except that a verb that there is not is a wrong
// call.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "help [VERB]",
		Short:   "Help about a verb; the same as VERB --help",
		Example: "  tidemark help run",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = knownVerb(c, rest)
			}
			if err != nil {
				return usageError{err}
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}
