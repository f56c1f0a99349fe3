package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

func newState(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Read the state in a savepoint, and compare two",
		Example: "  tidemark state read sp-2f9c41d0 --operator per_sensor --state windows --dir state\n" +
			"  tidemark state diff sp-2f9c41d0 cold-chain --dir state",
		Args: knownVerb,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newStateRead(t), newStateDiff(t))
	return cmd
}

func newStateRead(t *terminal) *cobra.Command {
	var place placeFlag
	var op, name string
	cmd := &cobra.Command{
		Use:   "read SAVEPOINT --operator UID --state NAME",
		Short: "The rows of a state as JSON lines",
		Long: `Prints the rows of one state of one operator, a JSON line each, with deltas merged.
SAVEPOINT is the id of a savepoint, JOB/ID of a checkpoint, JOB for its newest
one, or an exported file. The state "positions" is where a source stands.

Here --state names the state; a state folder is --dir, or $` + folderVariable + `, and without
one an agent is asked. Without
--state or --operator it says which there are.`,
		Example: "  tidemark state read sp-2f9c41d0 --operator per_sensor --state windows\n  tidemark state read sp-2f9c41d0 --operator per_sensor --state windows --dir state\n" +
			"  tidemark state read cold-chain --operator readings --state positions --dir state\n" +
			"  tidemark state read cold-chain.savepoint --operator per_sensor --state windows",
		Args: exactly(1, savepointWanted),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := place.agent(args[0])
			if err != nil {
				return err
			}
			if c != nil {
				return place.answered(readRemote(cmd.Context(), t, c, args[0], op, name))
			}
			v, err := place.saved(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.Close()) }()
			if err := whichState(v, op, name); err != nil {
				return err
			}
			w := bufio.NewWriterSize(t.out, 64<<10)
			rows, err := v.ReadState(w, dataflow.OperatorID(op), name)
			if err = errors.Join(err, w.Flush()); err != nil {
				return err
			}
			if !t.json() {
				fmt.Fprintf(t.err, "%s: %d rows of state %s of operator %s\n", v.Manifest.Name, rows, name, op)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&op, "operator", "", "the `UID` of the operator: its id in the job")
	cmd.Flags().StringVar(&name, "state", "", "the `NAME` of its state")
	place.registerDir(cmd)
	return cmd
}

// whichState asks for what was not said, naming what there is.
func whichState(v *durable.Saved, op, name string) error {
	switch {
	case op == "":
		return usageError{fmt.Errorf("which operator? Give --operator UID --state NAME; %s has %s", v.Manifest.Name, strings.Join(v.States(), ", "))}
	case name == "":
		own := v.StatesOf(dataflow.OperatorID(op))
		if len(own) == 0 {
			return usageError{fmt.Errorf("operator %q has no state in %s; there is %s", op, v.Manifest.Name, strings.Join(v.States(), ", "))}
		}
		return usageError{fmt.Errorf("which state? Give --state NAME; operator %s has %s", op, strings.Join(own, ", "))}
	}
	return nil
}

func newStateDiff(t *terminal) *cobra.Command {
	var place placeFlag
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "What is different in B, row by row, as JSON lines",
		Long: `Prints the rows that are not the same in two savepoints, a JSON line each: those
that B has and A has not (added), the other way round (removed), and those that
have other values (changed), with the row before, of A, and after, of B. Rows are
matched by the columns that tell them apart, such as key and window, and compared
value by value, NaN included. Where sources stand is the state "positions".

A and B are ids of savepoints, JOB/ID of checkpoints, JOB for its newest one, or
exported files. Exit code 0, whether they differ or not.`,
		Example: "  tidemark state diff sp-2f9c41d0 sp-71e09a3c\n  tidemark state diff sp-2f9c41d0 sp-71e09a3c --dir state\n" +
			"  tidemark state diff cold-chain/chk-1-17 cold-chain/chk-1-18 --dir state | jq -r .change | sort | uniq -c",
		Args: exactly(2, "two savepoints"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := place.agent(args[0])
			if err != nil {
				return err
			}
			if c != nil {
				return place.answered(diffRemote(cmd.Context(), t, c, args[0], args[1]))
			}
			var both [2]*durable.Saved
			for i, name := range args {
				if both[i], err = place.saved(name); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, both[i].Close()) }()
			}
			w := bufio.NewWriterSize(t.out, 64<<10)
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			var told diffTold
			err = durable.Diff(both[0], both[1], 0, func(d durable.Difference) error {
				told.count(d)
				return enc.Encode(d)
			})
			if err = errors.Join(err, w.Flush()); err != nil {
				return err
			}
			if !t.json() {
				told.print(t, both[0].Manifest.Name, both[1].Manifest.Name)
			}
			return nil
		},
	}
	place.register(cmd)
	return cmd
}

// diffTold counts the differences of each state, in the order in which they
// come.
type diffTold struct{ states []diffCount }

type diffCount struct {
	operator, state         string
	added, removed, changed int
}

func (d *diffTold) count(x durable.Difference) {
	if n := len(d.states); n == 0 || d.states[n-1].operator != string(x.Operator) || d.states[n-1].state != x.State {
		d.states = append(d.states, diffCount{operator: string(x.Operator), state: x.State})
	}
	c := &d.states[len(d.states)-1]
	switch x.Change {
	case durable.Added:
		c.added++
	case durable.Removed:
		c.removed++
	case durable.Changed:
		c.changed++
	}
}

func (d *diffTold) print(t *terminal, a, b string) {
	if len(d.states) == 0 {
		fmt.Fprintf(t.err, "%s and %s hold the same\n", a, b)
	}
	for _, s := range d.states {
		fmt.Fprintf(t.err, "operator %s, state %s: %d added, %d removed, %d changed\n", s.operator, s.state, s.added, s.removed, s.changed)
	}
}
