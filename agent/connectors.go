package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/sensors/file"
	"github.com/tidemark-mesh/tidemark/sensors/generate"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// connectors makes what a job names, for a run in this process.
type connectors struct {
	job *job.Job
	opt LocalOptions
	tap bool // only to look: brokers forget the sessions with the connection
	// files are what each file source's path names: listed once, so that all its
	// subtasks agree on the numbers of the splits.
	files map[*job.Source][]string
	// taken are the files that sources read and sinks write, whatever name they
	// go by; made with the first file sink.
	taken   []takenFile
	hearing *hearing
	// durable is where the job's feeds are and what else must outlive the process;
	// nil: nothing does.
	durable *surroundings
	// from is what the job goes on from; nil: nothing.
	from *manifest.Manifest
	// transactional are the sinks that commit with checkpoints.
	transactional map[dataflow.OperatorID]bool
}

func newConnectors(j *job.Job, opt LocalOptions, h *hearing, d *surroundings, from *manifest.Manifest) *connectors {
	return &connectors{job: j, from: from, opt: opt, files: make(map[*job.Source][]string), hearing: h, durable: d, transactional: make(map[dataflow.OperatorID]bool)}
}

// hearing is which sources wait for their brokers to grant them their topics.
type hearing struct {
	heard chan struct{} // closed when none waits any more

	mu      sync.Mutex // guards waiting
	waiting map[*job.Source]bool
}

func newHearing(j *job.Job) *hearing {
	h := &hearing{heard: make(chan struct{}), waiting: make(map[*job.Source]bool)}
	for _, s := range j.Sources {
		if s.MQTT != nil || s.Feed != nil {
			h.waiting[s] = true
		}
	}
	if len(h.waiting) == 0 {
		close(h.heard)
	}
	return h
}

// subscribed notes that the broker granted a source's topics.
func (h *hearing) subscribed(s *job.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.waiting[s] {
		return
	}
	if delete(h.waiting, s); len(h.waiting) == 0 {
		close(h.heard)
	}
}

var _ runtime.Connectors = (*connectors)(nil)

// Source is runtime.Connectors'.
func (c *connectors) Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	s, ok := n.Source.(*job.Source)
	if !ok {
		return nil, nil, nil, fmt.Errorf("agent: source %q is a %T, not from a job file", n.ID, n.Source)
	}
	cfg := sourceConfig(s)
	p := n.Parallelism
	switch {
	case s.Generate != nil:
		g := s.Generate
		splits, err := generate.SplitsOf(c.splitsOf(n))
		if err != nil {
			return nil, nil, nil, err
		}
		return cfg, nil, func(pool *batch.Pool) (sensors.BatchReader, error) {
			return generate.New(generate.Config{
				Seed: g.Seed, Rate: g.Rate, Keys: int64(g.Keys), Rows: g.Rows, Disorder: g.Disorder, Subtask: subtask, Parallelism: p,
				Splits: splits,
			}, s.Columns, pool, c.opt.Clock)
		}, nil
	case s.File != nil:
		files, err := c.resolve(s)
		if err == nil {
			err = c.replays(n, subtask, files)
		}
		if err != nil {
			return nil, nil, nil, err
		}
		return cfg, func() (sensors.Reader, error) {
			return c.wrapped(n.ID)(file.NewReader(file.SourceConfig{
				Files: files, Subtask: subtask, Parallelism: p, Split: file.SplitFor(s.Decode.Format), Header: cfg.Header, Stdin: c.opt.Stdin, Clock: c.opt.Clock,
			}))
		}, nil, nil
	case (s.MQTT != nil || s.Feed != nil) && c.durable != nil:
		return cfg, func() (sensors.Reader, error) { return c.wrapped(n.ID)(c.durable.reader(s, subtask, p)) }, nil, nil
	case s.Feed != nil:
		return nil, nil, nil, fmt.Errorf("the feed %q is kept in a state folder; run with --state", s.Feed.Name)
	case s.MQTT != nil:
		if subtask > 0 {
			return cfg, func() (sensors.Reader, error) { return nothing{}, nil }, nil, nil
		}
		return cfg, func() (sensors.Reader, error) { return c.wrapped(n.ID)(c.mqttReader(s)) }, nil, nil
	}
	return nil, nil, nil, fmt.Errorf("agent: a source %q cannot be read in this process", s.Connector())
}

// wrapped puts what stands between a source's reader and the job in its place.
func (c *connectors) wrapped(id dataflow.OperatorID) func(sensors.Reader, error) (sensors.Reader, error) {
	return func(r sensors.Reader, err error) (sensors.Reader, error) {
		if err != nil || c.opt.Wrap == nil {
			return r, err
		}
		return c.opt.Wrap(id, r), nil
	}
}

// replays checks that the files which a job goes on with are there, and says
// which of them it could not read again.
func (c *connectors) replays(n *graph.Node, subtask int, files []string) error {
	for _, p := range c.positionsOf(n) {
		if err := file.StillThere(files, p.Split, p.Ended); err != nil {
			return err
		}
	}
	if c.durable == nil || subtask > 0 {
		return nil
	}
	for _, f := range files {
		if err := file.Replayable(f); err != nil {
			c.opt.Events(err.Error())
		}
	}
	return nil
}

// splitsOf are the names of a source's splits in what the job goes on from.
func (c *connectors) splitsOf(n *graph.Node) (names []string) {
	for _, p := range c.positionsOf(n) {
		names = append(names, p.Split)
	}
	return names
}

func (c *connectors) positionsOf(n *graph.Node) []manifest.Position {
	if c.from == nil {
		return nil
	}
	for _, id := range []dataflow.OperatorID{n.ID, n.Was} {
		for _, o := range c.from.Operators {
			if o.ID == id && len(o.Positions) > 0 {
				return o.Positions
			}
		}
	}
	return nil
}

// sourceConfig is the head of a source's task.
func sourceConfig(s *job.Source) *task.SourceConfig {
	cfg := &task.SourceConfig{
		Schema: s.Columns, Rejected: s.Side(operator.Rejected), NoRoom: decode.ErrNoRoom, Header: s.Decode.Format == decode.CSV && s.Decode.Header,
		Time: s.Time.Config, EventAt: s.Time.EventAt, DeviceAt: s.Time.DeviceAt, Arrival: s.Time.Arrival, When: s.Time.When, At: s.Time.At,
	}
	if d := s.Dedupe; d != nil {
		cfg.Dedupe = &dedupe.Config{By: d.By, Within: d.Within, Entries: d.Entries}
	}
	if cfg.EventAt < 0 {
		cfg.Time.Strategy = eventtime.Ingestion
	}
	if s.Generate == nil {
		cfg.Decoder = func() (task.Decoder, error) { return decode.New(s.Decode, s.Columns) }
	}
	return cfg
}

func (c *connectors) resolve(s *job.Source) ([]string, error) {
	if files, ok := c.files[s]; ok {
		return files, nil
	}
	files, err := file.Resolve(s.File.Path)
	if err != nil {
		return nil, err
	}
	c.files[s] = files
	return files, nil
}

func (c *connectors) mqttReader(s *job.Source) (sensors.Reader, error) {
	m := s.MQTT
	conn, err := c.connection(m.Broker, m.ClientID, string(s.ID), m.Username, m.Password, m.TLS)
	if err != nil {
		return nil, err
	}
	conn.Events = func(e mqtt.Event) {
		if e.Kind == mqtt.Subscribed {
			c.hearing.subscribed(s)
		}
		c.opt.Events(e.String())
	}
	return mqtt.NewReader(mqtt.ReaderOptions{
		Connection: conn, Topics: m.Topics, QoS: byte(m.QoS), Retained: mqtt.Retained(m.Retained), Lanes: m.Lanes, CleanSession: c.tap,
	})
}

// connection is how a session reaches its broker. A password is looked up anew
// for each connection, so that one that was changed is found.
func (c *connectors) connection(broker, clientID, operator string, user, password job.Secret, secure job.TLS) (mqtt.Connection, error) {
	if clientID == "" {
		clientID = c.job.Name + "/" + operator
	}
	conn := mqtt.Connection{
		Broker: broker, ClientID: clientID, CAFile: secure.CA, CertFile: secure.Cert, KeyFile: secure.Key, Clock: c.opt.Clock,
		Events: func(e mqtt.Event) { c.opt.Events(e.String()) },
	}
	if secure.ServerName != "" {
		conn.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: secure.ServerName}
	}
	var err error
	if user.Given() {
		if conn.Username, err = user.Resolve(c.opt.Secrets); err != nil {
			return conn, fmt.Errorf("username: %w", err)
		}
	}
	if password.Given() {
		conn.Password = func() (string, error) { return password.Resolve(c.opt.Secrets) }
	}
	return conn, nil
}

// Sink is runtime.Connectors'.
func (c *connectors) Sink(n *graph.Node, subtask int, in *batch.Schema) (func() (sensors.Writer, error), error) {
	s, ok := n.Sink.(*job.Sink)
	if !ok {
		return nil, fmt.Errorf("agent: sink %q is a %T, not from a job file", n.ID, n.Sink)
	}
	p := n.Parallelism
	switch {
	case s.Blackhole != nil:
		return func() (sensors.Writer, error) { return &file.Blackhole{}, nil }, nil
	case s.Stdout != nil:
		e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(s.Stdout.Timestamps)})
		return func() (sensors.Writer, error) { return file.NewStream(c.opt.Stdout, e, isTerminal(c.opt.Stdout)), nil }, nil
	case s.File != nil:
		if err := c.claim(file.Target(s.File.Path, subtask, p), s); err != nil {
			return nil, err
		}
		e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(s.File.Timestamps)})
		if s.File.Format == job.CSVRows {
			e = encode.NewCSV(in, encode.Options{Timestamps: encode.Times(s.File.Timestamps)})
		}
		c.transactional[n.ID] = c.durable != nil
		return func() (sensors.Writer, error) {
			return file.OpenSink(file.SinkConfig{
				Path: s.File.Path, Subtask: subtask, Parallelism: p, Overwrite: c.opt.Overwrite, Encoder: e, Durable: c.durable != nil, FS: c.opt.Files,
			})
		}, nil
	case s.MQTT != nil && s.MQTT.Delivery == job.DeliverTransactional && c.durable != nil:
		c.transactional[n.ID] = true
		return func() (sensors.Writer, error) { return c.mqttTransactional(s, subtask, p, in) }, nil
	case s.MQTT != nil:
		return func() (sensors.Writer, error) { return c.mqttWriter(s, subtask, p, in) }, nil
	}
	return nil, fmt.Errorf("agent: a sink %q cannot be written from this process", s.Connector())
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// nothing is the reader of a subtask that has no split: an MQTT session is one
// connection, which the first subtask reads.
type nothing struct{}

func (nothing) Splits() int                                       { return 0 }
func (nothing) Read(context.Context, *sensors.Records, int) error { return io.EOF }
func (nothing) Ack(sensors.Position)                              {}
func (nothing) Seek(sensors.Position) error                       { return nil }
func (nothing) Close() error                                      { return nil }

func (c *connectors) mqttWriter(s *job.Sink, subtask, parallelism int, in *batch.Schema) (sensors.Writer, error) {
	m := s.MQTT
	id := m.ClientID
	if id != "" && parallelism > 1 {
		id = fmt.Sprintf("%s-%d", id, subtask)
	}
	name := string(s.ID)
	if parallelism > 1 {
		name = fmt.Sprintf("%s-%d", name, subtask)
	}
	conn, err := c.connection(m.Broker, id, name, m.Username, m.Password, m.TLS)
	if err != nil {
		return nil, err
	}
	e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(m.Timestamps)})
	return mqtt.NewWriter(mqtt.WriterOptions{
		Connection: conn, Topic: m.Topic.Source, Schema: in, QoS: byte(m.QoS), Retain: m.Retain, Encode: e.AppendRow,
	})
}

// mqttTransactional is a sink whose rows are published when their checkpoint has
// completed. Its client id is a session that outlives the process.
func (c *connectors) mqttTransactional(s *job.Sink, subtask, parallelism int, in *batch.Schema) (sensors.Writer, error) {
	m := s.MQTT
	conn, err := c.connection(m.Broker, m.ClientID, string(s.ID), m.Username, m.Password, m.TLS)
	if err != nil {
		return nil, err
	}
	e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(m.Timestamps)})
	return mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
		WriterOptions: mqtt.WriterOptions{Connection: conn, Topic: m.Topic.Source, Schema: in, QoS: byte(m.QoS), Retain: m.Retain, Encode: e.AppendRow},
		Subtask:       subtask, Parallelism: parallelism, Dir: c.durable.sinkDir(s.ID), FS: c.durable.state.store.FS(),
	})
}
