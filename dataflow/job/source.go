package job

import (
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// Source is one entry of `sources:`. Exactly one of the connectors is set.
type Source struct {
	ID          dataflow.OperatorID
	Parallelism int

	MQTT     *MQTTSource
	Feed     *FeedSource
	File     *FileSource
	Generate *GenerateSource

	Decode  decode.Spec   // how payloads become Columns; unused by Generate
	Columns *batch.Schema // the source's rows
	Time    Time
	Dedupe  *Dedupe

	rejected *batch.Schema // nil: nothing can be rejected
}

// Time is how a source's rows get their event time and its watermark.
type Time struct {
	Config   eventtime.Config
	EventAt  int        // column of the event time; -1: ingestion
	DeviceAt int        // column of `per:`; -1: none
	Arrival  int        // column of recorded arrivals; -1: the connector's own clock, if it has one
	When     *expr.Expr // punctuated: boolean, true for a marker row
	At       *expr.Expr // punctuated: timestamp, the marker's watermark
}

// devices says where the column of `per:` comes from, and its type: where that is as it was
// the devices go by the names that they had, whatever the column is called.
func (s *Source) devices() string {
	at := s.Time.DeviceAt
	if at < 0 {
		return ""
	}
	c := s.Columns.Field(at)
	from := c.Name
	if at < len(s.Decode.Fields) {
		if f := &s.Decode.Fields[at]; f.Topic >= 0 {
			from = fmt.Sprintf("topic level %d", f.Topic)
		} else {
			from = strings.Join(f.Path, ".")
		}
	}
	return fmt.Sprintf("%s %v", from, c.Type)
}

// The connectors of a source, and what graph.Source asks.
var _ graph.Source = (*Source)(nil)

// Connector is the key under which the job has it.
func (s *Source) Connector() string {
	switch {
	case s.MQTT != nil:
		return "mqtt"
	case s.Feed != nil:
		return "feed"
	case s.File != nil:
		return "file"
	case s.Generate != nil:
		return "generate"
	}
	return "?"
}

// Schema is Columns.
func (s *Source) Schema() *batch.Schema { return s.Columns }

// Side is the schema of SOURCE.rejected: RejectedSchema, nil for generate.
func (s *Source) Side(side operator.Side) *batch.Schema {
	if side != operator.Rejected {
		return nil
	}
	return s.rejected
}

// RejectedSchema is what SOURCE.rejected looks like: the raw payload, its topic
// (null if it has none), the reason.
func RejectedSchema() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "payload", Type: batch.Bytes},
		batch.Field{Name: "topic", Type: batch.String},
		batch.Field{Name: "reason", Type: batch.String},
	)
}

// Retained says which retained messages a subscription takes.
type Retained uint8

// The forms of `retained:`.
const (
	RetainedFirst Retained = iota // at the first subscription of the session only
	RetainedAll                   // at each
	RetainedNever
)

// MQTTSource is `mqtt:` of a source.
type MQTTSource struct {
	Broker   string   // URL
	Topics   []string // filters
	QoS      int      // 0, 1, 2
	ClientID string   // "": the agent gives it mesh/feed
	Username Secret
	Password Secret
	TLS      TLS
	Retained Retained
	Lanes    int // splits, by hash of the topic
	Keep     Retention
}

// Retention is what of a feed's log is kept beyond what checkpoints and
// savepoints need, and how much of the disk it may take in all.
type Retention struct {
	Age  dataflow.Duration // `retention: {age}`: at least so long; 0: no longer than needed
	Size int64             // `retention: {size}`: of what is kept for its age, at most so many bytes; 0: no bound
	Cap  int64             // `cap:`: with so many bytes it takes no more, and the broker waits; 0: as much as the disk has
}

// TLS is `tls:`; all empty means the system's roots.
type TLS struct {
	CA, Cert, Key string // paths of PEM files
	ServerName    string
}

// FeedSource is `feed: NAME`, a shared ingestion.
type FeedSource struct{ Name string }

// FileSource is `file:` of a source: bounded.
type FileSource struct {
	Path string // a glob is several splits; "-" is stdin
}

// GenerateSource is `generate:` of a source: rows made from a seed. Row i
// arrives at 1970-01-01 + i/Rate.
type GenerateSource struct {
	Rate     int64 // rows a second; 0: as fast as they are taken, the clock then counts a microsecond a row
	Keys     int   // distinct values of key
	Rows     int64 // 0: endless
	Seed     uint64
	Disorder dataflow.Duration // ts is at most so far behind arrival
}

// GenerateSchema is what rows of generate look like.
func GenerateSchema() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "key", Type: batch.String},
		batch.Field{Name: "seq", Type: batch.Bigint},
		batch.Field{Name: "value", Type: batch.Double},
		batch.Field{Name: "ts", Type: batch.Timestamp},
	)
}

// Dedupe is `dedupe:` of a source.
type Dedupe struct {
	By      []int // columns
	Within  dataflow.Duration
	Entries int // ids remembered of each split, at most
}
