package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/file"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// CheckOptions are what a Check may use.
type CheckOptions struct {
	Dir              string // the state folder that the job would run on; empty: none is known
	AllowNonRestored bool
	Secrets          job.Resolver
	Timeout          dataflow.Duration // for a broker to answer; 0: ReachTimeout
}

// ReachTimeout is how long a broker has to answer.
const ReachTimeout = 3 * dataflow.Second

// Checked is all that stands for and against starting a job from a savepoint.
type Checked struct {
	*restore.Report
	Connectors []Connector `json:"connectors"`
	OK         bool        `json:"ok"` // the report's, and every connector's
}

// Connector is what a source or a sink is connected to.
type Connector struct {
	Operator dataflow.OperatorID `json:"operator"`
	Role     string              `json:"role"`  // source or sink
	Where    string              `json:"where"` // path or URL
	OK       bool                `json:"ok"`
	Reason   string              `json:"reason,omitempty"`
}

// Check is the dry run of a job from a savepoint: what becomes of its state,
// whether all of it can be read, and whether files and brokers are there. It
// starts nothing and changes nothing; brokers see a connection that is closed
// again.
func Check(ctx context.Context, j *job.Job, v *durable.Saved, o CheckOptions) (*Checked, error) {
	m := &v.Manifest
	c := &checking{Connectors: connect.New(connectorsOf(j, LocalOptions{Secrets: o.Secrets, Clock: sensors.Wall{}, Events: func(string) {}}, newHearing(j), nil, m)), wrong: make(map[dataflow.OperatorID]error)}
	_ = c.TakeInputs() // what is wrong with a source's files its own finding says
	x := graph.Expand(graph.Chain(j.Graph, graph.Options{}))
	plan, err := runtime.NewPlan(x, c)
	if err != nil {
		return nil, fmt.Errorf("job %q: %w", j.Name, err)
	}
	tables := durable.TablesOf(runtime.New(plan, runtime.Options{}).Tables())
	report := restore.Check(m, restore.JobOf(j.Graph, tables), restore.Options{AllowNonRestored: o.AllowNonRestored})
	for _, err := range []error{v.Verify(), foreign(j, m)} {
		if err != nil {
			report.OK = false
			report.Findings = append(report.Findings, restore.Finding{Verdict: restore.Refused, Reason: oneLine(err)})
		}
	}
	out := &Checked{Report: report, OK: report.OK, Connectors: c.reach(ctx, o)}
	for _, k := range out.Connectors {
		out.OK = out.OK && k.OK
	}
	return out, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// checking stands in for connectors: it notes what is wrong with them in place
// of ending the check, and what it makes is never opened.
type checking struct {
	*connect.Connectors
	wrong map[dataflow.OperatorID]error
}

var _ runtime.Connectors = (*checking)(nil)

// Source is runtime.Connectors'.
func (c *checking) Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	s, ok := n.Source.(*job.Source)
	if ok && s.Feed == nil {
		if _, _, _, err := c.Connectors.Source(n, subtask); err != nil && c.wrong[n.ID] == nil {
			c.wrong[n.ID] = err
		}
	}
	return connect.SourceConfig(s), func() (sensors.Reader, error) { return connect.Nothing{}, nil }, nil, nil
}

// Sink is runtime.Connectors'.
func (c *checking) Sink(n *graph.Node, subtask int, in *batch.Schema) (func() (sensors.Writer, error), error) {
	if _, err := c.Connectors.Sink(n, subtask, in); err != nil && c.wrong[n.ID] == nil {
		c.wrong[n.ID] = err
	}
	return func() (sensors.Writer, error) { return &file.Blackhole{}, nil }, nil
}

// reach looks at all sources, then all sinks; brokers at the same time.
func (c *checking) reach(ctx context.Context, o CheckOptions) []Connector {
	type look struct {
		Connector
		broker func() error // nil: there is none
	}
	var all []look
	for _, s := range c.Job().Sources {
		l := look{Connector: Connector{Operator: s.ID, Role: graph.SourceNode.String()}}
		err := c.wrong[s.ID]
		switch {
		case s.File != nil:
			l.Where = s.File.Path
		case s.MQTT != nil:
			m := s.MQTT
			l.Where = m.Broker
			l.broker = c.broker(ctx, o, m.Broker, m.Username, m.Password, m.TLS)
			err = errors.Join(err, logged(c.Job(), c.From(), s, feed.Options{Dir: o.Dir}))
		case s.Feed != nil:
			l.Where = "feed " + s.Feed.Name
			var cfg feed.Config
			if cfg, err = feedOf(s, o.Dir); err == nil {
				l.Where += ", " + cfg.Broker
				l.broker = c.broker(ctx, o, cfg.Broker, cfg.Username, cfg.Password, cfg.TLS)
				err = logged(c.Job(), c.From(), s, feed.Options{Dir: o.Dir})
			}
		default:
			continue // it makes its rows itself
		}
		l.judge(err)
		all = append(all, l)
	}
	for _, s := range c.Job().Sinks {
		l := look{Connector: Connector{Operator: s.ID, Role: graph.SinkNode.String()}}
		err := c.wrong[s.ID]
		switch {
		case s.File != nil:
			l.Where = s.File.Path
			err = errors.Join(err, writable(s.File.Path))
		case s.MQTT != nil:
			m := s.MQTT
			l.Where = m.Broker
			l.broker = c.broker(ctx, o, m.Broker, m.Username, m.Password, m.TLS)
		default:
			continue // there is nothing to reach
		}
		l.judge(err)
		all = append(all, l)
	}
	var dials sync.WaitGroup
	for i := range all {
		if all[i].broker != nil && all[i].OK {
			dials.Go(func() { all[i].judge(all[i].broker()) }) // ends with the timeout at the latest
		}
	}
	dials.Wait()
	list := make([]Connector, 0, len(all))
	for _, l := range all {
		list = append(list, l.Connector)
	}
	return list
}

func (c *Connector) judge(err error) {
	if c.OK = err == nil; !c.OK {
		c.Reason = oneLine(err)
	}
}

func (c *checking) broker(ctx context.Context, o CheckOptions, url string, user, password job.Secret, secure job.TLS) func() error {
	return func() error {
		conn, err := c.Connection(url, "", "", user, password, secure)
		if err != nil {
			return err
		}
		return mqtt.Reach(ctx, conn, cmp.Or(o.Timeout, ReachTimeout))
	}
}

// feedOf is the shared feed that a source names.
func feedOf(s *job.Source, dir string) (feed.Config, error) {
	if dir == "" {
		return feed.Config{}, fmt.Errorf("the feed %q is kept in a state folder; give it with --state", s.Feed.Name)
	}
	names, err := feed.List(feed.Options{Dir: dir})
	if err != nil {
		return feed.Config{}, err
	}
	if !slices.Contains(names, s.Feed.Name) {
		return feed.Config{}, fmt.Errorf("there is no feed %q in %s; make it with tidemark feed create", s.Feed.Name, dir)
	}
	info, err := feed.Show(feed.Options{Dir: dir}, s.Feed.Name)
	if info.Config.Broker == "" && err != nil {
		return feed.Config{}, err
	}
	return info.Config, s.CheckFilters(info.Config.Topics)
}

// logged tells whether the feed that a source reads still has what follows the
// positions at which the source would go on. Of one that runs, or where no
// folder is known, nothing can be said.
func logged(j *job.Job, m *manifest.Manifest, s *job.Source, o feed.Options) error {
	at, err := offsets(m, s)
	if err != nil || o.Dir == "" || len(at) == 0 {
		return err
	}
	name := feedName(j.Name, s)
	info, err := feed.Show(o, name)
	if errors.Is(err, store.ErrLocked) {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrMissing) {
		return err
	}
	var errs []error
	for _, lane := range slices.Sorted(maps.Keys(at)) {
		var has feed.LaneStats
		if lane < len(info.Lanes) {
			has = info.Lanes[lane]
		}
		switch {
		case at[lane] > has.Next:
			errs = append(errs, fmt.Errorf("the source stands at entry %d of lane %d of the feed %s, whose log in %s ends with %d: put the log back, start on the folder where %s was taken, or give the source another id (--allow-non-restored) to begin with what arrives",
				at[lane], lane, name, o.Dir, has.Next, m.Name))
		case at[lane] < has.First:
			errs = append(errs, fmt.Errorf("the source stands at entry %d of lane %d of the feed %s, whose log in %s begins with %d: what is between is not kept any more", at[lane], lane, name, o.Dir, has.First))
		}
	}
	return errors.Join(errs...)
}

// writable tells whether a file could be made, or replaced, at a path: the
// nearest folder that there is decides.
func writable(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder; name a file in it", path)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is not a directory, so that %s cannot be made", dir, path)
		case err == nil || dir == filepath.Dir(dir):
			return nil
		case errors.Is(err, os.ErrPermission):
			return err
		}
	}
}
