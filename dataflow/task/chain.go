package task

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Partitioner deals the rows of one output out to its channels. Split borrows
// b; emit takes over the reference of what it is given.
type Partitioner interface {
	Split(b *batch.Batch, emit func(channel int, b *batch.Batch))
}

// OutputConfig is one edge out of the task.
type OutputConfig struct {
	Link        int // whose rows
	Side        bool
	SideStream  operator.Side // if Side
	Partitioner Partitioner
	Channels    int
}

// link is one operator in its place. It is the operator.Output of its own
// operator: what the operator emits goes to the links chained to it and to the
// outputs that leave the task here.
type link struct {
	task     *Task
	id       dataflow.OperatorID
	index    int
	op       *operator.Guard // nil for a sink and for the head of a source
	sink     bool
	children []*link
	outs     []output
	sides    [2][]output // by operator.Side
	counters operator.Counters
	based    bool // its snapshots may be deltas: there was one, or GoesOn said so

	suspended bool       // the operator said More, or Need
	needs     bool       // it said Need; until the next Resume nothing before it in the chain goes on
	lastMark  batch.Mark // of what it was given last: the side streams' mark
	marked    bool       // lastMark has not been sent to the side streams
}

// output is one edge: emit is bound once, so that Split allocates nothing.
type output struct {
	index     int
	partition Partitioner
	emit      func(channel int, b *batch.Batch)
}

// process gives b to the link's operator, or to the driver if it is a sink. The
// caller keeps its reference.
func (l *link) process(b *batch.Batch) {
	if l.suspended {
		panic(fmt.Sprintf("task: operator %q was given a batch before it had finished the last one", l.id))
	}
	l.counters.In += int64(b.Len())
	if l.sink {
		if b.Len() > 0 {
			l.counters.Out += int64(b.Len())
			l.task.put(Effect{Kind: Write, Link: l.index, Batch: b.Retain()})
		}
		return
	}
	if n := len(b.Marks); n > 0 {
		l.lastMark, l.marked = b.Marks[n-1], true
	}
	l.settle(l.op.Process(b, l))
}

// settle notes how the operator came back; when it is done, its side streams
// get the mark that the main stream already has.
func (l *link) settle(p operator.Progress, err error) {
	if err != nil {
		if l.task.source != nil {
			l.task.source.payloadOf(err)
		}
		l.task.fail(fmt.Errorf("operator %q: %w", l.id, err))
		return
	}
	l.suspended = p != operator.Done
	if p == operator.Need {
		l.needs = true
		l.task.put(Effect{Kind: NeedState, Link: l.index})
	}
	if !l.suspended && l.marked {
		l.marked = false
		l.markSides()
	}
}

func (l *link) markSides() {
	for s := range l.sides {
		if len(l.sides[s]) == 0 {
			continue
		}
		b := l.task.cfg.Pool.MarksOnly(l.sideSchema(operator.Side(s)), l.lastMark)
		l.deal(l.sides[s], b)
		b.Release()
	}
}

func (l *link) sideSchema(s operator.Side) *batch.Schema {
	if l.task.source != nil && l.index == 0 {
		return l.task.cfg.Source.Rejected
	}
	return l.task.cfg.Links[l.index].Factory.Side(s)
}

// Emit is operator.Output's.
func (l *link) Emit(b *batch.Batch) bool {
	l.counters.Out += int64(b.Len())
	l.task.emitted++
	l.deal(l.outs, b)
	free := true
	for _, c := range l.children {
		c.process(b)
		free = free && !c.blocked()
	}
	return free && !l.task.full()
}

// blocked tells whether l or a link behind it has output left over.
func (l *link) blocked() bool {
	if l.suspended {
		return true
	}
	for _, c := range l.children {
		if c.blocked() {
			return true
		}
	}
	return false
}

// EmitSide is operator.Output's.
func (l *link) EmitSide(s operator.Side, b *batch.Batch) bool {
	l.task.emitted++
	l.deal(l.sides[s], b)
	return !l.task.full()
}

// Wanted is operator.Output's.
func (l *link) Wanted(s operator.Side) bool { return len(l.sides[s]) > 0 }

func (l *link) deal(outs []output, b *batch.Batch) {
	for i := range outs {
		outs[i].partition.Split(b, outs[i].emit)
	}
}

// resume lets the operators that said More go on, the deepest first: a parent
// may emit again only when all its children are done. It returns with
// something still suspended only if the step is full, or state is to be read.
func (t *Task) resume() {
	for _, l := range t.links {
		l.needs = false // the driver has had it read
	}
	for i := len(t.links) - 1; i >= 0 && t.err == nil; {
		l := t.links[i]
		if !l.suspended || t.full() {
			i--
			continue
		}
		if l.needs {
			return // those before it may emit into it
		}
		l.settle(l.op.Resume(l))
		i = len(t.links) - 1 // what it emitted may have suspended links behind it
	}
}

// suspended tells whether any operator has output left over.
func (t *Task) suspended() bool {
	for _, l := range t.links {
		if l.suspended {
			return true
		}
	}
	return t.source != nil && t.source.busy()
}
