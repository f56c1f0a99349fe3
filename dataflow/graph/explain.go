package graph

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Explain writes the three pictures of a job as text. The execution graph's
// slots are those of one process; who places them elsewhere says so himself.
func Explain(w io.Writer, x *ExecutionGraph) error { return ExplainPlaced(w, x, nil) }

// ExplainPlaced is Explain that also says on which agent each subtask runs; empty:
// on none. place nil: nobody knows.
func ExplainPlaced(w io.Writer, x *ExecutionGraph, place func(dataflow.SubtaskID) string) error {
	jg, g := x.Job, x.Job.Stream
	var b strings.Builder
	fmt.Fprintf(&b, "job %s: parallelism %d, %d key groups\n", g.Job, g.Parallelism, g.MaxParallelism)

	fmt.Fprintf(&b, "\nstream graph: %s\n", count(len(g.Nodes), "operator"))
	rows := make([][]string, len(g.Nodes))
	for i, n := range g.Nodes {
		rows[i] = []string{n.Role.String(), string(n.ID), times(n.Parallelism), inputs(g, n), about(n)}
	}
	table(&b, rows)

	fmt.Fprintf(&b, "\njob graph: %s\n", count(len(jg.Tasks), "chain"))
	rows = make([][]string, len(jg.Tasks))
	for i, t := range jg.Tasks {
		rows[i] = []string{string(t.ID), times(t.Parallelism), "slots " + t.SlotGroup, "[" + t.chain(0) + "]" + t.outputs()}
	}
	table(&b, rows)

	fmt.Fprintf(&b, "\nexecution graph: %s, %s; %s with sharing, %d without\n",
		count(jg.Subtasks(), "task"), count(x.Channels(), "channel"), count(jg.Slots(), "slot"), jg.SlotsUnshared())
	table(&b, x.subtaskRows(place))
	_, err := io.WriteString(w, b.String())
	return err
}

// longestRun is how many subtasks of a task explain lists before it shortens.
const longestRun = 16

func (x *ExecutionGraph) subtaskRows(place func(dataflow.SubtaskID) string) [][]string {
	var rows [][]string
	for _, s := range x.Subtasks {
		i, p := s.ID.Index, s.Task.Parallelism
		if p > longestRun && i >= longestRun-2 && i < p-1 {
			if i == longestRun-2 {
				rows = append(rows, []string{fmt.Sprintf("… %d more", p-longestRun+1)})
			}
			continue
		}
		groups := ""
		if s.Task.keyed() {
			groups = fmt.Sprintf("key groups %d-%d", s.KeyGroups.First, s.KeyGroups.Last)
		}
		row := []string{s.ID.String(), fmt.Sprintf("slot %s/%d", s.Task.SlotGroup, i)}
		if place != nil {
			row = append(row, "on "+cmp.Or(place(s.ID), "no agent"))
		}
		rows = append(rows, append(row, groups, s.targets()))
	}
	return rows
}

// keyed tells whether the task owns key groups.
func (t *Task) keyed() bool {
	for _, c := range t.Inputs {
		if c.Exchange == Hash {
			return true
		}
	}
	return false
}

func (s Subtask) targets() string {
	var to []string
	for _, c := range s.Task.Outputs {
		first, n := c.Targets(s.ID.Index)
		to = append(to, subtasks(c.To.ID, first, n))
	}
	if len(to) == 0 {
		return ""
	}
	return "-> " + strings.Join(to, ", ")
}

func subtasks(t dataflow.TaskID, first, n int) string {
	if n == 1 {
		return fmt.Sprintf("%s/%d", t, first)
	}
	return fmt.Sprintf("%s/%d-%d", t, first, first+n-1)
}

// chain is the chain's tree below a link: "a -> b", or "a -> (b, c)".
func (t *Task) chain(link int) string {
	var below []string
	for i, l := range t.Links {
		if l.Parent == link {
			below = append(below, t.chain(i))
		}
	}
	id := string(t.Links[link].Node.ID)
	switch len(below) {
	case 0:
		return id
	case 1:
		return id + " -> " + below[0]
	}
	return id + " -> (" + strings.Join(below, ", ") + ")"
}

func (t *Task) outputs() string {
	var to []string
	for _, c := range t.Outputs {
		from := ""
		if e := c.Edge(); len(t.Links) > 1 || e.Side != nil {
			from = e.Stream() + " "
		}
		to = append(to, from+c.how()+"> "+string(c.To.ID))
	}
	if len(to) == 0 {
		return ""
	}
	return "  " + strings.Join(to, "; ")
}

// how is the exchange with its keys as the shaft of an arrow: "--hash(word)--".
func (c *Connection) how() string {
	return "--" + exchangeName(c.Exchange, c.Keys, c.Schema.Field) + "--"
}

func inputs(g *StreamGraph, n *Node) string {
	var from []string
	for _, e := range n.Inputs {
		from = append(from, e.Stream()+" "+exchangeName(e.Exchange, e.Keys, g.SchemaOf(e).Field))
	}
	if len(from) == 0 {
		return ""
	}
	return "<- " + strings.Join(from, ", ")
}

func about(n *Node) string {
	words := []string{n.Describe}
	if n.Describe == "" {
		words = nil
	}
	if n.Kind == Upsert && n.Role != SinkNode {
		words = append(words, "[upsert]")
	}
	if n.Chaining != ChainAlways {
		words = append(words, "[chain "+n.Chaining.String()+"]")
	}
	return strings.Join(words, " ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func times(p int) string { return fmt.Sprintf("x%d", p) }

// table writes rows with their cells aligned, two spaces apart. The last cell
// of a row takes no part in the widths.
func table(b *strings.Builder, rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, c := range r[:len(r)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString("  " + c)
			if i < len(r)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-len([]rune(c))))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
