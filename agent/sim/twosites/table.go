package twosites

import (
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// moment is when something goes wrong in a table, and what that is called.
type moment struct {
	a, b string
	at   Step
}

// column is what goes wrong.
type column struct {
	what What
	site mesh.Site
	long dataflow.Time
}

// Away is for how long a site or the WAN is away in the tables.
const Away = 90 * sec

// Tables are docs/MIGRATION.md's: for each moment and fault what a run with that
// fault alone has shown. The first run that breaks an invariant is told in place of
// the tables.
func Tables(seed uint64) (string, error) {
	var b strings.Builder
	none := Run(Config{Seed: seed, Kind: Migrate})
	fmt.Fprintf(&b, "Nothing goes wrong: %s.\n\n| A is | B is | A's leader crashes | B's leader crashes | A is away | B is away | the WAN is cut |\n|---|---|---|---|---|---|---|\n", cell(none))
	err := rows(&b, seed, Migrate, []moment{
		{"copying", "none", Step{"a", "enters MoveBegan", true}},
		{"copying", "receiving", Step{"b", "enters ArrivalBegan", true}},
		{"halting", "receiving", Step{"a", "enters MoveHalting", true}},
		{"offered", "receiving", Step{"a", "enters MoveOffered", true}},
		{"offered", "prepared", Step{"b", "enters ArrivalPrepared", true}},
		{"handed-over", "prepared", Step{"a", "enters MoveDecided", true}},
		{"handed-over", "active", Step{"b", "enters ArrivalDecided", true}},
	}, []column{{CrashLeader, "a", lasts}, {CrashLeader, "b", lasts}, {CrashAll, "a", Away}, {CrashAll, "b", Away}, {CutWAN, "", Away}})
	if err != nil {
		return "", err
	}
	none = Run(Config{Seed: seed, Kind: Failover})
	fmt.Fprintf(&b, "\nA is lost, and a person has B take the job 5 s later. A comes back when the job runs at B, or when the fault is over. Nothing else goes wrong: %s.\n\n"+
		"| B is about to | B's leader crashes | B is away | the WAN is cut | A comes back at that moment |\n|---|---|---|---|---|\n", cell(none))
	err = rows(&b, seed, Failover, []moment{
		{"", "enter JobFailedOver", Step{"b", "enters JobFailedOver", false}},
		{"", "deploy the job", Step{"b", "enters JobFailedOver", true}},
		{"", "restore it", Step{"b", "enters JobDeployed", true}},
	}, []column{{CrashLeader, "b", lasts}, {CrashAll, "b", Away}, {CutWAN, "", Away}, {ComesBack, "", 0}})
	return b.String(), err
}

func rows(b *strings.Builder, seed uint64, kind Kind, moments []moment, columns []column) error {
	for _, m := range moments {
		b.WriteString("|")
		if m.a != "" {
			fmt.Fprintf(b, " %s |", m.a)
		}
		fmt.Fprintf(b, " %s |", m.b)
		for _, c := range columns {
			f := Fault{m.at, c.what, c.site, c.long}
			res := Run(Config{Seed: seed, Kind: kind, Faults: []Fault{f}})
			switch {
			case res.Violation != nil:
				return fmt.Errorf("%s: %w", f, res.Violation)
			case res.Fired != 1:
				return fmt.Errorf("%s: it did not come to that", f)
			}
			fmt.Fprintf(b, " %s |", cell(res))
		}
		b.WriteString("\n")
	}
	return nil
}

func cell(r *Result) string {
	text := fmt.Sprintf("%s, %.1f s", strings.ToUpper(string(r.Owner)), float64(r.Pause)/float64(sec))
	if r.Repeated > 0 {
		text += fmt.Sprintf(", %d again", r.Repeated)
	}
	if r.Lost > 0 {
		text += fmt.Sprintf(", %d lost", r.Lost)
	}
	return text
}
