//go:build hosts

package hosts

import (
	"bufio"
	"net"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// subscriber hears what a broker has for a filter, at QoS 2: what it holds was
// published that often. It speaks MQTT by hand, over one connection.
type subscriber struct {
	mu       sync.Mutex // guards what follows
	payloads []string
}

func subscribe(t *testing.T, addr, filter string) *subscriber {
	t.Helper()
	c, err := net.Dial("tcp", addr)
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
				s.payloads = append(s.payloads, string(p.Payload))
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
