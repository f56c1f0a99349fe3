package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/bench"
)

func newBench(t *terminal) *cobra.Command {
	var asJSON bool
	var opt bench.Options
	var ids []string
	for _, b := range bench.All() {
		ids = append(ids, b.ID)
	}
	cmd := &cobra.Command{
		Use:   "bench [ID…]",
		Short: "Measure this machine: the engine beside what it is compared with",
		Long: "Runs the engine and what it is compared with in turn, in one process, and prints\nthe medians and their ratio. Without an ID all run: " +
			strings.Join(ids, ", ") + ".",
		Example: "  tidemark bench\n  tidemark bench engine --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := chooseBenchmarks(args)
			if err != nil {
				return err
			}
			t.output = map[bool]string{true: "json", false: t.output}[asJSON]
			return runBenchmarks(cmd, t, chosen, opt)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line; the same as --output json")
	cmd.Flags().IntVar(&opt.Rounds, "rounds", 5, "how often each side runs")
	return cmd
}

func chooseBenchmarks(ids []string) ([]bench.Benchmark, error) {
	all := bench.All()
	if len(ids) == 0 {
		return all, nil
	}
	var chosen []bench.Benchmark
	for _, id := range ids {
		found := false
		for _, b := range all {
			if b.ID == id {
				chosen, found = append(chosen, b), true
			}
		}
		if !found {
			return nil, usageError{fmt.Errorf("no benchmark %q; tidemark bench --help lists them", id)}
		}
	}
	return chosen, nil
}

func runBenchmarks(cmd *cobra.Command, t *terminal, chosen []bench.Benchmark, opt bench.Options) error {
	status := newStatusLine(t.err)
	opt.Progress = status.update
	defer status.done()
	rows := table.NewWriter()
	rows.SetStyle(table.StyleLight)
	rows.AppendHeader(table.Row{"id", "value", "limit", "ratio", "bar", "", "allocs/row"})
	enc := json.NewEncoder(t.out)
	missed := false
	for _, b := range chosen {
		figures, err := b.Run(cmd.Context(), opt)
		if err != nil {
			return err
		}
		status.done()
		for _, f := range figures {
			missed = missed || !f.OK
			if t.json() {
				if err := enc.Encode(f); err != nil {
					return err
				}
				continue
			}
			rows.AppendRow(benchRow(f))
		}
	}
	if !t.json() {
		fmt.Fprintln(t.out, rows.Render())
	}
	if missed {
		fmt.Fprintln(t.err, "tidemark: a bar was missed")
		return errReported
	}
	return nil
}

func benchRow(f bench.Figure) table.Row {
	limit, ratio, bar, verdict := "", "", "", ""
	if f.Limit != nil {
		limit = number(*f.Limit) + " " + f.Unit
	}
	if f.Ratio != nil {
		ratio = number(*f.Ratio) + " ×"
	}
	if f.Bar != nil {
		sign, unit := "≤ ", " ×"
		if f.Better == "higher" {
			sign = "≥ "
		}
		if f.BarHasAUnit {
			unit = " " + f.Unit
		}
		bar = sign + number(*f.Bar) + unit
		verdict = map[bool]string{true: "ok", false: "MISSED"}[f.OK]
	}
	return table.Row{f.ID, number(f.Value) + " " + f.Unit, limit, ratio, bar, verdict, strconv.FormatFloat(f.AllocsARow, 'f', 4, 64)}
}

// number is v with three significant digits.
func number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
