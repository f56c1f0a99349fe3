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
	opt := demo.Options{Sensors: 200, Seed: 1, For: 30 * time.Second}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A simulated fleet, a broker and a job in one process, checked at the end",
		Long: `Starts an embedded MQTT broker, a simulated cold-chain fleet with late, repeated,
silent and wrong-clock sensors, and a job that watches it; shows results and the
watermark live; then compares every window with what the fleet really sent.
Exit code 0: every count was right; 1: not.`,
		Example: "  tidemark demo\n  tidemark demo --for 60s --sensors 500",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opt.Sensors < 1 || opt.Sensors > 10_000 {
				return usageError{fmt.Errorf("--sensors %d: from 1 to 10000", opt.Sensors)}
			}
			if opt.For < 5*time.Second {
				return usageError{fmt.Errorf("--for %v: at least 5s, or no window is complete", opt.For)}
			}
			opt.Out = t.out
			if f, ok := t.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				if w, _, err := term.GetSize(int(f.Fd())); err == nil {
					opt.Live, opt.Width = true, w
				}
			}
			return demo.Run(cmd.Context(), opt)
		},
	}
	cmd.Flags().DurationVar(&opt.For, "for", opt.For, "how long the fleet sends")
	cmd.Flags().IntVar(&opt.Sensors, "sensors", opt.Sensors, "how many sensors")
	cmd.Flags().Uint64Var(&opt.Seed, "seed", opt.Seed, "what the fleet does follows from it")
	return cmd
}
