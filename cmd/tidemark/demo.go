package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tidemark-mesh/tidemark/agent/demo"
)

func newDemo(t *terminal) *cobra.Command {
	opt := demo.Options{Sensors: 200, Seed: 1, For: 35 * time.Second}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A mesh of two sites, a simulated fleet and a job; agents are killed, the job moves, and every count is checked",
		Long: `Starts an embedded MQTT broker, a simulated cold-chain fleet with late, repeated,
silent and wrong-clock sensors, and four agents in two sites (three and one), each
a process with a data folder of its own. A job watches the fleet. An agent that
runs it is killed (kill -9) and comes back, then the leader; then the job moves to
the other site. Results, watermarks and agents are shown live. At the end every
reading and every window in the files that the agents wrote is compared with what
the fleet really sent, and the gaps are shown.

The fleet waits while nobody listens, so that the whole takes longer than --for.
Ctrl-C stops the fleet and checks what there is; a second one ends all at once.
Everything is on loopback and in a temporary folder, of which nothing stays.
Exit code 0: every count was right; 1: not.`,
		Example: "  tidemark demo\n  tidemark demo --for 60s --sensors 500",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opt.Sensors < 1 || opt.Sensors > 10_000 {
				return usageError{fmt.Errorf("--sensors %d: from 1 to 10000", opt.Sensors)}
			}
			if opt.For < 10*time.Second {
				return usageError{fmt.Errorf("--for %v: at least 10s, or no window is complete", opt.For)}
			}
			opt.Out = t.out
			if f, ok := t.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				opt.Size = func() (int, int) {
					w, h, err := term.GetSize(int(f.Fd()))
					if err != nil {
						return 80, 24
					}
					return w, h
				}
			}
			return demo.Run(cmd.Context(), opt)
		},
	}
	cmd.Flags().DurationVar(&opt.For, "for", opt.For, "how long the fleet sends, by its own clock")
	cmd.Flags().IntVar(&opt.Sensors, "sensors", opt.Sensors, "how many sensors")
	cmd.Flags().Uint64Var(&opt.Seed, "seed", opt.Seed, "what the fleet does follows from it")
	return cmd
}
