package connect

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"

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
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Options are the surroundings of a job's connectors.
type Options struct {
	Job     *job.Job
	Clock   sensors.Clock
	Secrets job.Resolver
	Events  func(string)       // one line for each thing worth telling; must not block
	From    *manifest.Manifest // what the job goes on from; nil: nothing
	Permit  sensors.Permit     // asked by sinks, and by sessions with brokers; nil: they always may
	Heard   func(*job.Source)  // a broker has granted an MQTT source its topics; nil: nobody listens
	Durable bool               // the job takes checkpoints: sinks that can commit with them
	Tap     bool               // only to look: brokers forget the sessions with the connection
	Stdin   io.Reader
	Stdout  io.Writer

	// Feed makes the reader of a subtask of a source that reads a feed; nil: MQTT
	// sources read their broker themselves, and there is no other feed.
	Feed func(s *job.Source, subtask, parallelism int) (sensors.Reader, error)
	// Wrap stands between a reader of a source and the job; nil: nothing does. The
	// splits' names must come through.
	Wrap func(dataflow.OperatorID, sensors.Reader) sensors.Reader

	Files     store.FS // where file sinks write; nil: the disk
	Out       string   // the folder of file sinks whose path is relative; empty: the process's
	Overwrite bool     // file sinks may replace files that are not empty
	State     store.FS // where transactional MQTT sinks keep what must outlive the process
	// SinkDir is their folder there.
	SinkDir func(dataflow.OperatorID) string
	// Local tells whether a subtask of an operator runs here; nil: all do. Of the
	// others nothing is looked at, as their files may not be here.
	Local func(op dataflow.OperatorID, subtask int) bool
	// Placed is where a sink is in a site; nil: there is none.
	Placed func(sink dataflow.OperatorID, subtask, parallelism int) sensors.Placed
}

// Connectors makes what a job names.
type Connectors struct {
	o   Options
	job *job.Job
	// files are what each file source's path names: listed once, so that all its
	// subtasks agree on the numbers of the splits.
	files map[*job.Source][]string
	// taken are the files that sources read and sinks write, whatever name they
	// go by; made with the first file sink.
	taken []takenFile
	// transactional are the sinks that commit with checkpoints.
	transactional map[dataflow.OperatorID]bool
}

// New makes the connectors of an attempt.
func New(o Options) *Connectors {
	if o.Files == nil {
		o.Files = disk.Shared
	}
	if o.Out != "" {
		o.Files = rooted{o.Files, o.Out}
	}
	return &Connectors{o: o, job: o.Job, files: make(map[*job.Source][]string), transactional: make(map[dataflow.OperatorID]bool)}
}

// Job is the job.
func (c *Connectors) Job() *job.Job { return c.job }

// From is what the job goes on from; nil: nothing.
func (c *Connectors) From() *manifest.Manifest { return c.o.From }

// Commits tells whether a sink commits with checkpoints. It is known when the
// sink was asked for.
func (c *Connectors) Commits(sink dataflow.OperatorID) bool { return c.transactional[sink] }

func (c *Connectors) local(op dataflow.OperatorID, subtask int) bool {
	return c.o.Local == nil || c.o.Local(op, subtask)
}

func (c *Connectors) placed(id dataflow.OperatorID, subtask, parallelism int) sensors.Placed {
	if c.o.Placed == nil {
		return sensors.Placed{}
	}
	return c.o.Placed(id, subtask, parallelism)
}

var _ runtime.Connectors = (*Connectors)(nil)

// Source is runtime.Connectors'.
func (c *Connectors) Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	s, ok := n.Source.(*job.Source)
	if !ok {
		return nil, nil, nil, fmt.Errorf("connect: source %q is a %T, not from a job file", n.ID, n.Source)
	}
	cfg := SourceConfig(s)
	p := n.Parallelism
	if !c.local(n.ID, subtask) {
		return cfg, func() (sensors.Reader, error) { return Nothing{}, nil }, nil, nil
	}
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
			}, s.Columns, pool, c.o.Clock)
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
				Files: files, Subtask: subtask, Parallelism: p, Split: file.SplitFor(s.Decode.Format), Header: cfg.Header, Stdin: c.o.Stdin, Clock: c.o.Clock,
			}))
		}, nil, nil
	case (s.MQTT != nil || s.Feed != nil) && c.o.Feed != nil:
		return cfg, func() (sensors.Reader, error) { return c.wrapped(n.ID)(c.o.Feed(s, subtask, p)) }, nil, nil
	case s.Feed != nil:
		return nil, nil, nil, fmt.Errorf("the feed %q is kept in a state folder; run with --state", s.Feed.Name)
	case s.MQTT != nil:
		if subtask > 0 {
			return cfg, func() (sensors.Reader, error) { return Nothing{}, nil }, nil, nil
		}
		return cfg, func() (sensors.Reader, error) { return c.wrapped(n.ID)(c.mqttReader(s)) }, nil, nil
	}
	return nil, nil, nil, fmt.Errorf("connect: a source %q cannot be read in this process", s.Connector())
}

// wrapped puts what stands between a source's reader and the job in its place.
func (c *Connectors) wrapped(id dataflow.OperatorID) func(sensors.Reader, error) (sensors.Reader, error) {
	return func(r sensors.Reader, err error) (sensors.Reader, error) {
		if err != nil || c.o.Wrap == nil {
			return r, err
		}
		return c.o.Wrap(id, r), nil
	}
}

// replays checks that the files which a job goes on with are there, and says
// which of them it could not read again.
func (c *Connectors) replays(n *graph.Node, subtask int, files []string) error {
	for _, p := range c.positionsOf(n) {
		if err := file.StillThere(files, p.Split, p.Ended); err != nil {
			return err
		}
	}
	if !c.o.Durable || subtask > 0 {
		return nil
	}
	for _, f := range files {
		if err := file.Replayable(f); err != nil {
			c.o.Events(err.Error())
		}
	}
	return nil
}

// splitsOf are the names of a source's splits in what the job goes on from.
func (c *Connectors) splitsOf(n *graph.Node) (names []string) {
	for _, p := range c.positionsOf(n) {
		names = append(names, p.Split)
	}
	return names
}

func (c *Connectors) positionsOf(n *graph.Node) []manifest.Position {
	if c.o.From == nil {
		return nil
	}
	for _, id := range []dataflow.OperatorID{n.ID, n.Was} {
		for _, o := range c.o.From.Operators {
			if o.ID == id && len(o.Positions) > 0 {
				return o.Positions
			}
		}
	}
	return nil
}

// SourceConfig is the head of a source's task.
func SourceConfig(s *job.Source) *task.SourceConfig {
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

func (c *Connectors) resolve(s *job.Source) ([]string, error) {
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

func (c *Connectors) mqttReader(s *job.Source) (sensors.Reader, error) {
	m := s.MQTT
	conn, err := c.Connection(m.Broker, m.ClientID, string(s.ID), m.Username, m.Password, m.TLS)
	if err != nil {
		return nil, err
	}
	conn.Events = func(e mqtt.Event) {
		if e.Kind == mqtt.Subscribed && c.o.Heard != nil {
			c.o.Heard(s)
		}
		c.o.Events(e.String())
	}
	return mqtt.NewReader(mqtt.ReaderOptions{
		Connection: conn, Topics: m.Topics, QoS: byte(m.QoS), Retained: mqtt.Retained(m.Retained), Lanes: m.Lanes, CleanSession: c.o.Tap,
	})
}

// Connection is how a session reaches its broker. A password is looked up anew
// for each connection, so that one that was changed is found.
func (c *Connectors) Connection(broker, clientID, operator string, user, password job.Secret, secure job.TLS) (mqtt.Connection, error) {
	if clientID == "" {
		clientID = c.job.Name + "/" + operator
	}
	conn := mqtt.Connection{
		Broker: broker, ClientID: clientID, CAFile: secure.CA, CertFile: secure.Cert, KeyFile: secure.Key, Clock: c.o.Clock, Permit: c.o.Permit,
		Events: func(e mqtt.Event) { c.o.Events(e.String()) },
	}
	if secure.ServerName != "" {
		conn.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: secure.ServerName}
	}
	var err error
	if user.Given() {
		if conn.Username, err = user.Resolve(c.o.Secrets); err != nil {
			return conn, fmt.Errorf("username: %w", err)
		}
	}
	if password.Given() {
		conn.Password = func() (string, error) { return password.Resolve(c.o.Secrets) }
	}
	return conn, nil
}

// Sink is runtime.Connectors'.
func (c *Connectors) Sink(n *graph.Node, subtask int, in *batch.Schema) (func() (sensors.Writer, error), error) {
	s, ok := n.Sink.(*job.Sink)
	if !ok {
		return nil, fmt.Errorf("connect: sink %q is a %T, not from a job file", n.ID, n.Sink)
	}
	p := n.Parallelism
	switch {
	case s.Blackhole != nil || !c.local(n.ID, subtask):
		return func() (sensors.Writer, error) { return &file.Blackhole{}, nil }, nil
	case s.Stdout != nil:
		e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(s.Stdout.Timestamps)})
		return func() (sensors.Writer, error) { return file.NewStream(c.o.Stdout, e, isTerminal(c.o.Stdout)), nil }, nil
	case s.File != nil:
		if err := c.claim(c.place(file.Target(s.File.Path, subtask, p)), s); err != nil {
			return nil, err
		}
		e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(s.File.Timestamps)})
		if s.File.Format == job.CSVRows {
			e = encode.NewCSV(in, encode.Options{Timestamps: encode.Times(s.File.Timestamps)})
		}
		c.transactional[n.ID] = c.o.Durable
		return func() (sensors.Writer, error) {
			cfg := c.fileSink(n, s, subtask)
			cfg.Encoder = e
			return file.OpenSink(cfg)
		}, nil
	case s.MQTT != nil && s.MQTT.Delivery == job.DeliverTransactional && c.o.Durable:
		c.transactional[n.ID] = true
		return func() (sensors.Writer, error) { return c.mqttTransactional(s, subtask, p, in) }, nil
	case s.MQTT != nil:
		return func() (sensors.Writer, error) { return c.mqttWriter(s, subtask, p, in) }, nil
	}
	return nil, fmt.Errorf("connect: a sink %q cannot be written from this process", s.Connector())
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Nothing is the reader of a subtask that has no split: an MQTT session is one
// connection, which the first subtask reads.
type Nothing struct{}

func (Nothing) Splits() int                                       { return 0 }
func (Nothing) Read(context.Context, *sensors.Records, int) error { return io.EOF }
func (Nothing) Ack(sensors.Position)                              {}
func (Nothing) Seek(sensors.Position) error                       { return nil }
func (Nothing) Close() error                                      { return nil }

func (c *Connectors) mqttWriter(s *job.Sink, subtask, parallelism int, in *batch.Schema) (sensors.Writer, error) {
	m := s.MQTT
	id := m.ClientID
	if id != "" && parallelism > 1 {
		id = fmt.Sprintf("%s-%d", id, subtask)
	}
	name := string(s.ID)
	if parallelism > 1 {
		name = fmt.Sprintf("%s-%d", name, subtask)
	}
	conn, err := c.Connection(m.Broker, id, name, m.Username, m.Password, m.TLS)
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
func (c *Connectors) mqttTransactional(s *job.Sink, subtask, parallelism int, in *batch.Schema) (sensors.Writer, error) {
	m := s.MQTT
	conn, err := c.Connection(m.Broker, m.ClientID, string(s.ID), m.Username, m.Password, m.TLS)
	if err != nil {
		return nil, err
	}
	e := encode.NewJSON(in, encode.Options{Timestamps: encode.Times(m.Timestamps)})
	return mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
		WriterOptions: mqtt.WriterOptions{Connection: conn, Topic: m.Topic.Source, Schema: in, QoS: byte(m.QoS), Retain: m.Retain, Encode: e.AppendRow},
		Subtask:       subtask, Parallelism: parallelism, Dir: c.o.SinkDir(s.ID), FS: c.o.State,
		Placed: c.placed(s.ID, subtask, parallelism),
	})
}
