package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
)

func newSiteRecover(t *terminal) *cobra.Command {
	var data string
	var yes, forget bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Start a site again from what is left, after its majority is gone for good",
		Long: `Works on the data folder of a stopped agent, on the machine that has it.

Without --yes it says how far that agent knows what was decided, and changes
nothing. Of all survivors take the one with the greatest last term, and among
those with the greatest last index: it lacks nothing that any of them has.

With --yes that one becomes the only voter of its site, and all it knows counts.
What only the lost ones knew is lost. On every other survivor run it with
--forget, so that it begins again with what the recovered one has; then start
all of them. Never recover two agents of a site: they would be two sites.`,
		Example: "  tidemark site recover --data-dir /var/lib/tidemark\n  tidemark site recover --data-dir /var/lib/tidemark --yes\n  tidemark site recover --data-dir /var/lib/tidemark --forget",
		Args:    exactly(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			switch {
			case data == "":
				return usageError{errors.New("whose data folder? Give --data-dir DIR")}
			case yes && forget:
				return usageError{errors.New("--yes and --forget: one or the other")}
			}
			if _, err := raftFolder(data); err != nil {
				return err
			}
			if forget {
				if err := node.Forget(data); err != nil {
					return inUse(err)
				}
				return t.did(map[string]any{"data_dir": data, "forgotten": true}, "%s: what it had of its site is put aside; start the agent\n", data)
			}
			do := node.Left
			if yes {
				do = node.Recover
			}
			found, err := do(data)
			if err != nil {
				return inUse(err)
			}
			return showFound(t, data, found, yes)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&data, "data-dir", "", "data folder of the agent, which must be stopped")
	fl.BoolVar(&yes, "yes", false, "do it")
	fl.BoolVar(&forget, "forget", false, "this is not the one: it begins again with what the recovered one has")
	return cmd
}

func inUse(err error) error {
	if errors.Is(err, consensus.ErrInUse) {
		return fmt.Errorf("%w (the agent of this folder)", err)
	}
	return err
}

func showFound(t *terminal, data string, f consensus.Found, done bool) error {
	if t.json() {
		voters, others := []string{}, []string{}
		for _, m := range f.Members {
			if m.Voter {
				voters = append(voters, string(m.Node))
			} else {
				others = append(others, string(m.Node))
			}
		}
		return json.NewEncoder(t.out).Encode(map[string]any{
			"node": f.Node, "last_term": f.LastIn, "last_index": f.Last, "voters": voters, "non_voters": others, "recovered": done,
		})
	}
	fmt.Fprintf(t.out, "agent %s: last term %d, last index %d\n", f.Node, f.LastIn, f.Last)
	vote := "vote"
	if done {
		vote = "vote before"
	}
	w := newTable(t, "node", vote)
	for _, m := range f.Members {
		w.AppendRow([]any{m.Node, map[bool]string{true: "voter", false: "no"}[m.Voter]})
	}
	w.Render()
	if done {
		_, err := fmt.Fprintf(t.out, "It is the only voter now. Run this with --forget on each other survivor, then start them all: tidemark agent --data-dir %s\n", data)
		return err
	}
	_, err := fmt.Fprintln(t.out, "Nothing was changed. If no other survivor has a greater last term, or the same and a greater index, run it again with --yes.")
	return err
}
