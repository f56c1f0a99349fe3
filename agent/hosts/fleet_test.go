//go:build hosts

package hosts

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// fleet is devices, dealt out to publishers. Each device sends readings,
// interval by interval, in some disorder within the interval, and after each
// interval a marker that says so.
type fleet struct {
	publishers []*publisher
	epoch      atomic.Int32 // what the test has done to the broker so far; stamped on what is sent and acknowledged
	acked      atomic.Int64
}

// scale is the size of a fleet.
type scale struct {
	publishers, devices, intervals, readings int // devices of a publisher; readings of a device in an interval
}

func (s scale) messages() int { return s.publishers * s.devices * s.intervals * (s.readings + 1) }
func (s scale) windows() int  { return s.publishers * s.devices * s.intervals }

const (
	firstTime = 1_767_225_600_000 // ms; the beginning of 2026
	interval  = 10_000            // ms
)

// message is one that a publisher has to bring to the broker, and its record.
type message struct {
	device string
	id     int
	ts     int64 // ms
	v      int64
	marker bool
	late   bool  // sent when its window had fired for all to see
	again  bool  // its publisher's own repetition of an earlier one
	tries  []try // each is a message of its own to the broker
}

// try is one PUBLISH.
type try struct {
	sent  int32 // epoch before it was sent
	acked int32 // epoch after it was acknowledged; -1: it was not
}

func (m *message) acked() bool { return len(m.tries) > 0 && m.tries[len(m.tries)-1].acked >= 0 }

func newFleet(s scale, broker string, qos byte) *fleet {
	f := &fleet{}
	id := 0
	for p := range s.publishers {
		rng := rand.New(rand.NewPCG(7, uint64(p)))
		pub := &publisher{fleet: f, name: fmt.Sprintf("publisher-%d", p), addr: strings.TrimPrefix(broker, "mqtt://"), qos: qos}
		for i := range s.intervals {
			begin := int64(firstTime + i*interval)
			for r := range s.readings + 1 {
				for d := range s.devices {
					m := message{device: fmt.Sprintf("d%d-%d", p, d), id: id, ts: begin + rng.Int64N(interval), v: rng.Int64N(1000), marker: r == s.readings}
					if m.marker {
						m.ts = begin + interval
					}
					pub.messages = append(pub.messages, m)
					id++
				}
			}
		}
		f.publishers = append(f.publishers, pub)
	}
	return f
}

// hello sends the first reading of each device, and returns when the broker
// has them all: no device is behind a watermark that it was not there for.
func (f *fleet) hello(t *testing.T, s scale) { t.Helper(); f.send(t, s.devices) }

// send brings the first n messages of each publisher to the broker, and
// returns when all are acknowledged.
func (f *fleet) send(t *testing.T, n int) {
	t.Helper()
	wait := f.sending(n)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// sending is send, in the background.
func (f *fleet) sending(n int) (wait func() error) {
	var all sync.WaitGroup
	errs := make(chan error, len(f.publishers))
	for _, p := range f.publishers {
		all.Go(func() {
			if err := p.send(n); err != nil {
				errs <- err
			}
		})
	}
	return func() error {
		all.Wait()
		select {
		case err := <-errs:
			return err
		default:
			return nil
		}
	}
}

// each calls do for every message of the fleet, repetitions aside.
func (f *fleet) each(do func(*message)) {
	for _, p := range f.publishers {
		for i := range p.messages {
			if !p.messages[i].again {
				do(&p.messages[i])
			}
		}
	}
}

// repeat makes the publishers send each so many messages a second time, soon
// after the first, as one does that takes its message for lost.
func (f *fleet) repeat(rng *rand.Rand, s scale, each int) {
	for _, p := range f.publishers {
		var all, later []message
		for i, m := range p.messages {
			all = append(all, m)
			if i >= s.devices && rng.IntN(each) == 0 {
				m.again = true
				later = append(later, m)
			}
			if rng.IntN(10) == 0 {
				all, later = append(all, later...), nil
			}
		}
		p.messages = append(all, later...)
	}
}

// publisher brings messages to a broker in order, and again what was not
// acknowledged, in order: QoS 1 as it is meant. It speaks MQTT by hand, so that
// its record is nobody's but its own.
type publisher struct {
	fleet    *fleet
	name     string
	addr     string
	qos      byte
	messages []message
	done     int // the messages before it are acknowledged
}

const inFlight = 500 // messages of a publisher that are not acknowledged

// send brings messages[:n] to the broker; it connects again for as long as
// patience lasts without a message acknowledged.
func (p *publisher) send(n int) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for end := time.Now().Add(patience); p.done < n; <-retry.C {
		before := p.done
		err := p.connection(n)
		if p.done > before {
			end = time.Now().Add(patience)
		} else if time.Now().After(end) {
			return fmt.Errorf("%s: %d of %d messages acknowledged: %w", p.name, p.done, n, err)
		}
	}
	return nil
}

// connection is one connection, until messages[:n] are acknowledged or it ends.
func (p *publisher) connection(n int) error {
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	patient := func() { _ = c.SetDeadline(time.Now().Add(patience)) } // from the last that the broker said
	patient()
	in := bufio.NewReader(c)
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession, hello.ClientIdentifier = "MQTT", 4, true, p.name
	if err := hello.Write(c); err != nil {
		return err
	}
	answer, err := packets.ReadPacket(in)
	if err != nil {
		return err
	}
	if a, ok := answer.(*packets.ConnackPacket); !ok || a.ReturnCode != 0 {
		return fmt.Errorf("%s: %v", p.name, answer)
	}

	var order []int // what was sent on this connection: the k-th has packet id k % 65535 + 1
	for i := p.done; i < n; i++ {
		if !p.messages[i].acked() {
			order = append(order, i)
		}
	}
	room := make(chan struct{}, inFlight)
	ended := make(chan struct{})
	var lock sync.Mutex // of writes: the two sides of QoS 2 write both
	out := bufio.NewWriterSize(c, 32<<10)
	var receiver sync.WaitGroup
	receiver.Go(func() {
		defer close(ended)
		p.receive(in, order, room, patient, func(rel packets.ControlPacket) error {
			lock.Lock()
			defer lock.Unlock()
			if err := rel.Write(out); err != nil {
				return err
			}
			return out.Flush()
		})
	})
	err = p.write(out, &lock, order, room, ended)
	if err != nil {
		_ = c.Close()
	}
	receiver.Wait()
	for p.done < n && p.messages[p.done].acked() {
		p.done++
	}
	return err
}

// write sends messages in order, as long as there is room.
func (p *publisher) write(out *bufio.Writer, lock *sync.Mutex, order []int, room chan struct{}, ended chan struct{}) error {
	flush := func() error {
		lock.Lock()
		defer lock.Unlock()
		return out.Flush()
	}
	var payload []byte
	for k, i := range order {
		select {
		case room <- struct{}{}:
		default:
			if err := flush(); err != nil {
				return err
			}
			select {
			case room <- struct{}{}:
			case <-ended:
				return net.ErrClosed
			}
		}
		m := &p.messages[i]
		lock.Lock()
		m.tries = append(m.tries, try{p.fleet.epoch.Load(), -1})
		payload = m.payload(payload[:0])
		pub := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		pub.TopicName, pub.Payload, pub.Qos, pub.MessageID = "plant/"+m.device+"/telemetry", payload, p.qos, uint16(k%65535+1)
		err := pub.Write(out)
		lock.Unlock()
		if err != nil {
			return err
		}
	}
	return flush()
}

// receive takes acknowledgements until all are there or the connection ends.
// The record of a message is read and written only by the goroutine whose turn
// it is: the writer before it is sent, this one after.
func (p *publisher) receive(in *bufio.Reader, order []int, room chan struct{}, heard func(), write func(packets.ControlPacket) error) {
	next, acked := 0, make(map[int]bool) // of order: all before next are acknowledged
	for next < len(order) {
		packet, err := packets.ReadPacket(in)
		if err != nil {
			return
		}
		heard()
		id := packet.Details().MessageID
		switch packet.(type) {
		case *packets.PubrecPacket:
			rel := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
			rel.MessageID = id
			if write(rel) != nil {
				return
			}
			continue
		case *packets.PubackPacket, *packets.PubcompPacket:
		default:
			continue
		}
		k := next + (int(id)-1-next%65535+65535)%65535
		m := &p.messages[order[k]]
		m.tries[len(m.tries)-1].acked = p.fleet.epoch.Load()
		p.fleet.acked.Add(1)
		for acked[k] = true; acked[next]; next++ {
			delete(acked, next)
		}
		<-room
	}
}

// payload is the message as JSON. The number of the try tells two messages to
// the broker apart from one that came twice.
func (m *message) payload(dst []byte) []byte {
	kind := "reading"
	switch {
	case m.marker:
		kind = "flush"
	case m.late:
		kind = "late"
	}
	return fmt.Appendf(dst, `{"id":%d,"try":%d,"ts":%d,"v":%d,"kind":%q}`, m.id, len(m.tries)-1, m.ts, m.v, kind)
}

// window is a line of the job's result.
type window struct {
	Device string `json:"device"`
	Start  int64  `json:"window_start"`
	End    int64  `json:"window_end"`
	N      int64  `json:"n"`
	IDs    int64  `json:"ids"`
	Total  int64  `json:"total"`
}

// arrival is a line of the job's copy of what arrived.
type arrival struct {
	Device string `json:"device"`
	ID     int    `json:"id"`
	Try    int    `json:"try"`
	Ts     int64  `json:"ts"`
	V      int64  `json:"v"`
	Kind   string `json:"kind"`
}

type windowKey struct {
	device string
	start  int64
}

// windows are what a job must find: every reading once.
func (f *fleet) windows(counts func(*message) bool) map[windowKey]window {
	want := make(map[windowKey]window)
	f.each(func(m *message) {
		if m.marker || m.late || !counts(m) {
			return
		}
		start := m.ts - m.ts%interval
		k := windowKey{m.device, start}
		w := want[k]
		w.Device, w.Start, w.End = m.device, start, start+interval
		w.N++
		w.IDs++
		w.Total += m.v
		want[k] = w
	})
	return want
}

// job reads a fleet: windows.jsonl gets its windows, and with raw, raw.jsonl
// all that arrived, in order.
func job(broker string, qos byte, raw bool) string {
	text := fmt.Sprintf(`
name: hosts
sources:
  readings:
    mqtt: {broker: "%s", topics: [plant/+/telemetry], qos: %d}
    format: json
    fields:
      device: {type: string, topic: 1}
      id:     bigint
      try:    bigint
      ts:     {type: timestamp, unit: ms}
      v:      bigint
      kind:   string
    event_time: ts
    watermark:
      punctuated: {when: "kind = 'flush'", at: ts}
      per: device
steps:
  - {id: data, from: readings, where: kind = 'reading'}
  - id: windows
    from: data
    key_by: [device]
    window: {tumbling: 10s}
    select: {n: count(*), ids: count(distinct id), total: sum(v)}
sinks:
  - {id: out, from: windows, file: {path: windows.jsonl, timestamps: ms}}
`, broker, qos)
	if raw {
		text += "  - {id: raw, from: readings, file: {path: raw.jsonl, timestamps: ms}}\n"
	}
	return text
}
