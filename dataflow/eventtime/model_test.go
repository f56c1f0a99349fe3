package eventtime

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// The model says the rules of docs/EVENT_TIME.md once more, one row at a time,
// with maps and loops over everything. It shares no code with Source.

// event is one thing that happens to a split.
type event struct {
	kind     string // row, tick, deaf, hearing, end
	split    int
	arrival  dataflow.Time // minT: none
	time     dataflow.Time
	timeless bool // the event time is null
	marker   bool
	at       dataflow.Time
	atNull   bool
	device   string // "": null
	name     int    // of the row
}

type model struct {
	cfg    Config
	splits []*modelSplit
	merge  *mergeModel
	wm     dataflow.Time // with devices
	idle   bool          // with devices
	ar     dataflow.Time

	last   batch.Mark // what the stream was told
	stream []string
	rows   []string // what was refused or taken out, in order
}

type modelSplit struct {
	wm, clock, last       dataflow.Time
	deaf                  bool
	deafFor               dataflow.Duration
	deafSince             dataflow.Time
	idle, ended           bool
	hadDevice, gaveUpHope bool
	devices               map[string]*modelDevice
}

type modelDevice struct {
	state        string // joining, member, waiting
	wm           dataflow.Time
	last, joined dataflow.Time
}

func newModel(cfg Config, splits int) *model {
	m := &model{cfg: cfg, merge: newMergeModel(splits), wm: minT, ar: minT, last: batch.Mark{Watermark: minT, Arrival: minT}}
	for range splits {
		m.splits = append(m.splits, &modelSplit{wm: minT, clock: minT, last: minT, devices: map[string]*modelDevice{}})
	}
	return m
}

func (sp *modelSplit) heard() dataflow.Time {
	if sp.clock == minT {
		return minT
	}
	h := sp.clock.Add(-sp.deafFor)
	if sp.deaf {
		h = h.Add(-dataflow.Duration(sp.clock - sp.deafSince))
	}
	return h
}

func (m *model) do(e event) {
	sp := m.splits[e.split]
	if sp.ended {
		return
	}
	m.advance(e.split, e.arrival)
	m.tell()
	switch e.kind {
	case "deaf":
		if !sp.deaf && sp.clock != minT {
			sp.deaf, sp.deafSince = true, sp.clock
		}
	case "hearing":
		if sp.deaf {
			sp.deaf = false
			sp.deafFor += dataflow.Duration(sp.clock - sp.deafSince)
		}
	case "end":
		sp.ended = true
		sp.devices = map[string]*modelDevice{}
		m.merge.mark(e.split, wm(maxT))
		m.arrive()
		m.settle()
		m.tell()
	case "row":
		m.row(e)
	}
}

// advance moves a split's clock and does what is due, earliest first.
func (m *model) advance(split int, a dataflow.Time) {
	sp := m.splits[split]
	if a <= sp.clock {
		return
	}
	first := sp.clock == minT
	sp.clock = a
	if first {
		sp.last = sp.heard()
		for _, d := range sp.devices {
			d.last, d.joined = sp.heard(), sp.heard()
		}
	}
	m.expire(split)
	if m.cfg.Strategy == Ingestion {
		sp.wm = max(sp.wm, a-1)
	}
	m.merge.mark(split, m.splitMark(sp))
	m.arrive()
}

func (m *model) splitMark(sp *modelSplit) batch.Mark {
	return batch.Mark{Watermark: sp.wm, Arrival: sp.clock, Idle: sp.idle}
}

func (m *model) arrive() { m.ar = max(m.ar, m.merge.ar) }

func (m *model) expire(split int) {
	sp := m.splits[split]
	if m.cfg.IdleAfter == 0 {
		return
	}
	if !m.cfg.devices() {
		if sp.last.Add(m.cfg.IdleAfter) < sp.heard() {
			sp.idle = true
		}
		return
	}
	for {
		due := maxT
		for _, d := range sp.devices {
			due = min(due, d.last)
			if d.state == "joining" {
				due = min(due, d.joined)
			}
		}
		if !sp.hadDevice && !sp.gaveUpHope {
			due = min(due, sp.last)
		}
		if due == maxT || due.Add(m.cfg.IdleAfter) >= sp.heard() {
			return
		}
		for name, d := range sp.devices {
			if d.last == due {
				delete(sp.devices, name)
			} else if d.state == "joining" && d.joined == due {
				d.state = "waiting"
			}
		}
		if !sp.hadDevice && sp.last == due {
			sp.gaveUpHope = true
		}
		m.settle()
	}
}

// settle works out the watermark of the devices.
func (m *model) settle() {
	if !m.cfg.devices() {
		return
	}
	hold, had, open := false, false, 0
	least := maxT
	for _, sp := range m.splits {
		if sp.ended {
			continue
		}
		open++
		had = had || sp.hadDevice
		hold = hold || !sp.hadDevice && !sp.gaveUpHope
		for _, d := range sp.devices {
			if d.state != "waiting" {
				least = min(least, d.wm)
			}
		}
	}
	m.idle = open > 0 && !had && !hold
	switch {
	case open == 0:
		m.wm = maxT
	case !hold && least != maxT:
		m.wm = max(m.wm, least)
	}
}

func (m *model) now() batch.Mark {
	if m.cfg.devices() {
		return batch.Mark{Watermark: m.wm, Arrival: m.ar, Idle: m.idle}
	}
	return batch.Mark{Watermark: m.merge.wm, Arrival: m.ar, Idle: m.merge.id}
}

// tell puts a mark into the stream if there is news. One that stands where
// another stood, with no row between them, takes its place.
func (m *model) tell() {
	now := m.now()
	if now.Watermark < m.last.Watermark || now.Arrival < m.last.Arrival {
		panic(fmt.Sprintf("model goes back from %+v to %+v", m.last, now))
	}
	if now.Watermark == m.last.Watermark && now.Idle == m.last.Idle && (!m.cfg.MarkArrivals || now.Arrival == m.last.Arrival) {
		return
	}
	m.last = now
	m.stream = append(m.stream, markName(now, m.cfg.MarkArrivals))
}

func (m *model) row(e event) {
	sp := m.splits[e.split]
	marker := e.marker && m.cfg.Strategy == Punctuated
	if why := m.refuses(sp, e, marker); why != "" {
		m.rows = append(m.rows, fmt.Sprintf("%d %s", e.name, why))
		return
	}
	var d *modelDevice
	if m.cfg.devices() {
		d = sp.devices[e.device]
		if d == nil {
			d = &modelDevice{state: "joining", wm: m.wm, joined: sp.heard()}
			sp.devices[e.device] = d
			sp.hadDevice = true
			m.settle()
		}
		d.last = sp.heard()
	} else {
		sp.last = sp.heard()
		sp.idle = false
		if m.cfg.Strategy == Ingestion && sp.clock == minT {
			sp.wm = max(sp.wm, -1)
		}
		m.merge.mark(e.split, m.splitMark(sp))
		m.arrive()
	}
	m.tell()
	t := e.time
	if m.cfg.Strategy == Ingestion {
		t = max(sp.clock, 0) // the tests' clocks are not negative
	}
	if marker && !m.cfg.KeepMarker {
		m.rows = append(m.rows, fmt.Sprintf("%d marker", e.name))
	} else {
		m.stream = append(m.stream, fmt.Sprintf("row %d at %d", e.name, int64(t)))
	}
	var w dataflow.Time
	switch {
	case marker:
		w = min(e.at, maxT-1)
	case m.cfg.Strategy == Bounded:
		w = t.Add(-m.cfg.Bound).Add(-1)
	case m.cfg.Strategy == Ascending:
		w = t.Add(-1)
	default:
		return
	}
	if d == nil {
		sp.wm = max(sp.wm, w)
		m.merge.mark(e.split, m.splitMark(sp))
		m.arrive()
	} else {
		m.deviceMark(d, w, marker)
		m.settle()
	}
	m.tell()
}

func (m *model) deviceMark(d *modelDevice, w dataflow.Time, marker bool) {
	switch d.state {
	case "member":
		d.wm = max(d.wm, w)
	case "joining":
		if marker || w > d.wm {
			d.state, d.wm = "member", max(d.wm, w)
		}
	case "waiting":
		if marker || w > m.wm {
			d.state, d.wm = "member", max(m.wm, w)
		}
	}
}

func (m *model) refuses(sp *modelSplit, e event, marker bool) string {
	if m.cfg.Strategy == Ingestion {
		return ""
	}
	ahead := func(t dataflow.Time) bool {
		return m.cfg.MaxAhead > 0 && sp.clock != minT && t > sp.clock.Add(m.cfg.MaxAhead)
	}
	if !marker || m.cfg.KeepMarker {
		if e.timeless {
			return "no event time"
		}
		if ahead(e.time) {
			return "ahead"
		}
	}
	if marker {
		if e.atNull {
			return "marker without time"
		}
		if ahead(e.at) {
			return "ahead"
		}
	}
	return ""
}

// tidy drops the marks that another one follows with no row between them, and
// those that say nothing new.
func tidy(stream []string, arrivals bool) []string {
	var out []string
	said := markName(batch.Mark{Watermark: minT, Arrival: minT}, arrivals)
	for i, s := range stream {
		if s[0] != 'r' {
			if i+1 < len(stream) && stream[i+1][0] != 'r' || s == said {
				continue
			}
			said = s
		}
		out = append(out, s)
	}
	return out
}
