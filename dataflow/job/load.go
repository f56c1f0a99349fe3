package job

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
)

// Options are what the caller of Load adds to the text.
type Options struct {
	// Set holds overrides, "sources.readings.mqtt.broker=mqtt://10.0.0.2:1883":
	// the path of a key, entries of lists by id or number, and a YAML value.
	Set []string
	// Parallelism, if not 0, replaces the job's own. Sources, steps and sinks
	// that name theirs keep it.
	Parallelism int
	// Resolver, if not nil, is asked for every secret once, so that a missing one
	// is an error of the check, with its line. The values are not kept.
	Resolver *Resolver
}

// Load reads and checks a job. The error is an Errors with everything that is
// wrong; then the job is nil. file is only a name for messages.
func Load(file string, text []byte, opt Options) (*Job, error) {
	l := &loader{file: file, opt: opt, origin: make(map[*yaml.Node]string), ops: make(map[string]*op)}
	l.job = &Job{File: file, Placement: make(map[dataflow.OperatorID]Constraints)}
	if root := l.parse(text); root != nil {
		for _, set := range opt.Set {
			l.override(root, set)
		}
		l.load(value{l: l, node: root}.object())
	}
	if len(l.errs) == 0 {
		return l.job, nil
	}
	errs := l.errs.sorted()
	if len(l.errs) >= maxErrors {
		errs = append(errs, &Error{File: file, Msg: fmt.Sprintf("more than %d errors: the rest of the file was not checked", maxErrors-1)})
	}
	return nil, errs
}

// loader is one Load under way.
type loader struct {
	file   string
	opt    Options
	errs   Errors
	origin map[*yaml.Node]string // nodes that came from --set
	job    *Job

	ops   map[string]*op
	order []*op // as in the file: sources, steps, sinks
	graph []*graph.Node
	stack []*op // operators whose inputs are being compiled, for cycles
}

func (l *loader) add(e *Error) {
	if e.File == "" {
		e.File = l.file
	}
	l.errs = append(l.errs, e)
}

func (l *loader) copyMark(from, to *yaml.Node) {
	if s, ok := l.origin[from]; ok {
		l.origin[to] = s
	}
}

func (l *loader) notYet(v value, fatal bool, format string, args ...any) {
	l.job.NotYet = append(l.job.NotYet, Notice{Line: v.line(), Path: v.path, Msg: fmt.Sprintf(format, args...), Fatal: fatal})
}

func (l *loader) withState(v value, fatal bool, format string, args ...any) {
	l.job.WithState = append(l.job.WithState, Notice{Line: v.line(), Path: v.path, Msg: fmt.Sprintf(format, args...), Fatal: fatal})
}

func (l *loader) warn(v value, format string, args ...any) {
	l.job.Warnings = append(l.job.Warnings, Notice{Line: v.line(), Path: v.path, Msg: fmt.Sprintf(format, args...)})
}

// load reads the whole job: first its own keys, then every operator's, so that
// names are known; then the operators in the order of their data, so that
// columns are.
func (l *loader) load(root *object) {
	if root == nil {
		return
	}
	j := l.job
	if v := root.need("name", "give the job a name"); v.given() {
		j.Name, _ = v.identifier("a job's name")
	}
	parallelism := 1
	if n, ok := root.take("parallelism").integer(1, dataflow.MaxMaxParallelism); ok {
		parallelism = int(n)
	}
	if p := l.opt.Parallelism; p != 0 {
		if parallelism = p; p < 1 || p > dataflow.MaxMaxParallelism {
			l.add(&Error{File: "--parallelism", Msg: fmt.Sprintf("must be in 1..%d, not %d", dataflow.MaxMaxParallelism, p)})
			parallelism = 1
		}
	}
	most := root.take("max_parallelism")
	l.settings(root)

	sources, steps, sinks := root.need("sources", "a job reads something"), root.take("steps"), root.need("sinks", "a job writes something; blackhole: is a sink too")
	j.Graph = &graph.StreamGraph{Job: j.Name, Parallelism: parallelism}
	l.collectSources(sources)
	l.collectList(steps, graph.StepNode)
	l.collectList(sinks, graph.SinkNode)
	root.close()

	l.maxParallelism(most)
	for _, o := range l.order {
		l.compile(o)
	}
	l.renamed()
	l.unread()
	l.collisions()
	if len(l.errs) > 0 {
		return
	}
	j.Graph.Nodes = l.graph
	if err := j.Graph.Check(); err != nil {
		l.add(&Error{Msg: err.Error()}) // the checks above are meant to be stricter
	}
}

// maxParallelism sets the number of key groups and checks that no operator has
// more subtasks than there are.
func (l *loader) maxParallelism(v value) {
	g, most := l.job.Graph, l.job.Graph.Parallelism
	for _, o := range l.order {
		most = max(most, o.parallelism)
	}
	n, ok := v.integer(1, dataflow.MaxMaxParallelism)
	if !ok {
		g.MaxParallelism = dataflow.DefaultMaxParallelism(most)
		return
	}
	g.MaxParallelism, g.MaxNamed = int(n), true
	if g.Parallelism > g.MaxParallelism {
		v.fail("raise it, or lower parallelism", "the job's parallelism %d is more than its %d key groups", g.Parallelism, n)
	}
	for _, o := range l.order {
		if o.own.given() && o.parallelism > g.MaxParallelism {
			o.own.fail("raise max_parallelism, or lower it", "is more than the job's %d key groups", n)
		}
	}
}

// settings reads what concerns the job as a whole.
func (l *loader) settings(root *object) {
	j := l.job
	if v := root.take("state"); v.given() {
		j.State = l.state(v)
	}
	if v := root.take("checkpoint"); v.given() {
		j.Checkpoint = l.checkpoint(v.object())
		l.withState(v, false, "checkpoints are kept only with --state; without, interval says how often sinks commit")
	}
	if v := root.take("restart"); v.given() {
		j.Restart = l.restart(v.object())
		if j.Restart.Strategy != NoRestart {
			l.withState(v, false, "a job is restarted from its checkpoint, so only with --state; without, a failure ends the run")
		}
	}
	if v := root.take("replicas"); v.given() {
		n, _ := v.integer(1, 16)
		j.Replicas = int(n)
		l.notYet(v, false, "nothing is copied to other agents yet")
	}
	if v := root.take("when_short"); v.given() {
		n, _ := v.oneOf("block", "degrade")
		j.WhenShort = WhenShort(n)
		l.notYet(v, false, "nothing is copied to other agents yet")
	}
	if v := root.take("replicate_to"); v.given() {
		j.ReplicateTo = l.sites(v)
		l.notYet(v, false, "a job that runs by itself is not kept at other sites")
	}
	if v := root.take("on_isolation"); v.given() {
		n, _ := v.oneOf("stop", "continue")
		j.OnIsolation = OnIsolation(n)
		l.notYet(v, false, "a job that runs by itself is not kept at other sites")
	}
	j.Constraints = l.constraints(root.take("constraints"))
}

// sites are names of sites, each once.
func (l *loader) sites(v value) (names []string) {
	all, where := v.texts()
	for i, name := range all {
		plain := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
		switch {
		case name == "" || len(name) > 63 || !plain || strings.Trim(name[:1], "0123456789-") == "" || strings.HasSuffix(name, "-"):
			where[i].fail("", "is %q, which is no site's name: a small letter, then small letters, digits and hyphens", name)
		case slices.Contains(names, name):
			where[i].fail("", "names site %s twice", name)
		default:
			names = append(names, name)
		}
	}
	return names
}

func (l *loader) state(v value) (s State) {
	o := v.object()
	backend := o.take("backend")
	n, known := backend.oneOf("memory", "disk")
	s.Backend = Backend(n)
	memory := o.take("memory")
	bytes, ok := memory.size(minStateMemory)
	switch {
	case s.Backend == OnDisk:
		if s.Memory = DefaultStateMemory; ok {
			s.Memory = bytes
		}
		l.withState(v, false, "state is put on disk only with --state; without, all of it stays in memory")
	case memory.given() && (known || !backend.given()):
		memory.fail("add backend: disk, or remove it", "memory bounds the cache of the disk backend; the memory backend keeps all of its state")
	}
	o.close()
	return s
}

// minStateMemory is the least cache with which the disk backend makes sense.
const minStateMemory = 1 << 20

func (l *loader) checkpoint(o *object) Checkpoint {
	c := Checkpoint{Given: true, Timeout: 10 * dataflow.Minute}
	c.Interval, _ = o.need("interval", "for example interval: 10s").duration(dataflow.Millisecond)
	if d, ok := o.take("timeout").duration(dataflow.Millisecond); ok {
		c.Timeout = d
	}
	c.MinPause, _ = o.take("min_pause").duration(0)
	if n, ok := o.take("tolerable_failures").integer(0, math.MaxInt32); ok {
		c.TolerableFailures = int(n)
	}
	n, _ := o.take("mode").oneOf("exactly-once", "at-least-once")
	c.Mode = CheckpointMode(n)
	o.close()
	return c
}

func (l *loader) restart(o *object) Restart {
	r := Restart{Given: true}
	strategies := []string{"exponential-delay", "fixed-delay", "failure-rate", "none"}
	n, ok := o.need("strategy", strings.Join(strategies, ", ")).oneOf(strategies...)
	if !ok {
		if o != nil {
			o.entries() // which keys are right depends on the strategy
		}
		return r
	}
	r.Strategy = RestartStrategy(n)
	span := func(key string, unset dataflow.Duration) dataflow.Duration {
		if d, ok := o.take(key).duration(0); ok {
			return d
		}
		return unset
	}
	count := func(key string, unset int) int {
		if n, ok := o.take(key).integer(0, math.MaxInt32); ok {
			return int(n)
		}
		return unset
	}
	switch r.Strategy {
	case ExponentialDelay:
		r.Initial, r.Max = span("initial", dataflow.Second), span("max", dataflow.Minute)
		r.Multiplier, r.Jitter = 2, 0.1
		if f, ok := o.take("multiplier").number(1, 1000); ok {
			r.Multiplier = f
		}
		if f, ok := o.take("jitter").number(0, 1); ok {
			r.Jitter = f
		}
		r.ResetAfter, r.Attempts = span("reset_after", dataflow.Hour), count("attempts", 0)
		if r.Initial > r.Max {
			o.fail("", "initial (%s) is longer than max (%s)", FormatDuration(r.Initial), FormatDuration(r.Max))
		}
	case FixedDelay:
		r.Attempts, r.Delay = count("attempts", 3), span("delay", 10*dataflow.Second)
	case FailureRate:
		r.MaxFailures, r.Interval, r.Delay = count("max_failures", 3), span("interval", 5*dataflow.Minute), span("delay", 10*dataflow.Second)
	}
	o.close()
	return r
}

func (l *loader) constraints(v value) (c Constraints) {
	o := v.object()
	if o == nil {
		return c
	}
	c.Site, _ = o.take("site").text()
	keys, vals := o.take("labels").object().entries()
	for i, k := range keys {
		if s, ok := vals[i].text(); ok {
			c.Labels = append(c.Labels, Label{k.node.Value, s})
		}
	}
	o.close()
	l.notYet(v, false, "there is one process and no sites yet: everything runs here")
	return c
}

// identifier is a name that may stand in a path, a topic and a metric.
func (v value) identifier(what string) (string, bool) {
	s, ok := v.text()
	if ok && !isIdentifier(s) {
		v.fail("use letters, digits, - and _, a letter first, at most 64", "%s cannot be %q", what, s)
		return s, false
	}
	return s, ok
}

// feedName is a feed's own name, or that of another job's mqtt source, JOB.SOURCE.
func (v value) feedName() (string, bool) {
	s, ok := v.text()
	jobName, source, own := strings.Cut(s, ".")
	if ok && !(isIdentifier(jobName) && (!own || isIdentifier(source))) {
		v.fail("name a feed with letters, digits, - and _, a letter first, at most 64, or a job's mqtt source with JOB.SOURCE", "a feed cannot be %q", s)
		return s, false
	}
	return s, ok
}

// IsFeedName tells whether a shared feed may be called so: letters, digits, - and _, a
// letter first, at most 64. Names with a dot are of jobs' own feeds, and of mirrors.
func IsFeedName(s string) bool { return isIdentifier(s) }

func isIdentifier(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || (r < '0' || r > '9') && r != '-') {
			return false
		}
	}
	return true
}
