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
		ids = append(ids, b.IDs...)
	}
	cmd := &cobra.Command{
		Use:   "bench [ID…]",
		Short: "Measure this machine: the engine beside what it is compared with",
		Long: "Runs the engine and what it is compared with in turn, in one process, and prints\nthe medians and their ratio. Exit code 1: a bar was missed. Without an ID all run: " +
			strings.Join(ids, ", ") + ".",
		Example: "  tidemark bench\n  tidemark bench engine punctuated/1 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON {
				t.output = "json"
			}
			return runBenchmarks(cmd, t, args, opt)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line; the same as --output json")
	cmd.Flags().IntVar(&opt.Rounds, "rounds", 0, "how often each side is measured; 0: as often as the benchmark needs")
	cmd.Flags().Float64Var(&opt.Scale, "scale", 1, "size of the input; figures are meant for 1")
	return cmd
}

func runBenchmarks(cmd *cobra.Command, t *terminal, ids []string, opt bench.Options) error {
	if opt.Rounds < 0 || !(opt.Scale > 0) {
		return usageError{fmt.Errorf("--rounds %d, --scale %v: no benchmark can be measured so; rounds are 0 or more, the scale is above 0", opt.Rounds, opt.Scale)}
	}
	chosen, wanted, wrong := bench.Choose(ids)
	if wrong != "" {
		return usageError{fmt.Errorf("no benchmark %q; tidemark bench --help lists them", wrong)}
	}
	status := newStatusLine(t.err)
	opt.Progress = status.update
	defer status.done()
	report := newBenchReport(t)
	for _, b := range chosen {
		figures, err := b.Run(cmd.Context(), opt)
		status.done()
		if err != nil {
			return err
		}
		for _, f := range figures {
			if !wanted(f.ID) {
				continue
			}
			if err := report.add(f); err != nil {
				return err
			}
		}
	}
	return report.finish()
}

// benchReport prints figures: as JSON at once, as a table at the end.
type benchReport struct {
	t      *terminal
	json   *json.Encoder
	rows   *grid
	missed []string
}

func newBenchReport(t *terminal) *benchReport {
	return &benchReport{t: t, json: json.NewEncoder(t.out), rows: newTable(t, "id", "value", "limit", "ratio", "bar", "", "allocs/row", "note")}
}

func (r *benchReport) add(f bench.Figure) error {
	if !f.OK {
		r.missed = append(r.missed, f.ID)
	}
	if r.t.json() {
		return r.json.Encode(f)
	}
	r.rows.AppendRow(benchRow(f))
	return nil
}

func (r *benchReport) finish() error {
	if !r.t.json() {
		r.rows.Render()
	}
	if len(r.missed) > 0 {
		fmt.Fprintf(r.t.err, "tidemark: bars missed: %s\n", strings.Join(r.missed, ", "))
		return errReported
	}
	return nil
}

func benchRow(f bench.Figure) table.Row {
	limit, ratio, bar, verdict, allocs := "", "", "", "", ""
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
		if f.Ratio == nil {
			unit = " " + f.Unit
		}
		bar = sign + number(*f.Bar) + unit
		verdict = map[bool]string{true: "ok", false: "MISSED"}[f.OK]
	}
	if f.Allocs != nil {
		allocs = strconv.FormatFloat(*f.Allocs, 'f', 4, 64)
	}
	return table.Row{f.ID, number(f.Value) + " " + f.Unit, limit, ratio, bar, verdict, allocs, f.Note}
}

// number is v with three significant digits.
func number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
