package job

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// ingestion is the word for event time that is arrival time.
const ingestion = "ingestion"

// time reads event_time, watermark and arrival.
func (l *loader) time(o *op, s *Source) {
	et, wm := o.obj.take("event_time"), o.obj.take("watermark")
	name := ingestion
	if et.given() {
		name, _ = et.text()
	}
	if name != "" && name != ingestion {
		s.Time.EventAt = l.timeColumn(o, s, et, name)
	}
	if et.given() && name != ingestion && s.Time.EventAt < 0 {
		name = "" // refused above
	}
	arrival := o.obj.take("arrival")
	if name == ingestion {
		s.Time.Config.Strategy = eventtime.Ingestion
		if wm.given() {
			wo := wm.object()
			if !et.given() {
				wm.fail("name the column: event_time: ts", "a watermark needs event_time")
			} else {
				wm.fail("remove it", "event_time: ingestion makes its own watermark, the arrival clock minus one microsecond")
			}
			wo.entries()
		}
		l.arrival(o, s, arrival)
		return
	}
	if !wm.given() {
		l.arrival(o, s, arrival)
		if s.MQTT != nil || s.Feed != nil || s.Generate != nil && s.Generate.Rows == 0 {
			l.warn(o.at, "has event time but no watermark: its windows fire only at the end of input, which never comes")
		}
		return
	}
	l.watermark(o, s, wm.object(), arrival)
}

// watermark reads the strategy and what goes with any.
func (l *loader) watermark(o *op, s *Source, wo *object, arrival value) {
	inner := wo.take("arrival")
	if inner.given() && arrival.given() {
		inner.fail("keep one of them", "the source names its arrival already")
	} else if inner.given() {
		arrival = inner
	}
	l.arrival(o, s, arrival)
	c := &s.Time.Config
	punctuated, bounded, ascending := wo.take("punctuated"), wo.take("bounded"), wo.take("ascending")
	given := 0
	for _, v := range []value{punctuated, bounded, ascending} {
		if v.given() {
			given++
		}
	}
	switch {
	case wo == nil:
		return
	case given == 0:
		wo.fail("add punctuated: {when, at}, bounded: 5s, or ascending: true", "the watermark has no strategy")
	case given > 1:
		wo.fail("keep one of punctuated, bounded, ascending", "the watermark has %d strategies", given)
	}
	switch {
	case punctuated.given():
		c.Strategy = eventtime.Punctuated
		l.punctuated(o, s, punctuated)
	case bounded.given():
		c.Strategy = eventtime.Bounded
		c.Bound, _ = bounded.duration(0)
	case ascending.given():
		c.Strategy = eventtime.Ascending
		if b, ok := ascending.boolean(); ok && !b {
			ascending.fail("remove it, or write true", "ascending: false says nothing")
		}
	}
	per := wo.take("per")
	if name, ok := per.text(); ok {
		s.Time.DeviceAt = l.column(o, s.Columns, per, name)
		c.PerDevice = per.given()
		c.Per = s.devices()
	}
	idle := wo.take("idle_after")
	c.IdleAfter, _ = idle.duration(1)
	if idle.given() && !l.hasClock(s) {
		l.warn(idle, "a file has no arrival clock, so nothing in it is ever idle; name one with arrival: FIELD")
	}
	ahead := wo.take("max_ahead")
	c.MaxAhead, _ = ahead.duration(1)
	if ahead.given() && !l.hasClock(s) && !arrival.given() {
		ahead.fail("name the column of recorded arrivals: arrival: FIELD", "max_ahead compares with the arrival clock, and a file has none")
	}
	l.sharedFilters(o, s)
	wo.close()
}

// sharedFilters refuses shared subscriptions where a broker would part a
// device's rows from its markers.
func (l *loader) sharedFilters(o *op, s *Source) {
	why := s.Time.together()
	if s.MQTT == nil || why == "" {
		return
	}
	for _, f := range s.MQTT.Topics {
		if strings.HasPrefix(f, "$share/") {
			o.obj.take("mqtt").object().take("topics").fail(unshare, partsDevices, f, why)
			return
		}
	}
}

// together says what about the time needs all of a device's messages in one
// stream, in order; empty: nothing does.
func (t *Time) together() string {
	switch {
	case t.Config.Strategy == eventtime.Punctuated:
		return "punctuated"
	case t.Config.PerDevice:
		return "per"
	}
	return ""
}

// What is wrong with a shared filter, and how to mend it.
const (
	partsDevices = "the shared filter %q cannot be used with %s: the broker would part a device's rows from its markers"
	unshare      = "subscribe without $share, or use another watermark"
)

// hasClock tells whether rows arrive at a known time.
func (l *loader) hasClock(s *Source) bool {
	return s.File == nil || s.File.Path == "-" || s.Time.Arrival >= 0
}

func (l *loader) arrival(o *op, s *Source, v value) {
	name, ok := v.text()
	if !ok {
		return
	}
	if s.File == nil {
		v.fail("remove it", "arrival: is for recorded data, and %s has an arrival clock of its own", s.Connector())
		return
	}
	s.Time.Arrival = l.timeColumn(o, s, v, name)
}

// timeColumn finds a timestamp column by name.
func (l *loader) timeColumn(o *op, s *Source, v value, name string) int {
	c := l.column(o, s.Columns, v, name)
	if c < 0 {
		return -1
	}
	if t := s.Columns.Field(c).Type; t != batch.Timestamp {
		v.fail(fmt.Sprintf("declare it as %s: {type: timestamp, unit: ms}", name), "the column %q is %s, not timestamp", name, t)
		return -1
	}
	return c
}

// punctuated reads the markers: when a row is one, and what it says.
func (l *loader) punctuated(o *op, s *Source, v value) {
	po := v.object()
	when := po.need("when", `a condition that is true for marker rows: when: "kind = 'flush'"`)
	s.Time.When = l.expression(o, s.Columns, when, true)
	at := po.take("at")
	switch {
	case at.given():
		s.Time.At = l.expression(o, s.Columns, at, false)
		if e := s.Time.At; e != nil && e.Type() != batch.Timestamp {
			at.fail("", "a marker's watermark must be timestamp, this is %s", e.Type())
		}
	case s.Time.EventAt >= 0 && po != nil:
		s.Time.At = l.expression(o, s.Columns, value{l, textNode(s.Columns.Field(s.Time.EventAt).Name), v.path}, false)
	}
	s.Time.Config.KeepMarker = true
	if emit, ok := po.take("emit").boolean(); ok {
		s.Time.Config.KeepMarker = emit
	}
	po.close()
}

// expression compiles an expression; nil after an error, which is reported
// unless an earlier one caused it.
func (l *loader) expression(o *op, columns *batch.Schema, v value, condition bool) *expr.Expr {
	text, ok := v.text()
	if !ok || columns == nil {
		return nil
	}
	compile := expr.Compile
	if condition {
		compile = expr.CompileBool
	}
	e, err := compile(text, columns)
	if err != nil {
		l.exprError(o.lost, v, text, err, "")
		return nil
	}
	return e
}

// exprError reports a refused expression with its position, unless it mentions
// a column that an earlier error took away.
func (l *loader) exprError(lost map[string]bool, v value, text string, err error, hint string) {
	if mentionsAny(text, lost) {
		return
	}
	var e *expr.Error
	if !errors.As(err, &e) {
		v.fail(hint, "%s", err)
		return
	}
	if hint == "" {
		hint = e.Hint
	}
	pos := min(max(e.Pos, 0), len(text))
	v.fail(hint, "%s at character %d of `%s`", e.Msg, utf8.RuneCountInString(text[:pos])+1, text)
}

func mentionsAny(text string, names map[string]bool) bool {
	if len(names) == 0 {
		return false
	}
	ids, err := expr.Identifiers(text)
	if err != nil {
		return false
	}
	for _, id := range ids {
		if names[id] {
			return true
		}
	}
	return false
}
