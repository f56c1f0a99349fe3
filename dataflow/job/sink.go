package job

import (
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
)

// Sink is one entry of `sinks:`. Exactly one of the connectors is set.
type Sink struct {
	ID          dataflow.OperatorID
	Parallelism int
	Input       *batch.Schema

	MQTT      *MQTTSink
	File      *FileSink
	Stdout    *StdoutSink
	Blackhole *BlackholeSink
}

var _ graph.Sink = (*Sink)(nil)

// Connector is the key under which the job has it.
func (s *Sink) Connector() string {
	switch {
	case s.MQTT != nil:
		return "mqtt"
	case s.File != nil:
		return "file"
	case s.Stdout != nil:
		return "stdout"
	case s.Blackhole != nil:
		return "blackhole"
	}
	return "?"
}

// Timestamps is how a sink writes timestamps.
type Timestamps uint8

// The forms of `timestamps:`.
const (
	TimesRFC3339 Timestamps = iota // the default
	TimesMillis
	TimesMicros
)

// String is the form's name in a job.
func (t Timestamps) String() string { return [...]string{"rfc3339", "ms", "us"}[t] }

// Delivery is when an MQTT sink publishes.
type Delivery uint8

// The forms of `delivery:`.
const (
	DeliverAtLeastOnce   Delivery = iota // at once
	DeliverTransactional                 // after the rows' checkpoint completed
)

// MQTTSink is `mqtt:` of a sink.
type MQTTSink struct {
	Broker     string
	Topic      Template
	QoS        int
	Retain     bool
	ClientID   string // "": the agent gives it one
	Username   Secret
	Password   Secret
	TLS        TLS
	Delivery   Delivery
	Timestamps Timestamps
}

// FileFormat is how a file sink writes rows.
type FileFormat uint8

// The formats, by the extension of the path.
const (
	JSONLines FileFormat = iota // .jsonl
	CSVRows                     // .csv
)

// FileSink is `file:` of a sink.
type FileSink struct {
	Path       string
	Format     FileFormat
	Timestamps Timestamps
}

// StdoutSink is `stdout:`: JSON lines.
type StdoutSink struct{ Timestamps Timestamps }

// BlackholeSink is `blackhole:`: it counts rows and drops them.
type BlackholeSink struct{}

// Template is an MQTT topic with columns in it: "alerts/{sensor}".
type Template struct {
	Source string
	Parts  []TemplatePart
}

// TemplatePart is a literal, or (Column >= 0) the value of a column.
type TemplatePart struct {
	Literal string
	Column  int
}

// parseTemplate cuts a topic into its parts. The error says what is wrong with
// it; unknown are names in braces that the schema does not have.
func parseTemplate(s string, schema *batch.Schema) (t Template, unknown []string, msg string) {
	t.Source = s
	rest := s
	for rest != "" {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			open = len(rest)
		}
		if strings.IndexByte(rest[:open], '}') >= 0 {
			return t, unknown, "has a } without a {"
		}
		if open > 0 {
			t.Parts = append(t.Parts, TemplatePart{Literal: rest[:open], Column: -1})
		}
		if open == len(rest) {
			break
		}
		end := strings.IndexByte(rest, '}')
		if end < open {
			return t, unknown, "has a { without a }"
		}
		name := rest[open+1 : end]
		col := -1
		if schema != nil {
			col = schema.Index(name)
		}
		if col < 0 {
			unknown = append(unknown, name)
		}
		t.Parts = append(t.Parts, TemplatePart{Column: col})
		rest = rest[end+1:]
	}
	return t, unknown, ""
}
