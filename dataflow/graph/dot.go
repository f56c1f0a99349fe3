package graph

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Dot writes the job graph for Graphviz: a box for each chain, in it its
// operators, and edges with their exchange. place is ExplainPlaced's: a box then
// says which subtasks run on which agent.
func Dot(w io.Writer, x *ExecutionGraph, place func(dataflow.SubtaskID) string) error {
	jg := x.Job
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n\trankdir=LR;\n\tnode [shape=box, fontname=\"sans-serif\"];\n", quoted(jg.Stream.Job))
	for i, t := range jg.Tasks {
		fmt.Fprintf(&b, "\tsubgraph cluster_%d {\n\t\tlabel=%s;\n", i, quoted(fmt.Sprintf("%s x%d (slots %s)", t.ID, t.Parallelism, t.SlotGroup)+t.placed(place)))
		for _, l := range t.Links {
			label := string(l.Node.ID)
			if l.Node.Describe != "" {
				label += "\n" + l.Node.Describe
			}
			fmt.Fprintf(&b, "\t\t%s [label=%s];\n", quoted(string(l.Node.ID)), quoted(label))
		}
		for _, l := range t.Links {
			if l.Parent >= 0 {
				fmt.Fprintf(&b, "\t\t%s -> %s;\n", quoted(string(t.Links[l.Parent].Node.ID)), quoted(string(l.Node.ID)))
			}
		}
		b.WriteString("\t}\n")
	}
	for _, c := range jg.Connections {
		style := ""
		if c.Side != nil {
			style = ", style=dashed"
		}
		label := exchangeName(c.Exchange, c.Keys, c.Schema.Field)
		if c.Side != nil {
			label = c.Side.String() + ": " + label
		}
		fmt.Fprintf(&b, "\t%s -> %s [label=%s%s];\n", quoted(string(c.Edge().From)), quoted(string(c.To.ID)), quoted(label), style)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// placed is a line for each agent with the subtasks that it runs: "n1: 0-2, 5".
func (t *Task) placed(place func(dataflow.SubtaskID) string) string {
	if place == nil {
		return ""
	}
	var agents []string
	runs := make(map[string][]string) // "0-2"
	last, first := "", 0
	for i := range t.Parallelism {
		on := cmp.Or(place(dataflow.SubtaskID{Task: t.ID, Index: i}), "no agent")
		if i == 0 || on != last {
			last, first = on, i
			if runs[on] == nil {
				agents = append(agents, on)
			}
			runs[on] = append(runs[on], "")
		}
		run := strconv.Itoa(first)
		if i > first {
			run += "-" + strconv.Itoa(i)
		}
		runs[on][len(runs[on])-1] = run
	}
	var b strings.Builder
	for _, on := range agents {
		b.WriteString("\n" + on + ": " + strings.Join(runs[on], ", "))
	}
	return b.String()
}

// quoted is a Graphviz string.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// exchangeName is an exchange with its keys: "hash(sensor, kind)".
func exchangeName(x Exchange, keys []int, field func(int) batch.Field) string {
	if len(keys) == 0 {
		return x.String()
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = field(k).Name
	}
	return x.String() + "(" + strings.Join(names, ", ") + ")"
}
