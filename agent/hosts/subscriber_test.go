//go:build hosts

package hosts

import (
	"bufio"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// subscriber hears what a broker has for a filter, at QoS 2: what it holds was
// published that often. It speaks MQTT by hand, over one connection.
type subscriber struct {
	mu       sync.Mutex // guards what follows
	payloads []string
	at       []time.Time // when each came
}

func subscribe(t *testing.T, addr, filter string) *subscriber {
	t.Helper()
	return subscribeBy(t, dialTCP, addr, filter)
}

// subscribeBy subscribes at a broker that only dial reaches.
func subscribeBy(t *testing.T, dial func(addr string) (net.Conn, error), addr, filter string) *subscriber {
	t.Helper()
	c, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession, hello.ClientIdentifier = "MQTT", 4, true, "subscriber"
	ask := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	ask.MessageID, ask.Topics, ask.Qoss = 1, []string{filter}, []byte{2}
	in := bufio.NewReader(c)
	for _, p := range []packets.ControlPacket{hello, ask} {
		if err := p.Write(c); err != nil {
			t.Fatal(err)
		}
		if _, err := packets.ReadPacket(in); err != nil {
			t.Fatal(err)
		}
	}
	s := &subscriber{}
	var reader sync.WaitGroup
	reader.Go(func() { s.read(c, in) })
	t.Cleanup(func() {
		_ = c.Close()
		reader.Wait()
	})
	return s
}

// read takes messages until the connection ends.
func (s *subscriber) read(c net.Conn, in *bufio.Reader) {
	open := make(map[uint16]bool) // ids that were not released
	for {
		packet, err := packets.ReadPacket(in)
		if err != nil {
			return
		}
		switch p := packet.(type) {
		case *packets.PublishPacket:
			if !open[p.MessageID] {
				open[p.MessageID] = true
				s.mu.Lock()
				s.payloads, s.at = append(s.payloads, string(p.Payload)), append(s.at, time.Now())
				s.mu.Unlock()
			}
			rec := packets.NewControlPacket(packets.Pubrec).(*packets.PubrecPacket)
			rec.MessageID = p.MessageID
			err = rec.Write(c)
		case *packets.PubrelPacket:
			delete(open, p.MessageID)
			comp := packets.NewControlPacket(packets.Pubcomp).(*packets.PubcompPacket)
			comp.MessageID = p.MessageID
			err = comp.Write(c)
		}
		if err != nil {
			return
		}
	}
}

func (s *subscriber) heard() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.payloads...)
}

// gap is the longest time without a message since begin, up to the last one.
func (s *subscriber) gap(begin time.Time) (most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for last, i := begin, 0; i < len(s.at); i++ {
		if s.at[i].After(begin) {
			most, last = max(most, s.at[i].Sub(last)), s.at[i]
		}
	}
	return most
}

// count is how many messages came.
func (s *subscriber) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.payloads)
}
