package job

import (
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// describeSource is a source in one line: where its rows come from and how
// they get their time.
func describeSource(s *Source) string {
	var b strings.Builder
	switch {
	case s.MQTT != nil:
		fmt.Fprintf(&b, "mqtt %s %s qos %d", s.MQTT.Broker, strings.Join(s.MQTT.Topics, " "), s.MQTT.QoS)
	case s.Feed != nil:
		b.WriteString("feed " + s.Feed.Name)
	case s.File != nil:
		b.WriteString("file " + s.File.Path)
	case s.Generate != nil:
		fmt.Fprintf(&b, "generate %d rows/s, %d keys", s.Generate.Rate, s.Generate.Keys)
	}
	if f := s.Decode.Format; f != 0 {
		b.WriteString(", " + [...]string{decode.JSON: "json", decode.CSV: "csv", decode.Text: "text"}[f])
	}
	if s.Columns == nil {
		return b.String()
	}
	b.WriteString("; time: " + describeTime(s))
	return b.String()
}

func describeTime(s *Source) string {
	t, c := &s.Time, s.Time.Config
	if t.EventAt < 0 {
		return ingestion
	}
	name := func(i int) string { return s.Columns.Field(i).Name }
	words := []string{name(t.EventAt)}
	switch c.Strategy {
	case eventtime.None:
		words = append(words, "without watermark")
	case eventtime.Punctuated:
		w := "punctuated"
		if t.When != nil && t.At != nil {
			w += " when " + t.When.Source() + " at " + t.At.Source()
		}
		if !c.KeepMarker {
			w += " (markers are no data)"
		}
		words = append(words, w)
	case eventtime.Bounded:
		words = append(words, "bounded "+FormatDuration(c.Bound))
	case eventtime.Ascending:
		words = append(words, "ascending")
	}
	if t.DeviceAt >= 0 {
		words = append(words, "per "+name(t.DeviceAt))
	}
	if c.IdleAfter > 0 {
		words = append(words, "idle after "+FormatDuration(c.IdleAfter))
	}
	if c.MaxAhead > 0 {
		words = append(words, "at most "+FormatDuration(c.MaxAhead)+" ahead")
	}
	if t.Arrival >= 0 {
		words = append(words, "arrival "+name(t.Arrival))
	}
	return strings.Join(words, ", ")
}

// describeWindow is the step in one line, in the job's own words, and what
// follows from having no key: "tumbling 10s by sensor: n = count(*)".
func describeWindow(s *window.Spec, sources []string) string {
	var b strings.Builder
	switch s.Form {
	case window.Tumbling:
		b.WriteString("tumbling " + FormatDuration(s.Size))
	case window.Sliding:
		b.WriteString("sliding " + FormatDuration(s.Size) + " every " + FormatDuration(s.Slide))
	case window.Session:
		b.WriteString("session, gap " + FormatDuration(s.Gap))
	case window.Count:
		fmt.Fprintf(&b, "count %d", s.Rows)
	case window.SlidingCount:
		fmt.Fprintf(&b, "count %d every %d", s.Rows, s.EachRows)
	case window.Running:
		b.WriteString("running")
	}
	if s.Offset != 0 {
		b.WriteString(", offset " + FormatDuration(s.Offset))
	}
	if s.ProcessingTime {
		b.WriteString(" in processing time")
	}
	if s.AllowedLateness > 0 {
		b.WriteString(", lateness " + FormatDuration(s.AllowedLateness))
		if s.Firing == window.FireAtWatermark {
			b.WriteString(", late rows fire at the watermark")
		}
	}
	if len(s.Keys) == 0 {
		b.WriteString(", one key for all (parallelism 1)")
	}
	for i, k := range s.Keys {
		b.WriteString([...]string{" by ", ", "}[min(i, 1)] + s.Input.Field(k).Name)
	}
	for i, a := range s.Aggregates {
		b.WriteString([...]string{": ", ", "}[min(i, 1)] + a.Name + " = " + sources[i])
	}
	return b.String()
}

func describeSink(k *Sink) string {
	switch {
	case k.MQTT != nil:
		return fmt.Sprintf("mqtt %s %s qos %d", k.MQTT.Broker, k.MQTT.Topic.Source, k.MQTT.QoS)
	case k.File != nil:
		return "file " + k.File.Path
	}
	return k.Connector()
}
