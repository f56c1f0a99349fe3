package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// needs is what an agent must have for a piece: wants and pins, each once, in
// order.
type needs struct {
	wants []Want // without their operators
	pins  []mesh.NodeID
	why   []string // of pins
}

func needsOf(s Subtask) needs {
	var n needs
	for _, w := range s.Wants {
		w.Operator = ""
		n.wants = append(n.wants, w)
	}
	n.wants = orderWants(n.wants)
	if s.Pin != "" {
		n.pins, n.why = []mesh.NodeID{s.Pin}, []string{s.PinWhy}
	}
	return n
}

func orderWants(w []Want) []Want {
	sort.Slice(w, func(i, j int) bool {
		a, b := &w[i], &w[j]
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Label, b.Label), cmp.Compare(a.Value, b.Value)) < 0
	})
	return slices.Compact(w)
}

func (n needs) and(o needs) needs {
	both := needs{wants: orderWants(slices.Concat(n.wants, o.wants)), pins: slices.Clone(n.pins), why: slices.Clone(n.why)}
	for i, pin := range o.pins {
		if !slices.Contains(both.pins, pin) {
			both.pins, both.why = append(both.pins, pin), append(both.why, o.why[i])
		}
	}
	return both
}

func (n needs) metBy(a Agent, site mesh.Site) bool {
	for _, w := range n.wants {
		if w.Site != "" && w.Site != site {
			return false
		}
		if v, ok := a.Labels[w.Label]; w.Site == "" && (!ok || v != w.Value) {
			return false
		}
	}
	return !slices.ContainsFunc(n.pins, func(pin mesh.NodeID) bool { return pin != a.Node })
}

// String tells needs apart.
func (n needs) String() string { return n.text(nil) }

// text is what stands behind "needs 3 slots" in a sentence: " in site x with
// label rack=a on press-1 (feed plant)", with the names of those of the agents that
// are there.
func (n needs) text(there []Agent) string {
	var sites, labels []string
	for _, w := range n.wants {
		if w.Site != "" {
			sites = append(sites, string(w.Site))
		} else {
			labels = append(labels, w.Label+"="+w.Value)
		}
	}
	var b strings.Builder
	if len(sites) > 0 {
		b.WriteString(" in site " + strings.Join(sites, " and "))
	}
	if len(labels) > 0 {
		b.WriteString(" with " + plural(len(labels), "label") + " " + strings.Join(labels, ", "))
	}
	for i, pin := range n.pins {
		if i > 0 {
			b.WriteString(" and")
		}
		name := string(pin)
		if at := slices.IndexFunc(there, func(a Agent) bool { return a.Node == pin }); at >= 0 {
			name = cmp.Or(there[at].Name, name)
		}
		b.WriteString(" on " + name)
		if n.why[i] != "" {
			fmt.Fprintf(&b, " (%s)", n.why[i])
		}
	}
	return b.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// missing says what the pieces that are left wait for: a sentence for each kind
// of needs.
func (p *placer) missing(left []int) Waiting {
	var out Waiting
	said := make(map[string]bool)
	for _, i := range left {
		k := p.pieces[i]
		kind := k.needs.String()
		if said[kind] {
			continue
		}
		said[kind] = true
		if len(k.may) == 0 {
			out = append(out, p.nobody(k))
			continue
		}
		// Everybody counts who can go nowhere else.
		need, free := 0, 0
		for _, other := range p.pieces {
			if len(other.may) > 0 && within(other.may, k.may) {
				need++
			}
		}
		for _, agent := range k.may {
			free += p.room[agent]
		}
		text := fmt.Sprintf("needs %d %s%s; %s", need, plural(need, "slot"), k.needs.text(p.agents), p.free(k.may))
		if need <= free {
			text += ", for which more of its slots wait"
		}
		out = append(out, text)
	}
	return out
}

func within(a, b []int) bool {
	for _, x := range a {
		if _, ok := slices.BinarySearch(b, x); !ok {
			return false
		}
	}
	return true
}

// nobody says why no agent can ever take a piece, as they are.
func (p *placer) nobody(k *piece) string {
	n := 0
	for _, other := range p.pieces {
		if other.needs.String() == k.needs.String() {
			n++
		}
	}
	text := fmt.Sprintf("needs %d %s%s", n, plural(n, "slot"), k.needs.text(p.agents))
	for _, w := range k.needs.wants {
		if w.Site != "" && w.Site != p.r.Site {
			return fmt.Sprintf("%s; this is site %s", text, p.r.Site)
		}
	}
	for i, w := range k.needs.wants {
		if i > 0 && w.Site == "" && w.Label == k.needs.wants[i-1].Label {
			return fmt.Sprintf("%s; no agent can be both: %s is one task, cut the chain in it (chain: never)", text, k.subtasks[0].ID)
		}
	}
	switch pins := k.needs.pins; {
	case len(pins) == 0 && len(p.agents) == 0:
		return text + "; no agent is there"
	case len(pins) == 0:
		return text + "; no agent that is there has " + map[bool]string{true: "it", false: "them"}[len(k.needs.wants) == 1]
	case !slices.ContainsFunc(p.agents, func(a Agent) bool { return a.Node == pins[0] }):
		return text + "; it is not there"
	}
	return text + "; it has other labels"
}

// maxNamed is how many agents a sentence names.
const maxNamed = 5

// free says where slots are free: "3 free: 1 on a, 2 on b".
func (p *placer) free(may []int) string {
	var named []string
	total, more, others := 0, 0, 0
	short := false // of memory
	for _, agent := range may {
		a, room := p.agents[agent], p.room[agent]
		short = short || room < max(0, a.Slots)
		total += room
		switch {
		case room == 0:
		case len(named) < maxNamed:
			named = append(named, fmt.Sprintf("%d on %s", room, cmp.Or(a.Name, string(a.Node))))
		default:
			more += room
			others++
		}
	}
	if more > 0 {
		named = append(named, fmt.Sprintf("%d on %d more", more, others))
	}
	memory := ""
	if short {
		memory = " with memory"
	}
	switch {
	case total == 0:
		return "none free" + memory
	case len(named) == 1:
		_, on, _ := strings.Cut(named[0], " ")
		return fmt.Sprintf("%d free%s %s", total, memory, on)
	}
	return fmt.Sprintf("%d free%s: %s", total, memory, strings.Join(named, ", "))
}
