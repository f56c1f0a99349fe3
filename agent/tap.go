package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
)

// Tapped is one thing that arrived at a source: a row, or a payload that does
// not decode.
type Tapped struct {
	Topic   []byte
	Row     []byte        // the row as JSON; nil: it was rejected
	Payload []byte        // as it came
	Reason  string        // why it was rejected
	Event   dataflow.Time // event time; MinTime: the row has none
	Arrival dataflow.Time // MinTime: the source has no arrival clock
}

// Tap reads a source of a job and shows what arrives, decoded, until show
// returns false, the source ends or ctx does. It takes nothing from the job: its
// session with a broker is its own, clientID, and the broker forgets it with
// the connection. What it passes to show is valid during the call.
func Tap(ctx context.Context, j *job.Job, source, clientID string, opt LocalOptions, show func(*Tapped) bool) error {
	s, err := findSource(j, source)
	if err != nil {
		return err
	}
	if s.MQTT != nil {
		m := *s.MQTT
		m.ClientID = clientID
		m.Topics = unshared(m.Topics)
		s.MQTT = &m
	}
	if opt.Clock == nil {
		opt.Clock = sensors.Wall{}
	}
	if opt.Events == nil {
		opt.Events = func(string) {}
	}
	o := connectorsOf(j, opt, newHearing(j), nil, nil)
	o.Tap = true
	_, open, _, err := connect.New(o).Source(&graph.Node{ID: s.ID, Source: s, Parallelism: 1}, 0)
	if err != nil {
		return err
	}
	if open == nil {
		return fmt.Errorf("source %q makes its rows itself; there is nothing to tap", s.ID)
	}
	d, err := decode.New(s.Decode, s.Columns)
	if err != nil {
		return err
	}
	r, err := open()
	if err != nil {
		return err
	}
	t := &tap{source: s, decoder: d, show: show, encoder: encode.NewJSON(s.Columns, encode.Options{}), rows: batch.NewBuilder(batch.NewPool(0, nil), s.Columns)}
	return errors.Join(t.run(ctx, r), r.Close())
}

// unshared are the filters without their groups: a member of a shared
// subscription would take messages from the others.
func unshared(filters []string) []string {
	var out []string
	for _, f := range filters {
		if rest, shared := strings.CutPrefix(f, "$share/"); shared {
			_, f, _ = strings.Cut(rest, "/")
		}
		out = append(out, f)
	}
	return out
}

func findSource(j *job.Job, name string) (*job.Source, error) {
	var names []string
	for _, s := range j.Sources {
		if string(s.ID) == name || name == "" && len(j.Sources) == 1 {
			c := *s
			return &c, nil
		}
		names = append(names, string(s.ID))
	}
	if name == "" {
		return nil, fmt.Errorf("the job has several sources; name one of %q", names)
	}
	return nil, fmt.Errorf("the job has no source %q; it has %q", name, names)
}

// tap is one Tap under way.
type tap struct {
	source  *job.Source
	decoder *decode.Decoder
	encoder *encode.Encoder
	rows    *batch.Builder
	headers map[int]bool
	show    func(*Tapped) bool
	json    []byte
}

func (t *tap) run(ctx context.Context, r sensors.Reader) error {
	var rec sensors.Records
	t.headers = make(map[int]bool)
	for {
		err := r.Read(ctx, &rec, batch.MaxRows)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		t.decoder.Split(rec.Split)
		for i := range rec.Len() {
			if !t.record(&rec, i) {
				return nil
			}
		}
		if rec.Len() > 0 {
			r.Ack(sensors.Position{Split: rec.Split, Offset: rec.Next})
		}
	}
}

// record shows what record i is; false: enough.
func (t *tap) record(rec *sensors.Records, i int) bool {
	v := Tapped{Topic: rec.Topic(i), Payload: rec.Payload(i), Event: dataflow.MinTime, Arrival: dataflow.MinTime}
	if len(rec.Arrivals) > 0 {
		v.Arrival = dataflow.Time(rec.Arrivals[i])
	}
	if slices.Contains(rec.TooLong, int32(i)) {
		v.Reason = "longer than a record may be"
		return t.show(&v)
	}
	if t.source.Decode.Header && !t.headers[rec.Split] {
		t.headers[rec.Split] = true
		if err := t.decoder.Header(rec.Split, v.Payload); err != nil {
			v.Reason = err.Error()
			return t.show(&v)
		}
		return true
	}
	if _, err := t.decoder.Decode(v.Topic, v.Payload, t.rows); err != nil {
		v.Reason = err.Error()
		return t.show(&v)
	}
	b := t.rows.Take()
	if b == nil {
		return true
	}
	defer b.Release()
	for pos := range b.Rows {
		t.json = t.encoder.AppendRow(t.json[:0], b, pos)
		v.Row = t.json
		v.Event = v.Arrival
		if at := t.source.Time.EventAt; at >= 0 {
			v.Event = dataflow.MinTime
			if c := b.Cols[at]; !c.IsNull(pos) {
				v.Event = dataflow.Time(c.Ints[pos])
			}
		}
		if at := t.source.Time.Arrival; at >= 0 && !b.Cols[at].IsNull(pos) {
			v.Arrival = dataflow.Time(b.Cols[at].Ints[pos])
		}
		if !t.show(&v) {
			return false
		}
	}
	return true
}
