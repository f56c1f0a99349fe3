package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	publishers = 8
	inFlight   = 1000 // messages that are not acknowledged, of all publishers
	pace       = 2 * time.Millisecond
	keysSent   = 1000 // sensors that the messages are of
)

// publishing is an order to publish, of all publishers together.
type publishing struct {
	Topic    string
	Rate     float64       // messages a second; 0: as many as the broker takes
	Messages int64         // so many, with a Rate
	For      time.Duration // so long, without
}

// publisher is a connection that publishes with QoS 1, and costs as little as
// it can.
type publisher struct {
	conn   net.Conn
	number int
	sent   int64
	acked  atomic.Int64
	room   chan struct{} // 1: something was acknowledged, or the connection has ended
	ended  atomic.Bool
	id     uint16
	frames []byte
}

func startPublishers(p part) (func(order) (report, error), func() error, error) {
	var all []*publisher
	stop := func() (err error) {
		for _, p := range all {
			err = errors.Join(err, p.conn.Close())
		}
		return err
	}
	for i := range publishers {
		pub, err := dialPublisher(p.Broker, i)
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		all = append(all, pub)
	}
	return func(o order) (report, error) {
		if o.Publish == nil {
			return report{}, errors.New("publishers only publish")
		}
		began := time.Now()
		r := report{}
		for _, p := range all {
			r.Count -= p.sent
		}
		errs := make(chan error, len(all))
		for _, p := range all {
			go func() { errs <- p.publish(*o.Publish, began) }()
		}
		var err error
		for range all {
			err = errors.Join(err, <-errs)
		}
		r.Took = time.Since(began)
		for _, p := range all {
			r.Count += p.sent
		}
		return r, err
	}, stop, nil
}

func dialPublisher(broker string, number int) (*publisher, error) {
	conn, err := net.Dial("tcp", broker)
	if err != nil {
		return nil, err
	}
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession = "MQTT", 4, true
	c.ClientIdentifier = fmt.Sprintf("bench-publisher-%d", number)
	if err := c.Write(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	answer, err := packets.ReadPacket(conn)
	if ack, ok := answer.(*packets.ConnackPacket); err == nil && (!ok || ack.ReturnCode != packets.Accepted) {
		err = fmt.Errorf("the broker does not let publishers in: %v", answer)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p := &publisher{conn: conn, number: number, room: make(chan struct{}, 1)}
	go p.hear()
	return p, nil
}

// hear counts PUBACKs: nothing else comes, and each has four bytes.
func (p *publisher) hear() {
	buf, rest := make([]byte, 16<<10), 0
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			p.ended.Store(true)
		}
		p.acked.Add(int64((rest + n) / 4))
		rest = (rest + n) % 4
		select {
		case p.room <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// publish does this publisher's share, and waits for the acknowledgements.
func (p *publisher) publish(o publishing, began time.Time) error {
	from := p.sent
	share := o.Messages / publishers
	if int64(p.number) < o.Messages%publishers {
		share++
	}
	for {
		passed, done, open := time.Since(began), p.sent-from, p.sent-p.acked.Load()
		finished, due := done == share, min(share, int64(o.Rate*passed.Seconds()/publishers))-done
		if o.Rate == 0 {
			finished, due = passed >= o.For, inFlight
		}
		n := min(due, inFlight/publishers-open)
		switch {
		case n > 0 && !finished:
			if err := p.write(o.Topic, int(n)); err != nil {
				return err
			}
		case finished && open == 0:
			return nil
		case finished || due > 0:
			<-p.room
			if p.ended.Load() {
				return errors.New("the broker has ended a publisher's connection")
			}
		default:
			time.Sleep(pace)
		}
	}
}

// write sends n messages: 81 bytes of JSON each.
func (p *publisher) write(topic string, n int) error {
	now := time.Now().UnixMilli()
	b := p.frames[:0]
	topic += "/" + strconv.Itoa(p.number)
	for range n {
		p.sent++
		if p.id++; p.id == 0 {
			p.id = 1
		}
		size := 2 + len(topic) + 2 + messageBytes
		b = append(b, packets.Publish<<4|1<<1, byte(size)) // one byte is enough: size is below 128
		b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
		b = append(b, topic...)
		b = binary.BigEndian.AppendUint16(b, p.id)
		k := p.sent*publishers + int64(p.number)
		b = append(b, `{"sensor":"sensor-`...)
		b = digits(b, k*7919%keysSent, 5)
		b = append(b, `","ts":`...)
		b = strconv.AppendInt(b, now, 10)
		b = append(b, `,"temperature":`...)
		b = digits(b, 10+k%80, 2)
		b = append(b, '.')
		b = digits(b, k%100, 2)
		b = append(b, `,"humidity":`...)
		b = digits(b, 10+k*31%80, 2)
		b = append(b, `.50}`...)
	}
	p.frames = b
	_, err := p.conn.Write(b)
	return err
}

// digits appends the last n digits of v.
func digits(b []byte, v int64, n int) []byte {
	for range n {
		b = append(b, '0')
	}
	for i := len(b) - 1; n > 0; i, n, v = i-1, n-1, v/10 {
		b[i] = byte('0' + v%10)
	}
	return b
}

// spent is what this process has used.
func spent(r report) report {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.CPU, r.Mallocs = processorTime(), m.Mallocs
	return r
}
