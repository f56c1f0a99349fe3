package schedule_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

func subtask(name string) dataflow.SubtaskID {
	task, n, _ := strings.Cut(name, "/")
	i, _ := strconv.Atoi(n)
	return dataflow.SubtaskID{Task: dataflow.TaskID(task), Index: i}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func args(line string) ([]string, map[string]string) {
	var plain []string
	named := map[string]string{}
	for _, f := range strings.Fields(line) {
		if k, v, ok := strings.Cut(f, "="); ok {
			named[k] = v
		} else {
			plain = append(plain, f)
		}
	}
	return plain, named
}

func wants(text string) (w []schedule.Want) {
	for _, l := range list(text) {
		k, v, label := strings.Cut(l, ":")
		if !label {
			w = append(w, schedule.Want{Site: mesh.Site(k)})
		} else {
			w = append(w, schedule.Want{Label: k, Value: v})
		}
	}
	return w
}

func labels(text string) map[string]string {
	out := map[string]string{}
	for _, l := range list(text) {
		k, v, _ := strings.Cut(l, ":")
		out[k] = v
	}
	return out
}

// The scripts in testdata. The placement of a `place` is what ran before for the
// next, unless `before` says otherwise.
//
//	place [memory=N] [rebalance] [fresh]: agent n1 slots=2 labels=rack:a memory=N name=x
//	    slot in/0 win/0 … [in/0:want=rack:a,SITE] [in/0:pin=n1] [in/0:near=n1:100,n2:50] · before in/0 n1
//	owner epoch=1 owner=n1 members=n1,n2 start=5 replicas=2 want=… prefer=…: agent n1 host=h labels=… feeds=2 end=5
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var before []coordinator.Place
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "owner" {
				return owner(d)
			}
			r := request(d)
			if d.HasArg("fresh") {
				before = nil
			}
			if r.Before == nil {
				r.Before = before
			}
			places, waiting := schedule.Place(r)
			if len(waiting) > 0 {
				return strings.Join(waiting, "\n") + "\n"
			}
			var b strings.Builder
			for _, p := range places {
				moved := ""
				for _, was := range r.Before {
					if was.Subtask == p.Subtask && was.Node != p.Node {
						moved = " from " + string(was.Node)
					}
				}
				fmt.Fprintf(&b, "%s %s%s\n", p.Subtask, p.Node, moved)
			}
			before = places
			return b.String()
		})
	})
}

func request(d *datadriven.TestData) schedule.Request {
	r := schedule.Request{Site: "s", Rebalance: d.HasArg("rebalance")}
	for _, a := range d.CmdArgs {
		if a.Key == "memory" {
			r.Memory, _ = strconv.ParseInt(a.Vals[0], 10, 64)
		}
	}
	for line := range strings.Lines(d.Input) {
		plain, named := args(line)
		switch plain[0] {
		case "agent":
			a := schedule.Agent{Node: mesh.NodeID(plain[1]), Name: named["name"], Labels: labels(named["labels"])}
			a.Slots, _ = strconv.Atoi(named["slots"])
			a.Memory, _ = strconv.ParseInt(named["memory"], 10, 64)
			r.Agents = append(r.Agents, a)
		case "slot":
			var s schedule.Slot
			for _, name := range plain[1:] {
				t := schedule.Subtask{ID: subtask(name), Wants: wants(named[name+":want"]), Pin: mesh.NodeID(named[name+":pin"])}
				if t.Pin != "" {
					t.PinWhy = "feed plant"
				}
				for _, n := range list(named[name+":near"]) {
					node, bytes, _ := strings.Cut(n, ":")
					near := schedule.Near{Node: mesh.NodeID(node)}
					near.Bytes, _ = strconv.ParseInt(bytes, 10, 64)
					t.Near = append(t.Near, near)
				}
				s.Subtasks = append(s.Subtasks, t)
			}
			r.Slots = append(r.Slots, s)
		case "before":
			r.Before = append(r.Before, coordinator.Place{Subtask: subtask(plain[1]), Node: mesh.NodeID(plain[2])})
		}
	}
	return r
}

func owner(d *datadriven.TestData) string {
	r := schedule.FeedRequest{Feed: "plant", Site: "s"}
	for _, a := range d.CmdArgs {
		text := strings.Join(a.Vals, ",")
		n, _ := strconv.ParseInt(text, 10, 64)
		switch a.Key {
		case "epoch":
			r.Log.Epoch = uint64(n)
		case "owner":
			r.Log.Owner = mesh.NodeID(text)
		case "members":
			for _, m := range a.Vals {
				r.Log.Members = append(r.Log.Members, mesh.NodeID(m))
			}
		case "start":
			r.Log.Start = n
		case "replicas":
			r.Replicas = int(n)
		case "want":
			r.Wants = wants(text)
		case "prefer":
			r.Prefer = []mesh.NodeID{mesh.NodeID(text)}
		}
	}
	for line := range strings.Lines(d.Input) {
		plain, named := args(line)
		a := schedule.FeedAgent{Node: mesh.NodeID(plain[1]), Host: named["host"], Labels: labels(named["labels"])}
		a.Feeds, _ = strconv.Atoi(named["feeds"])
		a.End, _ = strconv.ParseInt(named["end"], 10, 64)
		r.Agents = append(r.Agents, a)
	}
	c, why := schedule.Owner(r)
	if why != "" {
		return why + "\n"
	}
	return fmt.Sprintf("owner %s, members %v, short %d, same %v\n", c.Owner, c.Members, c.Short, c.Same(r.Log))
}

// drawn is a random request: up to 6 agents of up to 4 slots, a job of up to 10
// slots whose subtasks have constraints, pins and data.
func drawn(t *rapid.T) schedule.Request {
	r := schedule.Request{Site: "s", Rebalance: rapid.Bool().Draw(t, "rebalance")}
	var nodes []mesh.NodeID
	for i := range rapid.IntRange(1, 6).Draw(t, "agents") {
		node := mesh.NodeID(fmt.Sprintf("n%d", i))
		nodes = append(nodes, node)
		r.Agents = append(r.Agents, schedule.Agent{Node: node, Slots: rapid.IntRange(0, 4).Draw(t, "slots"), Labels: map[string]string{"rack": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "rack")}})
	}
	for i := range rapid.IntRange(1, 10).Draw(t, "slots of the job") {
		var s schedule.Slot
		for _, task := range []dataflow.TaskID{"in", "win"}[:rapid.IntRange(1, 2).Draw(t, "tasks")] {
			sub := schedule.Subtask{ID: dataflow.SubtaskID{Task: task, Index: i}}
			switch rapid.IntRange(0, 6).Draw(t, "needs") {
			case 0:
				sub.Wants = []schedule.Want{{Label: "rack", Value: "a"}}
			case 1:
				sub.Wants = []schedule.Want{{Label: "rack", Value: "b"}}
			case 2:
				sub.Pin = rapid.SampledFrom(nodes).Draw(t, "pin")
			}
			if rapid.Bool().Draw(t, "near") {
				sub.Near = []schedule.Near{{Node: rapid.SampledFrom(nodes).Draw(t, "near node"), Bytes: 100}}
			}
			if rapid.Bool().Draw(t, "ran") {
				r.Before = append(r.Before, coordinator.Place{Subtask: sub.ID, Node: rapid.SampledFrom(nodes).Draw(t, "before")})
			}
			s.Subtasks = append(s.Subtasks, sub)
		}
		r.Slots = append(r.Slots, s)
	}
	return r
}

// judge checks what must hold of every placement.
func judge(t *rapid.T, r schedule.Request, places schedule.Placement) {
	agents := map[mesh.NodeID]schedule.Agent{}
	for _, a := range r.Agents {
		agents[a.Node] = a
	}
	at := map[dataflow.SubtaskID]mesh.NodeID{}
	for _, p := range places {
		if at[p.Subtask] != "" {
			t.Fatalf("%s has two places", p.Subtask)
		}
		at[p.Subtask] = p.Node
	}
	for _, s := range r.Slots {
		for _, sub := range s.Subtasks {
			a, ok := agents[at[sub.ID]]
			if !ok {
				t.Fatalf("%s is on %q", sub.ID, at[sub.ID])
			}
			if sub.Pin != "" && sub.Pin != a.Node {
				t.Fatalf("%s is on %s, and pinned to %s", sub.ID, a.Node, sub.Pin)
			}
			for _, w := range sub.Wants {
				if a.Labels[w.Label] != w.Value {
					t.Fatalf("%s is on %s, which has not %v", sub.ID, a.Node, w)
				}
			}
		}
	}
	gathered := schedule.Used(gatheredSlots(r.Slots), places)
	for node, n := range schedule.Used(r.Slots, places) {
		if n > agents[node].Slots && gathered[node] > agents[node].Slots {
			t.Fatalf("%d slots on %s, which has %d", n, node, agents[node].Slots)
		}
	}
}

// gatheredSlots are the slots with all that is pinned to an agent in one.
func gatheredSlots(slots []schedule.Slot) []schedule.Slot {
	var all []schedule.Slot
	pinned := map[mesh.NodeID]*schedule.Slot{}
	for _, s := range slots {
		var rest schedule.Slot
		for _, sub := range s.Subtasks {
			if sub.Pin == "" {
				rest.Subtasks = append(rest.Subtasks, sub)
				continue
			}
			if pinned[sub.Pin] == nil {
				pinned[sub.Pin] = &schedule.Slot{}
			}
			pinned[sub.Pin].Subtasks = append(pinned[sub.Pin].Subtasks, sub)
		}
		if len(rest.Subtasks) > 0 {
			all = append(all, rest)
		}
	}
	for _, s := range pinned {
		all = append(all, *s)
	}
	return all
}

// possible tells whether some placement of the slots exists, trying all; slots
// that one agent can take are not cut.
func possible(r schedule.Request) bool {
	can := func(subs []schedule.Subtask, a schedule.Agent) bool {
		for _, s := range subs {
			if s.Pin != "" && s.Pin != a.Node {
				return false
			}
			for _, w := range s.Wants {
				if a.Labels[w.Label] != w.Value {
					return false
				}
			}
		}
		return true
	}
	anybody := func(subs []schedule.Subtask) bool {
		for _, a := range r.Agents {
			if can(subs, a) {
				return true
			}
		}
		return false
	}
	var pieces [][]schedule.Subtask
	for _, s := range r.Slots {
		if anybody(s.Subtasks) {
			pieces = append(pieces, s.Subtasks)
			continue
		}
		for i := range s.Subtasks {
			pieces = append(pieces, s.Subtasks[i:i+1])
		}
	}
	free := map[mesh.NodeID]int{}
	for _, a := range r.Agents {
		free[a.Node] = a.Slots
	}
	var try func(i int) bool
	try = func(i int) bool {
		if i == len(pieces) {
			return true
		}
		for _, a := range r.Agents {
			if free[a.Node] > 0 && can(pieces[i], a) {
				free[a.Node]--
				if try(i + 1) {
					return true
				}
				free[a.Node]++
			}
		}
		return false
	}
	return try(0)
}

func TestPlacementsHoldAndAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawn(t)
		places, waiting := schedule.Place(r)
		if (places == nil) != (len(waiting) > 0) {
			t.Fatalf("%v, and waiting for %v", places, waiting)
		}
		if places == nil {
			if len(r.Slots) <= 6 && possible(r) {
				t.Fatalf("there is a placement, and it waits for %q", waiting)
			}
			return
		}
		judge(t, r, places)
		reversed := r
		reversed.Agents = append([]schedule.Agent(nil), r.Agents...)
		for i, j := 0, len(r.Agents)-1; i < j; i, j = i+1, j-1 {
			reversed.Agents[i], reversed.Agents[j] = reversed.Agents[j], reversed.Agents[i]
		}
		if again, _ := schedule.Place(reversed); fmt.Sprint(again) != fmt.Sprint(places) {
			t.Fatalf("agents in another order: %v\nand before %v", again, places)
		}
		r.Before, r.Rebalance = places, false
		if again, _ := schedule.Place(r); fmt.Sprint(again) != fmt.Sprint(places) {
			t.Fatalf("placed again it is %v\nand was %v", again, places)
		}
	})
}

// free is a request without constraints, pins and data.
func free(t *rapid.T) schedule.Request {
	r := drawn(t)
	r.Before = nil
	for i := range r.Agents {
		r.Agents[i].Slots = 20
	}
	for i := range r.Slots {
		for k := range r.Slots[i].Subtasks {
			r.Slots[i].Subtasks[k].Wants, r.Slots[i].Subtasks[k].Pin, r.Slots[i].Subtasks[k].Near = nil, "", nil
		}
	}
	return r
}

func spread(t *rapid.T, r schedule.Request, places schedule.Placement) {
	used := schedule.Used(r.Slots, places)
	least, most := len(r.Slots), 0
	for _, a := range r.Agents {
		least, most = min(least, used[a.Node]), max(most, used[a.Node])
	}
	if most-least > 1 {
		t.Fatalf("from %d to %d slots: %v", least, most, used)
	}
}

func TestSpreadIsEvenWhenNothingElseDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := free(t)
		places, waiting := schedule.Place(r)
		if len(waiting) > 0 {
			t.Fatalf("%v", waiting)
		}
		spread(t, r, places)
	})
}

// When an agent goes only what ran there moves; when it is asked for, what is
// beyond the fair share of an agent that came moves too.
func TestFewestMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := free(t)
		places, _ := schedule.Place(r)
		if len(r.Agents) < 2 {
			return
		}
		gone := r.Agents[rapid.IntRange(0, len(r.Agents)-1).Draw(t, "gone")]
		less := r
		less.Agents, less.Before, less.Rebalance = nil, places, false
		for _, a := range r.Agents {
			if a.Node != gone.Node {
				less.Agents = append(less.Agents, a)
			}
		}
		after, waiting := schedule.Place(less)
		if len(waiting) > 0 {
			t.Fatalf("%v", waiting)
		}
		for i, p := range after {
			if was := places[i]; was.Node != gone.Node && was != p {
				t.Fatalf("%s moved from %s to %s, and %s is gone", p.Subtask, was.Node, p.Node, gone.Node)
			}
		}
		spread(t, less, after)
		r.Before, r.Rebalance = after, true
		back, _ := schedule.Place(r)
		spread(t, r, back)
	})
}

// A log's owner was a member that has all of it, the members are there, each
// once, and asked again with the choice in force it is the same choice.
func TestOwnersHoldTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := schedule.FeedRequest{Feed: "plant", Site: "s", Replicas: rapid.IntRange(0, 4).Draw(t, "replicas")}
		if rapid.Bool().Draw(t, "constrained") {
			r.Wants = []schedule.Want{{Label: "rack", Value: "a"}}
		}
		all := []mesh.NodeID{"n0", "n1", "n2", "n3", "n4"}
		if rapid.Bool().Draw(t, "begun") {
			r.Log = coordinator.LogEpoch{Epoch: 3, Start: 10, Members: rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 3, rapid.ID).Draw(t, "members")}
			r.Log.Owner = r.Log.Members[0]
		}
		for _, n := range all {
			if rapid.Bool().Draw(t, "there") {
				r.Agents = append(r.Agents, schedule.FeedAgent{Node: n, Host: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "host"), Feeds: rapid.IntRange(0, 3).Draw(t, "feeds"),
					End: int64(rapid.SampledFrom([]int{0, 10, 12}).Draw(t, "end")), Labels: map[string]string{"rack": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "rack")}})
			}
		}
		c, why := schedule.Owner(r)
		if why != "" {
			return
		}
		seen := map[mesh.NodeID]bool{}
		for _, m := range c.Members {
			if seen[m] {
				t.Fatalf("%s is a member twice", m)
			}
			seen[m] = true
		}
		there := 0
		for i, a := range r.Agents {
			if seen[a.Node] {
				there++
			}
			member := false
			for _, m := range r.Log.Members {
				member = member || m == a.Node
			}
			if a.Node == c.Owner && r.Log.Epoch > 0 && (!member || a.End < 10) {
				t.Fatalf("owner %s has not the log", a.Node)
			}
			r.Agents[i].End = max(a.End, 10) // all are in sync in the epoch that begins
		}
		if there != len(c.Members) || c.Members[0] != c.Owner {
			t.Fatalf("members %v, owner %s", c.Members, c.Owner)
		}
		for range 3 {
			r.Log = coordinator.LogEpoch{Epoch: r.Log.Epoch + 1, Owner: c.Owner, Members: c.Members, Start: 10}
			c, _ = schedule.Owner(r)
		}
		if !c.Same(r.Log) {
			t.Fatalf("it does not come to rest: %+v after %+v", c, r.Log)
		}
	})
}

type source struct{ schema *batch.Schema }

func (source) Connector() string                { return "test" }
func (s source) Schema() *batch.Schema          { return s.schema }
func (source) Side(operator.Side) *batch.Schema { return nil }

type sink struct{}

func (sink) Connector() string { return "test" }

func TestSlotsOfAnExecutionGraph(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "word", Type: batch.String})
	b := graph.NewBuilder("j", 2)
	b.Source("in", source{s}).Then("pass", operator.NewPass(s)).KeyBy("word").Then("sum", operator.NewPass(s)).Sink("out", sink{})
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	x := graph.Expand(graph.Chain(g, graph.Options{}))
	slots := schedule.Slots(x, job.Constraints{Site: "s"}, map[dataflow.OperatorID]job.Constraints{"pass": {Labels: []job.Label{{Name: "rack", Value: "a"}}}})
	if len(slots) != 2 || len(slots[0].Subtasks) != 3 || len(slots[1].Subtasks) != 2 {
		t.Fatalf("%v", slots)
	}
	if w := slots[1].Subtasks[0].Wants; len(w) != 2 || w[0].Site != "s" || w[1] != (schedule.Want{Operator: "pass", Label: "rack", Value: "a"}) {
		t.Errorf("in/1 wants %v", w)
	}
	if w := slots[0].Subtasks[1].Wants; len(w) != 1 || w[0].Site != "s" {
		t.Errorf("sum/0 wants %v", w)
	}
}

// TestPinnedSubtasksShareASlot: three sources must run on an agent that has two
// slots; they take one, and the rest of the job is wherever there is room.
func TestPinnedSubtasksShareASlot(t *testing.T) {
	r := schedule.Request{Agents: []schedule.Agent{{Node: "a", Slots: 2}, {Node: "b", Slots: 2}}}
	for i := range 3 {
		r.Slots = append(r.Slots, schedule.Slot{Subtasks: []schedule.Subtask{
			{ID: dataflow.SubtaskID{Task: "readings", Index: i}, Pin: "a", PinWhy: "feed f"}, {ID: dataflow.SubtaskID{Task: "windows", Index: i}},
		}})
	}
	places, waiting := schedule.Place(r)
	if len(waiting) > 0 {
		t.Fatalf("it waits for %q", waiting)
	}
	on := map[mesh.NodeID]int{}
	for _, p := range places {
		if p.Subtask.Task == "readings" && p.Node != "a" {
			t.Errorf("%v is not where its feed is", p)
		}
		if p.Subtask.Task == "windows" {
			on[p.Node]++
		}
	}
	if on["a"] != 1 || on["b"] != 2 {
		t.Errorf("windows: %v", on)
	}
	if used := schedule.Used(r.Slots, places); used["a"] != 2 || used["b"] != 2 {
		t.Errorf("used: %v", used)
	}
	r.Agents[0].Slots = 0
	if _, waiting := schedule.Place(r); len(waiting) == 0 {
		t.Error("there was no slot at all on a")
	}
}
