package simulate

import (
	"strconv"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Fault is a set of what is wrong with a message.
type Fault uint8

// The faults. OK is none.
const (
	Late      Fault = 1 << iota // held back, sent long after its marker
	Duplicate                   // the same payload a second time
	Ahead                       // of a device whose clock is ahead
	Behind                      // of a device whose clock is behind
	OK        Fault = 0
)

// Row is what a payload decodes to.
type Row struct {
	TS     dataflow.Time // whole milliseconds, by the device's clock
	Temp   float64       // °C, two decimals; 0 for a marker, which has none
	Marker bool
	Seq    int64 // counts a device's messages in the order they were made; a duplicate repeats it
}

// Event is one message.
type Event struct {
	At      dataflow.Time // virtual time of sending
	Sensor  int
	Topic   string // plant/<sensor>/telemetry
	Payload []byte // valid until the next call of Next
	Row     Row
	Fault   Fault
}

// Fleet yields the messages of all devices in the order of sending; what is
// sent at the same time is ordered by sensor. It is a pure function of its
// Config, and what one device sends does not depend on the others. One
// goroutine uses it.
type Fleet struct {
	cfg     Config
	devices []device
	heap    []int32 // devices that have a message, least (at, index) first
	payload []byte
}

// New makes a fleet.
func New(cfg Config) (*Fleet, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg, devices: make([]device, cfg.Sensors), heap: make([]int32, 0, cfg.Sensors)}
	for i := range f.devices {
		d := &f.devices[i]
		d.begin(&f.cfg, i)
		if d.prepare(&f.cfg) {
			f.heap = append(f.heap, int32(i))
		}
	}
	for i := len(f.heap)/2 - 1; i >= 0; i-- {
		f.sink(i)
	}
	return f, nil
}

// Next puts the next message into ev; false: there is none any more.
func (f *Fleet) Next(ev *Event) bool {
	if len(f.heap) == 0 {
		return false
	}
	i := f.heap[0]
	d := &f.devices[i]
	m := &d.msg
	f.payload = d.appendPayload(f.payload[:0], m)
	*ev = Event{
		At: dataflow.Time(m.at), Sensor: int(i), Topic: d.topic, Payload: f.payload, Fault: m.fault,
		Row: Row{TS: dataflow.Time(m.ts), Marker: m.marker, Seq: m.seq},
	}
	if !m.marker {
		ev.Row.Temp = float64(m.centi) / 100
	}
	if !d.prepare(&f.cfg) {
		last := len(f.heap) - 1
		f.heap[0] = f.heap[last]
		f.heap = f.heap[:last]
	}
	f.sink(0)
	return true
}

func (f *Fleet) less(a, b int32) bool {
	x, y := f.devices[a].msg.at, f.devices[b].msg.at
	return x < y || x == y && a < b
}

// sink moves the device at i down to its place in the heap.
func (f *Fleet) sink(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(f.heap); c++ {
			if f.less(f.heap[c], f.heap[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		f.heap[i], f.heap[least] = f.heap[least], f.heap[i]
		i = least
	}
}

// appendPayload appends the JSON of m.
func (d *device) appendPayload(p []byte, m *message) []byte {
	p = append(p, `{"sensor":"`...)
	p = append(p, d.name...)
	p = append(p, `","ts":`...)
	p = strconv.AppendInt(p, m.ts/int64(dataflow.Millisecond), 10)
	if m.marker {
		p = append(p, `,"kind":"flush","seq":`...)
	} else {
		p = append(p, `,"data":{"temp":`...)
		p = appendCenti(p, m.centi)
		p = append(p, `},"kind":"reading","seq":`...)
	}
	p = strconv.AppendInt(p, m.seq, 10)
	return append(p, '}')
}

// appendCenti appends hundredths with two decimals.
func appendCenti(p []byte, c int64) []byte {
	if c < 0 {
		p, c = append(p, '-'), -c
	}
	p = strconv.AppendInt(p, c/100, 10)
	return append(p, '.', byte('0'+c%100/10), byte('0'+c%10))
}
