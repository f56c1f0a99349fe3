package job

import (
	"path"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
)

// compileSink reads a sink's connector and makes its edge.
func (l *loader) compileSink(o *op, streams []*stream) {
	k := &Sink{ID: o.node.ID, Parallelism: o.parallelism}
	o.sink, o.node.Sink = k, k
	exchange := l.exchange(o, verbs{exchange: o.obj.take("exchange")})
	for _, s := range streams {
		if s == nil {
			continue
		}
		k.Input, o.lost = s.columns, s.lost
		e := graph.Edge{From: s.from.node.ID, Side: s.side, Exchange: graph.DefaultExchange(s.from.parallelism, o.parallelism)}
		if x, ok := exchange.(graph.Exchange); ok {
			if e.Exchange = x; x == graph.Forward && s.from.parallelism != o.parallelism {
				o.obj.take("exchange").fail("leave it out", "forward needs equal parallelism, not %d and %d", s.from.parallelism, o.parallelism)
			}
		}
		o.node.Inputs = append(o.node.Inputs, e)
	}
	v, name := l.oneConnector(o, []string{"mqtt", "file", "stdout", "blackhole"})
	switch name {
	case "mqtt":
		k.MQTT = l.mqttSink(o, v, k.Input)
	case "file":
		k.File = l.fileSink(v)
	case "stdout":
		so := v.object()
		k.Stdout = &StdoutSink{Timestamps: timestamps(so)}
		so.close()
	case "blackhole":
		v.object().close()
		k.Blackhole = &BlackholeSink{}
	default:
		o.obj.entries()
	}
	o.node.Describe = describeSink(k)
	l.job.Sinks = append(l.job.Sinks, k)
}

func timestamps(o *object) Timestamps {
	n, _ := o.take("timestamps").oneOf("rfc3339", "ms", "us")
	return Timestamps(n)
}

func (l *loader) mqttSink(o *op, v value, in *batch.Schema) *MQTTSink {
	m := &MQTTSink{QoS: 1}
	mo := v.object()
	m.Broker, m.TLS = l.broker(mo)
	m.Username, m.Password = l.secret(mo.take("username")), l.secret(mo.take("password"))
	topic := mo.need("topic", `topic: "alerts/{sensor}"`)
	if s, ok := topic.text(); ok {
		m.Topic = l.topic(o, topic, s, in)
	}
	qos := mo.take("qos")
	if n, ok := qos.integer(0, 2); ok {
		m.QoS = int(n)
	}
	m.Retain, _ = mo.take("retain").boolean()
	m.ClientID, _ = mo.take("client_id").text()
	m.Timestamps = timestamps(mo)
	if d := mo.take("delivery"); d.given() {
		n, _ := d.oneOf("at-least-once", "transactional")
		m.Delivery = Delivery(n)
		if m.Delivery == DeliverTransactional {
			l.withState(d, true, "rows are published when their checkpoint has completed: give the run a folder with --state, or write at-least-once")
			if qos.given() && m.QoS < 2 {
				l.warn(qos, "with qos %d the broker may pass on twice what is sent again after a crash; transactional delivery has 2 unless you lower it", m.QoS)
			} else if !qos.given() {
				m.QoS = 2
			}
		}
	}
	mo.close()
	return m
}

// topic reads a topic with columns in it.
func (l *loader) topic(o *op, v value, s string, in *batch.Schema) Template {
	t, unknown, msg := parseTemplate(s, in)
	switch {
	case msg != "":
		v.fail("", "the topic %q %s", s, msg)
	case strings.ContainsAny(s, "+#"):
		v.fail("write {column} where it varies", "a topic to publish on has no + or #: %q", s)
	case strings.HasPrefix(s, "$"):
		v.fail("", "topics that begin with $ belong to the broker: %q", s)
	}
	if in == nil {
		return t
	}
	for _, name := range unknown {
		if !o.lost[name] {
			v.fail(didYouMean(name, columnNames(in)), "the topic names a column %q that the stream does not have", name)
		}
	}
	for _, p := range t.Parts {
		if p.Column >= 0 && in.Field(p.Column).Type == batch.Bytes {
			v.fail("", "the column %q is bytes and cannot be part of a topic", in.Field(p.Column).Name)
		}
	}
	return t
}

func (l *loader) fileSink(v value) *FileSink {
	f := &FileSink{}
	o := v.object()
	p := o.need("path", "path: out/results.jsonl")
	if s, ok := p.text(); ok {
		f.Path = s
		switch path.Ext(s) {
		case ".jsonl":
			f.Format = JSONLines
		case ".csv":
			f.Format = CSVRows
		default:
			hint := "end it in .jsonl or .csv"
			if s == "-" {
				hint = "write stdout: instead"
			}
			p.fail(hint, "the extension of %q names no format", s)
		}
		if strings.ContainsAny(s, "*?[") {
			p.fail("", "a sink writes one path, %q is a pattern", s)
		}
	}
	f.Timestamps = timestamps(o)
	o.close()
	return f
}

// subtaskPath is NAME-<i>.EXT, or the path itself for one subtask.
func subtaskPath(p string, subtask, parallelism int) string {
	if parallelism <= 1 {
		return p
	}
	ext := path.Ext(p)
	return strings.TrimSuffix(p, ext) + "-" + strconv.Itoa(subtask) + ext
}

// collisions refuses two sinks that write the same file, a sink that writes
// what a source reads, and two sources that would share out the lines of stdin.
// It knows names only; whoever opens files sees links.
func (l *loader) collisions() {
	stdin := ""
	for _, o := range l.order {
		s := o.source
		if s == nil || s.File == nil || s.File.Path != "-" {
			continue
		}
		if stdin != "" {
			o.obj.take("file").object().take("path").fail("let the steps of both read one source", "the source %q reads stdin too", stdin)
		}
		stdin = string(s.ID)
	}
	written := make(map[string]string)
	for _, o := range l.order {
		k := o.sink
		if k == nil || k.File == nil || k.File.Path == "" {
			continue
		}
		at := o.obj.take("file").object().take("path")
		for i := range k.Parallelism {
			p := path.Clean(subtaskPath(k.File.Path, i, k.Parallelism))
			if who := l.readBy(p); who != "" {
				at.fail("choose another path", "the source %q reads %s", who, p)
				break
			}
			if who, twice := written[p]; twice {
				at.fail("choose another path", "the sink %q writes %s too", who, p)
				break
			}
			written[p] = string(k.ID)
		}
	}
}

// readBy is the source that reads the file p, by its name or by a pattern.
func (l *loader) readBy(p string) string {
	for _, s := range l.job.Sources {
		if s.File == nil || s.File.Path == "" || s.File.Path == "-" {
			continue
		}
		from := path.Clean(s.File.Path)
		if match, err := path.Match(from, p); from == p || err == nil && match {
			return string(s.ID)
		}
	}
	return ""
}
